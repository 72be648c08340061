"""TIFF files: which of their pages is the picture, and planes that Pillow alone would read wrongly."""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SUBIFD,
    TiffImageFile,
)

from arbitrary_nst.runtime.files import ImageError

CAMERA_RAW = "a camera raw file; develop it, with darktable or RawTherapee for example, and save it as TIFF or JPEG"

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _DNG_VERSION = 254, 255, 50706
_REDUCED_OR_MASK, _OLD_REDUCED = 1 | 4, 2  # values of the two subfile types
_SEPARATE, _YCBCR, _SIGNED = 2, 6, 2
_SENSOR_DATA = (32803, 34892)  # colour filter array, linear raw
_LEFT_TO_LIBTIFF = 32771  # to Pillow, any compression but none; libtiff goes by the file
_MOST_PAGES = 64

BinaryFile = IO[bytes] | BytesIO

Page = dict[int, tuple[int, ...]]
"""The values of a page's tags, of those that `_TAGS` names."""

_TAGS = (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, IMAGEWIDTH, PHOTOMETRIC_INTERPRETATION, SUBIFD, _DNG_VERSION)
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # by the type of a tag


class TiffPicture(TiffImageFile):
    """A page whose separate planes, or luma and chroma, are read by libtiff even where they are not compressed.

    Pillow's own reader takes planes of 16 bits for planes of 8, and luma and chroma for four samples.
    """

    def _setup(self) -> None:
        if _SIGNED in self.tag_v2.get(SAMPLEFORMAT, ()) and 8 in self.tag_v2.get(BITSPERSAMPLE, ()):
            raise ImageError("a TIFF of signed 8-bit samples is not read; save it as PNG")
        separate = self.tag_v2.get(PLANAR_CONFIGURATION, 1) == _SEPARATE
        luma_and_chroma = self.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _YCBCR
        if (separate or luma_and_chroma) and self.tag_v2.get(COMPRESSION, 1) == 1:
            self.tag_v2[COMPRESSION] = _LEFT_TO_LIBTIFF
        super()._setup()
        if separate and self.mode in ("LA", "PA", "LAB"):  # two planes land in wrong places, a and b lack their offset
            raise ImageError(f"a TIFF with the planes of {self.mode} apart is not read; save it as PNG")


def at_full_page(file: BinaryFile) -> BinaryFile:
    """The same TIFF, or one that begins with the first page that is neither a thumbnail nor a mask, where there is one.

    Raises ImageError where the picture is what the sensor of a camera saw.
    """
    file.seek(0)
    header = file.read(16)
    order, big = "<" if header[:1] == b"I" else ">", 43 in header[2:4]
    pages = _pages(file, order, big, header)
    _, first = next(pages, (0, {}))
    raw, full = header[8:10] == b"CR" or _DNG_VERSION in first or _is_raw(first), 0
    if not _is_full(first) or SUBIFD in first:
        for offset, page in pages:
            raw = raw or _is_raw(page)
            full = full or offset * _is_full(page)
    if raw:
        raise ImageError(CAMERA_RAW)
    file.seek(0)
    if _is_full(first) or not full:
        return file
    content = bytearray(file.read())
    struct.pack_into(order + ("Q" if big else "I"), content, 8 if big else 4, full)
    return BytesIO(content)


def _pages(file: BinaryFile, order: str, big: bool, header: bytes) -> Iterator[tuple[int, Page]]:
    """The place and the tags of each page, those below it before the next; as far as they can be read."""
    waiting, seen = list(struct.unpack_from(order + ("Q" if big else "I"), header, 8 if big else 4)), set[int]()
    while waiting and len(seen) < _MOST_PAGES:
        offset = waiting.pop(0)
        if offset and offset not in seen:
            seen.add(offset)
            try:
                page, following = _page(file, order, big, offset)
            except (struct.error, OSError, OverflowError, ValueError):
                continue
            yield offset, page
            waiting = [*page.get(SUBIFD, ()), following, *waiting]


def _page(file: BinaryFile, order: str, big: bool, offset: int) -> tuple[Page, int]:
    """The tags of a page, and the place of the next one. Raises struct.error and what `file` raises."""
    number, entry, address = (f"{order}{form}" for form in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    file.seek(offset)
    (count,) = struct.unpack(number, file.read(struct.calcsize(number)))
    entries = file.read(struct.calcsize(entry) * min(count, 2**16))
    (following,) = struct.unpack(address, file.read(struct.calcsize(address)))
    page: Page = {}
    for tag, kind, length, value in struct.iter_unpack(entry, entries):
        if tag in _TAGS and kind in _INTEGERS and 0 < length <= _MOST_PAGES:
            values = f"{order}{length}{_INTEGERS[kind]}"
            size = struct.calcsize(values)
            if size > len(value):
                file.seek(*struct.unpack(address, value))
                value = file.read(size)
            page[tag] = struct.unpack(values, value[:size])
    return page, following


def _is_full(page: Page) -> bool:
    reduced = page.get(_NEW_SUBFILE_TYPE, (0,))[0] & _REDUCED_OR_MASK or page.get(_SUBFILE_TYPE) == (_OLD_REDUCED,)
    return IMAGEWIDTH in page and not reduced


def _is_raw(page: Page) -> bool:
    return page.get(PHOTOMETRIC_INTERPRETATION, (0,))[0] in _SENSOR_DATA
