"""Laplacian pyramids: a picture as details of every size (Burt & Adelson 1983).

Shapes: B batch, C channels, H x W pixels; the levels of a pyramid have their own.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def laplacian_pyramid(image: Float[Tensor, "B C H W"], levels: int) -> list[Float[Tensor, "B C _ _"]]:
    """Details of an image, finest first, each what halving it takes away; last, what is left.

    Halving and enlarging are bilinear, as in the code of Kolkin et al. A side of one pixel is not halved.
    """
    pyramid = []
    for _ in range(levels):
        height, width = image.shape[2:]
        smaller = interpolate(image, (max(1, height // 2), max(1, width // 2)), "bilinear")
        pyramid.append(image - interpolate(smaller, (height, width), "bilinear"))
        image = smaller
    return [*pyramid, image]


def collapse(pyramid: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B C H W"]:
    """The image that a Laplacian pyramid is of."""
    image = pyramid[-1]
    for detail in reversed(pyramid[:-1]):
        image = detail + interpolate(image, (detail.shape[2], detail.shape[3]), "bilinear")
    return image


def interpolate(values: Float[Tensor, "B C _ _"], extent: tuple[int, int], mode: str) -> Float[Tensor, "B C H W"]:
    """To an extent, pixel centres staying where they are, without antialiasing."""
    return F.interpolate(values, extent, mode=mode, align_corners=False)


def with_details_of(image: Float[Tensor, "1 3 H W"], source: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 3 H W"]:
    """An image plus the finest details of another, seen at its size."""
    return image + laplacian_pyramid(source, 1)[0]
