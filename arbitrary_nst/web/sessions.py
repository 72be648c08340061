"""The files of each person: uploads and results, in a folder that is removed when the page is closed."""

import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from arbitrary_nst.errors import UsageError

if TYPE_CHECKING:
    from arbitrary_nst.image.color import PreserveColor
    from arbitrary_nst.stylization.jobs import StylizeConfig

GRACE = 600
"""Seconds that the files of a closed page are kept, which may only have lost its connection; and uploads."""

LAST_STEP = 30
"""Seconds that a server which ends waits for what cannot be cut short, such as a download of weights."""

CAPACITY = 100
"""Sessions at once; the one that was idle longest makes room."""

PREFIX, LOCK = "arbitrary_nst-serve-", "lock"
"""The name of a server's temporary folder begins with the first; the server holds a lock on the second in it."""

MOST_STYLES = 4

RANGES = {
    "strength": (0, 1, 0.05),
    "scale": (0.25, 4, 0.05),
    "weights": (0, 1, 0.05),
    "side": (64, 1024, 16),
    "steps": (1, 1000, 1),
}
"""Lowest and highest value and step of the sliders."""

Changes = TypeVar("Changes")


class Cancelled(Exception):
    """The person, the end of their page, or that of the server has ended a job."""


@contextmanager
def server_folder() -> Iterator[Path]:
    """Make a server's temporary folder, and remove those of servers that were killed."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # of somebody else, or in use
            if (folder / LOCK).is_file() and not folder.is_symlink():
                with FileLock(folder / LOCK, blocking=False):
                    _remove(folder)
    parent = Path(gettempdir()).resolve()
    with TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True) as name, FileLock(Path(name, LOCK)):
        yield Path(name)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Source:
    """An uploaded file, or a style of the gallery; equal where the content is, wherever the file lies."""

    digest: str
    path: Path = field(compare=False)


@dataclass(frozen=True)
class Screen:
    """The values of a page's controls, in the order in which the page sends them."""

    gallery: tuple[str, ...] = ()
    strength: float = 1.0
    scale: float = 1.0
    color: "PreserveColor" = "none"
    size: int = 0
    """Short side in pixels; 0: the photo's own size."""
    preset: str = "relative"
    side: int = 256
    steps: int = 100
    optimized_color: "PreserveColor" = "none"
    weights: tuple[float, ...] = (1.0,) * MOST_STYLES

    @classmethod
    def of(cls, values: Sequence[Any], known: Sequence[str]) -> "Screen":
        """Read what the browser sent: numbers beyond a slider's range are moved to its end, unknown styles left out."""
        count = len(fields(cls)) - 1
        given = {option.name: value for option, value in zip(fields(cls), values[:count], strict=False)}
        given["gallery"] = tuple(name for name in values[0] or () if name in known)
        for name in ("strength", "scale", "side", "steps"):
            given[name] = _within(name, given[name], getattr(cls, name))
        return cls(**given, weights=tuple(_within("weights", value, 1.0) for value in values[count:]))


def _within(name: str, value: float | None, default: float) -> float:
    low, high, _ = RANGES[name]
    return default if value is None else type(default)(min(max(value, low), high))


@dataclass(frozen=True)
class Result:
    """A stylized photo that the page shows."""

    config: "StylizeConfig"
    """Of the picture at its full size."""
    photo: Source
    styles: tuple[Source, ...]
    size: tuple[int, int]
    """Height and width in pixels, at full size."""
    before: Path
    after: Path
    """Files of what the page shows."""
    files: tuple[Path, ...] = ()
    """The picture at its full size, in the formats that were downloaded."""


