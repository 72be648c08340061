"""Stages that work at the same time: each is an iterator over the one before, in a thread of its own."""

import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")

_END = object()
_POLL = 0.05
"""Seconds of a wait; one without end would not let Ctrl-C through on every system."""


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made in a thread of its own as many as `depth` before they are asked for.

    What `items` raises is raised here. Closing the iterator waits until the thread has ended.
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while True:
            while not wait([waiting[0]], _POLL).done:
                pass
            item = waiting.popleft().result()
            if item is _END:
                return
            waiting.append(pool.submit(next, iterator, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
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
