"""The user's object: a photo and style codes in, a picture out.

Shapes: B batch, D numbers of a style code, H x W pixels. Images are float RGB in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.devices import default_device, fast_bfloat16
from arbitrary_nst.image import resize
from arbitrary_nst.models import FixedStyles, StyleModel
from arbitrary_nst.models.files import load_model

Precision = Literal["auto", "float32", "bfloat16"]

NO_STRENGTH = "a model that knows only its own styles has no code of the photo to blend with; leave it at 1"

STYLE_SIZE = 384
"""Short side, in pixels, at which paintings are looked at unless told otherwise."""


def blend_codes(
    codes: Sequence[Float[Tensor, "#B D"]], weights: Sequence[float] | None = None
) -> Float[Tensor, "#B D"]:
    """The weighted mean of style codes: a style between styles (Dumoulin et al. 2017, section 3.2).

    Args:
        weights: one for each code, not negative, not all zero; they are divided by their sum. None: all equal.

    Raises ValueError where the weights are not that.
    """
    if not codes:
        raise ValueError("there is no style code to blend")
    if weights is None:
        weights = [1.0] * len(codes)
    if len(weights) != len(codes):
        raise ValueError(f"{len(codes)} styles need as many weights, not {len(weights)}")
    if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise ValueError(f"style weights must be finite, not negative and not all zero: {list(weights)}")
    return sum(code * (weight / sum(weights)) for code, weight in zip(codes, weights, strict=True))  # type: ignore


class Stylizer:
    """Stylizes photos with codes of paintings; a painting is encoded once and used often.

        stylizer = Stylizer.from_pretrained()
        code = stylizer.encode_style(load_image("painting.jpg"))
        save_image(stylizer(load_image("photo.jpg"), code, alpha=0.8), "out.png")

    Args:
        model: any style model; it is moved to the device, frozen, and set to evaluation mode.
        device: where to compute; None chooses (`default_device`).
        precision: of the network that paints: "float32", "bfloat16", or "auto", which is bfloat16 where the device
            multiplies it natively (docs/results.md has the difference in the picture). Paintings are always encoded
            in float32.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"unknown precision '{precision}': choose auto, float32 or bfloat16")
        self.device = default_device() if device in (None, "auto") else torch.device(device)
        low = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(self.device))
        self.dtype = torch.bfloat16 if low else torch.float32
        self.model: StyleModel = model.eval().requires_grad_(False).to(self.device)  # type: ignore[assignment]

    @classmethod
    def from_pretrained(
        cls, source: str | Path = "light", device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> "Stylizer":
        """With the weights of a shipped model's name, or of a file written by training. Needs no network.

        Raises WeightsNotFoundError or ModelFileError, saying what to do.
        """
        return cls(load_model(source), device, precision)

    @property
    def style_names(self) -> tuple[str, ...]:
        """The only styles that the model knows; none where it takes any painting."""
        return self.model.style_names if isinstance(self.model, FixedStyles) else ()

    @torch.inference_mode()
    def style_code(self, name: str) -> Float[Tensor, "1 D"]:
        """The code of one of the model's own styles.

        Raises ValueError where it has none of that name.
        """
        if not isinstance(self.model, FixedStyles):
            raise ValueError(f"no style named '{name}': this model takes any painting; encode_style gives its code")
        return self.model.style_code(name)

    @torch.inference_mode()
    def encode_style(self, style: Float[Tensor, "B 3 H W"], size: int | None = STYLE_SIZE) -> Float[Tensor, "B D"]:
        """The code of paintings.

        Args:
            size: short side in pixels to which larger paintings are shrunk, smaller ones are not enlarged; with it
                the strokes shrink and grow. None looks at every painting as it is.

        Raises ValueError where the tensor is no image, and where the model knows only its own styles.
        """
        _check_image(style, "style")
        if size is not None and min(style.shape[2:]) > size:
            style = resize(style, size)
        return self.model.encode_style(style.to(self.device, memory_format=torch.channels_last))

    @torch.inference_mode()
    def __call__(
        self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"], alpha: float = 1.0
    ) -> Float[Tensor, "B 3 H W"]:
        """Photos in a style, on the CPU, in float32 and [0, 1], each exactly as large as it came.

        Args:
            code: one for the whole batch or one for each photo; blend several with `blend_codes`.
            alpha: strength. 1 is the style, 0 the photo's own; between, their codes are blended.

        Raises ValueError for images or an alpha out of range, and for an alpha below 1 where the model knows only its
        own styles: the photo has no code then.
        """
        _check_image(content, "content")
        if code.ndim != 2 or code.shape[1] != self.model.code_size or len(code) not in (1, len(content)):
            raise ValueError(
                f"this model's style codes are of shape (1 or {len(content)}, {self.model.code_size}), not "
                f"{tuple(code.shape)}: encode_style gives one"
            )
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}: must be between 0 (the photo's own look) and 1 (the style)")
        if alpha < 1 and self.style_names:
            raise ValueError(f"alpha is {alpha}: {NO_STRENGTH}")
        code = code.to(self.device)
        if alpha < 1:
            code = blend_codes([self.encode_style(content), code], [1 - alpha, alpha])
        photo = content.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(photo, code).float().nan_to_num(0).clamp(0, 1).cpu()


def _check_image(image: Tensor, name: str) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or image.numel() == 0:
        raise ValueError(
            f"the {name} must be a float tensor of shape (B, 3, H, W) with values in [0, 1], "
            f"not {image.dtype} of shape {tuple(image.shape)}: load_image gives one"
        )
