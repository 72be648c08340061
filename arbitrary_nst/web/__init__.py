"""A local page in the browser that stylizes photos.

`page` is what is seen, `actions` what happens, `sessions` the files of each person, `painting` the pictures, `snippets`
the same as commands and as Python, `guard` what is let in.
"""
