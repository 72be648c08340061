"""Encoded pictures wherever they lie: files, members of zip files, members of tar files (shards)."""

import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_pixels
from arbitrary_nst.runtime.files import (
    SUFFIXES,
    ImageError,
    PathLike,
    Results,
    access_failure,
    find_images,
    reraise_with_path,
)

Pixels = UInt8[Tensor, "3 H W"]

ARCHIVES = (".zip", ".tar")
"""Suffixes of files that hold pictures."""

_LOCAL_HEADER = struct.Struct("<26x2H")  # of a zip member: lengths of its name and of its extra field


class Encoded(NamedTuple):
    """One encoded picture: a file, or a stretch of one. Nothing is open, so any process may read it at any time."""

    path: str
    member: str = ""
    """Name inside an archive; empty: the picture is the file."""
    offset: int = 0
    size: int = -1
    """Bytes in the archive, compressed or not."""
    compression: int | None = None
    """A zip member's method; None: the bytes lie in the archive as they are."""

    @property
    def name(self) -> str:
        """Name in messages, reports and models: the path, and in an archive the member's below it."""
        return os.path.join(self.path, self.member) if self.member else self.path

    def read(self) -> bytes:
        """The encoded bytes. Raises ImageError."""
        with reraise_with_path(self.name, _archive_failure), open(self.path, "rb") as file:
            file.seek(self.offset)
            if self.compression is None:
                return _exactly(file.read(self.size), self.size)
            file.seek(sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))), os.SEEK_CUR)
            stored = _exactly(file.read(self.size), self.size)
            if self.compression == zipfile.ZIP_STORED:
                return stored
            if self.compression == zipfile.ZIP_DEFLATED:
                return zlib.decompress(stored, -zlib.MAX_WBITS)
            raise ImageError(
                "encrypted, or compressed other than by deflation; unpack the zip file and name the folder"
            )

    def load(self, short_side: int, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Pixels:
        """The decoded picture, as `image.load_pixels` gives it. Raises ImageError."""
        if not self.member:
            return load_pixels(self.path, short_side, max_pixels)
        return load_pixels(self.name, short_side, max_pixels, self.read())


def find_pictures(paths: Iterable[PathLike], results: Results | None = None) -> list[Encoded]:
    """Every picture that files, folders, globs, zip files and tar files name, each file once, in the order of `paths`.

    Folders are searched for archives as well as for pictures (`runtime.files.find_images`), so a folder of shards is a
    folder like any other. In a zip file the members come in the order of their names, in a tar file as they lie. Raises
    ImageError for whatever gives nothing.

    Args:
        results: as in `runtime.files.find_images`.
    """
    files = find_images(paths, (*SUFFIXES, *ARCHIVES), results=results)
    return [picture for path in files for picture in _within(os.fspath(path))]


def _within(path: str) -> Iterable[Encoded]:
    listing = {".zip": _zip_members, ".tar": _tar_members}.get(os.path.splitext(path)[1].lower())
    if listing is None:
        return [Encoded(path)]
    with reraise_with_path(path, _archive_failure):
        found = [picture for picture in listing(path) if _is_picture(picture.member)]
        if not found:
            raise ImageError(f"no image in this archive; known suffixes are {' '.join(SUFFIXES)}")
    return found


def _zip_members(path: str) -> Iterator[Encoded]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            encrypted = member.flag_bits & 1
            method = -1 if encrypted else member.compress_type
            yield Encoded(path, member.filename, member.header_offset, member.compress_size, method)


def _tar_members(path: str) -> Iterator[Encoded]:
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isfile():
                yield Encoded(path, member.name, member.offset_data, member.size)


def _is_picture(member: str) -> bool:
    parts = [part for part in member.split("/") if part != "."]
    hidden = any(part.startswith(".") for part in parts) or "__MACOSX" in parts
    return not hidden and os.path.splitext(member)[1].lower() in SUFFIXES


def _exactly(content: bytes, size: int) -> bytes:
    if 0 <= size != len(content):
        raise ImageError("the archive ends within this picture; get a complete copy of it")
    return content


def _archive_failure(error: Exception) -> str:
    if isinstance(error, (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error)):
        return f"not a whole archive ({error}); get a complete copy of it, or unpack it and name the folder"
    return access_failure(error)
