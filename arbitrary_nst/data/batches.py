"""Batches of an endless run: which samples are whose, prepared by worker processes, unreadable pictures counted."""

from collections.abc import Generator, Iterator
from functools import partial
from multiprocessing import RawValue
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate, get_worker_info

from arbitrary_nst.data.pairs import PairDataset, Sample
from arbitrary_nst.data.streams import ImageStream, Streamed
from arbitrary_nst.data.workers import end_workers, ignore_signals
from arbitrary_nst.errors import WorkerError
from arbitrary_nst.runtime.files import ImageError, detail
from arbitrary_nst.runtime.processes import kept_from_children

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

    Iterating raises ImageError where no picture can be read any more, also when it happens in a worker process, and
    WorkerError where workers cannot be started. What else may be wrong with them says `workers.explained`.

    Args:
        stop_signal: the signal that the run was sent, where its workers look for it (`workers.ignore_signals`).
    """

    def __init__(self, loader: DataLoader, stop_signal: Any) -> None:
        self.skipped, self.stop_signal = 0, stop_signal
        self._loader = loader

    def __iter__(self) -> Generator[Batch, None, None]:
        """Start the workers. They end with the iteration, and when it is closed."""
        try:
            with kept_from_children():
                iterator = iter(self._loader)
        except OSError as error:
            raise WorkerError(
                f"workers cannot be started ({detail(error)}): give a container more shared memory (docker run "
                "--shm-size 8g), or lower --workers; --workers 0 needs none"
            ) from error
        return self._batches(iterator)

    def _batches(self, iterator: Any) -> Generator[Batch, None, None]:
        try:
            for content, style, number, skipped in iterator:
                self.skipped += int(skipped.sum())
                yield content, style, number
        except ImageError as error:  # of a worker: its traceback comes before the message
            last = str(error).strip().splitlines()[-1]
            raise ImageError(last.removeprefix(f"{ImageError.__module__}.{ImageError.__qualname__}: ")) from error
        finally:
            end_workers(iterator)


def batches(pairs: PairDataset, sampler: Resumable, workers: int) -> Batches:
    """Batches in the sampler's order, prepared by worker processes while the device computes.

    Pictures that are kept on a device need `workers` to be 0: they are cropped there, which takes no time that is worth
    a process. Raises ValueError where a stream has fewer shards than there are workers in all processes.
    """
    streamed = any(isinstance(pictures, ImageStream) for pictures in (pairs.contents, pairs.styles))
    stop_signal = RawValue("i", 0)
    loader = DataLoader(
        Streamed(pairs, sampler, workers) if streamed else pairs,
        sampler.batch_size,
        sampler=None if streamed else sampler,
        num_workers=workers,
        collate_fn=_collated,
        worker_init_fn=partial(ignore_signals, stop_signal),
        prefetch_factor=4 if workers else None,
        pin_memory=workers > 0 and torch.cuda.is_available(),
        drop_last=True,
    )
    return Batches(loader, stop_signal)


def _collated(samples: list[Sample]) -> list[Tensor]:
    """One batch; of a worker already in shared memory, where a failure to get some is an error of the worker."""
    batch = default_collate(samples)
    return [part.share_memory_() for part in batch] if get_worker_info() else batch
