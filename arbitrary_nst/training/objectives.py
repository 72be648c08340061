"""Objectives: a batch in, named losses out; training minimizes their sum.

Shapes: B batch, D numbers of a style code, S crop size. Images are in [0, 1]. Each objective is a plain record of its
weights that is called with the model, the frozen features that `loss_network` builds for it, and a batch: photos,
paintings (one for all photos will do) and the paintings' style codes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.models import AdaIN, StyleModel
from arbitrary_nst.models.adain import ENCODER
from arbitrary_nst.models.light import combine_views
from arbitrary_nst.nn.features import VGGConfig, VGGFeatures
from arbitrary_nst.nn.losses import (
    autocorrelation_loss,
    checkerboard_loss,
    cosine_distance,
    paired_cosine_distance,
    relative_difference,
    relaxed_emd_loss,
    sample_positions,
    sample_structure,
    self_similarity_loss,
    take_vectors,
    total_variation,
    vectors_at,
)
from arbitrary_nst.nn.octaves import NOISE_SIDE, anchor, guide, halve, noise
from arbitrary_nst.nn.perceptual import PerceptualLoss
from arbitrary_nst.nn.statistics import moments
from arbitrary_nst.optimization.presets import PRESETS, equal

Images = Float[Tensor, "B 3 S S"]
Paintings = Float[Tensor, "#B 3 S S"]
Codes = Float[Tensor, "#B D"]
Losses = dict[str, Float[Tensor, ""]]
Maps = Mapping[str, Float[Tensor, "_ _ _ _"]]

BLOCK_ENDS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}
"""Activations of the last convolution of blocks 1 to 4 of VGG-16, and their numbers of channels."""

RELATIVE = PRESETS["relative"]


@dataclass(frozen=True)
class RelativeObjective:
    """Ours: every term relative to the statistics of the picture that it compares with.

    The squared difference of channel moments, and of Gram matrices, is divided by the painting's own, that of content
    features by the photo's variance. Pale and loud paintings weigh the same, and the terms are the shares of content
    and style that are missing, whatever the feature network's units. What repeats with the network's own period of
    eight pixels is unwanted whatever the painting.
    """

    content_weight: float = RELATIVE.content_weight
    moment_weight: float = RELATIVE.moment_weight
    gram_weight: float = RELATIVE.gram_weight
    total_variation_weight: float = RELATIVE.total_variation_weight
    lattice_weight: float = 1000.0
    repetition_weight: float = 3.0
    content_layer: str = "relu4_1"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    vgg: VGGConfig = field(default_factory=VGGConfig)

    def __call__(
        self, model: StyleModel, features: VGGFeatures, content: Images, style: Paintings, code: Codes
    ) -> Losses:
        loss = PerceptualLoss(
            {self.content_layer: self.content_weight},
            equal(*self.style_layers, weight=self.gram_weight),
            equal(*self.style_layers, weight=self.moment_weight),
            relative=True,
        )
        output = model(content, code)
        return compared(loss, features, output, content, style) | {
            "total_variation": self.total_variation_weight * total_variation(output),
            "lattice": self.lattice_weight * checkerboard_loss(output),
            "repetition": self.repetition_weight * autocorrelation_loss(output),
        }


@dataclass(frozen=True)
class LocalObjective:
    """Compare positions instead of sums over the picture (after Kolkin et al. 2019 and 2022).

    Style: relaxed earth mover's distances between the feature vectors of the output and those of the painting, and
    between their colours; the distance of every output hypercolumn from that of the painting which is nearest to the
    content image's there; with a small weight, relative channel moments. Content: self-similarity, which leaves colours
    and texture free, at positions where the content image has structure. Positions are drawn anew for every batch.
    """

    content_weight: float = 1.5
    style_weight: float = 1.0
    neighbor_weight: float = 4.0
    moment_weight: float = 2.0
    color_weight: float = 2.0
    lattice_weight: float = 1000.0
    content_layers: tuple[tuple[str, float], ...] = (("relu3_1", 0.5), ("relu4_1", 1.0))
    """Layers for self-similarity, each with its weight."""
    style_layers: tuple[str, ...] = ("relu2_1", "relu3_1", "relu4_1")
    neighbor_layers: tuple[str, ...] = (
        *("relu1_1", "relu1_2", "relu2_1", "relu2_2"),
        *("relu3_1", "relu3_2", "relu3_3", "relu4_1"),
    )
    """Layers of the hypercolumns whose nearest neighbours are looked for."""
    content_positions: int = 512
    style_positions: int = 1024
    color_cell: int = 4
    """Colours are means over cells of so many pixels a side."""
    vgg: VGGConfig = field(default_factory=VGGConfig)

    @property
    def layers(self) -> tuple[str, ...]:
        """All feature layers that the objective looks at."""
        return (*self.style_layers, *self.neighbor_layers, *(name for name, _ in self.content_layers))

    def __call__(
        self, model: StyleModel, features: VGGFeatures, content: Images, style: Paintings, code: Codes
    ) -> Losses:
        with torch.no_grad():
            content_features, style_features = features(content), features(style)
        output = model(content, code)
        return self.compare(output, features(output), content, content_features, style, style_features)

    def compare(
        self,
        output: Images,
        output_features: dict[str, Tensor],
        content: Images,
        content_features: dict[str, Tensor],
        style: Paintings,
        style_features: dict[str, Tensor],
    ) -> Losses:
        """The weighted terms, from pictures and features that are at hand."""
        structure, emd, moment = [], [], []
        for name, weight in self.content_layers:
            height, width = content_features[name].shape[2:]
            index = sample_structure(content, (height, width), self.content_positions)
            pair = (vectors_at(maps[name], index) for maps in (output_features, content_features))
            structure.append(weight * self_similarity_loss(*pair))
        for name in self.style_layers:
            ours, theirs = output_features[name], style_features[name]
            emd.append(relaxed_emd_loss(*self._sampled(ours, theirs)))
            moment.append(relative_difference(moments(ours), moments(theirs)))
        ours, theirs = (F.avg_pool2d(image.float(), self.color_cell) for image in (output, style))
        color = relaxed_emd_loss(*self._sampled(ours, theirs), "euclidean")
        return {
            "content": self.content_weight * sum_of(structure),
            "style": self.style_weight * sum_of(emd),
            "neighbors": self.neighbor_weight * self._neighbors(output_features, content_features, style_features),
            "moments": self.moment_weight / len(moment) * sum_of(moment),
            "color": self.color_weight * color,
            "lattice": self.lattice_weight * checkerboard_loss(output),
        }

    def _sampled(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of both maps at positions of their own."""
        first, second = (vectors_at(maps, sample_positions(maps, self.style_positions)) for maps in (ours, theirs))
        return first, second

    def _neighbors(self, output: Maps, content: Maps, style: Maps) -> Float[Tensor, ""]:
        """Distance of the output's hypercolumns from those of the painting that resemble the content image's most,
        which are looked for with means removed (Kolkin et al. 2022, section 3.2)."""
        ours, photo, theirs = (hypercolumns(maps, self.neighbor_layers) for maps in (output, content, style))
        places = sample_positions(ours, self.style_positions)
        painting = vectors_at(theirs, sample_positions(theirs, 2 * self.style_positions))
        with torch.no_grad():
            centered = (vectors - vectors.mean(1, keepdim=True) for vectors in (vectors_at(photo, places), painting))
            nearest = cosine_distance(*centered).min(2).indices
        targets = take_vectors(painting.expand(len(nearest), -1, -1), nearest)
        return paired_cosine_distance(vectors_at(ours, places), targets).mean()


