"""Paths to files: which images a folder or a pattern stands for, their names, whole writing, how a failure is worded.

Light: no torch and no Pillow.
"""

import errno
import glob
import logging
import os
import re
import secrets
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arbitrary_nst.errors import ArbitraryNSTError, ImageError, OutputError, UsageError

logger = logging.getLogger(__name__)

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".jfi": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
}
"""What Pillow calls the formats that we read, by suffix in lower case."""

WRITTEN_SUFFIXES = tuple(suffix for suffix, name in FORMATS.items() if name not in ("AVIF", "HEIF"))
"""Suffixes, in lower case, that images can be written with."""

SUFFIXES = tuple(suffix for suffix, name in FORMATS.items() if name != "HEIF" or find_spec("pillow_heif"))
"""Suffixes, in lower case, that folders are searched for: those that can be read here."""

HEIF_REMEDY = "pip install 'arbitrary_nst[heif]'"

_RAW_SUFFIXES = ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .mrw .dcr .kdc"
_OTHER_SUFFIXES = ".psd .psb .xcf .kra .jp2 .j2k .jxl .jxr .tga .exr .hdr .ppm .pgm .pbm .pnm .svg .ico .pcx .dds .eps"
LEFT_OUT = {*FORMATS, *_RAW_SUFFIXES.split(), *_OTHER_SUFFIXES.split()}.difference(SUFFIXES)
"""Suffixes, in lower case, of pictures that are not read here: a folder's are counted and named."""

PathLike = str | os.PathLike[str]

Results = Mapping[Path, str]
"""Files and folders that a command writes, each with a pattern of the names that it gives results.

What a search finds of them was written by an earlier run. A folder that is searched itself loses only what the pattern
matches, and one below it, which must have been meant, nothing.
"""

LONGEST_NAME = 255
"""Bytes that the name of a file has at most, on nearly every disk."""

_WILDCARDS = "*?["


def find_images(
    paths: Iterable[PathLike],
    suffixes: Sequence[str] = SUFFIXES,
    repeated: bool = False,
    results: Results | None = None,
) -> list[Path]:
    """Every image that files, folders and glob patterns name, in the order of `paths`.

    Args:
        repeated: a file is given as often as it is named, for lists whose places count; otherwise once.
        results: what a search leaves out, which stderr is told.

    A named file is kept whatever its suffix. A folder is searched recursively, a pattern (`**` recurses) is expanded;
    both give files with one of `suffixes` in natural order ("2.png" before "10.png"), hidden ones left out. A folder
    below that cannot be read is given itself, so that it is not forgotten. A file or folder that exists wins over the
    pattern its name might be. Pictures of other kinds are left out, which stderr is told.

    Raises ImageError for whatever gives nothing.
    """
    found = [image for image, _ in find_all(paths, suffixes, results)]
    return found if repeated else list(dict.fromkeys(found))


def find_places(
    paths: Iterable[PathLike], suffixes: Sequence[str] = SUFFIXES, results: Results | None = None
) -> dict[Path, Path]:
    """The images that `find_images` finds, each with its place: its path below the folder that was named.

    For a pattern this is the last folder before the first wildcard; a file that was named has its name alone.
    """
    return dict(find_all(paths, suffixes, results))


def find_all(
    paths: Iterable[PathLike], suffixes: Sequence[str] = SUFFIXES, results: Results | None = None
) -> list[tuple[Path, Path]]:
    """The images and places that `find_places` finds, each as often as it is named, in its first spelling."""
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    first: dict[str, tuple[Path, Path]] = {}
    found = []
    for path in paths:
        with reraise_with_path(path, access_failure):
            images, folder = _expand(os.fspath(path), suffixes, results or {})
            for image in map(Path, images):
                place = image.relative_to(folder)
                place = Path(place.name) if ".." in place.parts else place  # a pattern may lead out of its folder
                found.append(first.setdefault(os.path.normcase(_location(image)), (image, place)))
    return found