class Session:
    """The files and the state of one page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.screen = Screen()
        self.photo: Source | None = None
        self.preview: Path | None = None
        """The file that the page shows of the photo."""
        self.swatches: Path | None = None
        """The photo in the styles of the gallery."""
        self.paintings: dict[str, Source] = {}
        """By the path of the preview that the page shows."""
        self.saved: dict[str, Source] = {}
        """Style files, by their own paths."""
        self.masks: tuple[Path, ...] = ()
        self.result: Result | None = None
        self.pending: Result | None = None
        """The result that is being painted."""
        self.cancel, self.stop = threading.Event(), threading.Event()
        """These end a painting and an optimization that are running."""
        self.closed: float | None = None
        self.page = ""
        """What gradio calls the page that was open last."""
        self._lock = threading.Lock()

    def keep(self, upload: str | Path) -> Source:
        """Copy an uploaded file, under its own name, into a folder for its content."""
        upload = Path(upload)
        content = upload.read_bytes()
        digest = sha256(content).hexdigest()
        target = self.folder / "given" / digest[:16] / upload.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return Source(digest, target)

    def place(self, name: str) -> Path:
        """Return a new path for a file: its address is new, so that no browser shows an older file of that name."""
        return self.folder / secrets.token_urlsafe(12) / name

    def forget(self, *paths: Path | None) -> None:
        """Remove files that `place` made room for."""
        for path in paths:
            if path is not None:
                shutil.rmtree(path.parent, ignore_errors=True)

    @property
    def _results(self) -> list[Result]:
        return [result for result in (self.result, self.pending) if result is not None]

    def leave_photo(self) -> None:
        """Forget the photo and what was made of it, except the files of results."""
        if all(result.before != self.preview for result in self._results):
            self.forget(self.preview)
        self.forget(self.swatches)
        self.photo, self.preview, self.swatches, self.masks = None, None, None, ()

    def begin(self, result: Result) -> None:
        """Keep the files that a result is painted from until another is begun.

        Raises UsageError where its photo has been replaced meanwhile.
        """
        with self.taking():
            if self.photo is not result.photo:
                raise UsageError("The photo was replaced: paint again.")
            self.pending = result

    def show(self, result: Result) -> None:
        """Keep the files of a new result, and remove those of the one before."""
        with self.taking():
            before, self.result, self.pending = self.result, result, None
            if before is not None:
                kept = {self.preview, result.before, result.after, *result.files}
                self.forget(*{before.before, before.after, *before.files} - kept)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take files; afterwards those that neither the page nor its result uses are removed."""
        with self._lock:
            yield
            sources = [self.photo, *self.paintings.values(), *self.saved.values()]
            for result in self._results:
                sources += [result.photo, *result.styles]
            used = {source.path for source in sources if source is not None}
            for path in (self.folder / "given").glob("*/*"):
                if path not in used:
                    path.unlink(missing_ok=True)

    def end_jobs(self) -> None:
        """Stop what is running."""
        self.cancel.set()
        self.stop.set()

    def close(self) -> None:
        """Stop what is running and remove the files."""
        self.end_jobs()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The sessions of all open pages.

    A page is known by the name that gradio gives it, which a reload changes, and which `resume` ties to the session
    of before.

    Args:
        folder: the server's temporary folder, in which gradio keeps uploads too, each in a folder named by its SHA-256.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._desks: dict[str, str] = {}
        """The key of a page's session in `_open`, by the page's name."""
        self._lock = threading.Lock()
        self.ended = False
        """The server ends."""
        self._steps, self._changed = 0, threading.Condition(self._lock)

    def __getitem__(self, page: str) -> Session:
        """Return the session of this page, a new one where there is none."""
        with self._lock:
            desk = self._desks.setdefault(page, page)
            if desk not in self._open:
                self._open[desk] = Session(self.folder / f"session-{secrets.token_urlsafe(16)}")
            self._open.move_to_end(desk)
            session, idle = self._open[desk], list(self._open.values())[: max(0, len(self._open) - CAPACITY)]
            self._open = OrderedDict(list(self._open.items())[-CAPACITY:])
            session.closed, session.page = None, page
        for other in idle:
            other.close()
        return session

    def __len__(self) -> int:
        return len(self._open)

    def resume(self, page: str, desk: str) -> Session:
        """Return the session of the browser tab, by the secret that the tab keeps over a reload."""
        if re.fullmatch("[0-9a-f]{32}", desk):
            with self._lock:
                self._desks[page] = desk
        return self[page]

    def leave(self, page: str) -> None:
        """End the jobs of a page that was closed or reloaded, or lost its connection."""
        with self._lock:
            session = self._open.get(self._desks.get(page, page))
            if session is not None:
                session.end_jobs()
                if session.page == page:
                    session.closed = time.time()

    def steps(self, action: Iterator[Changes]) -> Iterator[Changes]:
        """Yield what an action yields; `end` waits while it works. Raises Cancelled where the server ends."""
        while True:
            with self._changed:
                if self.ended:
                    raise Cancelled
                self._steps += 1
            try:
                changes = next(action, None)
            finally:
                with self._changed:
                    self._steps -= 1
                    self._changed.notify_all()
            if changes is None:
                return
            yield changes

    def end(self) -> None:
        """End the jobs of all pages, and wait for them: a process that ends while a thread runs torch aborts."""
        with self._changed:
            self.ended = True
            for session in self._open.values():
                session.end_jobs()
            self._changed.wait_for(lambda: not self._steps, LAST_STEP)

    def bytes(self) -> int:
        """Return how many bytes all files of the server have."""
        total = 0
        for parent, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):  # removed meanwhile
                    total += os.stat(os.path.join(parent, name)).st_size
        return total

    def sweep(self, now: float | None = None) -> None:
        """Remove sessions that were closed long enough ago, and the uploads that were copied into them."""
        limit = (time.time() if now is None else now) - GRACE
        with self._lock:
            over = [desk for desk, session in self._open.items() if session.closed and session.closed <= limit]
            closed = [self._open.pop(desk) for desk in over]
            self._desks = {page: desk for page, desk in self._desks.items() if desk in self._open}
        for session in closed:
            session.close()
        for upload in self.folder.iterdir():
            if re.fullmatch("[0-9a-f]{64}|tmp.*", upload.name) and upload.stat().st_mtime <= limit:
                _remove(upload)
