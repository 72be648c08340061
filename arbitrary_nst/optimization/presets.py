"""Losses, their weights and the optimizers of an optimization: published set-ups by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from arbitrary_nst.errors import UsageError
from arbitrary_nst.nn.features import VGGConfig
from arbitrary_nst.nn.perceptual import PerceptualLoss


def parse_layers(texts: Sequence[str]) -> dict[str, float]:
    """Layers and their weights from relu1_1:0.5 or, with weight 1, relu1_1.

    Raises ValueError where a weight is not a number.
    """
    parts = [text.partition(":") for text in texts]
    return {layer: float(weight or 1) for layer, _, weight in parts}


Origin = Literal["noise", "content", "tinted"]
Details = Literal["none", "all-but-last", "all"]

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
class OptimizationConfig:
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
    self_similarity_weight: float = 0.0
    """Of the difference of distances among places, in hypercolumns of the style layers (Kolkin et al. 2019)."""
    emd_weight: float = 0.0
    """Of the relaxed earth mover's distance between hypercolumns of the picture and of the paintings."""
    covariance_weight: float = 0.0
    """Of the difference of mean and covariance of hypercolumns."""
    palette_weight: float = 0.0
    """Of the relaxed earth mover's distance between colours; divided by the weight of self-similarity where above 1."""
    neighbor_weight: float = 0.0
    """Of the distance of hypercolumns from the paintings' nearest to those of the photo (Kolkin et al. 2022)."""
    alpha: float = 0.75
    """How much of the photo, rather than of the picture so far, nearest neighbours are looked for of."""
    rotations: bool = False
    """Look at the paintings also turned by 90, 180 and 270 degrees."""
    samples: int = 1024
    """Places of the picture that are compared at every step, drawn anew."""
    style_samples: int = 5000
    """Places of the paintings that they are compared with, drawn at every scale."""
    total_variation_weight: float = 0.0
    total_variation_power: Literal[1, 2] = 2
    """Differences of neighbouring pixels are taken absolute (1) or squared (2)."""
    relative: bool = False
    """Divide every difference by the size of what it is compared with."""
    squared_weights: bool = False
    """Weights multiply what is compared before the difference is squared: they count by their squares."""

    vgg: tyro.conf.OmitArgPrefixes[VGGConfig] = field(default_factory=VGGConfig)

    canvas: Literal["pixels", "pyramid", "hrnet"] = "pixels"
    """What is optimized: pixels, their Laplacian pyramid, or the weights of the network of Li et al. 2019 that paints
    the photo."""
    init: Origin = "noise"
    """What pixels begin as: noise, the photo, or the finest details of the photo on the paintings' mean colour; always
    noise where a photo or a painting is missing."""
    details: Details = "none"
    """At which new scales the finest details of the photo, or of the picture to begin from, are put back."""
    noise: float = 0.1
    """Deviation of the noise around mid-gray, in `pixel_unit`."""
    pixel_unit: float = 1.0
    """The optimizer sees pixels in this unit: 1/255 makes a step of 1 a grey level of 255."""
    optimizer: Literal["lbfgs", "adam", "rmsprop"] = "lbfgs"
    learning_rate: float = 1.0
    decay: float = 1.0
    """The learning rate is multiplied by this every `decay_every` steps, counted through all scales."""
    decay_every: int = 100
    history: int = 10
    """Steps that L-BFGS remembers."""
    steps: tuple[int, ...] = (500,)
    """Iterations, for every scale or one number for each; with `coarsest` the last number serves all that follow."""
    scales: tuple[float, ...] = (1.0,)
    """Coarse to fine, in units of the final size: every scale begins from the enlarged result of the last."""
    coarsest: int = 0
    """Begin at a long side of about so many pixels and double it up to the final size, instead of `scales`."""
    content_decay: float = 1.0
    """The weight of self-similarity is multiplied by this at every new scale."""
    split: bool = False
    """At the end compare nearest neighbours of every layer by itself, found anew at every step; `steps` may have a
    number more for it."""

    def __post_init__(self) -> None:
        for name in ("content_layers", "style_layers"):
            if any(not weight >= 0 for weight in getattr(self, name).values()):
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: weights must not be negative")
        weights = [option.name for option in fields(self) if option.name.endswith("_weight")]
        for name in (*weights, "noise", "coarsest"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be negative")
        positive = ("learning_rate", "decay", "decay_every", "history", "pixel_unit", "content_decay")
        for name in (*positive, "samples", "style_samples"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be positive")
        if not 0 <= self.alpha <= 1:
            raise UsageError(
                f"--alpha {self.alpha}: must be between 0 (most of the painting) and 1 (most of the photo)"
            )
        if not self.scales or not 0 < min(self.scales) <= max(self.scales) <= 8:
            raise UsageError(f"--scales {self.scales}: must be positive numbers, 1 being the final size")
        if (len(self.steps) not in (1, len(self.scales)) and not self.coarsest) or min(self.steps, default=0) < 1:
            raise UsageError(f"--steps {self.steps}: must be one positive number, or one for each of --scales")

    @property
    def loss(self) -> PerceptualLoss:
        """The terms that compare whole pictures."""
        power = 2 if self.squared_weights else 1

        def weighted(layers: dict[str, float], weight: float) -> dict[str, float]:
            return {layer: (weight * share) ** power for layer, share in layers.items()} if weight else {}

        return PerceptualLoss(
            weighted(self.content_layers, self.content_weight),
            weighted(self.style_layers, self.gram_weight),
            weighted(self.style_layers, self.moment_weight),
            self.relative,
        )

    @property
    def local(self) -> bool:
        """True if positions are compared, not only statistics of whole pictures."""
        names = ("self_similarity", "emd", "covariance", "palette", "neighbor")
        return any(getattr(self, f"{name}_weight") for name in names)

    def stages(self, height: int, width: int) -> list["Stage"]:
        """Coarse to fine, for a picture of that size."""
        scales = self.scales
        if self.coarsest:
            doublings = round(math.log2(max(1, max(height, width) / self.coarsest)))
            while doublings and min(height, width) / 2**doublings < SMALLEST_SIDE:
                doublings -= 1
            scales = [0.5**index for index in range(doublings, -1, -1)]
        stages = [
            Stage(
                (max(1, round(height * scale)), max(1, round(width * scale))),
                self.steps[min(index, len(self.steps) - 1)],
                self.content_decay**index,
                first=index == 0,
                details=0 < index < len(scales) - (self.details == "all-but-last") and self.details != "none",
            )
            for index, scale in enumerate(scales)
        ]
        if self.split:
            steps = self.steps[min(len(scales), len(self.steps) - 1)]
            stages.append(replace(stages[-1], steps=steps, first=False, details=False, split=True))
        return stages


OPTIONS: dict[str, Any] = get_type_hints(VGGConfig) | get_type_hints(OptimizationConfig)
"""Types of all options by name, those of the feature network among them."""
del OPTIONS["vgg"]


def changed(config: OptimizationConfig, options: Mapping[str, Any]) -> OptimizationConfig:
    """The configuration with other values of OPTIONS."""
    vgg = {option.name: options[option.name] for option in fields(VGGConfig) if option.name in options}
    own = {name: value for name, value in options.items() if name not in vgg}
    return replace(config, **own, vgg=replace(config.vgg, **vgg))


@dataclass(frozen=True)
class Stage:
    """A part of an optimization: steps at one size."""

    extent: tuple[int, int]
    """Height and width."""
    steps: int
    content_factor: float = 1.0
    """Of the weight of self-similarity."""
    first: bool = True
    details: bool = False
    """Begin with the photo's finest details put back."""
    split: bool = False
    """Match every layer by itself."""


SMALLEST_SIDE = 16
"""Pixels: VGG halves a picture four times on its way to relu5_1."""


CLASSIC = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
FIRST_CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
BLOCK_STARTS = {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256, "conv4_1": 512, "conv5_1": 512}
"""The first convolution of every block and its number of channels."""

IMAGENET_DEVIATION = 0.226
"""Of pixels in [0, 1]: one unit of an image that is normalized as torchvision's VGG-19 wants it."""

PRESETS: dict[str, OptimizationConfig] = {
    "gatys2016": OptimizationConfig(
        style_layers={layer: 1 / width**2 for layer, width in zip(CLASSIC, BLOCK_STARTS.values(), strict=True)},
        gram_weight=1000,
        init="content",
        pixel_unit=1 / 255,
    ),
    "torchvision-notebook": OptimizationConfig(
        content_layers=equal("conv3_1"),
        style_layers=equal(*FIRST_CONVOLUTIONS),
        content_weight=1e2,
        gram_weight=1e-2,
        vgg=VGGConfig("vgg19"),
        pixel_unit=IMAGENET_DEVIATION,
        optimizer="adam",
        learning_rate=0.1,
        steps=(1000,),
    ),
    "lbfgs-scaled-features": OptimizationConfig(
        content_layers=equal("conv2_2"),
        style_layers={layer: 1 / c for layer, c in zip(FIRST_CONVOLUTIONS, (64, 64, 128, 128, 256), strict=True)},
        gram_weight=1000,
        squared_weights=True,
        vgg=VGGConfig("vgg19"),
        init="content",
        steps=(300,),
    ),
    "d2l": OptimizationConfig(
        content_layers=equal("conv4_4"),
        style_layers={layer: 1 / width**2 for layer, width in BLOCK_STARTS.items()},
        gram_weight=1e3,
        total_variation_weight=5 / IMAGENET_DEVIATION,
        total_variation_power=1,
        vgg=VGGConfig("vgg19"),
        init="content",
        pixel_unit=IMAGENET_DEVIATION,
        optimizer="adam",
        learning_rate=0.01,
        decay=0.1,
        decay_every=200,
        scales=(0.25, 1.0),
    ),
    "li2019": OptimizationConfig(
        content_layers=equal("conv4_2", weight=150),
        style_layers={
            layer: share * (500 >> block) ** 2 / width
            for block, ((layer, width), share) in enumerate(
                zip(BLOCK_STARTS.items(), (0.1, 0.2, 0.4, 0.8, 1.6), strict=True)
            )
        },
        vgg=VGGConfig("vgg19"),
        canvas="hrnet",
        optimizer="adam",
        learning_rate=5e-3,
        decay=0.9,
        decay_every=200,
        steps=(1000,),
    ),
    "relative": OptimizationConfig(
        content_layers=equal("relu4_1"),
        style_layers=equal("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        gram_weight=4.5,
        moment_weight=14,
        total_variation_weight=0.1,
        relative=True,
        init="content",
        pixel_unit=1 / 255,
        steps=(100,),
    ),
}
"""Published set-ups, and our own objective; `docs/papers.md` says where each comes from and what differs.

`training.objectives.RelativeObjective` has the weights of `relative`; `photorealistic` is the network of Li et al. 2019
with it.
"""
HYPERCOLUMN = {
    **dict.fromkeys(("relu1_1", "relu1_2"), 64),
    **dict.fromkeys(("relu2_1", "relu2_2"), 128),
    **dict.fromkeys(("relu3_1", "relu3_2", "relu3_3"), 256),
    **dict.fromkeys(("relu4_1", "relu4_2", "relu4_3"), 512),
}
"""Layers that are stacked, and their numbers of channels."""

PRESETS["kolkin2019"] = OptimizationConfig(
    style_layers={layer: 1 / 400 for layer in HYPERCOLUMN if layer not in ("relu4_1", "relu4_2")},
    content_weight=0.0,
    gram_weight=0.0,
    self_similarity_weight=16.0,
    emd_weight=1.0,
    covariance_weight=1.0,
    palette_weight=1.0,
    content_decay=0.5,
    canvas="pyramid",
    init="tinted",
    details="all-but-last",
    optimizer="rmsprop",
    learning_rate=2e-3,
    steps=(200,),
    coarsest=64,
)
PRESETS["kolkin2022"] = OptimizationConfig(
    style_layers={layer: 64 / width for layer, width in HYPERCOLUMN.items()},
    content_weight=0.0,
    gram_weight=0.0,
    neighbor_weight=1.0,
    rotations=True,
    samples=2048,
    style_samples=16384,
    vgg=VGGConfig(unit_activation=True),
    canvas="pyramid",
    init="content",
    optimizer="adam",
    learning_rate=2e-3,
    steps=(200,),
    coarsest=64,
    split=True,
)
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
