"""Distances of a stylized image to its content and style image, position by position and octave by octave.

`metrics` compares sums over whole pictures, which stamps in a clear sky can bring about. Here every place of the output
must look like some place of the painting, which is thought of as hung beside the photo, as large as the photo. In blind
comparisons these numbers and people agree more often; where they don't, believe people.

Shapes: B batch, C channels, H x W pixels. Images are float RGB in [0, 1].
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.image import resize
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import relaxed_emd_loss, sample_positions, self_similarity_loss, vectors_at
from arbitrary_nst.runtime.weights import timm_backbone

COLUMNS = ("style", "structure", "busy", "judge_style", "judge_structure")
"""Lower is better in all. There is no sum of them: an untouched photo has structure 0 and busy 0, and no style."""

LAYERS = ("relu2_1", "relu3_1", "relu4_1")
"""Of VGG-16: style is compared in all of them, structure in the last two."""

POSITIONS = 1500
"""Places of a layer that are compared."""

FLAT = 0.015
"""Contrast below which a place of a photo is flat."""

Maps = Sequence[Float[Tensor, "1 _ _ _"]]


class Judge(nn.Module):
    """EfficientNet-Lite0 as trained on ImageNet, a network that no loss uses: its maps at strides of 4, 8 and 16."""

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self.network = timm_backbone("tf_efficientnet_lite0", pretrained, stages=[1, 2, 3])
        self.eval().requires_grad_(False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        return self.network(2 * image - 1)


@dataclass(frozen=True)
class View:
    """A picture as it is seen in one octave."""

    image: Float[Tensor, "1 3 H W"]
    features: Maps
    """Of LAYERS."""
    judged: Maps
    """Of `Judge`."""


@torch.no_grad()
def views(
    network: VGGFeatures, judge: Judge, image: Float[Tensor, "1 3 H W"], octaves: Iterable[int]
) -> dict[int, View]:
    """Look at a picture on the device where it and the networks are.

    Args:
        network: returns LAYERS, and maybe others.
        octaves: lengths in pixels of the short side that the picture is shrunk to.

    Returns:
        Views by octave; octaves in which the picture would be enlarged are left out.
    """
    seen = {}
    short = min(image.shape[2:])
    for octave in octaves:
        if octave <= short:
            shrunk = resize(image, (round(image.shape[2] * octave / short), round(image.shape[3] * octave / short)))
            features = network(shrunk)
            seen[octave] = View(shrunk, [features[layer] for layer in LAYERS], judge(shrunk))
    return seen


@torch.no_grad()
def local_scores(
    output: Mapping[int, View], content: Mapping[int, View], style: Mapping[int, View]
) -> dict[str, float]:
    """COLUMNS, each the mean over the octaves that all three pictures have.

    `style` and `structure` are the relaxed earth mover's distance to the painting and the self-similarity to the photo
    (Kolkin et al. 2019, eq. 6 and 7), in VGG-16; the same in `Judge` are `judge_style` and `judge_structure`. `busy` is
    left out where less than 3 % of the photo is flat, all columns where there is no common octave.
    """
    found = defaultdict(list)
    for octave in sorted(output.keys() & content.keys() & style.keys()):
        out, photo, painting = output[octave], content[octave], style[octave]
        generator = torch.Generator().manual_seed(0)
        for prefix, ours, original, wanted in (
            ("", out.features, photo.features, painting.features),
            ("judge_", out.judged, photo.judged, painting.judged),
        ):
            found[f"{prefix}style"].append(_style(ours, wanted, generator))
            found[f"{prefix}structure"].append(_structure(ours[1:], original[1:], generator))
        if (value := busy(out.image, photo.image, painting.image)) is not None:
            found["busy"].append(value)
    return {column: statistics.fmean(found[column]) for column in COLUMNS if found[column]}


def _style(output: Maps, style: Maps, generator: torch.Generator) -> float:
    distances = []
    for pair in zip(output, style, strict=True):
        ours, theirs = (vectors_at(maps, sample_positions(maps, POSITIONS, generator)) for maps in pair)
        distances.append(relaxed_emd_loss(ours, theirs).item())
    return statistics.fmean(distances)


def _structure(output: Maps, content: Maps, generator: torch.Generator) -> float:
    differences = []
    for ours, theirs in zip(output, content, strict=True):
        index = sample_positions(ours, POSITIONS, generator)
        differences.append(self_similarity_loss(vectors_at(ours, index), vectors_at(theirs, index)).item())
    return statistics.fmean(differences)


def busy(
    output: Float[Tensor, "1 3 H W"], content: Float[Tensor, "1 3 H W"], style: Float[Tensor, "1 3 h w"]
) -> float | None:
    """Texture where the photo is flat, beyond that of the calmest fifth of the painting: 0 for none.

    Mean of max(0, ln(contrast of the output / contrast of the painting's calm areas)) over flat places, all three
    pictures having the same short side. None where less than 3 % of the photo is flat.
    """
    flat = contrast(content) < FLAT
    if flat.float().mean() < 0.03:
        return None
    calm = torch.quantile(contrast(style), 0.2).clamp_min(0.008)
    return (contrast(output)[flat].clamp_min(1e-4) / calm).log().clamp_min(0).mean().item()


def contrast(image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 1 h w"]:
    """Deviation of brightness in windows of 1/32 of the short side, at least 3 pixels, that overlap by half."""
    gray = image.mean(1, keepdim=True)
    window = max(3, min(image.shape[2:]) // 32)
    mean = F.avg_pool2d(gray, window, window // 2)
    return (F.avg_pool2d(gray * gray, window, window // 2) - mean * mean).clamp_min(0).sqrt()
