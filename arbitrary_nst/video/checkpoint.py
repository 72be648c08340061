"""What outlasts an interruption: a hidden folder beside the result, which the same command finds again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from arbitrary_nst.paths import written_whole


@dataclass(frozen=True)
class Before:
    """What the next frame needs of the one before it."""

    content: UInt8[np.ndarray, "H W 3"]
    painted: Float[np.ndarray, "H W 3"]
    """By the network alone."""
    result: Float[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Progress:
    """How far the work has come at the end of a segment."""

    frames: int = 0
    before: Before | None = None
    errors: list[list[float]] = field(default_factory=list)
    """What the report has so far: seconds, and warping errors of both."""


class Work:
    """The folder `.NAME.parts` beside a result.

    What another command has left there is removed.

    Args:
        job: all that the result depends on; JSON can hold it.
    """

    def __init__(self, output: Path, job: Mapping[str, Any]) -> None:
        self.folder = output.parent / f".{output.name}.parts"
        self._progress = self.folder / "progress.npz"
        mark, content = self.folder / "job.json", json.dumps(job, indent=1, sort_keys=True, default=str)
        if not mark.is_file() or mark.read_text(encoding="utf-8") != content:
            self.remove()
            with written_whole(mark) as partial:
                partial.write_text(content, encoding="utf-8")

    def load(self) -> Progress:
        """What is done already."""
        try:
            with np.load(self._progress) as stored:
                told = json.loads(str(stored["told"]))
                before = Before(stored["content"], stored["painted"], stored["result"]) if "result" in stored else None
            return Progress(told["frames"], before, told["errors"])
        except FileNotFoundError:
            return Progress()

    def save(self, progress: Progress) -> None:
        """Note that all before is finished."""
        told = json.dumps({"frames": progress.frames, "errors": progress.errors})
        arrays = {} if progress.before is None else vars(progress.before)
        with written_whole(self._progress) as partial, partial.open("wb") as file:
            np.savez(file, told=np.array(told), **arrays)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
