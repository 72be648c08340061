"""VGG features by layer name: what the losses see.

Shapes: B batch, C channels, H x W pixels, h x w positions of a layer.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19

from arbitrary_nst.weights import torch_hub_state

Network = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]
Padding = Literal["zeros", "reflect"]

# the original Oxford weights for VGG-16, with which Johnson, Dumoulin and Ghiasi trained
BUILDERS = {
    "vgg16": (vgg16, VGG16_Weights.IMAGENET1K_FEATURES),
    "vgg19": (vgg19, VGG19_Weights.IMAGENET1K_V1),
}


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
        network: "vgg16" (the original Oxford weights) or "vgg19" (torchvision's).
        pooling: "max" as trained, or "average" (Gatys et al. 2016, section 2), which gives smoother gradients.
        pretrained: False leaves the weights random, for tests on machines without them.
        unit_activation: divide every returned layer by its mean activation on 1/f noise. The "normalised VGG" of
            Gatys and of Huang & Belongie serves the same end, by the mean of each filter over ImageNet; published
            loss weights suppose features of that size, and decoders learn better from them.
        padding: "zeros" as trained, or "reflect", which leaves no trace of the border in what is decoded.

    Raises:
        ValueError: an unknown network, pooling or layer.
        WeightsNotFoundError: the weights are not cached and cannot be downloaded.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(
        self,
        layers: Iterable[str],
        network: Network = "vgg16",
        pooling: Pooling = "max",
        pretrained: bool = True,
        unit_activation: bool = False,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        if network not in BUILDERS:
            raise ValueError(f"unknown feature network '{network}': choose one of {', '.join(BUILDERS)}")
        if pooling not in ("max", "average"):
            raise ValueError(f"unknown pooling '{pooling}': choose max or average")
        build, weights = BUILDERS[network]
        with torch.device("meta"):  # no memory for a classifier of 120 million weights
            modules = build(weights=None, init_weights=False).features
        names = layer_names(modules)
        self.layers = tuple(dict.fromkeys(layers))
        unknown = [layer for layer in self.layers if layer not in names]
        if unknown or not self.layers:
            raise ValueError(f"{network} has no layer {unknown or 'to return'}: choose among {', '.join(names)}")

        depth = 1 + max(names.index(layer) for layer in self.layers)
        self.names, self.pooling, self.unit_activation = names[:depth], pooling, False
        self.network = modules[:depth].to_empty(device="cpu")
        for module in self.network:
            if isinstance(module, nn.Conv2d):
                module.padding_mode = padding
        if not pretrained:
            for module in self.network:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        else:
            state = torch_hub_state(weights.url)
            self.network.load_state_dict(
                {f"{i}.{kind}": state[f"features.{i}.{kind}"].float()
                 for i, name in enumerate(self.names) if name.startswith("conv") for kind in ("weight", "bias")}
            )  # fmt: skip
        preset = weights.transforms()
        self.register_buffer("mean", torch.tensor(preset.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preset.std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.ones(len(self.layers)))
        self.requires_grad_(False).eval()
        if unit_activation:
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
                x = F.max_pool2d(x, 2) if self.pooling == "max" else F.avg_pool2d(x, 2)
            if name in self.layers:
                features[name] = x
        if self.unit_activation:
            features = {name: features[name] * self.scale[i].to(x.dtype) for i, name in enumerate(self.layers)}
        return features
