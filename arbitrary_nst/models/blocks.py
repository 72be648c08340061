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


class ReflectionConv2d(nn.Conv2d):
    """A convolution that keeps the extent (up to its stride): the picture is continued by its mirror image.

    With `relu` it is one of the rectified input.
    """

    def __init__(self, channels: int, filters: int, size: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__(channels, filters, size, stride, bias=bias)
        self.border = size // 2

    def forward(self, input: Float[Tensor, "B C H W"], relu: bool = False) -> Float[Tensor, "B D h w"]:
        return super().forward(pad_by_reflection(input, self.border, relu))


class ConditionalConv(nn.Module):
    """Convolution, of the rectified input where `relu` says so, and conditional instance norm, in that order."""

    def __init__(self, channels: int, filters: int, size: int = 3, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = ReflectionConv2d(channels, filters, size, stride, bias)
        self.norm = ConditionalInstanceNorm2d(filters)

    def forward(self, x: Float[Tensor, "B C H W"], affine: Affine, relu: bool = False) -> Float[Tensor, "B D h w"]:
        return self.norm(self.conv(x, relu), *affine)


class ResidualBlock(nn.Module):
    """Two conditional convolutions around a ReLU, added to the input; none after the sum (Johnson et al. 2016)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.first = ConditionalConv(channels, channels, bias=bias)
        self.second = ConditionalConv(channels, channels, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"], first: Affine, second: Affine) -> Float[Tensor, "B C H W"]:
        return self.second(self.first(x, first), second, relu=True).add_(x)


def pad_by_reflection(image: Float[Tensor, "B C H W"], border: int, relu: bool = False) -> Float[Tensor, "B C h w"]:
    """The image, or with `relu` what of it is above 0, continued by its mirror image on all four sides.

    These must be longer than the border.
    """
    if not border or torch.is_grad_enabled() or not image.is_cpu or torch.compiler.is_compiling():
        image = F.relu(image) if relu else image
        return F.pad(image, [border] * 4, mode="reflect") if border else image
    # On processors torch's own is slow in channels-last memory, and computes in float32 under autocast. Rectifying on
    # the way saves a pass over the memory.
    batch, channels, height, width = image.shape
    size = (batch, channels, height + 2 * border, width + 2 * border)
    layout = torch.channels_last if image.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    padded = torch.empty(size, dtype=image.dtype, memory_format=layout)
    inner = padded[:, :, border:-border, border:-border]
    if relu:
        torch.clamp_min(image, 0, out=inner)
    else:
        inner.copy_(image)
    rows = padded[:, :, border:-border]
    for inside in range(1, border + 1):
        rows[..., border - inside] = inner[..., inside]
        rows[..., inside - border - 1] = inner[..., -1 - inside]
    for inside in range(1, border + 1):
        padded[:, :, border - inside] = padded[:, :, border + inside]
        padded[:, :, inside - border - 1] = padded[:, :, -1 - border - inside]
    return padded


def binomial_filter(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each channel weighted 1 2 1 down and across: a mean that is zero for whatever alternates from pixel to pixel."""
    padded = pad_by_reflection(image, 1)
    down = (padded[:, :, :-2] + padded[:, :, 2:]).add_(padded[:, :, 1:-1], alpha=2)
    return (down[..., :-2] + down[..., 2:]).add_(down[..., 1:-1], alpha=2).div_(16)


def pad_to_multiple(image: Float[Tensor, "B C H W"], multiple: int, minimum: int) -> Float[Tensor, "B C h w"]:
    """The image continued to the right and below until both sides are multiples and at least `minimum`."""
    height, width = image.shape[2:]
    down = max(-(-height // multiple) * multiple, minimum) - height
    right = max(-(-width // multiple) * multiple, minimum) - width
    return F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image
