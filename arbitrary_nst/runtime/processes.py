"""torchrun and signals, for commands that work through a list: a share of it, a device, an orderly end.

Light: torch is imported where it is needed, so that signals are handled before it is there.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from arbitrary_nst.errors import UsageError


def own_share(names: Mapping[Path, str]) -> list[tuple[Path, str]]:
    """The photos of this process among those that torchrun started: every WORLD_SIZE-th from RANK on.

    Raises ValueError where these are not what torchrun sets.
    """
    photos = list(names.items())
    rank, processes = _environment("RANK", 0), _environment("WORLD_SIZE", 1)
    if processes == 1:
        return photos
    if not 0 <= rank < processes:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {processes}: a rank must be from 0 to {processes - 1}")
    share = photos[rank::processes]
    print(f"process {rank + 1} of {processes}: {len(share)} of {len(photos)} photos")
    return share


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UsageError(f"{name} is '{value}': must be a number, as torchrun sets it")
    return int(value)


def wait_for_other_processes() -> None:
    """Under torchrun: it stops all processes as soon as one has failed, so that nobody may leave before the last."""
    from torch import distributed

    if distributed.is_available() and distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo", timeout=timedelta(days=30))
        distributed.barrier()
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """Return True in the one process, of all that torchrun started, that prints messages common to all: the first."""
    return os.environ.get("RANK", "0") == "0"


def own_device(device: str) -> str:
    """Under torchrun each process of a machine takes the next of its CUDA devices."""
    import torch

    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{_environment('LOCAL_RANK', 0) % torch.cuda.device_count()}"
    return device


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Signals

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""What asks a run to stop: Ctrl-C, a scheduler, a connection that is closed, a scheduler's warning."""


class Terminated(KeyboardInterrupt):
    """A signal that stops the work as Ctrl-C does. `number` is the signal's."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal has stopped: 128 and the signal's number."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """A handler of signals in the block. What is ignored before it (SIGHUP under nohup) stays ignored.

    Only the main thread may handle signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def terminable() -> Iterator[None]:
    """All of `SIGNALS` but Ctrl-C, which raises KeyboardInterrupt anyway, raise Terminated in the block."""

    def terminate(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    with handled([number for number in SIGNALS if number != signal.SIGINT], terminate):
        yield


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started in the block see no signal of `SIGNALS`; this one sees them after it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
