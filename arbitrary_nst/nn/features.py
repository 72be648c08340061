"""VGG features by layer name: what the losses see.

Shapes: B batch, C channels, H x W pixels, h x w positions of a layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19

from arbitrary_nst.errors import UsageError
from arbitrary_nst.runtime.weights import shipped_features, torch_hub_state

Network = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]
Padding = Literal["zeros", "reflect"]

# the original Oxford weights for VGG-16, with which Johnson, Dumoulin and Ghiasi trained
BUILDERS = {
    "vgg16": (vgg16, VGG16_Weights.IMAGENET1K_FEATURES),
    "vgg19": (vgg19, VGG19_Weights.IMAGENET1K_V1),
}


@dataclass(frozen=True)
class VGGConfig:
    """Options of a feature network.

    Raises UsageError for an unknown network or pooling.
    """

    network: Network = "vgg16"
    """Feature network: vgg16 has the original Oxford weights, vgg19 torchvision's."""
    pooling: Pooling = "max"
    """max as trained, or average, which gives smoother gradients (Gatys et al. 2016, section 2)."""
    unit_activation: bool = False
    """Divide every layer by its mean activation on 1/f noise (the "normalised VGG")."""
    padding: Padding = "zeros"
    """zeros as trained, or reflect, which leaves no trace of the border in what is decoded."""

    def __post_init__(self) -> None:
        if self.network not in BUILDERS:
            raise UsageError(f"unknown feature network '{self.network}': choose one of {', '.join(BUILDERS)}")
        if self.pooling not in ("max", "average"):
            raise UsageError(f"unknown pooling '{self.pooling}': choose max or average")


def layer_names(modules: Iterable[nn.Module]) -> list[str]:
    """conv1_1, relu1_1, conv1_2, ... pool5 for the modules of torchvision's `vgg.features`, in their order."""
    names, block, convolution = [], 1, 0
    for module in modules:
        if isinstance(module, nn.Conv2d):
            convolution += 1
            names.append(f"conv{block}_{convolution}")
        elif isinstance(module, nn.ReLU):
            names.append(f"relu{block}_{convolution}")
        else:
            names.append(f"pool{block}")
            block, convolution = block + 1, 0
    return names


def pink_noise(size: int, seed: int = 0) -> Float[Tensor, "3 size size"]:
    """A seeded image in [0, 1] whose amplitudes fall as 1/f, as those of natural images do (Field 1987)."""
    white = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None, :])
    image = torch.fft.irfft2(torch.fft.rfft2(white) / frequency.clamp_min(1 / size), s=(size, size))
    image = image - image.mean()
    return (0.5 + 0.2 * image / image.std()).clamp(0, 1)


class VGGFeatures(nn.Module):
    """A frozen VGG that returns the named layers and computes nothing beyond the deepest of them.

    It owns its input normalization: images come in as float RGB in [0, 1].

    Args:
        layers: names such as "relu1_1", "conv4_2" or "pool3".
        config: options of the network. `unit_activation` scales whole layers. The "normalised VGG" of Gatys and of
            Huang & Belongie serves the same end, by the mean of each filter over ImageNet; published loss weights
            suppose features of that size, and decoders learn better from them.
        pretrained: VGG-16 up to relu4_3 comes with the package, in half precision; deeper layers and VGG-19 come from
            torchvision. False leaves the weights random.

    Raises:
        ValueError: an unknown layer, or none.
        WeightsNotFoundError: the weights do not ship, are not cached and cannot be downloaded.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, layers: Iterable[str], config: VGGConfig | None = None, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config = config or VGGConfig()
        build, weights = BUILDERS[config.network]
        with torch.device("meta"):  # no memory for a classifier of 120 million weights
            modules = build(weights=None, init_weights=False).features
        names = layer_names(modules)
        self.layers = tuple(dict.fromkeys(layers))
        unknown = [layer for layer in self.layers if layer not in names]
        if unknown or not self.layers:
            raise UsageError(f"{config.network} has no layer {unknown or 'to return'}: choose among {', '.join(names)}")

        depth = 1 + max(names.index(layer) for layer in self.layers)
        self.names, self.unit_activation = names[:depth], False
        self.network = modules[:depth].to_empty(device="cpu")
        for module in self.network:
            if isinstance(module, nn.Conv2d):
                module.padding_mode = config.padding
        if not pretrained:
            for module in self.network:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        else:
            wanted = {f"features.{name}": name for name in self.network.state_dict()}
            state = shipped_features(config.network)
            if not state.keys() >= wanted.keys():
                state = torch_hub_state(weights.url)
            self.network.load_state_dict({ours: state[theirs] for theirs, ours in wanted.items()})
        preset = weights.transforms()
        self.register_buffer("mean", torch.tensor(preset.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preset.std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.ones(len(self.layers)))
        self.requires_grad_(False).eval()
        if config.unit_activation:
            noise_features = self(pink_noise(256)[None])
            self.scale.copy_(torch.stack([1 / noise_features[layer].abs().mean() for layer in self.layers]))
            self.unit_activation = True

    def train(self, mode: bool = True) -> "VGGFeatures":
        """Frozen: stays in evaluation mode whatever its owner does."""
        return super().train(False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B C h w"]]:
        """The named layers of images in [0, 1]; sides must be long enough for the poolings on the way."""
        x = (image - self.mean) / self.std
        features: dict[str, Tensor] = {}
        for name, module in zip(self.names, self.network, strict=True):
            if name.startswith("conv"):
                x = module(x)
            elif name.startswith("relu"):
                x = F.relu(x, inplace=f"conv{name[4:]}" not in self.layers)
            else:
                x = F.max_pool2d(x, 2) if self.config.pooling == "max" else F.avg_pool2d(x, 2)
            if name in self.layers:
                features[name] = x
        if self.unit_activation:
            features = {name: features[name] * self.scale[i].to(x.dtype) for i, name in enumerate(self.layers)}
        return features
