"""Steadiness of a video: the warping error of each frame, before and after smoothing."""

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
    table = np.array(errors).reshape(-1, len(COLUMNS))
    with atomic_write(path) as partial:
        np.savetxt(partial, table, "%.6g", ",", header=",".join(COLUMNS), comments="")
    seconds, *curves = table.T.tolist()
    named = {name.replace("_", " "): (seconds, curve) for name, curve in zip(COLUMNS[1:], curves, strict=True)}
    line_plot(path.with_suffix(".png"), named, x_label="seconds", y_label="warping error")
    if not np.isfinite(table).all(1).any():
        return "no two frames that can be compared"
    plain, smoothed = np.nanmean(table[:, 1:], axis=0)
    change = f" ({smoothed / plain - 1:+.0%})" if plain > 0 else ""
    return f"warping error {plain:.5f} frame by frame, {smoothed:.5f} smoothed{change}"


def _image(values: Float[np.ndarray, "H W 3"]) -> torch.Tensor:
    return torch.from_numpy(values / 255).permute(2, 0, 1)[None].float()
