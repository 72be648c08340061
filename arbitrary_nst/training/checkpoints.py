"""What a run needs to go on as if it had never stopped, in files that are whole or not there."""

import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from arbitrary_nst.paths import written_whole

logger = logging.getLogger(__name__)

MODEL, BEST = "model.safetensors", "best.safetensors"

USUAL = 100
"""Gradient norms that are remembered, to know an exploding one by."""


class CheckpointError(RuntimeError):
    """A file of the run could not be written or read. The message says which, why, and what is still whole."""


@dataclass
class TrainingState:
    """Everything that a step changes. What is random depends on the seed and the step alone, so it is not here."""

    model: nn.Module
    ema: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler | None = None
    """Of the loss, with float16."""
    step: int = 0
    seconds: float = 0.0
    """That the run has taken so far, interruptions left out."""
    skipped: int = 0
    """Steps."""
    unreadable: int = 0
    """Pictures that could not be read when their turn came."""
    gradients: list[float] = field(default_factory=list)
    """The norms of the last steps that were taken."""
    validation: dict[str, float] = field(default_factory=dict)
    """The last means on held-out pairs."""
    best: float = math.inf
    """The lowest objective of a validation so far."""

    def exploding(self, gradient: float, multiple: float) -> bool:
        """Whether a gradient's norm is no number, or so many times the median of the last ones, if these are many."""
        usual = median(self.gradients) if len(self.gradients) >= USUAL // 2 else math.inf
        return not (math.isfinite(gradient) and gradient <= multiple * usual)

    def count(self, gradient: float, taken: bool) -> None:
        """One step more."""
        self.step += 1
        self.skipped += not taken
        if taken:
            self.gradients = [*self.gradients, gradient][-USUAL:]

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and numbers."""
        return {
            name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in vars(self).items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, value in vars(self).items():
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(state[name])
            else:
                setattr(self, name, state[name])


class Checkpoints:
    """The newest checkpoints of a run, `checkpoint-STEP.pt`.

    Args:
        folder: of the run.
        keep: how many; an older one goes when a newer one is whole.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """The checkpoints that there are, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), key=_step)

    def check(self, resume: bool) -> None:
        """Refuse to overwrite a run and to resume from nothing (ValueError)."""
        files = self.files()
        if resume and not files:
            raise ValueError(f"--resume: there is no checkpoint in {self.folder}; leave the flag out to start the run")
        if not resume and files:
            raise ValueError(
                f"{files[-1]} is of an earlier run: add --resume to go on with it, or name another --run-dir"
            )

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, then remove those that are older than the newest few, or newer than the run.

        Raises CheckpointError; the checkpoints from before are left alone then.
        """
        content = io.BytesIO()
        torch.save(state.state_dict(), content)
        self.write(f"checkpoint-{state.step:07}.pt", lambda path: _write(path, content))
        known = [file for file in self.files() if _step(file) <= state.step]
        for file in set(self.files()) - set(known[-self.keep :]):
            file.unlink(missing_ok=True)

    def write(self, name: str, writer: Callable[[Path], None]) -> None:
        """Let `writer` write a file of the run. Raises CheckpointError, which names what there is to go on from."""
        path = self.folder / name
        try:
            writer(path)
        except OSError as error:
            files = self.files()
            whole = f"{files[-1].name} is whole: --resume goes on from it" if files else "there is no checkpoint yet"
            raise CheckpointError(f"{path}: cannot be written ({error.strerror or error}); {whole}") from error

    def load(self, state: TrainingState, device: torch.device) -> None:
        """Take over the newest checkpoint that is whole. Raises CheckpointError where none is."""
        for file in reversed(self.files()):
            try:
                content = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # whatever a damaged archive makes of its reader
                logger.warning("%s is damaged (%s): going back to the one before", file, type(error).__name__)
                continue
            state.load_state_dict(content)
            return
        raise CheckpointError(f"{self.folder}: no checkpoint can be read; start again in another --run-dir")


def _step(file: Path) -> int:
    number = file.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _write(path: Path, content: io.BytesIO) -> None:
    with written_whole(path) as partial:
        partial.write_bytes(content.getbuffer())
