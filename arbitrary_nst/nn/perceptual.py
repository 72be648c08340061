"""The perceptual loss: sums over the layers of a feature network, for training and for optimization.

Shapes: B batch, C channels, h x w positions of a layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.nn.losses import content_loss, relative_content_loss, relative_difference, squared_difference
from arbitrary_nst.nn.statistics import gram_matrix, moments

Maps = Mapping[str, Float[Tensor, "_ _ _ _"]]
"""Feature maps, (B, C, h, w), by layer."""

Statistics = Mapping[str, Mapping[str, Tensor]]
"""By term, "gram" or "moments", and layer."""

LayerWeights = Mapping[str, float]

STATISTICS = {"gram": gram_matrix, "moments": moments}


@dataclass(frozen=True)
class PerceptualLoss:
    """Weighted sums over layers of the differences of features, of Gram matrices and of channel moments.

    Mean squared differences: of features as in Johnson et al. 2016, eq. 2; of Gram matrices over positions as in Gatys
    et al. 2016, eq. 4; of channel means and deviations together, half of Huang & Belongie 2017, eq. 13.
    """

    content: LayerWeights = field(default_factory=dict)
    """Layers with their weights; without layers there is no such term."""
    gram: LayerWeights = field(default_factory=dict)
    moments: LayerWeights = field(default_factory=dict)
    relative: bool = False
    """Divide every difference by the size of its target: features by the content image's variance, statistics by their
    square sum."""

    def statistics(self, maps: Maps) -> Statistics:
        """The statistics of style images that the loss compares with, from their features."""
        return {
            name: {layer: statistic(maps[layer]) for layer in getattr(self, name)}
            for name, statistic in STATISTICS.items()
        }

    def __call__(self, maps: Maps, content: Maps, style: Statistics) -> dict[str, Float[Tensor, ""]]:
        """The terms by name, weighted.

        Args:
            maps: features of the output.
            content: features of the content image in the layers of `content`; none leaves the term out.
            style: what `statistics` gives, or a mean of several; none leaves these terms out. One style image may serve
                the whole batch.
        """
        compare, difference = content_loss, squared_difference
        if self.relative:
            compare, difference = relative_content_loss, relative_difference
        terms = {"content": [self.content[layer] * compare(maps[layer], target) for layer, target in content.items()]}
        for name, targets in style.items():
            weights, statistic = getattr(self, name), STATISTICS[name]
            terms[name] = [weights[layer] * difference(statistic(maps[layer]), targets[layer]) for layer in targets]
        return {name: torch.stack(values).sum() for name, values in terms.items() if values}


def blended(each: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """The weighted sum of the statistics of several style images."""
    return {
        name: {
            layer: reduce(add, (weight * of[name][layer] for of, weight in zip(each, weights, strict=True)))
            for layer in layers
        }
        for name, layers in each[0].items()
    }