def _expand(path: str, suffixes: Sequence[str], results: Results) -> tuple[list[str], Path]:
    """Images, and the folder that they are below."""
    folder, known = Path(path), {*suffixes, *LEFT_OUT}
    if os.path.isdir(path):
        os.listdir(path)  # says so if it may not be read
        found, nothing = _images_below(path, known), "no image in this folder"
    elif os.path.exists(path):
        return [path], folder.parent
    elif any(character in path for character in _WILDCARDS):
        folder = Path(*takewhile(lambda part: not any(w in part for w in _WILDCARDS), folder.parts))
        matches = glob.glob(path, recursive=True)
        folders = [match for match in matches if os.path.isdir(match)]
        found = [match for match in matches if _suffix(match) in known and match not in folders]
        found += [image for folder in folders for image in _images_below(folder, known)]
        nothing = "no image matches this pattern"
    else:
        raise ImageError("no such file or folder; check the path")
    written = _written(found, folder, results)
    unread = {image for image in found if _suffix(image) in LEFT_OUT and not os.path.isdir(image)} - written
    left_out = {"results of earlier runs": written, "not read here": unread}
    told = [f"left out, {reason}: {_kinds(files)}" for reason, files in left_out.items() if files]
    images = [image for image in found if image not in written | unread]
    if not images:
        raise ImageError("; ".join([nothing, *told, f"known suffixes are {' '.join(suffixes)}"]))
    for line in told:
        print(f"{printable_path(path)}: {line}", file=sys.stderr)
    return sorted(images, key=_natural_order), folder


def _written(images: Collection[str], searched: Path, results: Results) -> set[str]:
    """The images that a search of a folder found among the results of earlier runs."""
    root, found = Path(os.path.realpath(searched)), set()
    folders = {folder: Path(os.path.realpath(folder)) for folder in {os.path.dirname(image) for image in images}}
    for place, pattern in results.items():
        place = Path(os.path.realpath(place))
        if place in root.parents:
            continue
        inside = {folder for folder, real in folders.items() if real.is_relative_to(place)}
        for folder, name, image in ((*os.path.split(image), image) for image in images):
            if (folder in inside and (place != root or fnmatchcase(name, pattern))) or folders[folder] / name == place:
                found.add(image)
    return found


def _kinds(images: Iterable[str]) -> str:
    """The number of files of each suffix, and how to have those read that can be."""
    counts = sorted(Counter(map(_suffix, images)).items())
    heif = f" ({HEIF_REMEDY})" if any(FORMATS.get(suffix) == "HEIF" for suffix, _ in counts) else ""
    return ", ".join(f"{count} {suffix}" for suffix, count in counts) + heif


def _images_below(folder: str, suffixes: Collection[str]) -> list[str]:
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
        images += [os.path.join(parent, n) for n in names if _suffix(n) in suffixes and not n.startswith(".")]
    return images


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _natural_order(path: str) -> tuple[list[list[Any]], str]:
    """Numbers compare as numbers, case does not matter; the path itself breaks ties."""
    parts = Path(path).parts
    split = (re.split("([0-9]+)", part.casefold()) for part in parts)
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in split], path


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem. It depends on the file alone, except as `_disambiguated` says."""
    return _disambiguated({path: path.stem for path in paths})


def result_names(places: Mapping[Path, Path]) -> dict[Path, str]:
    """A name for what is made of each file: its place, with `b` for b.jpg, `b-png` for b.png and so on.

    It depends on the place alone, except as `_disambiguated` says: results keep their names whatever else comes or
    goes. `_stylized` becomes `-stylized`, so that NAME_stylized_NAME can be read in one way only.

    Args:
        places: files, each with its path below some folder, as `find_places` gives them.
    """
    names = {}
    for path, place in places.items():
        name = place.stem if place.suffix.lower() in ("", ".jpg") else f"{place.stem}-{place.suffix[1:]}"
        names[path] = place.with_name(re.sub("_(?=stylized)", "-", name, flags=re.IGNORECASE)).as_posix()
    return _disambiguated(names)


def _disambiguated(names: Mapping[Path, str]) -> dict[Path, str]:
    """Names of files: those that are one on a caseless disk have a hash of the file's location besides."""
    alike = Counter(map(_caseless, names.values()))
    return {
        path: name if alike[_caseless(name)] == 1 else f"{name}~{_short_hash(_location(path))}"
        for path, name in names.items()
    }


