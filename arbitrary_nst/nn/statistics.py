"""Statistics of feature maps over space: the quantities that stand for "style".

Shapes: B batch, C channels, H x W positions, N = H * W.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from arbitrary_nst.errors import UsageError

BAND = 2**17
"""Numbers that a processor sums at once: as many as stay in its cache in float32."""


def mean_std(
    features: Float[Tensor, "B C H W"], eps: float = 1e-5
) -> tuple[Float[Tensor, "B C 1 1"], Float[Tensor, "B C 1 1"]]:
    """Per-channel mean and standard deviation (Huang & Belongie 2017, eq. 5 and 6).

    The variance divides by N, as in instance normalization; `eps` is inside the root. Computed and returned in
    float32 at least, whatever the precision of the features. Differentiable once.
    """
    if torch.is_grad_enabled() and features.requires_grad:
        return _MeanStd.apply(features, eps)
    return _mean_std(features, eps)


def _mean_std(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if features.is_cpu and not torch.compiler.is_compiling():
        rows = max(1, BAND // max(1, features.shape[1] * features.shape[3]))
        found = [_mean_variance_of_bands(sample.split(rows, dim=2)) for sample in features.split(1)]
        mean, variance = (torch.stack(values)[:, :, None, None] for values in zip(*found, strict=True))
    else:
        # Two plain sums: torch.var_mean's one pass is slow on channels-last memory.
        precise = features.to(torch.promote_types(features.dtype, torch.float32))
        mean = precise.mean((2, 3), keepdim=True)
        variance = (precise - mean).square_().mean((2, 3), keepdim=True)
    return mean, variance.add_(eps).sqrt_()


def _mean_variance_of_bands(bands: Sequence[Tensor]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and variance of the features of one sample in bands of rows, put together as Chan et al. 1983 do.

    The kernel of batch norms reads low precision as it is, adds up in `precise` and is four times as fast as two sums.
    """
    precise = torch.promote_types(bands[0].dtype, torch.float32)
    unused = bands[0].new_zeros(bands[0].shape[1], dtype=precise)
    found = [torch.batch_norm_update_stats(band, unused, unused, 0.0) for band in bands]
    means, variances = (torch.stack(values) for values in zip(*found, strict=True))
    heights = means.new_tensor([[band.shape[2]] for band in bands])
    shares = heights / heights.sum()
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square_())).sum(0)


class _MeanStd(torch.autograd.Function):
    """The gradient as one multiply-add in the features' own precision: half a training step's backward otherwise."""

    @staticmethod
    def forward(ctx, features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        mean, std = _mean_std(features, eps)
        ctx.save_for_backward(features, mean, std)
        return mean, std

    @staticmethod
    @once_differentiable
    def backward(ctx, mean_gradient: Tensor, std_gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        features, mean, std = ctx.saved_tensors
        positions = features.shape[2] * features.shape[3]
        scale = std_gradient / (std * positions)
        shift = mean_gradient / positions - scale * mean
        return torch.addcmul(shift.to(features.dtype), features, scale.to(features.dtype)), None


def moments(features: Float[Tensor, "B C H W"], eps: float = 1e-5) -> Float[Tensor, "B D"]:
    """Means, then standard deviations, of every channel in one vector of D = 2 C numbers."""
    return torch.cat(mean_std(features, eps), dim=1).flatten(1)


def gram_matrix(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C C"]:
    """Inner products of channels, divided by the number of positions N (Gatys et al. 2016, eq. 3, up to the 1 / N).

    Returned in float32 at least; products of lower precision accumulate in float32 on every device. Differentiable
    once.
    """
    if torch.is_grad_enabled() and features.requires_grad:
        return _Gram.apply(features)
    return _gram(features)


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    count = flat.shape[2]
    if features.dtype == torch.float16:  # VGG's Gram matrices leave its range: up to 9e6 in relu4_1
        with torch.autocast(features.device.type, enabled=False):
            return flat.float() @ flat.float().mT / count
    gram = flat @ flat.mT
    return gram.to(torch.promote_types(gram.dtype, torch.float32)) / count


class _Gram(torch.autograd.Function):
    """One product in the backward pass where there would be two, its result in the features' own memory format.

    Gradients in another format than the features' cost more to add up than the products themselves.
    """

    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return _gram(features)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (features,) = ctx.saved_tensors
        exact = torch.float32 if features.dtype == torch.float16 else features.dtype  # or small gradients vanish
        symmetric = ((gradient + gradient.mT) / (features.shape[2] * features.shape[3])).to(exact)
        if features.is_contiguous(memory_format=torch.channels_last):
            rows = (features.permute(0, 2, 3, 1).flatten(1, 2).to(exact) @ symmetric).to(features.dtype)
            return rows.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)
        return (symmetric @ features.flatten(2).to(exact)).to(features.dtype).view_as(features)


def style_shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Share of each of `count` styles in a blend: its weight divided by the sum of all.

    Args:
        weights: one for each style, not negative, not all zero; None: all equal.

    Raises ValueError where the weights are not that.
    """
    try:
        shares = [1.0] * count if weights is None else [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise UsageError(f"style weights must be numbers, one for each style: {weights!r}") from error
    if len(shares) != count:
        raise UsageError(f"{count} styles need as many weights, not {len(shares)}")
    if count and (min(shares) < 0 or not 0 < sum(shares) < float("inf")):
        raise UsageError(f"style weights must be finite, not negative and not all zero: {shares}")
    return [share / sum(shares) for share in shares]
