"""Adaptive instance normalization: the encoder is the feature network, only the decoder is trained.

Shapes: B batch, C channels of relu4_1 (512), H x W pixels.
"""

from dataclasses import replace

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.blocks import ReflectionConv2d, TilingSpec, pad_to_multiple
from arbitrary_nst.nn.features import Network, VGGConfig, VGGFeatures
from arbitrary_nst.nn.normalization import AdaptiveInstanceNorm2d
from arbitrary_nst.nn.statistics import moments

LAYER = "relu4_1"

ENCODER = VGGConfig(unit_activation=True, padding="reflect")


def mirrored_decoder(encoder: VGGFeatures) -> nn.Sequential:
    """The encoder backwards: convolutions with their channels swapped, nearest upsampling for pooling.

    No normalization (Huang & Belongie 2017, section 5.1), no activation at the end; nine convolutions for VGG-19.
    """
    layers: list[nn.Module] = []
    for name, module in reversed(list(zip(encoder.names, encoder.network, strict=True))):
        if isinstance(module, nn.Conv2d):
            layers += [ReflectionConv2d(module.out_channels, module.in_channels, bias=True), nn.ReLU()]
        elif name.startswith("pool"):
            layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
    return nn.Sequential(*layers[:-1])


class AdaIN(nn.Module):
    """Encoder, adaptive instance normalization, decoder (Huang & Belongie 2017, eq. 8 to 10).

    A style code is the 512 means and 512 deviations of the painting's relu4_1. Features blend linearly in them, so
    blending codes is the paper's interpolation between styles (eq. 15), and blending with the photo's own code its
    strength alpha (eq. 14).
    """

    tiling = TilingSpec(multiple=8, minimum=16, halo=80, bytes_per_pixel=896)

    def __init__(self, encoder: VGGFeatures) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = AdaptiveInstanceNorm2d()
        self.decoder = mirrored_decoder(encoder)
        self.code_size = 2 * [module.out_channels for module in encoder.network if isinstance(module, nn.Conv2d)][-1]

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Means and deviations of paintings in [0, 1]."""
        return moments(self.encoder(pad_to_multiple(style, 1, 16))[LAYER])

    def transfer(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"]) -> Float[Tensor, "B C h w"]:
        """The photo's features with the code's statistics: what the decoder is asked to paint (eq. 9)."""
        features = self.encoder(content)[LAYER]
        mean, std = code[:, :, None, None].chunk(2, dim=1)
        return self.norm(features, mean, std).to(features.dtype)

    def decode(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """A picture from features, not clamped: its values may leave [0, 1] while it learns."""
        return self.decoder(features)

    def forward(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"]) -> Float[Tensor, "B 3 H W"]:
        """Photos in [0, 1] in the styles of the codes, exactly as large as they came."""
        height, width = content.shape[2:]
        padded = pad_to_multiple(content, self.tiling.multiple, self.tiling.minimum)
        return F.hardtanh(self.decode(self.transfer(padded, code)), 0.0, 1.0)[:, :, :height, :width]


def adain(pretrained: bool = True, network: Network = "vgg16") -> AdaIN:
    """AdaIN over VGG-16, whose original weights are the default features here."""
    return AdaIN(VGGFeatures([LAYER], replace(ENCODER, network=network), pretrained))


def adain_vgg19(pretrained: bool = True) -> AdaIN:
    """AdaIN over VGG-19, as in the paper."""
    return adain(pretrained, network="vgg19")
