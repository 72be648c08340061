"""Colours of one picture in another (Gatys et al. 2016b, Preserving Color in Neural Artistic Style Transfer).

Shapes: B batch, H x W pixels. Images are float RGB in [0, 1].
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

PreserveColor = Literal["none", "luminance", "covariance"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance of YIQ and of JPEG (ITU-R BT.601)."""


def luminance(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Brightness as the eye weighs it."""
    return (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def with_colors_of(stylized: Float[Tensor, "B 3 H W"], content: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The luminance of one image with the chrominance of the other (section 2.2 there).

    Adding the difference of luminances to every channel leaves the chrominance as it is; what leaves [0, 1] is clamped.
    """
    return (content + luminance(stylized) - luminance(content)).clamp(0, 1)


def match_covariance(style: Float[Tensor, "1 3 H W"], content: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 H W"]:
    """A painting recoloured to the mean and the covariance of the photo's colours (section 2.1 there).

    The linear map is the photo's matrix square root times the painting's inverse one. Directions in which the painting
    has no colour, those of a gray one for example, are not inflated: its covariance is taken as at least 1e-5.
    Computed in float64; the result is clamped to [0, 1].
    """
    pixels, target = (image[0].flatten(1).double() for image in (style, content))
    mean, target_mean = pixels.mean(1, keepdim=True), target.mean(1, keepdim=True)
    transform = _power(torch.cov(target, correction=0), 0.5) @ _power(torch.cov(pixels, correction=0), -0.5)
    matched = transform @ (pixels - mean) + target_mean
    return matched.view_as(style).to(style.dtype).clamp(0, 1)


def _power(covariance: Tensor, exponent: float, floor: float = 1e-5) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp_min(floor if exponent < 0 else 0).pow(exponent)) @ vectors.mT