def _location(path: PathLike) -> str:
    """One spelling of a file's path: its folder without links, its own name. What is no file stays as it is."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name) if os.path.lexists(path) else os.fspath(path)


def fitting_name(name: str, suffix: str) -> str:
    """A file's name with its suffix; one too long for a disk is cut, and ends in a hash of the whole."""
    encoded, room = os.fsencode(name), LONGEST_NAME - len(os.fsencode(suffix))
    if len(encoded) > room:
        ending = f"~{_short_hash(name)}"
        name = encoded[: room - len(ending)].decode(sys.getfilesystemencoding(), "ignore") + ending
    return name + suffix


def result_file(photo: str, style: str, suffix: str) -> Path:
    """The path of a result below the folder for results.

    Args:
        photo, style: their names, of `result_names`; the first one may lie in a subfolder.
    """
    place = Path(f"{photo}_stylized_{style}")
    return place.with_name(fitting_name(place.name, suffix))


@contextmanager
def unicode_name(path: Path) -> Iterator[str]:
    """A name of a file for libraries that open none whose bytes are no UTF-8: its own, or that of a link to it."""
    name = os.fspath(path)
    if name.encode("utf-8", "ignore").decode() == name:
        yield name
    else:
        with TemporaryDirectory() as folder:
            link = Path(folder, f"link{path.suffix}")
            link.symlink_to(path.absolute())
            yield str(link)


def _caseless(name: str) -> str:
    """A key that is equal for names that are one on a disk that ignores case or composes accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _short_hash(text: str) -> str:
    return sha256(os.fsencode(text)).hexdigest()[:8]


# Writing


def looks_like_a_file(output: Path) -> bool:
    """Return True if the name of a missing folder is probably meant for a file: result.avif, but not out.v2."""
    return re.fullmatch(r"\.[a-zA-Z][a-zA-Z0-9]{2,4}", output.suffix) is not None and not os.path.isdir(output)


def refuse_overwriting(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Make sure that no file is both read and written, by whatever name: another spelling, a link, another mount.

    Args:
        inputs: what is read; what does not exist is left out.
        outputs: what will be written.

    Raises UsageError, which names the file, for an output that is one of the inputs.
    """
    read = {_identity(path): path for path in inputs}
    for path in outputs:
        identity = _identity(path)
        if identity is not None and identity in read:
            original = read[identity]
            also = "" if path == original else f" ({printable_path(original)} by another name)"
            raise UsageError(f"{printable_path(path)}: is read{also}, and would be overwritten; write elsewhere")


