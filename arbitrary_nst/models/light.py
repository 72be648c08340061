"""The default model: style prediction with a light transformer network that paints from coarse to fine (ours).

A picture is painted octave by octave. The first octave, with a short side of 512 pixels, is painted from the content
image alone. Every further octave has twice the size. It is painted from a guide: the painted picture of the octave
before, enlarged, with the detail that the content image has in this octave put back. One network serves all octaves;
the style code has one view of the style image for the first octave and one for the others.

Shapes: B batch, E numbers of an embedding, D of a style code, C channels, H x W pixels, h x w positions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.blocks import (
    Affine,
    ConditionalConv,
    ReflectionConv2d,
    ResidualBlock,
    TilingSpec,
    TrunkSpec,
    autocast,
    binomial_filter,
    pad_to_multiple,
)
from arbitrary_nst.models.style_prediction import EMBEDDING_SIZE, StyleNetwork, StylePrediction, StylePredictor
from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d
from arbitrary_nst.nn.octaves import with_noise

TOKENS = (16, 48)
"""Number and width of the style tokens."""

VIEW_SIZE = 1 + EMBEDDING_SIZE + TOKENS[0] * TOKENS[1]
"""Numbers of one view in a style code: 0 for the first octave or 1 for the others, an embedding, and the tokens."""


class LocalAffine(nn.Module):
    """A gamma and a beta for every place, from the style tokens that the place has chosen (`Trunk`).

    They change features that have the gamma and the beta of the whole picture already, and begin as no change at all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(TOKENS[1], 2 * channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "B C h w"], tokens: Float[Tensor, "B T h w"]) -> Float[Tensor, "B C h w"]:
        gamma, beta = self.out(tokens).chunk(2, 1)
        return torch.addcmul(x + beta, x, gamma)


class LocalResidualBlock(ResidualBlock):
    """A residual block whose second norm varies from place to place."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.local = LocalAffine(channels)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B C h w"], first: Affine, second: Affine, tokens: Float[Tensor, "B T h w"]
    ) -> Float[Tensor, "B C h w"]:
        return self.local(self.second(self.first(x, first), second, relu=True), tokens).add_(x)


class Trunk(nn.Module):
    """The part of the light transformer network that works at an eighth of the resolution, where a position is cheap
    and sees far.

    Each place takes a mixture of the style tokens, by a softmax over them, which serves all blocks.
    """

    def __init__(self, channels: int, filters: int, blocks: int) -> None:
        super().__init__()
        self.choose = nn.Conv2d(channels, TOKENS[0], 1)
        self.blocks = nn.ModuleList(LocalResidualBlock(channels) for _ in range(blocks))
        self.out = ConditionalConv(channels, filters, size=1)

    def forward(
        self, x: Float[Tensor, "B C h w"], affines: Sequence[Affine], tokens: Float[Tensor, "#B N T"]
    ) -> Float[Tensor, "B D h w"]:
        shares = self.choose(x).float().softmax(1).to(x.dtype)
        chosen = (tokens.mT.to(x.dtype) @ shares.flatten(2)).unflatten(2, x.shape[2:])
        affine = iter(affines)
        for block in self.blocks:
            x = block(x, next(affine), next(affine), chosen)
        return self.out(x, next(affine))


class EvenUnfolding(ReflectionConv2d):
    """A convolution for a pixel shuffle by 2 that gives constant maps no checkerboard.

    Without this, all 2x2 positions of an even area get the same + - - +, which is a weave of four pixels' period in
    the picture. The part of the kernels that does so is left out; the parameters are those of the convolution.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernels = weight.unflatten(0, (-1, 4))
        signs = weight.new_tensor([1.0, -1.0, -1.0, 1.0]).view(4, 1, 1, 1)
        response = (kernels * signs).sum((1, 3, 4), keepdim=True)
        even = kernels - signs * (response / kernels[0, :, 0].numel())
        return super()._conv_forward(input, even.flatten(0, 1), bias)


