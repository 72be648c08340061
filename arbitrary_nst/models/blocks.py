"""Layers that the networks share.

Shapes: B batch, C channels, H x W positions. Every convolution here pads by reflection, so that a picture's border
looks like its inside; the sides of a feature map must exceed the padding, which `pad_to_multiple` sees to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d

Affine = tuple[Float[Tensor, "#B _"], Float[Tensor, "#B _"]]
"""The gamma and the beta of one conditional instance norm."""


def conditioned(transformer: nn.Module) -> list[ConditionalInstanceNorm2d]:
    """The norms whose gamma and beta the style sets, in the order of the network."""
    return [module for module in transformer.modules() if isinstance(module, ConditionalInstanceNorm2d)]


def plain_affines(transformer: nn.Module) -> Float[Tensor, "D"]:
    """Initial affines of styles: plain instance normalization. All gammas, then all betas."""
    channels = sum(norm.channels for norm in conditioned(transformer))
    return torch.cat([torch.ones(channels), torch.zeros(channels)])


def split_affines(normalization: Float[Tensor, "#B D"], channels: Sequence[int]) -> list[Affine]:
    """The gamma and the beta of every layer, where all gammas stand before all betas."""
    gammas, betas = normalization.chunk(2, dim=1)
    return list(zip(gammas.split(list(channels), 1), betas.split(list(channels), 1), strict=True))


@dataclass(frozen=True)
class TrunkSpec:
    """The part of a network that works on small maps, its `trunk`, where pictures are painted in tiles."""

    scale: int
    """It works at 1 / scale of the resolution."""
    outer_halo: int
    """The halo of all that is not in the trunk."""
    bytes_per_pixel: int
    """Memory of its maps for each pixel of the picture, in the precision that takes more; measured and rounded up."""


@dataclass(frozen=True)
class TilingSpec:
    """Requirements of a network on pictures and on their tiles; it has them as `tiling`."""

    multiple: int
    """Sides of what it is given must be multiples of this. Tiles begin and end at such places, so that its strides meet
    the pixels that they would meet in the whole picture."""
    minimum: int
    """Length of a side."""
    halo: int
    """How far away from a pixel, at most, another can be that has a part in it, statistics apart."""
    bytes_per_pixel: int
    """Memory of one pass over a picture that is not cut, the picture apart, on the processor, in the precision that
    takes more; measured at 1024 x 1024 and rounded up."""
    trunk: TrunkSpec | None = None

    def padded(self, length: int) -> int:
        """The length of a side as the network is given it."""
        return padded_length(length, self.multiple, self.minimum)


def padded_length(length: Any, multiple: int, minimum: int) -> Any:
    """The smallest multiple that is neither less than the length nor less than the minimum, a multiple itself.

    An export knows a length by its symbol only.
    """
    return max(-(-length // multiple) * multiple, minimum)


def apply_transformer(
    transformer: Any, content: Float[Tensor, "B 3 H W"], affines: Sequence[Affine]
) -> Float[Tensor, "B 3 H W"]:
    """Run a transformer network on photos of any size; the results are exactly as large."""
    height, width = content.shape[2:]
    padded = pad_to_multiple(content, transformer.tiling.multiple, transformer.tiling.minimum)
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


def autocast(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The image in the precision in which autocast runs the next convolution, so that less memory moves before it."""
    device = image.device.type
    return image.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else image


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
    padded = torch.empty(size, dtype=image.dtype, device=image.device, memory_format=layout)
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
    down, right = (padded_length(side, multiple, minimum) - side for side in (height, width))
    return F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image
