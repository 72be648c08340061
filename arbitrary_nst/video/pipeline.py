"""Stages that work at the same time: each is an iterator over the one before, in a thread of its own."""

import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()
_POLL = 0.05
"""Seconds after which a stage that waits looks whether anybody still wants its work."""


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made in a thread of its own as many as `depth` before they are asked for.

    What `items` raises is raised here. Closing the iterator waits until the thread has ended.
    """
    waiting: Queue[Any] = Queue(depth)
    stopped = Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=_POLL)
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:  # for whoever asks for the next item
            put(_Failed(error))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := _next(waiting)) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


def _next(waiting: Queue[Any]) -> Any:
    """With a time-out again and again: a wait without end would not let Ctrl-C through on every system."""
    while True:
        try:
            return waiting.get(timeout=_POLL)
        except Empty:
            continue


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class StageTimer:
    """Seconds that each stage has worked, not counting what it has waited for others."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def watched(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items of a first stage, which waits for nobody."""
        iterator = iter(items)
        while True:
            with self(stage):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def __str__(self) -> str:
        total = sum(self.seconds.values()) or 1.0
        return ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in self.seconds.items())