class LightTransformer(nn.Module):
    """A transformer network for processors that wait for memory more than for arithmetic (ours).

    Guide and content image are folded into channels at quarter resolution, most of the work is done at an eighth
    (`Trunk`), and the picture unfolds again in two steps. The last unfolding is followed by a fixed binomial filter,
    which removes patterns of two pixels' period. About 58 k multiply-adds a pixel, counted by a test.
    """

    tiling = TilingSpec(8, 16, 184, 128, TrunkSpec(scale=8, outer_halo=40, bytes_per_pixel=40))

    def __init__(self, quarter: int = 64, eighth: int = 128, half: int = 16, deep: int = 9, fine: int = 2) -> None:
        super().__init__()
        self.fold = ConditionalConv(2 * 3 * 16, quarter)
        self.down = ConditionalConv(quarter, eighth, stride=2)
        self.trunk = Trunk(eighth, quarter, deep)
        self.fine = nn.ModuleList(ResidualBlock(quarter) for _ in range(fine))
        self.unfold_half = EvenUnfolding(quarter, 4 * half)
        self.half_norm = ConditionalInstanceNorm2d(half)
        self.unfold_full = ReflectionConv2d(half, 4 * 3)
        self.rgb_norm = ConditionalInstanceNorm2d(3)

    def forward(
        self,
        guide: Float[Tensor, "B 3 H W"],
        content: Float[Tensor, "B 3 H W"],
        affines: Sequence[Affine],
        tokens: Float[Tensor, "#B N T"],
    ) -> Float[Tensor, "B 3 H W"]:
        after = len(affines) - len(self.fine) * 2 - 2
        # large maps get no names of their own, so that they are freed early
        x = torch.cat([F.pixel_unshuffle(autocast(image), 4) for image in (guide, content)], 1)
        x = F.relu(self.fold(x, affines[0]))
        deep = self.trunk(F.relu(self.down(x, affines[1])), affines[2:after], tokens)
        affine = iter(affines[after:])
        # bilinear: enlarged by repetition, each position stamps its own 8x8 pixels
        x = F.relu(x + F.interpolate(deep, scale_factor=2.0, mode="bilinear", align_corners=False))
        for block in self.fine:
            x = block(x, next(affine), next(affine))
        x = self.half_norm(F.pixel_shuffle(self.unfold_half(x), 2), *next(affine))
        x = F.pixel_shuffle(self.unfold_full(x, relu=True), 2).contiguous()  # three channels last are slow to normalize
        x = binomial_filter(x)
        return torch.sigmoid(self.rgb_norm(x, *next(affine)))


class CoarseToFine(StylePrediction):
    """Style prediction with a network that paints octave by octave.

    A style code is two views of the style image side by side (`VIEW_SIZE`).
    """

    code_size = 2 * VIEW_SIZE
    coarse_to_fine = True

    def __init__(self, predictor: StylePredictor | StyleNetwork, transformer: LightTransformer) -> None:
        super().__init__(predictor, transformer, 1 + EMBEDDING_SIZE)
        self.transformer: LightTransformer
        nn.init.zeros_(self.affine.weight[:, 0])  # all octaves begin alike

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Style codes of style images in [0, 1], of any size, both views looking at the same image."""
        seen = self.predictor(style)
        first = torch.zeros_like(seen[:, :1])
        return torch.cat([first, seen, first + 1, seen], 1)

    def forward(
        self,
        content: Float[Tensor, "B 3 H W"],
        code: Float[Tensor, "#B D"],
        guide: Float[Tensor, "B 3 H W"] | None = None,
        first: bool = True,
    ) -> Float[Tensor, "B 3 H W"]:
        """One octave of stylized images in [0, 1], exactly as large as the content images.

        Args:
            content: content images at the size of the octave.
            guide: what the octave is painted from (`nn.octaves.View`); None for the content images with their noise.
            first: whether this is the first octave.
        """
        guide = with_noise(content) if guide is None else guide
        view = code.split(VIEW_SIZE, 1)[0 if first else 1]
        height, width = content.shape[2:]
        tiling = self.transformer.tiling
        content, guide = (pad_to_multiple(image, tiling.multiple, tiling.minimum) for image in (content, guide))
        return self.stylize_octave(content, guide, view)[:, :, :height, :width]

    def stylize_octave(
        self, content: Float[Tensor, "B 3 H W"], guide: Float[Tensor, "B 3 H W"], view: Float[Tensor, "#B V"]
    ) -> Float[Tensor, "B 3 H W"]:
        """One octave in one view of the style, of sides that are multiples of the network's."""
        embedding, tokens = view.split([1 + EMBEDDING_SIZE, TOKENS[0] * TOKENS[1]], 1)
        return self.transformer(guide, content, self.affines(embedding), tokens.unflatten(1, TOKENS))


def combine_views(first: Float[Tensor, "B D"], further: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """A style code with the first octave's view of one code and the further octaves' view of another."""
    return torch.cat([first[:, :VIEW_SIZE], further[:, VIEW_SIZE:]], 1)


def light(pretrained: bool = True) -> CoarseToFine:
    """Our default: statistics of four EfficientNet-Lite0 stages and the light transformer network."""
    predictor = StylePredictor("tf_efficientnet_lite0", [0, 1, 2, 3], "statistics", 384, TOKENS, pretrained)
    return CoarseToFine(predictor, LightTransformer())


def normalization_network(pretrained: bool = True) -> CoarseToFine:
    """A style network without pretraining and the light transformer network, learned end to end."""
    return CoarseToFine(StyleNetwork(tokens=TOKENS), LightTransformer())
