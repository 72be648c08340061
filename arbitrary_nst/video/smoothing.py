"""Less flicker: each painted frame is blended with the one before it, moved along the motion.

A mean of two paintings of the same place is paler than either: strokes that do not agree cancel out. So fine and coarse
detail are blended apart from the tones below them, and what the blend has lost of their local contrast is given back.
Shapes: H x W pixels; values 0 to 255.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from arbitrary_nst.video.motion import Motion, opencv, warp

DETAIL = (1.0, 3.0)
"""Deviations, in pixels, of the Gaussians that divide detail from detail and from tones."""

LARGEST_GAIN = 1.6
"""By which the contrast of detail is raised at most."""

FLOOR = 1.0
"""Variance, in squared levels, below which nothing counts as detail."""


def temporal_blend(
    painted: Float[np.ndarray, "H W 3"], previous: Float[np.ndarray, "H W 3"], motion: Motion, smooth: float
) -> Float[np.ndarray, "H W 3"]:
    """A painted frame, blended with the result before it where the motion can be trusted.

    Args:
        painted: what the network made of the frame.
        previous: what this function returned for the frame before, or, at first, what the network made of it.
        smooth: how much of its detail comes from before, 0 to below 1; of its tones 1 - (1 - smooth)^2 does, as they
            have no contrast to lose.
    """
    cv2 = opencv()
    moved = warp(previous, motion.flow)
    trust = motion.trust[..., None]
    *new, tones = _bands(cv2, painted)
    *old, old_tones = _bands(cv2, moved)
    result = tones + (1 - (1 - smooth) ** 2) * trust * (old_tones - tones)
    for sigma, detail, old_detail in zip(DETAIL, new, old, strict=True):
        blend = detail + smooth * trust * (old_detail - detail)
        lost = (_contrast(cv2, detail, sigma) + FLOOR) / (_contrast(cv2, blend, sigma) + FLOOR)
        result += blend * np.sqrt(lost).clip(1, LARGEST_GAIN)[..., None]
    return result.clip(0, 255)


def _bands(cv2: Any, picture: Float[np.ndarray, "H W 3"]) -> list[Float[np.ndarray, "H W 3"]]:
    """Detail of each size, and last the tones; their sum is the picture."""
    blurred = [picture, *(cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in DETAIL)]
    return [finer - coarser for finer, coarser in pairwise(blurred)] + [blurred[-1]]


def _contrast(cv2: Any, detail: Float[np.ndarray, "H W 3"], sigma: float) -> Float[np.ndarray, "H W"]:
    """Local variance of a band."""
    return cv2.GaussianBlur(np.square(detail).mean(-1), (0, 0), 2 * sigma)
