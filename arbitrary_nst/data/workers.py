"""The processes that prepare batches: what signals mean to them, how they end, and what their failures mean."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread, Timer
from typing import Any

from arbitrary_nst.errors import WorkerError
from arbitrary_nst.runtime.devices import out_of_memory
from arbitrary_nst.runtime.processes import SIGNALS

ALONE = 2.0
"""Seconds that a worker goes on after SIGTERM, to see whether the whole run was sent one."""

EXIT_TIMEOUT = 3.0
"""Seconds that workers have to end by themselves."""


def ignore_signals(stop_signal: Any, worker: int) -> None:
    """Let this worker see no signal but SIGTERM, which ends it unless the run is told to stop as well.

    When a scheduler signals all processes of a run, workers go on until the checkpoint is written, and the run ends
    them.

    Args:
        stop_signal: the signal that the run was sent, 0 for none, in memory that processes share.
        worker: its number, which does not matter.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        Thread(target=_wait_for_the_end, args=(stop_signal,), daemon=True).start()


def _wait_for_the_end(stop_signal: Any) -> None:
    while not stop_signal.value:
        signal.sigwait([signal.SIGTERM])
        time.sleep(ALONE)
        if not stop_signal.value:
            os._exit(0)  # another code would interrupt the run in whatever it does; it misses the worker soon enough


def end_workers(iterator: Any) -> None:
    """End the workers of a DataLoader's iterator, those that hang too. Without workers nothing is done."""
    workers = getattr(iterator, "_workers", [])
    if not workers:
        return
    killing = Timer(EXIT_TIMEOUT, lambda: [worker.kill() for worker in workers])
    killing.start()
    with suppress(RuntimeError):  # torch reports a worker that was killed
        iterator._shutdown_workers()
    killing.cancel()


@contextmanager
def explained() -> Iterator[None]:
    """Turn what a DataLoader raises in the block, at any time, where a worker is at fault, into WorkerError."""
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
        failure = worker_failure(error)
        if failure is None:
            raise
        raise failure from error


def worker_failure(error: BaseException) -> WorkerError | None:
    """Explain an error of a DataLoader whose worker failed; None for any other error."""
    cause = str(error.__cause__ or "")
    text = cause if cause.startswith("DataLoader worker") else str(error)  # torch's own words may lack the signal
    if any(words in text for words in ("workers are out of shared memory", "shared memory(shm)", "</torch_")):
        return WorkerError(
            "shared memory (/dev/shm), through which workers hand over batches, is full: give a container more "
            "(docker run --shm-size 8g), or lower --workers; --workers 0 needs none"
        )
    if isinstance(error, (ConnectionError, EOFError)):  # of the socket through which a batch is handed over
        text = "DataLoader worker has ended"
    if text.startswith("DataLoader worker"):
        return WorkerError(
            f"{text.splitlines()[0].rstrip('. ')}: where memory is short the system kills it; lower --workers (in "
            "training --memory-gb too)"
        )
    if "DataLoader worker process" in text and out_of_memory(error):
        return WorkerError(
            "a worker that prepares batches is out of memory: lower --workers (in training --memory-gb too)"
        )
    return None
