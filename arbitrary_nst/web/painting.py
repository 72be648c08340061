"""Pictures for the page, painted as the command line paints them: one model for everybody, what was seen remembered."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from arbitrary_nst.batch import (
    Look,
    Photo,
    Style,
    StylizeConfig,
    code_for,
    load_photo,
    paint,
    prepared_style,
)
from arbitrary_nst.image import save_image, save_pixels
from arbitrary_nst.masks import load_mask, weighted_masks
from arbitrary_nst.style_command import synthetic_photo
from arbitrary_nst.styles import GALLERY, StyleFileError, gallery, load_style
from arbitrary_nst.stylizer import Precision, Stylizer
from arbitrary_nst.web.sessions import Source

SEPARATOR = " · "
"""Between a work's title and its artist."""

CODES, PHOTOS = 256, 2
"""How many styles, and how many decoded photos, are remembered."""

SWATCH = 160
"""Side of a swatch in pixels; the page shows it at half of that and less."""


class Painter:
    """Paints for everybody who has the page open, one after another.

    Args:
        model, device, precision: as in `Stylizer.from_pretrained`.
        max_pixels: results of more are refused.

    Raises ValueError where the model knows only its own styles.
    """

    def __init__(self, model: str, device: str, precision: Precision, max_pixels: int) -> None:
        self.stylizer = Stylizer.from_pretrained(model, device, precision)
        if self.stylizer.style_names:
            raise ValueError(f"--model {model}: knows only its own styles; the page needs one that takes any painting")
        self.max_pixels = max_pixels
        self.photo = lru_cache(PHOTOS)(self._photo)
        self.code = lru_cache(CODES)(self._code)
        self._model = model

    def known_styles(self) -> dict[str, str]:
        """What the gallery has for this model: the works, each by what stands for it in a command, gallery:NAME."""
        known = {}
        with suppress(StyleFileError):  # of another model
            for name, style in gallery().items():
                load_style(GALLERY + name, self._model)
                known[GALLERY + name] = f"{style.provenance['title']}{SEPARATOR}{style.provenance['artist']}"
        return known

    def save_swatches(self, path: Path) -> None:
        """The test picture in every style of the gallery, side by side in one picture."""
        photo = synthetic_photo(SWATCH)
        swatches = [self.stylizer(photo, load_style(name, self._model).code) for name in self.known_styles()]
        save_image(torch.cat(swatches, 3), path, quality=85)

    def paint(self, config: StylizeConfig, photo: Source, styles: Sequence[Source]) -> None:
        """What the command line would write with this configuration, to the last bit.

        Raises whatever is wrong with the files or the configuration, as the command line would say it.
        """
        seen = self._seen(config)
        decoded = self.photo(photo, config.content_size)
        like = photo if config.preserve_color == "covariance" else None
        codes = [Style(style.path.stem, self.code(style, seen, like)) for style in styles]
        masks = [load_mask(path, config.max_pixels or None) for path in config.mask]
        look = Look(config.output.stem, codes, weighted_masks(masks, [1.0] * len(masks)) if masks else None)
        pixels = paint(self.stylizer, decoded, look, config)
        save_pixels(pixels, config.output, decoded.alpha, config.quality, decoded.exif)

    def extent(self, photo: Source, size: int | None) -> tuple[int, int]:
        """Height and width of what a photo will be painted as. Raises ImageError where that is too large."""
        height, width = self.photo(photo, size).pixels.shape[1:]
        return height, width

    def _seen(self, config: StylizeConfig) -> StylizeConfig:
        """What of a configuration decides how a painting is looked at."""
        size = config.content_size if config.preserve_color == "covariance" else None
        bare = replace(config, content=(), style=(), style_weights=(), mask=(), output=Path(), alpha=1.0)
        return replace(bare, content_size=size)

    def _photo(self, photo: Source, size: int | None) -> Photo:
        config = StylizeConfig(content=(), output=Path(), content_size=size, max_pixels=self.max_pixels)
        return load_photo(photo.path, config)

    def _code(self, style: Source, seen: StylizeConfig, like: Source | None) -> Float[Tensor, "1 D"]:
        found = prepared_style(self.stylizer, style.path.stem, style.path, seen)
        if like is None:
            assert found.code is not None
            return found.code
        return code_for(self.stylizer, found, self.photo(like, seen.content_size), seen)


def brushed_areas(
    drawing: UInt8[Tensor, "4 H W"], colors: Sequence[tuple[int, int, int]], opacity: float
) -> list[Float[Tensor, "1 3 H W"]]:
    """A mask for each colour that was brushed, red, green and blue in 0..255: white there, black elsewhere.

    Where the brush's edge is soft, below its `opacity`, the mask is; a mixed colour counts as the one it is nearest to.
    """
    palette = torch.tensor(colors, dtype=torch.float32).view(-1, 3, 1, 1)
    nearest = (drawing[None, :3].float() - palette).square().sum(1).argmin(0)
    coverage = (drawing[3].float() / (255 * opacity)).clamp(max=1)
    return [(coverage * (nearest == index)).expand(1, 3, -1, -1) for index in range(len(colors))]