def _identity(path: Path) -> tuple[int, int] | None:
    """A key that is equal for all names of a file; None if there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return found.st_dev, found.st_ino


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A new file beside `path` to be written in the block, which then takes its place; after a failure it is gone.

    Missing folders are made. The file is opened like any other, so that the umask decides its permissions. An OSError
    of the system, out of the block or of the writing, names `path` and not the new file.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial), partial):
            error.filename, error.filename2 = str(path), None
        raise


def check_output_folder(path: Path, option: str = "output") -> None:
    """Refuse a folder for results that cannot be made or written in, before any work. Nothing is created.

    Args:
        option: the name of the option that gives the folder, without dashes.

    Raises UsageError where a file is in its place or its name is a file's, such as result.png; OutputError where
    permissions, a read-only disk or the length of its name forbid it.
    """
    if looks_like_a_file(path):
        raise UsageError(
            f"--{option} {printable_path(path)}: must be a folder, and looks like a file; "
            "name a folder, or make this one first"
        )
    try:
        existing = _nearest(path)
        if not existing.is_dir():
            raise UsageError(f"--{option} {printable_path(path)}: {printable_path(existing)} is a file; name a folder")
        _try_writing(existing)
    except OSError as error:
        raise OutputError(
            f"{printable_path(path)}: cannot be written in ({detail(error)}); choose another folder"
        ) from error


def check_writable(path: Path) -> None:
    """Refuse a file for a result that cannot be written, before any work. Nothing is created.

    Raises OutputError, naming the file.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        existing = _nearest(path)
        _try_writing(path.parent if existing == path else existing)
    except OSError as error:
        raise OutputError(
            f"{printable_path(path)}: cannot be written ({detail(error)}); choose another place"
        ) from error


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that exists. Raises OSError where the path cannot exist."""
    for place in (path, *path.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()  # raises another error for a name that is too long
            return place
    raise FileNotFoundError(f"there is no {path.absolute().anchor}")


def _try_writing(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


# Errors


def counted(count: int, noun: str) -> str:
    """1 picture, 2 pictures."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """The text with control characters, escape sequences and broken surrogates written as backslash escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_path(path: PathLike) -> str:
    """The name of a file as it stands in a message: on one line, and printable on any terminal."""
    name = os.fspath(path)
    return name if name.isprintable() and name else ascii(name)


@contextmanager
def reraise_with_path(
    path: PathLike, explain: Callable[[Exception], str], kind: type[ImageError] | type[OutputError] = ImageError
) -> Iterator[None]:
    """Turn every exception into one of a kind that begins with the file's name; `explain` words the foreign ones.

    Other errors of the package pass unchanged.

    Args:
        kind: ImageError for what is read, OutputError for what is written.
    """
    try:
        yield
    except kind as error:
        raise kind(f"{printable_path(path)}: {error}") from error.__cause__
    except ArbitraryNSTError:  # a missing package is no fault of the file
        raise
    except Exception as error:
        raise kind(f"{printable_path(path)}: {known_failure(error) or explain(error)}") from error


def detail(error: Exception) -> str:
    """The kind and the words of a foreign exception, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def access_failure(error: Exception) -> str:
    """Explain why the file system could not read a file."""
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    return f"cannot be read ({detail(error)}); check the path and the disk"


_SYSTEM_FAILURES = {
    errno.EACCES: "permission denied; change the permissions of the file and its folder, or choose another",
    errno.EPERM: "permission denied; change the permissions of the file and its folder, or choose another",
    errno.EROFS: "the disk is read-only; write elsewhere",
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk is full; free some space or write elsewhere",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EISDIR: "is a folder; name a file in it",
    errno.ENOTDIR: "a file is where a folder should be; check the path",
    errno.EEXIST: "a file is where a folder should be; check the path",
    errno.EIO: "cannot be read or written (input/output error); check the disk",
}


def known_failure(error: BaseException) -> str | None:
    """The words for a failure of the machine rather than of the package: memory, permissions, the disk."""
    no_memory = re.search("(out of|not enough|allocate) memory", str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and no_memory):
        return "out of memory; use a smaller image or free some memory"
    return _SYSTEM_FAILURES.get(error.errno or 0) if isinstance(error, OSError) else None


class Failures:
    """Failures: printed on stderr as they happen, counted, and printed again at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def count(self) -> int:
        return len(self.lines)

    def add(self, path: Path, error: Exception) -> None:
        from tqdm import tqdm  # only where something fails

        logger.debug("traceback of the failure that follows", exc_info=error)
        matter = known_failure(error) or str(error) or type(error).__name__
        named = path.name in matter or printable_path(path) in matter
        self.lines.append(printable(" ".join((matter if named else f"{printable_path(path)}: {matter}").split())))
        tqdm.write(f"failed: {self.lines[-1]}", file=sys.stderr)

    def repeat(self) -> None:
        """All of them in one list, where there are any."""
        if self.lines:
            print(f"{self.count} failed:", *self.lines, sep="\n  ", file=sys.stderr)
