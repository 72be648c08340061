"""The style models by name, and the protocol that they share."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.adain import AdaIN, adain, adain_vgg19
from arbitrary_nst.models.fixed_styles import FixedStyles, multi_style, single_style
from arbitrary_nst.models.light import CoarseToFine, light, normalization_network
from arbitrary_nst.models.style_prediction import StylePrediction, ghiasi2017


@runtime_checkable
class StyleModel(Protocol):
    """Encode a style to a code; make a picture from a photo and a code. Codes blend linearly.

    Images are float RGB in [0, 1]. One code may serve a whole batch of photos. A model that has `coarse_to_fine` set
    paints one octave of a picture (`CoarseToFine`).
    """

    code_size: int

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]: ...

    def __call__(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"]) -> Float[Tensor, "B 3 H W"]: ...


MODELS: dict[str, Callable[..., nn.Module]] = {
    "light": light,
    "paper": ghiasi2017,
    "adain": adain,
    "adain-vgg19": adain_vgg19,
    "single-style": single_style,
    "multi-style": multi_style,
    "normalization-network": normalization_network,
}
"""Builders; each takes `pretrained=False` to skip its backbone's weights, when saved ones are about to be loaded."""

FIXED_STYLES = ("single-style", "multi-style")
"""Those whose builders also take `styles`, the names of the only styles that they know: they build a `FixedStyles`."""

__all__ = [
    "FIXED_STYLES",
    "MODELS",
    "AdaIN",
    "CoarseToFine",
    "FixedStyles",
    "StyleModel",
    "StylePrediction",
    "adain",
    "adain_vgg19",
    "ghiasi2017",
    "light",
    "multi_style",
    "normalization_network",
    "single_style",
]
