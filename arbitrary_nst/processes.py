"""What torchrun and signals ask of a command that works through a list: a share of it, a device, an orderly end."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed


def own_share(names: Mapping[Path, str]) -> list[tuple[Path, str]]:
    """The photos of this process among those that torchrun started: every WORLD_SIZE-th from RANK on.

    Raises ValueError where these are not what torchrun sets.
    """
    photos = list(names.items())
    rank, processes = _environment("RANK", 0), _environment("WORLD_SIZE", 1)
    if processes == 1:
        return photos
    if not 0 <= rank < processes:
        raise ValueError(f"RANK is {rank} and WORLD_SIZE {processes}: a rank must be from 0 to {processes - 1}")
    share = photos[rank::processes]
    print(f"process {rank + 1} of {processes}: {len(share)} of {len(photos)} photos")
    return share


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"{name} is '{value}': must be a number, as torchrun sets it")
    return int(value)


def wait_for_other_processes() -> None:
    """Under torchrun: it stops all processes as soon as one has failed, so that nobody may leave before the last."""
    if distributed.is_available() and distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo", timeout=timedelta(days=30))
        distributed.barrier()
        distributed.destroy_process_group()


def own_device(device: str) -> str:
    """Under torchrun each process of a machine takes the next of its CUDA devices."""
    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{_environment('LOCAL_RANK', 0) % torch.cuda.device_count()}"
    return device


# Signals


class Terminated(KeyboardInterrupt):
    """SIGTERM, which stops the work as Ctrl-C does."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated in the block. (Only the main thread may say so; elsewhere it stays as it is.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
