"""Saved progress: a hidden folder beside the result, which the same command finds again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from arbitrary_nst.errors import OutputError
from arbitrary_nst.runtime.files import atomic_write, detail, fitting_name, reraise_with_path


@dataclass(frozen=True)
class PreviousFrame:
    """Everything that the next frame needs of the one before it."""

    content: UInt8[np.ndarray, "H W 3"]
    painted: Float[np.ndarray, "H W 3"]
    """By the network alone."""
    result: Float[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Progress:
    """Progress of the work at the end of a segment."""

    frames: int = 0
    previous: PreviousFrame | None = None
    errors: list[list[float]] = field(default_factory=list)
    """What the report has so far: seconds, and warping errors of both."""


class Work:
    """The folder `.NAME.parts` beside a result.

    What another command has left there is removed.

    Args:
        job: all that the result depends on; JSON can hold it.
    """

    def __init__(self, output: Path, job: Mapping[str, Any]) -> None:
        self.folder = output.parent / fitting_name(f".{output.name}", ".parts")
        self._output = output
        self._progress = self.folder / "progress.npz"
        mark, content = self.folder / "job.json", json.dumps(job, indent=1, sort_keys=True, default=str)
        if not mark.is_file() or mark.read_text(encoding="utf-8") != content:
            self.remove()
            with reraise_with_path(output, _failure, OutputError), atomic_write(mark) as partial:
                partial.write_text(content, encoding="utf-8")

    def load(self) -> Progress:
        """The finished part."""
        if not self._progress.exists():
            return Progress()
        with np.load(self._progress) as file:
            stored = dict(file)
        frames, errors = stored.pop("frames").item(), stored.pop("errors").tolist()
        return Progress(frames, PreviousFrame(**stored) if stored else None, errors)

    def save(self, progress: Progress) -> None:
        """Note that all before is finished."""
        arrays = {} if progress.previous is None else vars(progress.previous)
        with (
            reraise_with_path(self._output, _failure, OutputError),
            atomic_write(self._progress) as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, frames=progress.frames, errors=progress.errors, **arrays)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _failure(error: Exception) -> str:
    return f"what outlasts an interruption cannot be written beside it ({detail(error)}); check the disk"