def hypercolumns(maps: Maps, layers: Sequence[str]) -> Float[Tensor, "B D h w"]:
    """Layers of blocks 1 to 4 stacked in the middle of every cell of 4 x 4 pixels, each divided by its channels.

    The maps are those of images of one size, H x W; h x w = H / 4 x W / 4, less one where H or W is no multiple of 8.
    """
    stacked = []
    for layer in layers:
        features, block = maps[layer].float(), int(layer[4])
        if block == 1:
            features = F.avg_pool2d(features[:, :, 1:, 1:], 2, 4)
        elif block == 2:
            features = F.avg_pool2d(features, 2)
        elif block == 4:
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
        stacked.append(features / features.shape[1])
    height, width = (min(features.shape[side] for features in stacked) for side in (2, 3))
    return torch.cat([features[:, :, :height, :width] for features in stacked], 1)


@dataclass(frozen=True)
class OctavesObjective(LocalObjective):
    """`LocalObjective` in two neighbouring octaves of every sample, for a `CoarseToFine` model.

    Content and style images are seen whole at half their size, for the first octave, and in crops of that half size
    for the next one. The second octave is painted from the first; shrunk again, it must be the picture that it came
    from (mean absolute difference), so that octaves add detail and change nothing else.
    """

    consistency_weight: float = 2.0

    def __call__(
        self, model: Any, features: VGGFeatures, content: Images, style: Paintings, code: Codes | None = None
    ) -> Losses:
        side = content.shape[2] // 2
        with torch.no_grad():
            coarse, coarse_style = halve(content), halve(style)
            fine_style = crop(style, *random_corner(style, side), side)
        code = combine_views(model.encode_style(coarse_style), model.encode_style(fine_style))
        first = model(coarse, code, coarse + random_noise(coarse))
        with torch.no_grad():
            top, left = random_corner(content, side, multiple=4)
            whole = guide(content, coarse, first.float())
            fine, fine_guide = (crop(image, top, left, side) for image in (content, whole))
            fine_guide += random_noise(fine)
            before = crop(first.float(), top // 2, left // 2, side // 2)
        second = anchor(model(fine, code, fine_guide, first=False).float(), before)
        outputs, contents = torch.cat([first.float(), second]), torch.cat([coarse, fine])
        styles = torch.cat([image.expand_as(content[..., :side, :side]) for image in (coarse_style, fine_style)])
        with torch.no_grad():
            content_features, style_features = features(contents), features(styles)
        losses = self.compare(outputs, features(outputs), contents, content_features, styles, style_features)
        consistency = (halve(second) - before).abs().mean()
        return losses | {"consistency": self.consistency_weight * consistency}


def random_corner(image: Images, side: int, multiple: int = 1) -> tuple[int, int]:
    """Top and left of a random square of `side` pixels within the image; they are multiples of `multiple`."""
    top, left = (int(torch.randint((length - side) // multiple + 1, ())) * multiple for length in image.shape[2:])
    return top, left


def random_noise(image: Images) -> Float[Tensor, "B 1 S S"]:
    """The noise of guides in a random place for every image."""
    corners = torch.randint(NOISE_SIDE, (len(image), 2)).tolist()
    height, width = image.shape[2:]
    windows = [noise((top, top + height), (left, left + width)) for top, left in corners]
    return torch.cat(windows).to(image.device)


def crop(image: Images, top: int, left: int, side: int) -> Float[Tensor, "B 3 s s"]:
    """A square of the image."""
    return image[:, :, top : top + side, left : left + side]


@dataclass(frozen=True)
class PredictionObjective:
    """Ghiasi et al. 2017, section 2, with the layers and weights of its published code.

    Content: squared difference at conv3; style: Gram matrices of the last convolution of blocks 1 to 4; average
    pooling. Departure: "conv3" is taken after its ReLU, as everywhere here.
    """

    content_weight: float = 1.0
    style_weight: float = 0.5e-3
    total_variation_weight: float = 1e4
    content_layer: str = "relu3_3"
    style_layers: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(BLOCK_ENDS, 1.0))
    """Layers with their weights."""
    vgg: VGGConfig = field(default_factory=lambda: VGGConfig(pooling="average"))

    def __call__(
        self, model: StyleModel, features: VGGFeatures, content: Images, style: Paintings, code: Codes
    ) -> Losses:
        gram = {layer: self.style_weight * weight for layer, weight in self.style_layers.items()}
        loss = PerceptualLoss({self.content_layer: self.content_weight}, gram)
        output = model(content, code)
        terms = compared(loss, features, output, content, style)
        return terms | {"total_variation": self.total_variation_weight * total_variation(output)}


def johnson() -> PredictionObjective:
    """Johnson et al. 2016 with the layers and weights of the published code: content 1, style 5, total variation 1e-6.

    Gram matrices are divided by the number of channels as well as of positions. Its features are those of
    `VGGFeatures`, of images from 0 to 255. Its total variation is half the sum of squares over a batch of 4 crops of
    256 x 256 pixels and 3 colours in such units: 1e-6 / 2 * 255^2 * 4 * 3 * 256^2 = 2.56e4 times our mean.
    """
    style_layers = {layer: 1 / channels**2 for layer, channels in BLOCK_ENDS.items()}
    return PredictionObjective(
        style_weight=5.0, total_variation_weight=2.56e4, style_layers=style_layers, vgg=VGGConfig()
    )


@dataclass(frozen=True)
class AdaINObjective:
    """Huang & Belongie 2017, eq. 11 to 13: the decoder's picture, encoded again, must be what it was asked to paint."""

    content_weight: float = 1.0
    style_weight: float = 10.0
    content_layer: str = "relu4_1"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    vgg: VGGConfig = ENCODER

    def __call__(self, model: AdaIN, features: VGGFeatures, content: Images, style: Paintings, code: Codes) -> Losses:
        moments = dict.fromkeys(self.style_layers, 2 * self.style_weight)  # eq. 13 has a mean of each, not one of both
        loss = PerceptualLoss({self.content_layer: self.content_weight}, moments=moments)
        with torch.no_grad():
            style_statistics = loss.statistics(features(style))
            target = model.transfer(content, code)
        return loss(features(model.decode(target)), {self.content_layer: target}, style_statistics)


Objective = RelativeObjective | LocalObjective | PredictionObjective | AdaINObjective

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "relative": RelativeObjective,
    "local": LocalObjective,
    "octaves": OctavesObjective,
    "prediction": PredictionObjective,
    "johnson": johnson,
    "adain": AdaINObjective,
}


def loss_network(objective: Objective, pretrained: bool = True) -> VGGFeatures:
    """The frozen features that an objective compares pictures in."""
    if isinstance(objective, LocalObjective):
        layers = objective.layers
    else:
        layers = (*objective.style_layers, objective.content_layer)
    return VGGFeatures(layers, objective.vgg, pretrained)


def compared(loss: PerceptualLoss, features: VGGFeatures, output: Images, content: Images, style: Paintings) -> Losses:
    """The terms of a perceptual loss."""
    with torch.no_grad():
        maps = features(content)
        targets = {layer: maps[layer] for layer in loss.content}
        statistics = loss.statistics(features(style))
    return loss(features(output), targets, statistics)


def sum_of(terms) -> Tensor:
    """The sum of scalars as a tensor."""
    return torch.stack(list(terms)).sum()
