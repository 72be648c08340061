"""The command that trains a style model."""

import sys
from contextlib import suppress

import torch

from arbitrary_nst.errors import CheckpointError, TrainingInterrupted, WorkerError
from arbitrary_nst.runtime.devices import keep_freed_memory, out_of_memory
from arbitrary_nst.runtime.processes import is_main_process
from arbitrary_nst.training.config import PRESETS, TrainConfig
from arbitrary_nst.training.loop import fit

__all__ = ["PRESETS", "TrainConfig", "train"]


def train(config: TrainConfig) -> int:
    """The command: train, say where the model is, and return the exit code.

    0: done; 1: something failed; 128 + N: stopped by signal N, with a checkpoint (129 SIGHUP, 130 Ctrl-C, 138 SIGUSR1,
    143 SIGTERM).
    """
    keep_freed_memory()
    code = 0
    try:
        path = fit(config)
        if is_main_process():
            print(f"the model is {path}")
    except TrainingInterrupted as stop:
        with suppress(OSError):  # after SIGHUP there is no terminal
            print(stop, flush=True)
        code = 128 + stop.number
    except (CheckpointError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(
            f"error: out of memory: lower --batch-size (now {config.batch_size}) or --crop-size (now "
            f"{config.crop_size}); --accumulate makes up for a smaller batch",
            file=sys.stderr,
        )
        return 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # all are here; after a failure it might wait for the others
    return code
