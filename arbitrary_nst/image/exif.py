"""EXIF of a photo that is still true of a picture made from it."""

from PIL import Image

_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096))
"""What concerns the photo and not its pixels: description, camera, resolution, software, date, artist, rating,
copyright, and titles."""
_FOLDERS = (0x8769, 0x8825)  # how the photo was taken, and where
_OF_PIXELS = (0x927C, 0xA000, 0xA001, 0xA002, 0xA003, 0xA005)  # maker's notes, version, colours, size, interop
_LARGEST = 65533 - 6  # what fits into a JPEG


def kept_exif(picture: Image.Image) -> bytes:
    """The part of an opened file's EXIF that is kept; empty if none can be read, or if it is too much for a JPEG.

    Without what concerns the file itself and not the photo: orientation, thumbnail, size, and the maker's notes, which
    refer to places in the file and may hold previews.
    """
    try:
        return _kept(picture.getexif())
    except Exception:  # whatever is wrong with EXIF, it is no reason to refuse the pixels
        return b""


def _kept(found: Image.Exif) -> bytes:
    kept = Image.Exif()
    kept.update({tag: found[tag] for tag in _TAGS if tag in found})
    for folder in _FOLDERS:
        entries = {tag: value for tag, value in found.get_ifd(folder).items() if tag not in _OF_PIXELS}
        if entries:
            kept.get_ifd(folder).update(entries)
    if not len(kept) and not kept._ifds:
        return b""
    content = kept.tobytes()
    return content if len(content) <= _LARGEST else b""


def main_exif(content: bytes) -> Image.Exif:
    """The same without its folders: Pillow cannot write these into a compressed TIFF."""
    found, kept = Image.Exif(), Image.Exif()
    found.load(content)
    kept.update({tag: value for tag, value in found.items() if tag in _TAGS})
    return kept
