"""Paths to files: which images a folder or a pattern stands for, their names, whole writing, how a failure is worded.

Light: no torch and no Pillow.
"""

import errno
import glob
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
}
"""What Pillow calls the formats that we read and write, by suffix in lower case."""

SUFFIXES = tuple(FORMATS)
"""Suffixes, in lower case, that folders are searched for and that images can be written with."""

PathLike = str | os.PathLike[str]


class ImageError(Exception):
    """An image cannot be read or written. The message is one line: the file, what is wrong, what to do."""


def find_images(paths: Iterable[PathLike], suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Every image that files, folders and glob patterns name, in the order of `paths`, each file once.

    A named file is kept whatever its suffix. A folder is searched recursively, a pattern (`**` recurses) is expanded;
    both give files with one of `suffixes` in natural order ("2.png" before "10.png"), hidden ones left out. A folder
    below that cannot be read is given itself, so that it is not forgotten. A file or folder that exists wins over the
    pattern its name might be. Raises ImageError for whatever gives nothing.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, Path] = {}
    for path in paths:
        with naming(path, access_failure):
            for image in _expand(os.fspath(path), suffixes):
                found.setdefault(os.path.normcase(os.path.abspath(image)), Path(image))
    return list(found.values())


def _expand(path: str, suffixes: Sequence[str]) -> list[str]:
    if os.path.isdir(path):
        os.listdir(path)  # says so if it may not be read
        images = _images_below(path, suffixes)
    elif os.path.exists(path):
        images = [path]
    elif any(character in path for character in "*?["):
        matches = glob.glob(path, recursive=True)
        folders = [match for match in matches if os.path.isdir(match)]
        images = [match for match in matches if _has_suffix(match, suffixes) and match not in folders]
        images += [image for folder in folders for image in _images_below(folder, suffixes)]
        if not images:
            raise ImageError(f"no image matches this pattern; known suffixes are {' '.join(suffixes)}")
    else:
        raise ImageError("no such file or folder; check the path")
    if not images:
        raise ImageError(f"no image in this folder; known suffixes are {' '.join(suffixes)}")
    return sorted(images, key=_natural_order)


def _images_below(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Images in a folder and all below it, and folders that cannot be read.

    Linked folders are followed, each real folder is visited once.
    """
    images: list[str] = []
    visited: set[str] = set()

    def unreadable(error: OSError) -> None:
        images.append(error.filename)

    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images += [os.path.join(parent, n) for n in names if _has_suffix(n, suffixes) and not n.startswith(".")]
    return images


def _has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def _natural_order(path: str) -> tuple[list[list[Any]], str]:
    """Numbers compare as numbers, case does not matter; the path itself breaks ties."""
    parts = Path(path).parts
    split = (re.split("([0-9]+)", part.casefold()) for part in parts)
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in split], path


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem, numbered from the second of the same stem on (as a caseless disk sees it)."""
    taken: set[str] = set()
    names = {}
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        names[path] = name
    return names


# Writing


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A new file beside `path` to be written in the block, which then takes its place; after a failure it is gone.

    Missing folders are made. The file is opened like any other, so that the umask decides its permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


# Errors


def shown(path: PathLike) -> str:
    """The name of a file as it stands in a message: on one line, and printable on any terminal."""
    name = os.fspath(path)
    return name if name.isprintable() and name else ascii(name)


@contextmanager
def naming(path: PathLike, explain: Callable[[Exception], str]) -> Iterator[None]:
    """Turn every exception into an ImageError that begins with the file's name; `explain` words the foreign ones."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{shown(path)}: {error}") from error.__cause__
    except Exception as error:
        raise ImageError(f"{shown(path)}: {_common_failure(error) or explain(error)}") from error


def detail(error: Exception) -> str:
    """The kind and the words of a foreign exception, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def access_failure(error: Exception) -> str:
    """What it means that the file system could not give what was to be read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "no such file; check the path"
    return f"cannot be read ({detail(error)}); check the path and the disk"


def _common_failure(error: Exception) -> str | None:
    if isinstance(error, PermissionError):
        return "permission denied; change the permissions of the file and its folder, or choose another"
    no_memory = re.search("(out of|not enough|allocate) memory", str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and no_memory):
        return "out of memory; use a smaller image or free some memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full; free some space or write elsewhere"
    return None


class Failures:
    """What could not be done: told on stderr as it happens, counted, and told again at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def count(self) -> int:
        return len(self.lines)

    def add(self, path: Path, error: Exception) -> None:
        from tqdm import tqdm  # only where something fails

        matter = _common_failure(error) or str(error) or type(error).__name__
        named = path.name in matter or shown(path) in matter
        self.lines.append(" ".join((matter if named else f"{shown(path)}: {matter}").split()))
        tqdm.write(f"failed: {self.lines[-1]}", file=sys.stderr)

    def repeat(self) -> None:
        """All of them in one list, where there are any."""
        if self.lines:
            print(f"{self.count} failed:", *self.lines, sep="\n  ", file=sys.stderr)
