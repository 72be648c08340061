"""Checkpoints: everything that a run needs to resume exactly, in files that are complete or absent."""

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

from arbitrary_nst.errors import CheckpointError, UsageError
from arbitrary_nst.runtime.files import atomic_write, detail
from arbitrary_nst.training.config import CONFIG

logger = logging.getLogger(__name__)

MODEL, BEST, CARD = "model.safetensors", "best.safetensors", "model_card.md"

USUAL = 100
"""Gradient norms that are remembered, to know an exploding one by."""


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

    def is_spike(self, gradient: float, multiple: float) -> bool:
        """Return True if the gradient's norm is not finite, or exceeds so many times the median of the last ones."""
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
            if name == "scaler" and (value is None or state[name] is None):
                continue  # of another precision
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
            raise UsageError(f"--resume: there is no checkpoint in {self.folder}; leave the flag out to start the run")
        if not resume and files:
            raise UsageError(
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
        """Take over the newest checkpoint that is whole. Raises CheckpointError where none is, or it is of others."""
        for file in reversed(self.files()):
            try:
                content = torch.load(file, map_location=device, weights_only=True)
            except Exception as error:  # whatever a damaged archive makes of its reader
                logger.warning("%s is damaged (%s): going back to the one before", file, type(error).__name__)
                continue
            try:
                state.load_state_dict(content)
            except (RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"{file}: does not fit the options ({detail(error)[:200]}); resume with those of {CONFIG} beside it"
                ) from error
            return
        raise CheckpointError(f"{self.folder}: no checkpoint can be read; start again in another --run-dir")


def _step(file: Path) -> int:
    number = file.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _write(path: Path, content: io.BytesIO) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content.getbuffer())
