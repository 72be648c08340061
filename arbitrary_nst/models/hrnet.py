"""A network for one photo and one style, which keeps full resolution throughout (Li et al. 2019, arXiv 1904.11617).

Shapes: B batch, C channels, H x W positions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.blocks import ReflectionConv2d, pad_to_multiple


class InstanceNorm(nn.Module):
    """Instance normalization without scale and shift; a group a channel keeps channels-last memory as it is."""

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.group_norm(features, features.shape[1])


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions at a quarter of the width, each with norm and ReLU, added to the input.

    The input goes through a 1x1 convolution and a norm where its channels differ. Convolutions before a norm need no
    bias.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        quarter = filters // 4
        self.body = nn.Sequential(
            *(ReflectionConv2d(channels, quarter, 1), InstanceNorm(), nn.ReLU()),
            *(ReflectionConv2d(quarter, quarter), InstanceNorm(), nn.ReLU()),
            *(ReflectionConv2d(quarter, filters, 1), InstanceNorm(), nn.ReLU()),
        )
        same = channels == filters
        self.shortcut = nn.Identity() if same else nn.Sequential(ReflectionConv2d(channels, filters, 1), InstanceNorm())

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        return F.relu(self.shortcut(x) + self.body(x))


class HRNet(nn.Module):
    """Photo in, picture out: paths at full, half and quarter resolution that exchange what they see.

    It has no style input: its weights are fitted to one photo and one painting through the picture that it makes.
    Strided convolutions lead down and bilinear interpolation leads up, to the exact extent of where it arrives, so that
    photos of any size come back as large as they came. Every layer is used.

    Departures: a sigmoid at the exit, so that the picture is in [0, 1]; no layer that the output does not depend on;
    no biases before a norm. Photos with a side of less than 8 pixels are continued at their border.
    """

    minimum = 8

    def __init__(self) -> None:
        super().__init__()
        self.full_1, self.full_2, self.full_3 = Bottleneck(3, 16), Bottleneck(16, 32), Bottleneck(32, 32)
        self.full_4 = Bottleneck(64, 64)
        self.full_1_to_half = ReflectionConv2d(16, 32, stride=2, bias=True)
        self.full_2_to_half = ReflectionConv2d(32, 32, stride=2, bias=True)
        self.full_2_to_quarter = ReflectionConv2d(32, 32, stride=4, bias=True)
        self.half_2 = Bottleneck(32, 32)
        self.half_1_to_quarter = ReflectionConv2d(32, 32, stride=2, bias=True)
        self.merge = nn.Sequential(Bottleneck(192, 64), Bottleneck(64, 32), Bottleneck(32, 16))
        self.to_rgb = ReflectionConv2d(16, 3, bias=True)

    def forward(self, content: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures in [0, 1] from photos in [0, 1]."""
        height, width = content.shape[2:]
        full_1 = self.full_1(pad_to_multiple(content, 1, self.minimum))
        full_2, half_1 = self.full_2(full_1), self.full_1_to_half(full_1)

        full_3 = torch.cat([self.full_3(full_2), enlarge(half_1, full_2)], 1)
        half_2 = torch.cat([self.full_2_to_half(full_2), self.half_2(half_1)], 1)
        quarter = torch.cat([self.full_2_to_quarter(full_2), self.half_1_to_quarter(half_1)], 1)

        full_4 = torch.cat([self.full_4(full_3), enlarge(half_2, full_3), enlarge(quarter, full_3)], 1)
        return torch.sigmoid(self.to_rgb(self.merge(full_4)))[:, :, :height, :width]


def enlarge(maps: Float[Tensor, "B C h w"], target: Float[Tensor, "B D H W"]) -> Float[Tensor, "B C H W"]:
    """Maps interpolated to the extent of others."""
    return F.interpolate(maps, size=target.shape[2:], mode="bilinear", align_corners=False)
