"""Networks that know a list of styles by name: one (Johnson et al. 2016) or many (Dumoulin et al. 2017).

A style is a gamma and a beta for every instance norm of one network. A style code is a weight for each of the known
styles, so that blending codes is blending gammas and betas (Dumoulin et al. 2017).

Shapes: B batch, N known styles, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from arbitrary_nst.errors import UsageError
from arbitrary_nst.models.blocks import (
    Affine,
    ConditionalConv,
    ReflectionConv2d,
    ResidualBlock,
    TilingSpec,
    apply_transformer,
    conditioned,
    plain_affines,
    split_affines,
)


class JohnsonTransformer(nn.Module):
    """c9s1-32, d64, d128, five R128, u64, u32, c9s1-3 (Johnson et al. 2016, supplement), with instance norms.

    Enlarged by repeating pixels before a convolution, as Dumoulin et al. 2017 do, where the supplement strides
    backwards; every convolution pads by reflection.

    Args:
        single: as published for one style, instance norm in place of batch norm (Ulyanov et al. 2016): convolutions
            with biases, which mean nothing before a norm but belong to the published 1,679,235 parameters; no norm
            after the last convolution, whose picture 0.5 + 150 / 255 tanh(x) leaves [0, 1] by at most 0.09. Otherwise
            as published for many: no biases, a norm after the last convolution too, and a sigmoid.
    """

    tiling = TilingSpec(multiple=4, minimum=16, halo=64, bytes_per_pixel=768)

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.single = single
        self.encoder = nn.ModuleList(
            (
                ConditionalConv(3, 32, size=9, bias=single),
                ConditionalConv(32, 64, stride=2, bias=single),
                ConditionalConv(64, 128, stride=2, bias=single),
            )
        )
        self.residual = nn.ModuleList(ResidualBlock(128, bias=single) for _ in range(5))
        self.decoder = nn.ModuleList((ConditionalConv(128, 64, bias=single), ConditionalConv(64, 32, bias=single)))
        self.to_rgb = ReflectionConv2d(32, 3, 9, bias=True) if single else ConditionalConv(32, 3, size=9)

    def forward(self, content: Float[Tensor, "B 3 H W"], affines: Sequence[Affine]) -> Float[Tensor, "B 3 H W"]:
        x, affine = content, iter(affines)
        for layer in self.encoder:
            x = F.relu(layer(x, next(affine)))
        for block in self.residual:
            x = block(x, next(affine), next(affine))
        for layer in self.decoder:
            x = F.relu(layer(F.interpolate(x, scale_factor=2.0), next(affine)))
        if self.single:
            return 0.5 + 150 / 255 * torch.tanh(self.to_rgb(x))
        return torch.sigmoid(self.to_rgb(x, next(affine)))


class FixedStyles(nn.Module):
    """A transformer network and, for each style that it knows, the gammas and betas of its norms.

    Args:
        styles: their names, all different.

    Raises ValueError for names that are none, doubled, or too many for a network of a single style.
    """

    def __init__(self, styles: Sequence[str], transformer: JohnsonTransformer) -> None:
        super().__init__()
        self.style_names = _checked(styles, transformer.single)
        self.code_size = len(self.style_names)  # a weight for each style
        self.transformer = transformer
        self.channels = [layer.channels for layer in conditioned(transformer)]
        plain = plain_affines(transformer)
        self.table = nn.ParameterList(plain.clone() for _ in self.style_names)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments with which the builder builds this model again."""
        return {"styles": list(self.style_names)}

    def style_code(self, name: str) -> Float[Tensor, "1 N"]:
        """The code of a style by its name.

        Raises ValueError, listing the known names.
        """
        if name not in self.style_names:
            raise ValueError(f"no style named '{name}': this model knows {', '.join(self.style_names)}")
        return self.codes(torch.tensor([self.style_names.index(name)], device=self.table[0].device))

    def codes(self, numbers: Int[Tensor, "B"]) -> Float[Tensor, "B N"]:
        """The codes of styles by their places in `style_names`."""
        return F.one_hot(numbers, self.code_size).to(self.table[0].dtype)

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> NoReturn:
        """Raises ValueError: a painting tells this model nothing."""
        raise ValueError(f"this model knows only its own styles: {', '.join(self.style_names)}; name one of them")

    def add_styles(self, names: Sequence[str]) -> None:
        """Learn the names of new styles, which begin as the mean of those known; only they are left to be trained.

        Raises ValueError for names that are known or doubled, and for a network of a single style.
        """
        self.style_names = _checked((*self.style_names, *names), self.transformer.single)
        self.code_size = len(self.style_names)
        mean = torch.stack(list(self.table)).detach().mean(0)
        self.table.extend(nn.Parameter(mean.clone()) for _ in names)
        self.train_only(names)

    def train_only(self, names: Sequence[str]) -> None:
        """Freeze everything but the gammas and betas of these styles."""
        self.requires_grad_(False)
        for name in names:
            self.table[self.style_names.index(name)].requires_grad_()

    def affines(self, code: Float[Tensor, "B N"]) -> list[Affine]:
        """Gamma and beta of every conditional instance norm, in the order of the network."""
        return split_affines(code @ torch.stack(list(self.table)), self.channels)

    def forward(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B N"]) -> Float[Tensor, "B 3 H W"]:
        """Photos in [0, 1] in the styles of the codes, exactly as large as they came."""
        return apply_transformer(self.transformer, content, self.affines(code))


def _checked(names: Sequence[str], single: bool) -> tuple[str, ...]:
    listed = ", ".join(names)
    if not names:
        raise UsageError("a model of fixed styles needs the name of at least one")
    if len(set(names)) < len(names):
        raise UsageError(f"each style needs a name of its own: {listed}")
    if single and len(names) > 1:
        raise UsageError(f"single-style knows one style, not {len(names)} ({listed}): choose multi-style")
    return tuple(names)


def single_style(styles: Sequence[str], pretrained: bool = True) -> FixedStyles:
    """The network of Johnson et al. 2016 with instance norm, for one style."""
    return FixedStyles(styles, JohnsonTransformer(single=True))


def multi_style(styles: Sequence[str], pretrained: bool = True) -> FixedStyles:
    """The network of Dumoulin et al. 2017, for as many styles as there are names."""
    return FixedStyles(styles, JohnsonTransformer(single=False))
