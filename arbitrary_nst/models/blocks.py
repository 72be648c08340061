"""Layers that the networks share.

Shapes: B batch, C channels, H x W positions. Every convolution here pads by reflection, so that a picture's border
looks like its inside; the sides of a feature map must exceed the padding, which `pad_to_multiple` sees to.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.normalization import ConditionalInstanceNorm2d, Grain

Affine = tuple[Float[Tensor, "#B _"], Float[Tensor, "#B _"]]
"""The gamma and the beta of one conditional instance norm, or of one grain."""


def conditioned(transformer: nn.Module) -> list[ConditionalInstanceNorm2d | Grain]:
    """The layers whose gamma and beta the style sets, in the order of the network."""
    return [module for module in transformer.modules() if isinstance(module, (ConditionalInstanceNorm2d, Grain))]


def plain_affines(transformer: nn.Module) -> Float[Tensor, "D"]:
    """What styles begin as: plain instance normalization and no grain. All gammas, then all betas."""
    gammas = [torch.full((layer.channels,), layer.initial_gamma) for layer in conditioned(transformer)]
    return torch.cat([*gammas, *map(torch.zeros_like, gammas)])


def split_affines(normalization: Float[Tensor, "#B D"], channels: Sequence[int]) -> list[Affine]:
    """The gamma and the beta of every layer, where all gammas stand before all betas."""
    gammas, betas = normalization.chunk(2, dim=1)
    return list(zip(gammas.split(list(channels), 1), betas.split(list(channels), 1), strict=True))


def paint(transformer: Any, content: Float[Tensor, "B 3 H W"], affines: Sequence[Affine]) -> Float[Tensor, "B 3 H W"]:
    """What a transformer network makes of photos of any size, exactly as large as they came."""
    height, width = content.shape[2:]
    padded = pad_to_multiple(content, transformer.multiple, transformer.minimum)
    return transformer(padded, affines)[:, :, :height, :width]


def convolution(channels: int, filters: int, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the extent (up to its stride)."""
    return nn.Conv2d(channels, filters, size, stride, size // 2, bias=bias, padding_mode="reflect")


class ConditionalConv(nn.Module):
    """Convolution and conditional instance norm, in that order; the activation is the caller's."""

    def __init__(self, channels: int, filters: int, size: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = convolution(channels, filters, size, stride, bias)
        self.norm = ConditionalInstanceNorm2d(filters)

    def forward(self, x: Float[Tensor, "B C H W"], affine: Affine) -> Float[Tensor, "B D h w"]:
        return self.norm(self.conv(x), *affine)


class ResidualBlock(nn.Module):
    """Two conditional convolutions around a ReLU, added to the input; none after the sum (Johnson et al. 2016)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.first = ConditionalConv(channels, channels, bias=bias)
        self.second = ConditionalConv(channels, channels, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"], first: Affine, second: Affine) -> Float[Tensor, "B C H W"]:
        return x + self.second(F.relu(self.first(x, first)), second)


def binomial_filter(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each channel weighted 1 2 1 down and across: a mean that is zero for whatever alternates from pixel to pixel."""
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1)


def pad_to_multiple(image: Float[Tensor, "B C H W"], multiple: int, minimum: int) -> Float[Tensor, "B C h w"]:
    """The image continued to the right and below until both sides are multiples and at least `minimum`."""
    height, width = image.shape[2:]
    down = max(-(-height // multiple) * multiple, minimum) - height
    right = max(-(-width // multiple) * multiple, minimum) - width
    return F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image
