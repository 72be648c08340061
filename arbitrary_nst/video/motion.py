"""Position of each pixel of a frame in the frame before, and how far it can be trusted.

Dense inverse search (Kroeger et al. 2016) by OpenCV. Shapes: H x W pixels; flow is (x, y) in pixels.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from arbitrary_nst.errors import requires

FLOW_PIXELS = 2**19
"""Larger frames are shrunk to so many pixels before motion is looked for; half a pixel there is enough for strokes."""

CHANGED = 10.0
"""Levels (of 255) by which a pixel may differ from where it was before its trust falls to 1 / e."""

Preset = Literal["fast", "medium"]


@dataclass(frozen=True)
class Motion:
    """Motion from a frame back to the one before it."""

    flow: Float[np.ndarray, "H W 2"]
    """What to add to a pixel's place to find where it was."""
    consistent: Bool[np.ndarray, "H W"]
    """Where the motion forth and back cancel out, lead to no place outside the frame, and have no boundary: where
    warping errors are measured."""
    trust: Float[np.ndarray, "H W"]
    """In [0, 1], soft at edges: forth and back cancel out, and the frame before looks the same there."""


def opencv() -> Any:
    """The module of OpenCV. Raises MissingPackageError where it is not installed."""
    with requires("--smooth", "video", ", or give --smooth 0"):
        import cv2
    return cv2


def estimate_motion(
    previous: UInt8[np.ndarray, "H W 3"], frame: UInt8[np.ndarray, "H W 3"], preset: Preset = "fast"
) -> Motion:
    """The motion between two frames of the same size, whatever they show: after a cut nothing is trusted."""
    cv2 = opencv()
    height, width = frame.shape[:2]
    scale = min(1.0, (FLOW_PIXELS / (height * width)) ** 0.5)
    small = (max(16, round(width * scale)), max(16, round(height * scale)))  # the search needs patches of 8 pixels
    gray = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (previous, frame)]
    earlier, later = (cv2.resize(picture, small, interpolation=cv2.INTER_AREA) for picture in gray)
    search = cv2.DISOpticalFlow_create(
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if preset == "medium" else cv2.DISOPTICAL_FLOW_PRESET_FAST
    )
    back, forth = search.calc(later, earlier, None), search.calc(earlier, later, None)
    visible, boundary = _visible(back, forth), _boundary(back)
    if small != (width, height):
        back = cv2.resize(back, (width, height)) * np.array([width / small[0], height / small[1]], np.float32)
        visible, boundary = (
            cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
            for mask in (visible, boundary)
        )
    difference = np.abs(frame - warp(previous.astype(np.float32), back)).mean(-1)
    alike = np.exp(-np.square(cv2.GaussianBlur(difference, (0, 0), 2) / CHANGED))
    trust = visible * alike
    narrower = cv2.GaussianBlur(cv2.erode(trust, np.ones((3, 3))), (0, 0), 1.5)
    return Motion(back, visible & ~boundary, np.minimum(trust, narrower).astype(np.float32))


def warp(picture: Float[np.ndarray, "H W *C"], flow: Float[np.ndarray, "H W 2"]) -> Float[np.ndarray, "H W *C"]:
    """A picture of the frame before, moved along a motion to where its parts are now; bicubic."""
    cv2 = opencv()
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _visible(back: Float[np.ndarray, "H W 2"], forth: Float[np.ndarray, "H W 2"]) -> Bool[np.ndarray, "H W"]:
    """Mask of positions where both motions cancel out (Sundaram et al. 2010, constants of Ruder et al. 2016)."""
    height, width = back.shape[:2]
    there = warp(forth, back)
    apart = np.square(there + back).sum(-1)
    rows, columns = np.ogrid[:height, :width]
    x, y = columns + back[..., 0], rows + back[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (apart <= 0.01 * (np.square(there).sum(-1) + np.square(back).sum(-1)) + 0.5)


def _boundary(back: Float[np.ndarray, "H W 2"]) -> Bool[np.ndarray, "H W"]:
    """Mask of motion boundaries (same sources)."""
    slope = sum(np.square(np.gradient(back[..., axis], axis=side)) for axis in (0, 1) for side in (0, 1))
    return slope > 0.01 * np.square(back).sum(-1) + 0.002
