"""A photo and a style code to a picture: the stylizer, tiles, style files, and the job that works through files."""
