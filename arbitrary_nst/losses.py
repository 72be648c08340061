"""What "like the photo" and "like the painting" mean, as functions of feature maps.

Every function takes a batch and returns the mean over it, a scalar in float32.
Shapes: B batch, C channels, H x W positions.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.statistics import gram_matrix, moments

PLACES = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 2), (2, -2), (1, 2), (2, 1), (1, -2), (2, -1))
"""Where `repetition` looks for the same mark again: periods down and across."""


def content_loss(output: Float[Tensor, "B C H W"], content: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean squared difference of features (Johnson et al. 2016, eq. 2; Ghiasi et al. 2017, eq. 3)."""
    return _mean_square(output.float() - content.float()).mean()


def _mean_square(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """Of each sample. The gradient of a norm keeps the memory format of the features; that of `mse_loss` does not, and
    sums of gradients in two formats are slow."""
    return torch.linalg.vector_norm(features, dim=(1, 2, 3)).square() / features[0].numel()


def moment_loss(output: Float[Tensor, "B C H W"], style: Float[Tensor, "#B C h w"]) -> Float[Tensor, ""]:
    """Mean squared difference of channel means plus that of deviations (Huang & Belongie 2017, eq. 13)."""
    # one mean over 2 C numbers is half the sum of the two means over C
    return 2 * squared_difference(moments(output), moments(style))


def gram_loss(output: Float[Tensor, "B C H W"], style: Float[Tensor, "#B C h w"]) -> Float[Tensor, ""]:
    """Squared Frobenius distance of Gram matrices over positions, divided by C squared (Gatys et al. 2016, eq. 4)."""
    return squared_difference(gram_matrix(output), gram_matrix(style))


def squared_difference(output: Float[Tensor, "B *D"], target: Float[Tensor, "#B *D"]) -> Float[Tensor, ""]:
    """Mean squared difference of statistics, whose targets may serve a whole batch."""
    return F.mse_loss(output, target.expand_as(output))


def relative_difference(output: Float[Tensor, "B *D"], target: Float[Tensor, "#B *D"]) -> Float[Tensor, ""]:
    """|output - target|^2 / |target|^2 of each sample: pale and loud paintings weigh the same."""
    difference = (output - target).square().flatten(1).sum(1)
    return (difference / target.square().flatten(1).sum(1).clamp_min(1e-12)).mean()


def relative_content_loss(output: Float[Tensor, "B C H W"], content: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean squared difference of features in units of the photo's own variance."""
    output, content = output.float(), content.float()
    difference = _mean_square(output - content)
    return (difference / content.flatten(1).var(1).clamp_min(1e-12)).mean()


def relative_moment_loss(output: Float[Tensor, "B C H W"], style: Float[Tensor, "#B C h w"]) -> Float[Tensor, ""]:
    """Difference of channel moments relative to the style's."""
    return relative_difference(moments(output), moments(style))


def relative_gram_loss(output: Float[Tensor, "B C H W"], style: Float[Tensor, "#B C h w"]) -> Float[Tensor, ""]:
    """Difference of Gram matrices relative to the style's."""
    return relative_difference(gram_matrix(output), gram_matrix(style))


def total_variation(image: Float[Tensor, "B C H W"], power: Literal[1, 2] = 2) -> Float[Tensor, ""]:
    """Mean difference of neighbouring pixels, down plus across, squared (Johnson et al. 2016, section 3.2) or absolute.

    An image of a single row or column has no neighbours in that direction and adds nothing for it.
    """
    down, across = image.diff(dim=2), image.diff(dim=3)
    return sum((d.float().abs().pow(power).mean() for d in (down, across) if d.numel()), image.new_zeros(()).float())


def lattice(image: Float[Tensor, "B C H W"], period: int = 8) -> Float[Tensor, ""]:
    """Mean square of the pattern that repeats every `period` pixels in each image (ours).

    Photos and paintings have none: averaged over all cells of period x period pixels, their cell is flat. A network
    that unfolds channels into pixels has one as soon as its channels differ, and losses that average over positions
    do not mind. What remains of the sides beyond whole cells is left out.
    """
    height, width = (side // period for side in image.shape[2:])
    cells = image[:, :, : height * period, : width * period].float().unflatten(3, (width, period))
    pattern = cells.unflatten(2, (height, period)).mean((2, 4))
    return (pattern - pattern.mean((2, 3), keepdim=True)).square().mean()


def repetition(image: Float[Tensor, "B C H W"], period: int = 8, window: int = 48) -> Float[Tensor, ""]:
    """How far fine structure comes again one or two periods away: 0 not at all, 1 exactly (ours).

    The mean square of the autocorrelation of brightness, less its local mean, at PLACES, in windows that overlap by
    half. Paintings have about 0.01, photos 0.02; a network whose coarsest map stamps the same mark at every position
    has much more. Unlike `lattice` it sees marks in one part of a picture only, and those that alternate. Differences
    below a hundredth of the range hardly count. Sides of less than a window and two periods have nothing to measure: 0.

    Args:
        window: pixels; half of it must be a multiple of the period.
    """
    if min(image.shape[2:]) < window + 2 * period:
        return image.new_zeros(()).float()
    gray = image.float().mean(1, keepdim=True)
    fine = gray - F.avg_pool2d(F.pad(gray, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    squares = F.avg_pool2d(fine.square(), period)  # places are whole periods apart
    correlations = []
    for down, across in PLACES:
        here, there = _apart(fine, down * period, across * period)
        product = _windows(here * there, window)
        before, after = _apart(squares, down, across)
        power = _windows(0.5 * (before + after), window // period)
        correlations.append((product / (power + 1e-4)).square().mean())
    return torch.stack(correlations).mean()


def _apart(image: Float[Tensor, "B 1 H W"], down: int, across: int) -> tuple[Tensor, Tensor]:
    """Two parts of an image: each position of the second is that far from the same position of the first."""
    height, width = image.shape[2:]
    here = image[:, :, : height - down, max(-across, 0) : width - max(across, 0)]
    return here, image[:, :, down:, max(across, 0) : width + min(across, 0)]


def _windows(image: Float[Tensor, "B 1 H W"], side: int) -> Float[Tensor, "B 1 h w"]:
    """Means over windows that overlap by half, by way of blocks of half a side: every value is read once."""
    return F.avg_pool2d(F.avg_pool2d(image, side // 2), 2, stride=1)
