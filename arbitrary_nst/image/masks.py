"""Masks of styles in a picture, and corresponding regions of content and style images.

Shapes: N masks, one for each style, h x w their own size, H x W pixels of the picture, or of a part of it. Masks are in
[0, 1].
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_pixel_picture, load_pixels, resize
from arbitrary_nst.image.color import luminance
from arbitrary_nst.runtime.files import PathLike

LARGEST_MASK = 4096
"""Short side in pixels: larger masks are shrunk."""

OPAQUE = 1 - 1 / 512
"""Masks that sum to this are taken to sum to 1: the rest is below half an 8-bit level."""


def load_mask(path: PathLike, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Float[Tensor, "1 1 h w"]:
    """The brightness of a picture times its opacity, 1 where it is white and opaque.

    Raises ImageError where it cannot be read, or has more pixels than `max_pixels`.
    """
    picture = load_pixel_picture(path, max_pixels, LARGEST_MASK)
    brightness = luminance(picture.rgb[None] / 255)
    return brightness if picture.alpha is None else brightness * picture.alpha[None] / 255


REGION_COLORS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
"""What pixels of each label of `load_regions` look like."""


def load_regions(path: PathLike, max_pixels: int | None) -> Int[Tensor, "1 1 h w"]:
    """The label of every pixel of a picture in plain colours, an index into REGION_COLORS.

    Only whether red, green and blue are in the upper half of their range counts, so JPEG's noise does no harm.
    Raises ImageError where it cannot be read, or has more pixels than `max_pixels`.
    """
    upper = (load_pixels(path, LARGEST_MASK, max_pixels) > 127).long()
    return (upper * torch.tensor([4, 2, 1]).view(3, 1, 1)).sum(0)[None, None]


def check_regions(photo: Int[Tensor, "1 1 _ _"], paintings: Sequence[Int[Tensor, "1 1 _ _"]]) -> None:
    """Raises UsageError, naming the colour, for a region of the photo that no painting has."""
    known = {label for painting in paintings for label in painting.unique().tolist()}
    for label in photo.unique().tolist():
        if label not in known:
            raise UsageError(f"the photo's mask has a {REGION_COLORS[label]} region, and no painting's mask has one")


def weighted_masks(masks: Sequence[Float[Tensor, "1 1 _ _"]], weights: Sequence[float]) -> Float[Tensor, "N 1 h w"]:
    """Masks of any sizes in one, as large as the largest: where several lie on one another, `weights` divide the place.

    At every point they sum to what they summed to before, but at most to 1.
    """
    height, width = max((mask.shape[2:] for mask in masks), key=math.prod)
    stack = torch.cat([resize(mask, (height, width)) for mask in masks])
    shares = stack * stack.new_tensor(weights).view(-1, 1, 1, 1)
    total = shares.sum(0, keepdim=True)
    return shares / total.where(total > 0, 1) * stack.sum(0, keepdim=True).clamp(max=1)


def check_masks(masks: Tensor, styles: int) -> None:
    """Raises ValueError for what are no masks for so many styles."""
    if masks.ndim != 4 or masks.shape[1] != 1 or not masks.is_floating_point() or masks.numel() == 0:
        raise UsageError(
            f"masks must be a float tensor of shape (N, 1, h, w), one for each style, not {masks.dtype} of shape "
            f"{tuple(masks.shape)}"
        )
    if len(masks) != styles:
        raise UsageError(f"{styles} styles need as many masks, not {len(masks)}")
    low, high = masks.float().aminmax()
    if not (low >= 0 and high <= 1):
        raise UsageError(f"masks must be in [0, 1], not from {low:g} to {high:g}")


def mask_shares(
    masks: Float[Tensor, "N 1 h w"], size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> list[Float[Tensor, "1 1 H W"]]:
    """Share of each style in a part of a picture of this size; the rest of 1 is the content image's."""
    masks = stretched(masks, size, rows, columns)
    total = masks.sum(0, keepdim=True)
    return list((masks / total.where(total >= OPAQUE, 1)).split(1))


def stretched(
    masks: Float[Tensor, "N 1 h w"], size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> Float[Tensor, "N 1 H W"]:
    """A part of masks that are interpolated to a size, without ever having all of it; pixel centres stay."""
    for dim, length, (begin, end) in ((2, size[0], rows), (3, size[1], columns)):
        extent = masks.shape[dim]
        pixels = torch.arange(begin, end, dtype=torch.float32, device=masks.device)
        places = ((pixels + 0.5) * (extent / length) - 0.5).clamp(0, extent - 1)
        before = places.long()
        after = (before + 1).clamp(max=extent - 1)
        weight = (places - before).view([-1 if index == dim else 1 for index in range(4)])
        masks = torch.lerp(masks.index_select(dim, before), masks.index_select(dim, after), weight)
    return masks
