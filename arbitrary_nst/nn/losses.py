"""Content and style losses, as functions of feature maps or of sets of feature vectors.

Every function takes a batch and returns the mean over it, a scalar in float32.
Shapes: B batch, C channels, H x W positions; N and M vectors of a set, one for each sampled position.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Metric = Literal["cosine", "euclidean"]

LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 2), (2, -2), (1, 2), (2, 1), (1, -2), (2, -1))
"""Lags of `autocorrelation_loss`: periods down and across."""


def content_loss(output: Float[Tensor, "B C H W"], content: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean squared difference of features (Johnson et al. 2016, eq. 2; Ghiasi et al. 2017, eq. 3)."""
    return _mean_square(output.float() - content.float()).mean()


def _mean_square(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """Mean square of each sample. The gradient of a norm keeps the memory format of the features; that of `mse_loss`
    does not, and sums of gradients in two formats are slow."""
    return torch.linalg.vector_norm(features, dim=(1, 2, 3)).square() / features[0].numel()


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


def total_variation(image: Float[Tensor, "B C H W"], power: Literal[1, 2] = 2) -> Float[Tensor, ""]:
    """Mean difference of neighbouring pixels, down plus across, squared (Johnson et al. 2016, section 3.2) or absolute.

    An image of a single row or column has no neighbours in that direction and adds nothing for it.
    """
    down, across = image.diff(dim=2), image.diff(dim=3)
    return sum((d.float().abs().pow(power).mean() for d in (down, across) if d.numel()), image.new_zeros(()).float())


def checkerboard_loss(image: Float[Tensor, "B C H W"], period: int = 8) -> Float[Tensor, ""]:
    """Mean square of the pattern that repeats every `period` pixels in each image (ours).

    Photos and paintings have none: averaged over all cells of period x period pixels, their cell is flat. A network
    that unfolds channels into pixels has one as soon as its channels differ, and losses that average over positions
    do not mind. What remains of the sides beyond whole cells is left out.
    """
    height, width = (side // period for side in image.shape[2:])
    cells = image[:, :, : height * period, : width * period].float().unflatten(3, (width, period))
    pattern = cells.unflatten(2, (height, period)).mean((2, 4))
    return (pattern - pattern.mean((2, 3), keepdim=True)).square().mean()


def autocorrelation_loss(image: Float[Tensor, "B C H W"], period: int = 8, window: int = 48) -> Float[Tensor, ""]:
    """Repetition of fine structure one or two periods away: 0 none, 1 exact (ours).

    The mean square of the autocorrelation of brightness, less its local mean, at LAGS, in windows that overlap by
    half. Paintings have about 0.01, photos 0.02; a network whose coarsest map stamps the same mark at every position
    has much more. Unlike `checkerboard_loss` it sees marks in one part of a picture only, and those that alternate.
    Differences below a hundredth of the range hardly count. Sides of less than a window and two periods have nothing to
    measure: 0.

    Args:
        window: pixels; half of it must be a multiple of the period.
    """
    if min(image.shape[2:]) < window + 2 * period:
        return image.new_zeros(()).float()
    gray = image.float().mean(1, keepdim=True)
    fine = gray - F.avg_pool2d(F.pad(gray, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    squares = F.avg_pool2d(fine.square(), period)  # places are whole periods apart
    correlations = []
    for down, across in LAGS:
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


# Sets of feature vectors


def sample_positions(
    features: Float[Tensor, "B C H W"], count: int, generator: torch.Generator | None = None
) -> Int[Tensor, " N"]:
    """Draw up to `count` different positions of a feature map, as indices into its flattened height and width.

    The same positions serve every sample of the batch. Fewer than `count` are returned where the map has fewer.
    """
    positions = features.shape[2] * features.shape[3]
    # where the features are: a copy from the host would wait for everything that the device has to do
    index = torch.randperm(positions, generator=generator, device=generator.device if generator else features.device)
    return index[:count].to(features.device)


def sample_structure(
    content: Float[Tensor, "B 3 H W"], size: tuple[int, int], count: int, generator: torch.Generator | None = None
) -> Int[Tensor, "B N"]:
    """Draw up to `count` different positions of a feature map for every sample, most of them where it has structure.

    The chance of a position rises with the local contrast of the content image: half of the highest at a standard
    deviation of 0.02 of its brightness (1 is white), a twentieth where the image is even. An even area has nothing to
    keep, so that a self-similarity of these positions leaves it to the style.

    Args:
        size: height and width of the feature map.

    Returns:
        Indices into the flattened height and width. Fewer than `count` where the map has fewer positions.
    """
    brightness = content.float().mean(1, keepdim=True)
    detail = brightness - F.avg_pool2d(brightness, 5, 1, 2, count_include_pad=False)
    contrast = F.avg_pool2d(detail.square(), 9, 1, 4, count_include_pad=False).sqrt()
    contrast = F.adaptive_avg_pool2d(contrast, size).flatten(1)
    chance = ((contrast + 0.001) / (contrast + 0.02)).nan_to_num(1.0)
    return torch.multinomial(chance, min(count, chance.shape[1]), generator=generator)


def vectors_at(
    features: Float[Tensor, "B C H W"], index: Int[Tensor, " N"] | Int[Tensor, "B N"]
) -> Float[Tensor, "B N C"]:
    """Feature vectors at the indexed positions, in float32. Positions serve all samples, or are each sample's own."""
    vectors = features.permute(0, 2, 3, 1).flatten(1, 2)
    if index.ndim == 1:
        return vectors.index_select(1, index).float()
    return vectors.gather(1, index[:, :, None].expand(-1, -1, vectors.shape[2])).float()


def cosine_distance(a: Float[Tensor, "B N C"], b: Float[Tensor, "#B M C"]) -> Float[Tensor, "B N M"]:
    """1 minus the cosine between every vector of `a` and every vector of `b`: 0 to 2."""
    return 1 - F.normalize(a, dim=2) @ F.normalize(b, dim=2).mT


def euclidean_distance(a: Float[Tensor, "B N C"], b: Float[Tensor, "#B M C"]) -> Float[Tensor, "B N M"]:
    """Euclidean distance between every vector of `a` and every vector of `b`."""
    return torch.cdist(a, b.expand(len(a), -1, -1))


def paired_cosine_distance(a: Float[Tensor, "B N C"], b: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
    """1 minus the cosine between vector n of `a` and vector n of `b`."""
    return 1 - F.cosine_similarity(a, b, dim=2)


def paired_euclidean_distance(a: Float[Tensor, "B N C"], b: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
    """Euclidean distance between vector n of `a` and vector n of `b`."""
    return ((a - b).square().sum(2) + 1e-8).sqrt()


def relaxed_emd_loss(
    output: Float[Tensor, "B N C"], style: Float[Tensor, "#B M C"], metric: Metric = "cosine"
) -> Float[Tensor, ""]:
    """Relaxed earth mover's distance between two sets of vectors (Kolkin et al. 2019, eq. 6).

    The larger of two means: of the distance from every output vector to its nearest style vector, and the same with
    the roles exchanged. Gradients flow through the nearest pairs only, so the matrix of all distances needs none.
    """
    every, paired = METRICS[metric]
    with torch.no_grad():
        distances = every(output, style)
        to_style = distances.min(2).indices  # along contiguous memory: several times as fast as across
        to_output = distances.mT.contiguous().min(2).indices
    style = style.expand(len(output), -1, -1)
    forward = paired(output, take_vectors(style, to_style)).mean(1)
    backward = paired(take_vectors(output, to_output), style).mean(1)
    return torch.maximum(forward, backward).mean()


def nearest_neighbor_loss(output: Float[Tensor, "B N C"], style: Float[Tensor, "#B M C"]) -> Float[Tensor, ""]:
    """Mean cosine distance from every output vector to its nearest style vector (Kolkin et al. 2022; "NNFM")."""
    with torch.no_grad():
        nearest = cosine_distance(output, style).min(2).indices
    return paired_cosine_distance(output, take_vectors(style.expand(len(output), -1, -1), nearest)).mean()


def self_similarity_loss(output: Float[Tensor, "B N C"], content: Float[Tensor, "B N C"]) -> Float[Tensor, ""]:
    """Difference of the pairwise distances among positions (Kolkin et al. 2019, eq. 7).

    Cosine distances between all pairs of positions, each column divided by its sum, are compared: absolute differences
    summed over each column, averaged over columns. Colours and textures may change as long as positions that differ in
    the content image differ in the output, in the same proportion.
    """
    ours, theirs = cosine_distance(output, output), cosine_distance(content, content)
    difference = ours / (ours.sum(1, keepdim=True) + 1e-6) - theirs / (theirs.sum(1, keepdim=True) + 1e-6)
    return difference.abs().sum(1).mean()


def covariance_loss(output: Float[Tensor, "B N C"], style: Float[Tensor, "#B M C"]) -> Float[Tensor, ""]:
    """Difference of the means of two sets of vectors plus that of their covariances (Kolkin et al. 2019).

    Both are mean absolute differences: over C numbers, and over C squared.
    """
    mean, covariance = _mean_covariance(output)
    style_mean, style_covariance = _mean_covariance(style)
    return (mean - style_mean).abs().mean() + (covariance - style_covariance).abs().mean()


def _mean_covariance(vectors: Float[Tensor, "B N C"]) -> tuple[Float[Tensor, "B 1 C"], Float[Tensor, "B C C"]]:
    mean = vectors.mean(1, keepdim=True)
    centered = vectors - mean
    return mean, (centered.mT @ centered).float() / vectors.shape[1]


def take_vectors(vectors: Float[Tensor, "B M C"], index: Int[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    """Vector index[b, n] of sample b."""
    return vectors.gather(1, index[:, :, None].expand(-1, -1, vectors.shape[2]))


METRICS = {
    "cosine": (cosine_distance, paired_cosine_distance),
    "euclidean": (euclidean_distance, paired_euclidean_distance),
}
"""Distances between all vectors of two sets, and between corresponding ones."""
