"""The files of each person: what was given and what was painted, in a folder that goes when the page is closed."""

import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

GRACE = 600
"""Seconds that the files of a closed page are kept, which may only have lost its connection; and uploads."""

CAPACITY = 100
"""Sessions at once; the one that was idle longest makes room."""


@dataclass(frozen=True)
class Source:
    """A file that somebody gave, or a style of the gallery: equal where its content is, wherever it lies."""

    digest: str
    path: Path = field(compare=False)


class Session:
    """What one open page has been given, and made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photo: Source | None = None
        self.preview = ""
        """The file that the page shows of the photo."""
        self.paintings: dict[str, Source] = {}
        """By the path of the preview that stands for them in the page."""
        self.saved: dict[str, Source] = {}
        """By their own paths."""
        self.masks: tuple[Path, ...] = ()
        self._lock = threading.Lock()
        self.results: tuple[Path, ...] = ()
        self.stop = threading.Event()
        """Ends an optimization that is running."""
        self.closed: float | None = None

    def keep(self, upload: str | Path) -> Source:
        """A copy of an uploaded file, under a name that no other file of the session has."""
        upload = Path(upload)
        folder = self.folder / "given"
        folder.mkdir(parents=True, exist_ok=True)
        target, number = folder / upload.name, 1
        while target.exists():
            number += 1
            target = folder / f"{upload.stem}-{number}{upload.suffix}"
        shutil.copyfile(upload, target)
        return Source(sha256(target.read_bytes()).hexdigest(), target)

    def place(self, name: str) -> Path:
        """Where a new file may be written: its address is new, so that no browser shows an older one of that name."""
        return self.folder / secrets.token_urlsafe(12) / name

    def forget(self, path: Path | None) -> None:
        """Remove a file that `place` made room for."""
        if path is not None:
            shutil.rmtree(path.parent, ignore_errors=True)

    def keep_results(self, *results: Path) -> None:
        """These take the place of those before, which are removed."""
        before, self.results = self.results, results
        for path in before:
            self.forget(path)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Files are being taken; given ones that are not shown then, or could not be used, are removed."""
        with self._lock:
            yield
            self._tidy()

    def _tidy(self) -> None:
        sources = [self.photo, *self.paintings.values(), *self.saved.values()]
        used = {source.path for source in sources if source is not None}
        for path in (self.folder / "given").glob("*"):
            if path not in used:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop what is running and remove the files."""
        self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The open pages, by the session that gradio names in each of its requests.

    Args:
        folder: the server's temporary folder, in which gradio keeps uploads too, each in a folder named by its SHA-256.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Session:
        """The session of this name, a new one where there is none."""
        with self._lock:
            if name not in self._open:
                self._open[name] = Session(self.folder / f"session-{secrets.token_urlsafe(16)}")
            self._open.move_to_end(name)
            session, idle = self._open[name], list(self._open.values())[: max(0, len(self._open) - CAPACITY)]
            self._open = OrderedDict(list(self._open.items())[-CAPACITY:])
            session.closed = None
        for other in idle:
            other.close()
        return session

    def __len__(self) -> int:
        return len(self._open)

    def leave(self, name: str) -> None:
        """The page was closed, or lost its connection."""
        with self._lock:
            if name in self._open:
                self._open[name].stop.set()
                self._open[name].closed = time.time()

    def sweep(self, now: float | None = None) -> None:
        """Remove what is no longer needed: sessions closed long enough, and the uploads that were copied into them."""
        limit = (time.time() if now is None else now) - GRACE
        with self._lock:
            over = [name for name, session in self._open.items() if session.closed and session.closed <= limit]
            closed = [self._open.pop(name) for name in over]
        for session in closed:
            session.close()
        for upload in self.folder.iterdir():
            if re.fullmatch("[0-9a-f]{64}|tmp.*", upload.name) and upload.stat().st_mtime <= limit:
                shutil.rmtree(upload, ignore_errors=True) if upload.is_dir() else upload.unlink(missing_ok=True)
