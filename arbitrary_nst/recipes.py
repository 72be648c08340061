"""What an optimization compares, how much each counts, and how it descends: published set-ups by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from arbitrary_nst.features import Network, Padding, Pooling


def parse_layers(texts: Sequence[str]) -> dict[str, float]:
    """Layers and their weights from relu1_1:0.5 or, with weight 1, relu1_1.

    Raises ValueError where a weight is not a number.
    """
    parts = [text.partition(":") for text in texts]
    return {layer: float(weight or 1) for layer, _, weight in parts}


LayerWeights = Annotated[
    dict[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="LAYER[:WEIGHT]",
        instance_from_str=parse_layers,
        is_instance=lambda instance: isinstance(instance, dict),
        str_from_instance=lambda layers: [f"{layer}:{weight:.6g}" for layer, weight in layers.items()],
    ),
]
"""Layers, each with its weight; on the command line `relu1_1:0.5 relu2_1`, a weight left out being 1."""


def equal(*layers: str, weight: float = 1.0) -> dict[str, float]:
    """The layers, each with the same share of the weight."""
    return dict.fromkeys(layers, weight / len(layers))


@dataclass(frozen=True)
class Recipe:
    """All that decides an optimization but its pictures.

    The loss is the weighted sum of terms; within the content and the style terms every layer has its own weight.
    """

    content_layers: LayerWeights = field(default_factory=lambda: equal("relu4_2"))
    """Layers to keep the photo's features in, and the weight of each."""
    style_layers: LayerWeights = field(
        default_factory=lambda: equal("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    )
    """Layers to match the painting's statistics in, and the weight of each."""
    content_weight: float = 1.0
    """Of the mean squared difference of features."""
    gram_weight: float = 1.0
    """Of the mean squared difference of Gram matrices over positions."""
    moment_weight: float = 0.0
    """Of the mean squared difference of channel means and deviations."""
    total_variation_weight: float = 0.0
    total_variation_power: Literal[1, 2] = 2
    """Differences of neighbouring pixels are taken absolute (1) or squared (2)."""
    relative: bool = False
    """Divide every difference by the size of what it is compared with, as `RelativeObjective` does."""
    squared_weights: bool = False
    """Weights multiply what is compared before the difference is squared: they count by their squares."""

    network: Network = "vgg16"
    """Feature network: vgg16 has the original Oxford weights, vgg19 torchvision's."""
    pooling: Pooling = "max"
    unit_activation: bool = False
    """Divide every layer by its mean activation on noise (the "normalised VGG")."""
    padding: Padding = "zeros"

    canvas: Literal["pixels", "hrnet"] = "pixels"
    """What is optimized: pixels, or the weights of the network of Li et al. 2019 that paints the photo."""
    start: Literal["noise", "content"] = "noise"
    """What pixels begin as; always noise where a photo or a painting is missing."""
    noise: float = 0.1
    """Deviation of the noise around mid-gray, in `pixel_unit`."""
    pixel_unit: float = 1.0
    """The optimizer sees pixels in this unit: 1/255 makes a step of 1 a grey level of 255."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    learning_rate: float = 1.0
    decay: float = 1.0
    """The learning rate is multiplied by this every `decay_every` steps, counted through all scales."""
    decay_every: int = 100
    history: int = 10
    """Steps that L-BFGS remembers."""
    steps: tuple[int, ...] = (500,)
    """Iterations, for every scale or one number for each."""
    scales: tuple[float, ...] = (1.0,)
    """Coarse to fine, in units of the final size: every scale begins from the enlarged result of the last."""

    def __post_init__(self) -> None:
        for name in ("content_layers", "style_layers"):
            if any(not weight >= 0 for weight in getattr(self, name).values()):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: weights must not be negative")
        for name in ("content_weight", "gram_weight", "moment_weight", "total_variation_weight", "noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative")
        for name in ("learning_rate", "decay", "decay_every", "history", "pixel_unit"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be positive")
        if not self.scales or not 0 < min(self.scales) <= max(self.scales) <= 8:
            raise ValueError(f"--scales {self.scales}: must be positive numbers, 1 being the final size")
        if len(self.steps) not in (1, len(self.scales)) or min(self.steps) < 1:
            raise ValueError(f"--steps {self.steps}: must be one positive number, or one for each of --scales")

    @property
    def schedule(self) -> list[tuple[float, int]]:
        """Scale and steps, coarse to fine."""
        return [(scale, self.steps[index % len(self.steps)]) for index, scale in enumerate(self.scales)]


CLASSIC = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
FIRST_CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
BLOCK_STARTS = {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256, "conv4_1": 512, "conv5_1": 512}
"""The first convolution of every block and its number of channels."""

IMAGENET_DEVIATION = 0.226
"""Of pixels in [0, 1]: one unit of an image that is normalized as torchvision's VGG-19 wants it."""

PRESETS: dict[str, Recipe] = {
    "gatys2016": Recipe(
        style_layers={layer: 1 / width**2 for layer, width in zip(CLASSIC, BLOCK_STARTS.values(), strict=True)},
        gram_weight=1000,
        start="content",
        pixel_unit=1 / 255,
    ),
    "torchvision-notebook": Recipe(
        content_layers=equal("conv3_1"),
        style_layers=equal(*FIRST_CONVOLUTIONS),
        content_weight=1e2,
        gram_weight=1e-2,
        network="vgg19",
        pixel_unit=IMAGENET_DEVIATION,
        optimizer="adam",
        learning_rate=0.1,
        steps=(1000,),
    ),
    "lbfgs-scaled-features": Recipe(
        content_layers=equal("conv2_2"),
        style_layers={layer: 1 / c for layer, c in zip(FIRST_CONVOLUTIONS, (64, 64, 128, 128, 256), strict=True)},
        gram_weight=1000,
        squared_weights=True,
        network="vgg19",
        start="content",
        steps=(300,),
    ),
    "d2l": Recipe(
        content_layers=equal("conv4_4"),
        style_layers={layer: 1 / width**2 for layer, width in BLOCK_STARTS.items()},
        gram_weight=1e3,
        total_variation_weight=5 / IMAGENET_DEVIATION,
        total_variation_power=1,
        network="vgg19",
        start="content",
        pixel_unit=IMAGENET_DEVIATION,
        optimizer="adam",
        learning_rate=0.01,
        decay=0.1,
        decay_every=200,
        scales=(0.25, 1.0),
    ),
    "li2019": Recipe(
        content_layers=equal("conv4_2", weight=150),
        style_layers={
            layer: share * (500 >> block) ** 2 / width
            for block, ((layer, width), share) in enumerate(
                zip(BLOCK_STARTS.items(), (0.1, 0.2, 0.4, 0.8, 1.6), strict=True)
            )
        },
        network="vgg19",
        canvas="hrnet",
        optimizer="adam",
        learning_rate=5e-3,
        decay=0.9,
        decay_every=200,
        steps=(1000,),
    ),
    "relative": Recipe(
        content_layers=equal("relu4_1"),
        style_layers=equal("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        gram_weight=4.5,
        moment_weight=14,
        total_variation_weight=0.1,
        relative=True,
        start="content",
        pixel_unit=1 / 255,
        steps=(100,),
    ),
}
"""Published set-ups, and our own objective; `docs/papers.md` says where each comes from and what differs.

`relative` minimizes what the `light` model is trained for; `photorealistic` is the network of Li et al. 2019 with it.
"""
PRESETS["photorealistic"] = replace(
    PRESETS["relative"],
    canvas="hrnet",
    content_weight=4.0,
    optimizer="adam",
    learning_rate=5e-3,
    decay=0.9,
    decay_every=200,
    steps=(300,),
)
