"""Options of a stylization, and those that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import DEFAULT_MAX_PIXELS
from arbitrary_nst.image.color import PreserveColor

Precision = Literal["auto", "float32", "bfloat16"]

Tile = Literal["auto"] | int | None
"""Side of a tile in pixels; None never cuts a picture, "auto" where memory asks for it."""

SMALLEST_TILE = 64

STYLE_SIZE = 384
"""Short side, in pixels, at which paintings are looked at unless told otherwise."""


@dataclass(frozen=True)
class StyleOptions:
    """How style images are encoded: arguments of `Stylizer.encode_style`."""

    size: int = STYLE_SIZE
    scale: float = 1.0
    recolor: bool = False
    """Give them the colours of each content image beforehand, for which they are encoded then."""


@dataclass(frozen=True)
class PaintOptions:
    """How a content image is stylized: arguments of a call of `Stylizer`."""

    alpha: float = 1.0
    preserve_color: PreserveColor = "none"
    tile: Tile = "auto"
    octaves: int | None = None


@dataclass(frozen=True, kw_only=True)
class SharedConfig:
    """Options that `stylize` and `video` share."""

    content: Any
    style: tuple[Any, ...] = ()
    output: Path | None
    alpha: float = 1.0
    """Strength: 1 is the style, 0 the content as it is."""
    style_weights: tuple[float, ...] = ()
    """Blend the styles into one with these weights, one for each."""
    preserve_color: PreserveColor = "none"
    """Keep the content's colours: by its chrominance (luminance), or by recolouring the paintings (covariance; in
    a video for every frame)."""
    content_size: int | None = None
    """Short side of the result in pixels; otherwise it is exactly as large as the content."""
    style_size: int = STYLE_SIZE
    """Paintings are looked at with this short side at most, in pixels: a smaller one gives finer strokes."""
    style_scale: float = 1.0
    """Size of the strokes, 0.25 to 4, whatever the size of the content: paintings are looked at so many times as large
    as --style-size says, enlarged if need be. (A style file holds what was seen when it was saved.)"""
    tile: Literal["auto", "off"] | int = "auto"
    """Paint large pictures in tiles of this side, in pixels; auto: where memory asks for it."""
    quality: int = 95
    """Of jpg and webp, 1 to 100."""
    model: str = "light"
    """A model that ships with the package, a .safetensors file written by train.py, or a folder written by export."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    """auto: bfloat16 where the device multiplies it natively, else float32."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_MAX_PIXELS
    """Refuse files with more pixels than this (they may be decompression bombs); 0 lifts the limit."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha {self.alpha}: must be between 0 (the photo) and 1 (the style)")
        for name in ("content_size", "style_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least 1 pixel")
        if not 0.25 <= self.style_scale <= 4:
            raise UsageError(f"--style-scale {self.style_scale}: must be between 0.25 (finer strokes) and 4 (larger)")
        if isinstance(self.tile, int) and self.tile < SMALLEST_TILE:
            raise UsageError(f"--tile {self.tile}: must be auto, off, or at least {SMALLEST_TILE} pixels")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: must be from 1 to 100")
        if self.max_pixels < 0:
            raise UsageError(f"--max-pixels {self.max_pixels}: must be positive, or 0 for no limit")

    @property
    def limit(self) -> int | None:
        """Pixels of the largest file that is read."""
        return self.max_pixels or None

    @property
    def style_options(self) -> StyleOptions:
        """How paintings are encoded."""
        return StyleOptions(self.style_size, self.style_scale, self.preserve_color == "covariance")

    @property
    def paint_options(self) -> PaintOptions:
        """How the content is stylized; paintings that are recoloured leave the result its colours."""
        preserve_color = "luminance" if self.preserve_color == "luminance" else "none"
        return PaintOptions(self.alpha, preserve_color, None if self.tile == "off" else self.tile)
