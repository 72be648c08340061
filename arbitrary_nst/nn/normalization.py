"""Instance normalization whose scale and shift come from a style.

Shapes: B batch, C channels, H x W positions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from arbitrary_nst.nn.statistics import mean_std

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
        if torch.is_grad_enabled() and features.is_cpu and not torch.compiler.is_compiling():
            return _InstanceNorm.apply(features, gamma, beta, self.eps)
        # A group a channel is instance normalization, in the kernel that keeps channels-last memory as it is.
        if not torch.compiler.is_exporting() and len(gamma) == 1:  # one style for all: scale and shift ride along
            return F.group_norm(features, self.channels, gamma[0], beta[0], self.eps)
        normalized = F.group_norm(features, self.channels, eps=self.eps)
        return torch.addcmul(beta[:, :, None, None], normalized, gamma[:, :, None, None])

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}"


class _InstanceNorm(torch.autograd.Function):
    """Instance normalization whose backward pass suits channels-last memory on a processor.

    The gradient of `group_norm` takes five to ten times as long there, more than the convolutions around it.
    """

    @staticmethod
    def forward(ctx, features: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        batch, channels, height, width = features.shape
        size = batch, channels, height * width
        normalized, mean, rstd = torch.native_group_norm(features, None, None, *size, channels, eps)
        ctx.save_for_backward(features, gamma, mean, rstd)
        return torch.addcmul(beta[:, :, None, None], normalized, gamma[:, :, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        features, gamma, mean, rstd = ctx.saved_tensors
        shape, dtype = features.shape[2:], features.dtype
        x, g = (maps.permute(0, 2, 3, 1).flatten(1, 2) for maps in (features, gradient))
        precise = g.to(torch.promote_types(dtype, torch.float32))
        mean, rstd, gamma = (values.to(precise.dtype)[:, None] for values in (mean, rstd, gamma))
        total = precise.sum(1, keepdim=True)
        product = ((precise * x).sum(1, keepdim=True) - mean * total) * rstd  # with the normalized features
        share = gamma * rstd / x.shape[1]
        slope = -share * rstd * product
        shift = -share * total - slope * mean
        centered = torch.addcmul(shift.to(dtype), x, slope.to(dtype))
        result = torch.addcmul(centered, g.to(dtype), (gamma * rstd).to(dtype))
        gammas, betas = (values[:, 0].sum_to_size(gamma.shape[0], gamma.shape[2]) for values in (product, total))
        return result.unflatten(1, shape).permute(0, 3, 1, 2), gammas.to(dtype), betas.to(dtype), None
