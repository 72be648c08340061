"""Steadiness of a video: the warping error of each frame, before and after smoothing."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from arbitrary_nst.evaluation.metrics import warping_error
from arbitrary_nst.image.figures import line_plot
from arbitrary_nst.runtime.files import atomic_write
from arbitrary_nst.video.motion import estimate_motion, warp
from arbitrary_nst.video.progress import PreviousFrame

COLUMNS = ("seconds", "frame_by_frame", "smoothed")


def measure(
    previous: PreviousFrame,
    content: UInt8[np.ndarray, "H W 3"],
    painted: Float[np.ndarray, "H W 3"],
    result: Float[np.ndarray, "H W 3"],
) -> list[float]:
    """The warping errors of a frame as painted and as smoothed; NaN where nothing can be followed, as at a cut.

    The motion is not the one that smoothing has used: it is looked for again, twice as finely.
    """
    motion = estimate_motion(previous.content, content, "medium")
    visible = torch.from_numpy(motion.consistent)[None, None]
    pairs = ((painted, previous.painted), (result, previous.result))
    return [warping_error(_image(now), _image(warp(then, motion.flow)), visible).item() for now, then in pairs]


def write_report(errors: Sequence[Sequence[float]], path: Path) -> str:
    """A table and, beside it, its plot; returns what they say in one line."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows([[f"{value:.6g}" for value in row] for row in errors])
    seconds = [row[0] for row in errors]
    curves = {name.replace("_", " "): (seconds, [row[i] for row in errors]) for i, name in enumerate(COLUMNS[1:], 1)}
    line_plot(path.with_suffix(".png"), curves, x_label="seconds", y_label="warping error")
    seen = np.array([row[1:] for row in errors]).reshape(-1, 2)
    if not np.isfinite(seen).all(1).any():
        return "no two frames that can be compared"
    plain, smoothed = np.nanmean(seen, axis=0)
    change = f" ({smoothed / plain - 1:+.0%})" if plain > 0 else ""
    return f"warping error {plain:.5f} frame by frame, {smoothed:.5f} smoothed{change}"


def _image(values: Float[np.ndarray, "H W 3"]) -> torch.Tensor:
    return torch.from_numpy(values / 255).permute(2, 0, 1)[None].float()
