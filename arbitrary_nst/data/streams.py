"""Shards that are read from end to end, from wherever webdataset can read: http(s)://, s3://, gs://, pipe:COMMAND.

A share is what one worker of one process sees. Shards are dealt to the shares once; in each epoch a share opens its own
in another order and mixes the pictures in a buffer. A share is therefore a function of the seed, its number, and how
many there are, and to resume one means to pass over as many pictures, without decoding them, as it has given.
"""

import logging
import os
import re
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from random import Random
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from arbitrary_nst.data.pairs import PairDataset, Pixels, Sample, SampleRNG, take_any
from arbitrary_nst.errors import UsageError, requires
from arbitrary_nst.image import load_pixels
from arbitrary_nst.runtime.files import SUFFIXES, ImageError, PathLike

logger = logging.getLogger(__name__)

UNREADABLE_IN_A_ROW = 1000
"""After so many pictures in a row that cannot be decoded a stream is given up."""

_SCHEME = re.compile(r"(pipe:|[a-zA-Z][a-zA-Z0-9+]+://)")


def is_stream(path: PathLike) -> bool:
    """Return True if a path is an address or a command, not a place on a disk."""
    return _SCHEME.match(os.fspath(path)) is not None


def runs_commands(path: PathLike) -> bool:
    """Return True if reading a path runs a command that it names ("pipe:COMMAND")."""
    return is_stream(path) and any(url.startswith("pipe:") for url in _expanded(path))


def _expanded(path: PathLike) -> list[str]:
    """The shards that an address stands for. Raises MissingPackageError where webdataset is not installed."""
    with requires("a stream of shards", "scale"):
        from webdataset.shardlists import expand_urls

    return expand_urls(os.fspath(path))


class ImageStream:
    """Shards, and how to read them.

    Args:
        urls: addresses or `pipe:COMMAND`; `{000..117}` stands for a shard each.
        short_side: pixels; larger pictures are shrunk, smaller ones are left as they are.
        buffer: how many encoded pictures are mixed; a worker holds them in memory.
    """

    def __init__(self, urls: Iterable[PathLike], short_side: int, buffer: int = 1000) -> None:
        self.urls: Sequence[str] = [_command(url) for given in urls for url in _expanded(given)]
        self.short_side, self.buffer = short_side, buffer

    def part(self, shards: slice) -> "ImageStream":
        """Some of the shards."""
        part = copy(self)
        part.urls = self.urls[shards]
        return part

    def first(self, count: int) -> list[Pixels]:
        """The first pictures of the first shards, decoded; of fewer, all. Raises ImageError where there are none."""
        found: list[Pixels] = []
        for name, content in _members(self.urls):
            if len(found) == count:
                break
            try:
                found.append(load_pixels(name, self.short_side, content=content))
            except ImageError as error:
                logger.warning("skipped: %s", error)
        if not found:
            raise ImageError(f"{self.urls[0]}: no picture can be read in this or the other {len(self.urls) - 1} shards")
        return found

    def encoded(self, seed: str, share: int, shares: int, skip: int) -> Iterator[tuple[str, bytes]]:
        """A share without end: the name and the encoded bytes of its pictures, from the one after `skip` on.

        Raises ImageError where an epoch gives no picture.
        """
        from webdataset.filters import shuffle

        dealt = list(self.urls)
        Random(seed).shuffle(dealt)
        own, epoch = dealt[share::shares], 0
        while True:
            mixing, count = Random(f"{seed} {share} {epoch}"), 0
            order = mixing.sample(own, len(own))
            for picture in shuffle(self.buffer, rng=mixing)(_members(order)):
                count += 1
                if skip:
                    skip -= 1
                else:
                    yield picture
            if not count:
                raise ImageError(f"{own[0]}: no picture can be read in this or the other {len(own) - 1} shards")
            epoch, skip = epoch + 1 + skip // count, skip % count


class Cursor:
    """A place in a stream. Pictures after it are read where the one at it cannot be decoded, and stay to come."""

    def __init__(self, encoded: Iterator[tuple[str, bytes]], short_side: int) -> None:
        self._encoded, self._short_side = encoded, short_side
        self._ahead: deque[tuple[str, bytes] | None] = deque()  # None: known to be unreadable

    def take(self, rng: SampleRNG | None = None) -> tuple[Pixels, int, int]:
        """The picture here, or the next that can be decoded; 0; and how many were newly found unreadable."""
        skipped = 0
        for distance in range(UNREADABLE_IN_A_ROW):
            if distance == len(self._ahead):
                self._ahead.append(next(self._encoded))
            picture = self._ahead[distance]
            if picture is None:
                continue
            name, content = picture
            try:
                return load_pixels(name, self._short_side, content=content), 0, skipped
            except ImageError as error:
                logger.warning("skipped: %s", error)
                self._ahead[distance] = None
                skipped += 1
        raise ImageError(f"{UNREADABLE_IN_A_ROW} pictures in a row cannot be read; are these shards of pictures?")

    def advance(self) -> None:
        """Go on to the next picture."""
        if self._ahead:
            self._ahead.popleft()
        else:
            next(self._encoded)


class Streamed(IterableDataset):
    """Samples of `pairs` whose photos, paintings or both are streamed, in the order of a sampler.

    Each sample takes the next picture of either stream; where one side is no stream, any of its pictures. Raises
    ValueError where a stream has fewer shards than there are shares.
    """

    def __init__(self, pairs: PairDataset, sampler: Any, workers: int) -> None:
        self.pairs, self.sampler, self.workers = pairs, sampler, max(1, workers)
        shares = self.workers * sampler.processes
        for stream in (pairs.contents, pairs.styles):
            if isinstance(stream, ImageStream) and len(stream.urls) < shares:
                raise UsageError(
                    f"{stream.urls[0]}: {len(stream.urls)} shards cannot be dealt to {shares} workers: lower "
                    "--workers, or prepare more and smaller shards with --shard-size"
                )

    def __iter__(self) -> Iterator[Sample]:
        """The steps of one worker: the first of them is `start` plus its number, and the others lie `workers` apart."""
        info, sampler = get_worker_info(), self.sampler
        first = sampler.start + (0 if info is None else info.id)
        own = first % self.workers
        share, shares = sampler.rank * self.workers + own, sampler.processes * self.workers
        skip = (first - own) // self.workers * sampler.batch_size
        cursors, takes = [], []
        for name, pictures in (("photos", self.pairs.contents), ("paintings", self.pairs.styles)):
            if isinstance(pictures, ImageStream):
                encoded = pictures.encoded(f"{self.pairs.seed} {name}", share, shares, skip)
                cursors.append(Cursor(encoded, pictures.short_side))
                takes.append(cursors[-1].take)
            else:
                takes.append(partial(take_any, pictures))
        for step in range(first, sampler.stop, self.workers):
            for index in sampler.at(step):
                yield self.pairs.sample(index, *takes)
                for cursor in cursors:
                    cursor.advance()


def _command(url: str) -> str:
    """The command that reads a source for which webdataset has no scheme."""
    return f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url


def _members(urls: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each picture; a shard that cannot be read (to its end) is named in the log."""
    from webdataset.tariterators import tarfile_to_samples

    def failed(error: Exception) -> bool:
        logger.warning("skipped the rest of a shard: %s", " ".join(str(part) for part in error.args))
        return True

    samples = tarfile_to_samples(handler=failed, select_files=_is_picture)({"url": url} for url in urls)
    for sample in samples:
        for suffix, content in sample.items():
            if isinstance(content, bytes):
                yield f"{sample['__url__']}/{sample['__key__']}.{suffix}", content


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
