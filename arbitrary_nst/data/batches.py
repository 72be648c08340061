"""Batches of an endless run: which samples are whose, prepared by worker processes, unreadable pictures counted."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from arbitrary_nst.data.pairs import Pairs
from arbitrary_nst.data.streams import PictureStream, Streamed
from arbitrary_nst.paths import ImageError

Batch = tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"], Int[Tensor, "B"]]
"""Photos, paintings, and the numbers of the paintings."""


class Resumable(Sampler[int]):
    """Indices of one process's share of an endless run, from a given step on."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.rank, self.processes = rank, processes

    def at(self, step: int) -> range:
        """The indices of one step."""
        first = (step * self.processes + self.rank) * self.batch_size
        return range(first, first + self.batch_size)

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start, self.stop):
            yield from self.at(step)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.batch_size


class Batches:
    """Batches of a loader of samples, and in `skipped` how many pictures could not be read for those given so far.

    Iterating raises ImageError where no picture can be read any more, also when it happens in a worker process.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.skipped = 0
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        try:
            for content, style, number, skipped in self._loader:
                self.skipped += int(skipped.sum())
                yield content, style, number
        except ImageError as error:  # of a worker: its traceback comes before the message
            last = str(error).strip().splitlines()[-1]
            raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__qualname__}: ")) from error


def batches(pairs: Pairs, sampler: Resumable, workers: int) -> Batches:
    """Batches in the sampler's order, prepared by worker processes while the device computes.

    Pictures that are kept on a device need `workers` to be 0: they are cropped there, which takes no time that is worth
    a process. Raises ValueError where a stream has fewer shards than there are workers in all processes.
    """
    streamed = any(isinstance(pictures, PictureStream) for pictures in (pairs.contents, pairs.styles))
    return Batches(
        DataLoader(
            Streamed(pairs, sampler, workers) if streamed else pairs,
            sampler.batch_size,
            sampler=None if streamed else sampler,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=workers > 0 and torch.cuda.is_available(),
            drop_last=True,
        )
    )
