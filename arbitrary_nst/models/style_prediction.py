"""Style prediction: one network looks at a painting and predicts how another normalizes (Ghiasi et al. 2017).

The predictor maps a painting to an embedding, the style code; a linear map of it gives the gamma and the beta of every
conditional instance norm of the transformer network, which paints the photo in one pass.

Shapes: B batch, E numbers of an embedding, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Literal

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
    apply_transformer,
    conditioned,
    pad_to_multiple,
    plain_affines,
    split_affines,
)
from arbitrary_nst.nn.statistics import gram_matrix, mean_std, moments
from arbitrary_nst.runtime.weights import timm_backbone

EMBEDDING_SIZE = 100
"""Ghiasi et al. 2017, section 3: more brought nothing, and so small a space blends well."""


SMALLEST_PAINTING = 80
"""Pixels: smaller paintings are continued at their borders, since Inception-v3 has nothing to see in less."""

LARGEST_CORRELATED = 40
"""Channels: of more, too many pairs."""


class Standardize(nn.Module):
    """Numbers in units of their usual deviation from their usual value.

    Both are measured once, by `measure`, and kept. What is learned from numbers of very different sizes, some of which
    hardly vary, is learned slowly, and lower precision loses how they vary.
    """

    usual: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def measure(self, x: Float[Tensor, "B D"]) -> None:
        """Take what is usual from examples, of which a single one has no deviations."""
        if len(x) > 1:
            deviation, self.usual = torch.std_mean(x, 0)
            self.deviation = deviation.clamp_min(1e-2)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return (x - self.usual) / (self.deviation + 1e-3)


class StyleTokens(nn.Module):
    """Style vectors of several parts of a painting: means of its feature maps, each weighted by a learned query.

    A query asks every place of the painting how much of its part it is (a softmax over places); token n is the mean
    that query n gives. Because the queries are the same for all paintings, token n plays the same part in each, and
    tokens blend linearly.

    Args:
        channels: of the feature maps, the coarsest last; all are seen at the size of the first.
        count: N, tokens.
        width: T, numbers of a token.
    """

    def __init__(self, channels: Sequence[int], count: int, width: int) -> None:
        super().__init__()
        features = 3 + sum(channels)
        self.norm = nn.LayerNorm(features)
        self.query = nn.Linear(features, count)
        self.value = nn.Linear(features, width)

    def forward(
        self, style: Float[Tensor, "B 3 H W"], maps: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> Float[Tensor, "B N T"]:
        """Tokens of paintings in [0, 1] from their feature maps."""
        size = maps[0].shape[2:]
        color = F.interpolate(style.float(), size=size, mode="bilinear", antialias=True) - 0.5
        seen = [4 * color, *(F.interpolate(features, size=size, mode="bilinear") for features in maps)]
        places = self.norm(torch.cat(seen, 1).flatten(2).mT)
        return self.query(places).float().softmax(1).mT @ self.value(places).float()


class StylePredictor(nn.Module):
    """A classification backbone turned into a map from paintings to embeddings.

    Its batch norms keep the statistics that they were pretrained with: batches of paintings are too small and too
    strange to estimate them.

    Args:
        backbone: name of a timm model.
        stages: which of its feature stages to look at.
        summary: "mean" over positions, as in the paper; or "statistics", the deviations as well, those of the pixels
            themselves, and which channels go together (their correlations), where there are no more than
            LARGEST_CORRELATED of them: more about palette and texture.
        hidden: width of a layer between summary and embedding; None for the paper's single linear map.
        tokens: number and width of the tokens that follow the embedding in the code, read from the last two stages
            (`StyleTokens`); None for no tokens.
        pretrained: start from the backbone's ImageNet weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        stages: Sequence[int],
        summary: Literal["mean", "statistics"] = "mean",
        hidden: int | None = None,
        tokens: tuple[int, int] | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = timm_backbone(backbone, pretrained, stages)
        self.summary = summary
        channels = self.backbone.feature_info.channels()
        if summary == "statistics":
            channels = [3, *channels]
            correlated = [count for count in channels if count <= LARGEST_CORRELATED]
            features = 2 * sum(channels) + sum(count * (count - 1) // 2 for count in correlated)
        else:
            features = sum(channels)
        preset = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(preset["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preset["std"]).view(1, 3, 1, 1), persistent=False)
        if hidden is None:
            self.embed = nn.Linear(features, EMBEDDING_SIZE)
        else:
            layers = nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, EMBEDDING_SIZE)
            self.embed = nn.Sequential(Standardize(features), *layers)
        self.tokens = None if tokens is None else StyleTokens(self.backbone.feature_info.channels()[-2:], *tokens)

    def train(self, mode: bool = True) -> "StylePredictor":
        super().train(mode)
        self.backbone.eval()
        return self

    def maps(self, style: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Feature maps of the stages that are looked at."""
        return self.backbone((style - self.mean) / self.std)

    def summarize(
        self, style: Float[Tensor, "B 3 H W"], maps: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> Float[Tensor, "B D"]:
        """Numbers that the embedding is computed from."""
        if self.summary == "mean":
            return torch.cat([features.mean((2, 3)) for features in maps], 1)
        return torch.cat([statistics(features) for features in (style, *maps)], 1)

    @torch.no_grad()
    def measure(self, styles: Float[Tensor, "B 3 H W"]) -> None:
        """Before training: learn what is usual among paintings."""
        for module in self.modules():
            if isinstance(module, Standardize):
                each = [pad_to_multiple(style, 1, SMALLEST_PAINTING) for style in styles.split(1)]
                module.measure(torch.cat([self.summarize(style, self.maps(style)) for style in each]))

    def forward(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """The embedding and, where there are tokens, all their numbers."""
        style = pad_to_multiple(style, 1, SMALLEST_PAINTING)
        maps = self.maps(style)
        embedding = self.embed(self.summarize(style, maps))
        if self.tokens is None:
            return embedding
        return torch.cat([embedding, self.tokens(style, maps[-2:]).flatten(1)], 1)


def statistics(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
    """Means and deviations of the channels and, of up to LARGEST_CORRELATED, the correlation of every two."""
    mean, std = mean_std(features, 1e-4)  # of flat channels, only noise goes together
    numbers = [mean.flatten(1), std.flatten(1)]
    channels = features.shape[1]
    if channels <= LARGEST_CORRELATED:
        above = torch.triu_indices(channels, channels, 1, device=features.device)
        correlations = gram_matrix((features - mean) / std)
        numbers.append(correlations[:, above[0], above[1]])
    return torch.cat(numbers, 1)


class StyleNetwork(nn.Module):
    """A small network from paintings to embeddings that is learned from nothing, together with the transformer.

    Five convolutions, each at half the resolution of the one before; the embedding is read from the means and
    deviations of the maps of all five.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        hidden: int = 256,
        tokens: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        channels = zip((3, *widths[:-1]), widths, strict=True)
        self.stages = nn.ModuleList(ReflectionConv2d(before, after, stride=2, bias=True) for before, after in channels)
        self.embed = nn.Sequential(nn.Linear(2 * sum(widths), hidden), nn.ReLU(), nn.Linear(hidden, EMBEDDING_SIZE))
        self.tokens = None if tokens is None else StyleTokens(widths[2:4], *tokens)

    def forward(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        style = pad_to_multiple(style, 1, SMALLEST_PAINTING)
        x, maps = 2 * style - 1, []
        for stage in self.stages:
            x = F.relu(stage(x))
            maps.append(x)
        embedding = self.embed(torch.cat([moments(features) for features in maps], 1))
        if self.tokens is None:
            return embedding
        return torch.cat([embedding, self.tokens(style, maps[2:4]).flatten(1)], 1)


class GhiasiTransformer(nn.Module):
    """The transformer network of Ghiasi et al. 2017 (table 3 there, after Johnson et al. 2016), layer by layer.

    1,674,432 convolution weights, 13 predicted norms of 1,379 channels together, about 150 k multiply-adds a pixel.
    """

    tiling = TilingSpec(multiple=4, minimum=16, halo=64, bytes_per_pixel=768)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(ReflectionConv2d(3, 32, 9), nn.BatchNorm2d(32), nn.ReLU()),
            *(ReflectionConv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
            *(ReflectionConv2d(64, 128, 3, stride=2), nn.BatchNorm2d(128), nn.ReLU()),
        )
        self.residual = nn.ModuleList(ResidualBlock(128) for _ in range(5))
        self.up_half = ConditionalConv(128, 64)
        self.up_full = ConditionalConv(64, 32)
        self.to_rgb = ConditionalConv(32, 3, size=9)

    def forward(self, content: Float[Tensor, "B 3 H W"], affines: Sequence[Affine]) -> Float[Tensor, "B 3 H W"]:
        x = self.encoder(content)
        for index, block in enumerate(self.residual):
            x = block(x, affines[2 * index], affines[2 * index + 1])
        x = F.relu(self.up_half(F.interpolate(x, scale_factor=2.0), affines[10]))
        x = F.relu(self.up_full(F.interpolate(x, scale_factor=2.0), affines[11]))
        return torch.sigmoid(self.to_rgb(x, affines[12]))


class StylePrediction(nn.Module):
    """A style predictor and the transformer network whose normalization it sets.

    Args:
        conditioning: how many numbers of a code give gamma and beta, by a linear map.
    """

    code_size = EMBEDDING_SIZE

    def __init__(
        self, predictor: StylePredictor | StyleNetwork, transformer: nn.Module, conditioning: int = EMBEDDING_SIZE
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.transformer = transformer
        self.channels = [layer.channels for layer in conditioned(transformer)]
        self.affine = nn.Linear(conditioning, 2 * sum(self.channels))
        with torch.no_grad():  # every style begins as plain instance normalization, gamma 1 and beta 0
            self.affine.weight.mul_(0.1)
            self.affine.bias.copy_(plain_affines(transformer))

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """The embedding of paintings in [0, 1], of any size."""
        return self.predictor(style)

    def affines(self, code: Float[Tensor, "B E"]) -> list[Affine]:
        """Gamma and beta of every conditional instance norm, in the order of the network."""
        return split_affines(self.affine(code), self.channels)

    def forward(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B E"]) -> Float[Tensor, "B 3 H W"]:
        """Photos in [0, 1] in the styles of the codes, exactly as large as they came."""
        return apply_transformer(self.transformer, content, self.affines(code))


def ghiasi2017(pretrained: bool = True) -> StylePrediction:
    """The network of Ghiasi et al. 2017: Inception-v3 at Mixed_6e and the transformer network of the paper."""
    return StylePrediction(StylePredictor("inception_v3", stages=[3], pretrained=pretrained), GhiasiTransformer())
