"""Pictures for the page, painted as the command line paints them: one model for everybody, its codes remembered."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from arbitrary_nst.errors import StyleFileError, UsageError
from arbitrary_nst.image import load_pixels, save_image, save_pixels
from arbitrary_nst.image.masks import load_mask, weighted_masks
from arbitrary_nst.image.synthetic import synthetic_photo
from arbitrary_nst.stylization.jobs import (
    Look,
    Style,
    StylizeConfig,
    code_for,
    load_photo,
    prepared_style,
    stylize_photo,
)
from arbitrary_nst.stylization.options import Precision, StyleOptions
from arbitrary_nst.stylization.style_files import GALLERY, gallery, load_style
from arbitrary_nst.stylization.stylizer import Stylizer
from arbitrary_nst.stylization.tiling import Progress, no_progress
from arbitrary_nst.web.sessions import Source

SEPARATOR = " · "
"""Between a work's title and its artist."""

CODES, PHOTOS = 256, 4
"""How many styles, and how many decoded photos, are remembered."""

SWATCH = 160
"""Side of a swatch in pixels; the page shows it at half of that and less."""


class Painter:
    """Paints for everybody who has the page open; one caller at a time.

    Args:
        model, device, precision: as in `Stylizer.from_pretrained`.
        max_pixels: results of more are refused.

    Raises UsageError if the model knows only its own styles.
    """

    def __init__(self, model: str, device: str, precision: Precision, max_pixels: int) -> None:
        self.stylizer = Stylizer.from_pretrained(model, device, precision)
        if self.stylizer.style_names:
            raise UsageError(f"--model {model}: knows only its own styles; the page needs one that takes any painting")
        self.max_pixels = max_pixels
        self.photo = lru_cache(PHOTOS)(lambda photo, size: load_photo(photo.path, size, max_pixels or None))
        self.code = lru_cache(CODES)(self._code)
        self._model = model
        self._last: tuple[object, UInt8[Tensor, "3 H W"]] | None = None

    @cached_property
    def known_styles(self) -> dict[str, str]:
        """The works that the gallery has for this model, by their names in a command, gallery:NAME."""
        known = {}
        with suppress(StyleFileError):  # of another model
            for name, style in gallery().items():
                load_style(GALLERY + name, self._model)
                known[GALLERY + name] = f"{style.provenance['title']}{SEPARATOR}{style.provenance['artist']}"
        return known

    def save_swatches(self, path: Path, photo: Path | None = None, progress: Progress = no_progress) -> None:
        """Write the middle of a photo in every style of the gallery, side by side; without one of a test picture.

        Args:
            progress: as in `paint`.
        """
        if photo is None:
            picture = synthetic_photo(SWATCH)
        else:
            picture = load_pixels(photo, SWATCH, self.max_pixels)[None].float() / 255
            side = min(picture.shape[2:])
            top, left = ((length - side) // 2 for length in picture.shape[2:])
            picture = picture[:, :, top : top + side, left : left + side]
        swatches = []
        for index, name in enumerate(self.known_styles):
            progress(index / len(self.known_styles))
            swatches.append(self.stylizer(picture, load_style(name, self._model).code))
        save_image(torch.cat(swatches, 3), path, quality=85)

    def paint(
        self, config: StylizeConfig, photo: Source, styles: Sequence[Source], progress: Progress = no_progress
    ) -> UInt8[Tensor, "3 H W"]:
        """Return the pixels that the command line would write with this configuration.

        Args:
            progress: is called with the share of the work that is done, 0 to 1; an exception that it raises ends it.

        Raises what is wrong with the files or the configuration, as the command line words it.
        """
        key = replace(config, output=Path(), content=(), style=(), quality=95), photo, tuple(styles)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        decoded, options = self.photo(photo, config.content_size), config.style_options
        like = (photo, config.content_size) if options.recolor else None
        progress(0)
        codes = [Style(style.path.stem, options, self.code(style, options, like)) for style in styles]
        masks = [load_mask(path, config.limit) for path in config.mask]
        shares = weighted_masks(masks, [1.0] * len(masks)) if masks else None
        look = Look(config.output.stem, codes, config.style_weights, shares)
        result = stylize_photo(self.stylizer, decoded, look, config.paint_options, progress)
        progress(1)
        self._last = key, result
        return result

    def save(
        self, config: StylizeConfig, photo: Source, styles: Sequence[Source], progress: Progress = no_progress
    ) -> None:
        """Write the file that the command line would write with this configuration, to the last bit."""
        decoded = self.photo(photo, config.content_size)
        pixels = self.paint(config, photo, styles, progress)
        save_pixels(pixels, config.output, decoded.alpha, config.quality, decoded.exif)

    def extent(self, photo: Source, size: int | None) -> tuple[int, int]:
        """Height and width of what a photo will be painted as. Raises ImageError where that is too large."""
        height, width = self.photo(photo, size).pixels.shape[1:]
        return height, width

    def _code(
        self, style: Source, options: StyleOptions, like: tuple[Source, int | None] | None
    ) -> Float[Tensor, "1 D"]:
        """The code of a style, recoloured to the photo of this size where it is given."""
        name, limit = style.path.stem, self.max_pixels or None
        found = prepared_style(self.stylizer, name, style.path, options, self._model, limit)
        return code_for(self.stylizer, found, None if like is None else self.photo(*like).pixels)


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
