"""Where in a picture each of several styles shows.

Shapes: N masks, one for each style, h x w their own size, H x W pixels of the picture, or of a part of it. Masks are in
[0, 1].
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.color import luminance
from arbitrary_nst.image import load_pixels, resize

LARGEST_MASK = 4096
"""Short side in pixels: larger masks are shrunk."""

OPAQUE = 1 - 1 / 512
"""Masks that sum to this are taken to sum to 1: the rest is below half an 8-bit level."""


def load_mask(path: Path, max_pixels: int | None) -> Float[Tensor, "1 1 h w"]:
    """The brightness of a picture, 1 where it is white.

    Raises ImageError where it cannot be read, or has more pixels than `max_pixels`.
    """
    return luminance(load_pixels(path, LARGEST_MASK, max_pixels)[None] / 255)


def weighted_masks(masks: Sequence[Float[Tensor, "1 1 _ _"]], weights: Sequence[float]) -> Float[Tensor, "N 1 h w"]:
    """Masks of any sizes in one, as large as the largest: where several lie on one another, `weights` divide the place.

    At every point they sum to what they summed to before, but at most to 1.
    """
    height, width = max((mask.shape[2:] for mask in masks), key=math.prod)
    stack = torch.cat([resize(mask, (height, width)) for mask in masks])
    shares = stack * torch.tensor(weights).view(-1, 1, 1, 1)
    total = shares.sum(0, keepdim=True)
    return shares / total.where(total > 0, 1) * stack.sum(0, keepdim=True).clamp(max=1)


def check_masks(masks: Tensor, styles: int) -> None:
    """Raises ValueError for what are no masks for so many styles."""
    if masks.ndim != 4 or masks.shape[1] != 1 or not masks.is_floating_point() or masks.numel() == 0:
        raise ValueError(
            f"masks must be a float tensor of shape (N, 1, h, w), one for each style, not {masks.dtype} of shape "
            f"{tuple(masks.shape)}"
        )
    if len(masks) != styles:
        raise ValueError(f"{styles} styles need as many masks, not {len(masks)}")
    low, high = masks.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"masks must be in [0, 1], not from {low:g} to {high:g}")


def is_covered(masks: Float[Tensor, "N 1 h w"]) -> bool:
    """Whether there is some style everywhere."""
    return not bool((masks.sum(0) < OPAQUE).any())


def mask_shares(
    masks: Float[Tensor, "N 1 h w"], size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> list[Float[Tensor, "1 1 H W"]]:
    """What each style has in a part of a picture of this size; last, what is left for the photo."""
    masks = stretched(masks, size, rows, columns)
    total = masks.sum(0, keepdim=True)
    shares = masks / total.where(total >= OPAQUE, 1)
    return [*shares.split(1), (1 - total).where(total < OPAQUE, 0)]


def stretched(
    masks: Float[Tensor, "N 1 h w"], size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> Float[Tensor, "N 1 H W"]:
    """A part of masks that are interpolated to a size, without ever having all of it; pixel centres stay."""
    for dim, length, (begin, end) in ((2, size[0], rows), (3, size[1], columns)):
        extent = masks.shape[dim]
        places = ((torch.arange(begin, end) + 0.5) * (extent / length) - 0.5).clamp(0, extent - 1)
        before = places.long()
        after = (before + 1).clamp(max=extent - 1)
        weight = (places - before).view([-1 if index == dim else 1 for index in range(4)])
        masks = torch.lerp(masks.index_select(dim, before), masks.index_select(dim, after), weight)
    return masks
