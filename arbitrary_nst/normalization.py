"""Instance normalization whose scale and shift come from a style.

Shapes: B batch, C channels, H x W positions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.statistics import mean_std

Statistics = tuple[Float[Tensor, " C"], Float[Tensor, " C"]]
"""Mean and variance of every channel, in float32."""


def adain(
    content: Float[Tensor, "B C H W"],
    mean: Float[Tensor, "#B C 1 1"],
    std: Float[Tensor, "#B C 1 1"],
    statistics: Statistics | None = None,
) -> Float[Tensor, "B C H W"]:
    """Content features given a style's channel means and deviations (Huang & Belongie 2017, eq. 8).

    Args:
        statistics: of the content; None: measured.
    """
    if statistics is None:
        content_mean, content_std = mean_std(content)
    else:
        content_mean, variance = (values[None, :, None, None] for values in statistics)
        content_std = (variance + 1e-5).sqrt()
    return (content - content_mean) / content_std * std + mean


class AdaptiveInstanceNorm2d(nn.Module):
    """`adain` as a layer, for features that may be those of a part of a picture only.

    `statistics` are the whole picture's then; None: those of the features themselves.
    """

    statistics: Statistics | None = None

    def forward(
        self, features: Float[Tensor, "B C H W"], mean: Float[Tensor, "#B C 1 1"], std: Float[Tensor, "#B C 1 1"]
    ) -> Float[Tensor, "B C H W"]:
        return adain(features, mean, std, self.statistics)


class ConditionalInstanceNorm2d(nn.Module):
    """Instance normalization with a gamma and a beta for every sample (Dumoulin et al. 2017, eq. 5).

    It has no parameters of its own: whoever knows the style hands them in. Where the features are those of a part of
    a picture only, `statistics` are the whole picture's, and there is one gamma and one beta; None: those of the
    features themselves.
    """

    statistics: Statistics | None = None
    initial_gamma = 1.0

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps

    def forward(
        self, features: Float[Tensor, "B C H W"], gamma: Float[Tensor, "#B C"], beta: Float[Tensor, "#B C"]
    ) -> Float[Tensor, "B C H W"]:
        gamma, beta = gamma.to(features.dtype), beta.to(features.dtype)
        if self.statistics is not None:  # one kernel; its weights are as precise as its statistics
            return F.batch_norm(features, *self.statistics, gamma[0].float(), beta[0].float(), eps=self.eps)
        # A group a channel is instance normalization, in the kernel that keeps channels-last memory as it is.
        if not torch.compiler.is_exporting() and len(gamma) == 1:  # one style for all: scale and shift ride along
            return F.group_norm(features, self.channels, gamma[0], beta[0], self.eps)
        normalized = F.group_norm(features, self.channels, eps=self.eps)
        return torch.addcmul(beta[:, :, None, None], normalized, gamma[:, :, None, None])

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class Grain(nn.Module):
    """Fixed noise that is added to features with a gamma and a beta for every sample and channel (ours).

    Where a photo is flat a network has nothing to place strokes by, and puts the same mark at every position of its
    coarsest map. The noise tells positions apart. It repeats every `period` pixels of the picture and stays where it is
    from picture to picture, so that a film does not flicker. (Karras et al. 2019 add fresh noise, with learned weights
    that no style sets.) Where the features are those of a part of a picture, `origin` is the place of its first pixel.
    In training it is drawn anew for every batch: crops are small, and all of the noise is to be learned.

    Args:
        channels: of the features.
        stride: pixels from one position to the next.
        spacing: positions from one drawn number to the next; between them it is interpolated (bicubic).
    """

    noise: Tensor
    origin: tuple[int, int] = (0, 0)
    initial_gamma = 0.0

    def __init__(self, channels: int, stride: int, period: int = 512, spacing: int = 1) -> None:
        super().__init__()
        self.channels, self.stride, self.spacing = channels, stride, spacing
        side, generator = period // stride // spacing, torch.Generator().manual_seed(channels + spacing - 1)
        noise = torch.randn(1, channels, side, side, generator=generator)
        if spacing > 1:
            noise = F.interpolate(F.pad(noise, [2] * 4, mode="circular"), scale_factor=spacing, mode="bicubic")
            noise = F.pad(noise, [-2 * spacing] * 4)
            noise = (noise - noise.mean((2, 3), keepdim=True)) / noise.std((2, 3), keepdim=True)
        self.register_buffer("noise", noise, persistent=False)

    def forward(
        self, features: Float[Tensor, "B C H W"], gamma: Float[Tensor, "#B C"], beta: Float[Tensor, "#B C"]
    ) -> Float[Tensor, "B C H W"]:
        gamma, beta = gamma[:, :, None, None], beta[:, :, None, None]
        fewer = not torch.compiler.is_compiling() and features[0, 0].numel() < self.noise[0, 0].numel()
        if self.training or fewer:  # less to scale than a period; no gradient comes back through the places, one by one
            grain = torch.addcmul(beta, self._placed(self.noise, features), gamma).to(features.dtype)
        else:  # one period is less to scale
            grain = self._placed(torch.addcmul(beta, self.noise, gamma).to(features.dtype), features)
        return features + grain

    def _placed(self, period: Float[Tensor, "#B C p p"], features: Float[Tensor, "B C H W"]) -> Tensor:
        """A period, repeated as far as the features reach."""
        noise, side, device = period.permute(0, 2, 3, 1), self.noise.shape[-1], features.device
        for dim in (2, 1):  # channels last: whole rows are copied at once
            first = torch.randint(side, (1,), device=device) if self.training else self.origin[dim - 1] // self.stride
            places = (torch.arange(features.shape[dim + 1], device=device) + first) % side
            noise = noise.index_select(dim, places)
        return noise.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}, spacing={self.spacing}"
