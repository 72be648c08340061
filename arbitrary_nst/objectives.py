"""What each method asks of its network: a batch in, named losses out; their sum is what training minimizes.

Shapes: B batch, D numbers of a style code, S crop size. Images are in [0, 1]. Each objective is a plain record of its
weights that is called with the model, the frozen features that `loss_network` builds for it, and a batch: photos,
paintings (one for all photos will do) and the paintings' style codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.features import Network, Padding, Pooling, VGGFeatures
from arbitrary_nst.losses import (
    content_loss,
    gram_loss,
    lattice,
    moment_loss,
    relative_content_loss,
    relative_gram_loss,
    relative_moment_loss,
    repetition,
    total_variation,
)
from arbitrary_nst.models import AdaIN, StyleModel

Images = Float[Tensor, "B 3 S S"]
Paintings = Float[Tensor, "#B 3 S S"]
Codes = Float[Tensor, "#B D"]
Losses = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class RelativeObjective:
    """Ours: every term relative to the statistics of the picture that it compares with.

    The squared difference of channel moments, and of Gram matrices, is divided by the painting's own, that of content
    features by the photo's variance. Pale and loud paintings weigh the same, and the terms are the shares of content
    and style that are missing, whatever the feature network's units. What repeats with the network's own period of
    eight pixels is unwanted whatever the painting.
    """

    content_weight: float = 1.0
    moment_weight: float = 14.0
    gram_weight: float = 4.5
    total_variation_weight: float = 0.1
    lattice_weight: float = 1000.0
    repetition_weight: float = 3.0
    content_layer: str = "relu4_1"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    network: Network = "vgg16"
    pooling: Pooling = "max"
    unit_activation: bool = False
    padding: Padding = "zeros"

    def __call__(
        self, model: StyleModel, features: VGGFeatures, content: Images, style: Paintings, code: Codes
    ) -> Losses:
        with torch.no_grad():
            content_features, style_features = features(content)[self.content_layer], features(style)
        output = model(content, code)
        ours = features(output)
        share = 1 / len(self.style_layers)
        return {
            "content": self.content_weight * relative_content_loss(ours[self.content_layer], content_features),
            "moments": self.moment_weight
            * share
            * sum_of(relative_moment_loss(ours[layer], style_features[layer]) for layer in self.style_layers),
            "gram": self.gram_weight
            * share
            * sum_of(relative_gram_loss(ours[layer], style_features[layer]) for layer in self.style_layers),
            "total_variation": self.total_variation_weight * total_variation(output),
            "lattice": self.lattice_weight * lattice(output),
            "repetition": self.repetition_weight * repetition(output),
        }


@dataclass(frozen=True)
class PredictionObjective:
    """Ghiasi et al. 2017, section 2, with the layers and weights of its published code.

    Content: squared difference at conv3; style: Gram matrices of the last convolution of blocks 1 to 4; average
    pooling. Departure: "conv3" is taken after its ReLU, as everywhere here. `gram_by_channels` divides Gram matrices
    by the number of channels as well as of positions, as Johnson et al. 2016 do.
    """

    content_weight: float = 1.0
    style_weight: float = 0.5e-3
    total_variation_weight: float = 1e4
    content_layer: str = "relu3_3"
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    network: Network = "vgg16"
    pooling: Pooling = "average"
    unit_activation: bool = False
    padding: Padding = "zeros"
    gram_by_channels: bool = False

    def __call__(
        self, model: StyleModel, features: VGGFeatures, content: Images, style: Paintings, code: Codes
    ) -> Losses:
        with torch.no_grad():
            content_features, style_features = features(content)[self.content_layer], features(style)
        output = model(content, code)
        ours = features(output)
        divisor = {name: maps.shape[1] ** 2 if self.gram_by_channels else 1 for name, maps in ours.items()}
        return {
            "content": self.content_weight * content_loss(ours[self.content_layer], content_features),
            "gram": self.style_weight
            * sum_of(gram_loss(ours[layer], style_features[layer]) / divisor[layer] for layer in self.style_layers),
            "total_variation": self.total_variation_weight * total_variation(output),
        }


def johnson() -> PredictionObjective:
    """Johnson et al. 2016 with the layers and weights of the published code: content 1, style 5, total variation 1e-6.

    Its features are those of `VGGFeatures`, of images from 0 to 255. Its total variation is half the sum of squares
    over a batch of 4 crops of 256 x 256 pixels and 3 colours in such units: 1e-6 / 2 * 255^2 * 4 * 3 * 256^2 = 2.56e4
    times our mean.
    """
    return PredictionObjective(style_weight=5.0, total_variation_weight=2.56e4, pooling="max", gram_by_channels=True)


@dataclass(frozen=True)
class AdaINObjective:
    """Huang & Belongie 2017, eq. 11 to 13: the decoder's picture, encoded again, must be what it was asked to paint."""

    content_weight: float = 1.0
    style_weight: float = 10.0
    content_layer: str = "relu4_1"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    network: Network = "vgg16"
    pooling: Pooling = "max"
    unit_activation: bool = True
    padding: Padding = "reflect"

    def __call__(self, model: AdaIN, features: VGGFeatures, content: Images, style: Paintings, code: Codes) -> Losses:
        with torch.no_grad():
            style_features = features(style)
            target = model.transfer(content, code)
        ours = features(model.decode(target))
        return {
            "content": self.content_weight * content_loss(ours[self.content_layer], target),
            "moments": self.style_weight
            * sum_of(moment_loss(ours[layer], style_features[layer]) for layer in self.style_layers),
        }


Objective = RelativeObjective | PredictionObjective | AdaINObjective

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "relative": RelativeObjective,
    "prediction": PredictionObjective,
    "johnson": johnson,
    "adain": AdaINObjective,
}


def loss_network(objective: Objective, pretrained: bool = True) -> VGGFeatures:
    """The frozen features that an objective compares pictures in."""
    layers = (*objective.style_layers, objective.content_layer)
    return VGGFeatures(
        layers, objective.network, objective.pooling, pretrained, objective.unit_activation, objective.padding
    )


def sum_of(terms) -> Tensor:
    """The sum of scalars as a tensor."""
    return torch.stack(list(terms)).sum()
