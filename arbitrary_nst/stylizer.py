"""The user's object: a photo and style codes in, a picture out.

Shapes: B batch, N styles, D numbers of a style code, H x W pixels, h x w of a part of them or of a mask. Images are
float RGB in [0, 1]; where a whole one would be too large for that, 8-bit pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from arbitrary_nst.color import PreserveColor, match_covariance, with_colors_of
from arbitrary_nst.devices import channels_last, chosen_device, fast_bfloat16, free_memory, out_of_memory
from arbitrary_nst.image import resize, shrink_pixels
from arbitrary_nst.masks import check_masks, is_covered, mask_shares
from arbitrary_nst.models import FixedStyles, StyleModel
from arbitrary_nst.models.files import load_model
from arbitrary_nst.statistics import style_shares
from arbitrary_nst.tiling import Grid, Interval, Part, exact, paint_in_tiles

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16"]

Tile = Literal["auto"] | int | None
"""Side of a tile in pixels; None never cuts a picture, "auto" where memory asks for it."""

Content = Float[Tensor, "B 3 H W"] | UInt8[Tensor, "3 H W"]
"""Photos in [0, 1], or the 8-bit pixels of one."""

Result = TypeVar("Result")

DEFAULT_TILE = 1024
SMALLEST_TILE = 64

MEMORY_SHARE = 0.5
"""Of the free memory, how much a picture may take that is not cut."""

KEPT_MEMORY = 4 * 2**30
"""Bytes, at most, for the whole maps of a network's trunk, where a picture is cut into tiles."""

ASSUMED_MEMORY = 4 * 2**30
"""Bytes that are taken to be free where the device does not say."""

LARGE = 2**20
"""Pixels beyond which a picture that is not cut is painted with the exact statistics that tiles have."""

NO_STRENGTH = "a model that knows only its own styles has no code of the photo to blend with; leave it at 1"

STYLE_SIZE = 384
"""Short side, in pixels, at which paintings are looked at unless told otherwise."""


def blend_codes(
    codes: Sequence[Float[Tensor, "#B D"]], weights: Sequence[float] | None = None
) -> Float[Tensor, "#B D"]:
    """The weighted mean of style codes: a style between styles (Dumoulin et al. 2017).

    Args:
        weights: one for each code, not negative, not all zero; they are divided by their sum. None: all equal.

    Raises ValueError where the weights are not that.
    """
    if not codes:
        raise ValueError("there is no style code to blend")
    shares = style_shares(weights, len(codes))
    return sum(code * share for code, share in zip(codes, shares, strict=True))  # type: ignore


class Stylizer:
    """Stylizes photos with codes of paintings; a painting is encoded once and used often.

        stylizer = Stylizer.from_pretrained()
        code = stylizer.encode_style(load_image("painting.jpg"))
        save_image(stylizer(load_image("photo.jpg"), code, alpha=0.8), "out.png")

    Args:
        model: any style model; it is moved to the device, frozen, and set to evaluation mode.
        device: where to compute; None chooses (`chosen_device`).
        precision: of the network that paints: "float32", "bfloat16", or "auto", which is bfloat16 where the device
            multiplies it natively (docs/results.md has the difference in the picture). Paintings are always encoded
            in float32.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"unknown precision '{precision}': choose auto, float32 or bfloat16")
        self.device = chosen_device(device)
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
    def encode_style(
        self,
        style: Float[Tensor, "B 3 H W"],
        size: int | None = STYLE_SIZE,
        scale: float = 1.0,
        like: Float[Tensor, "1 3 h w"] | UInt8[Tensor, "3 h w"] | None = None,
    ) -> Float[Tensor, "B D"]:
        """The code of paintings.

        Args:
            size: short side in pixels to which larger paintings are shrunk, smaller ones are not enlarged; with it
                the strokes shrink and grow. None looks at every painting as it is.
            scale: of what that gives, enlarged too: the strokes become so many times as large.
            like: a photo to whose colours the paintings are recoloured before the network looks at them
                (`match_covariance`). The code is for that photo then.

        Raises ValueError where the tensor is no image, a number is out of range, or the model has only its own styles.
        """
        _check_image(style, "style")
        if size is not None and size < 1:
            raise ValueError(f"size is {size}: must be at least 1 pixel, or None")
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}: must be positive and finite")
        if like is not None:
            like = _thinned(_check_content(like))
        side = min(style.shape[2:])
        seen = max(1, round((side if size is None else min(side, size)) * scale))
        if seen != side:
            style = resize(style, seen)
        if like is not None:
            style = torch.cat([match_covariance(painting, like.to(style.device)) for painting in style.split(1)])
        return self.model.encode_style(channels_last(style, self.device))

    @torch.inference_mode()
    def __call__(
        self,
        content: Float[Tensor, "B 3 H W"],
        code: Float[Tensor, "N D"],
        alpha: float = 1.0,
        *,
        masks: Float[Tensor, "N 1 h w"] | None = None,
        preserve_color: PreserveColor = "none",
        tile: Tile = "auto",
    ) -> Float[Tensor, "B 3 H W"]:
        """Photos in a style, on the CPU, in float32 and [0, 1], each exactly as large as it came.

        Args:
            code: one for the whole batch or one for each photo; blend several with `blend_codes`. With masks, one for
                each mask.
            alpha: strength. 1 is the style, 0 the photo's own; between, their codes are blended.
            masks: where in the one photo each style shows, in [0, 1], of any size: they are stretched over it. The
                styles' pictures are mixed in these shares, divided by their sum where that exceeds 1. Where it is
                less, the rest is the photo's own look, which is that of alpha 0 or, where the model knows only its own
                styles, the photo.
            preserve_color: "luminance" keeps the photo's colours and takes only the brightness of the result
                (`with_colors_of`). "covariance" is a matter of the painting: `encode_style(painting, like=photo)`.
            tile: work in tiles of so many pixels a side, which bounds the memory and changes nothing else; None
                never does. "auto" does where the whole would take too much of the free memory, and begins again in
                tiles, with a warning in the log, where memory runs out.

        Raises ValueError for images, masks, an alpha or a tile out of range, and for an alpha below 1 where the model
        knows only its own styles: the photo has no code then.
        """
        _check_image(content, "content")
        self._check(content, code, alpha, masks, preserve_color, tile)
        if len(content) > 1 and (content[0, 0].numel() > LARGE or self._side(content, tile) is not None):
            each = [
                self(photo, code[[index % len(code)]], alpha, preserve_color=preserve_color, tile=tile)
                for index, photo in enumerate(content.split(1))
            ]
            return torch.cat(each)

        def make(side: int | None, keep_trunk: bool) -> Float[Tensor, "B 3 H W"]:
            result = None
            for top, left, part in self._parts(content, code, alpha, masks, preserve_color, side, keep_trunk):
                if part.shape == content.shape:
                    return part
                if result is None:
                    result = torch.empty(content.shape)
                result[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
            assert result is not None
            return result

        return self._within_memory(content, tile, make)

    @torch.inference_mode()
    def paint_pixels(
        self,
        pixels: UInt8[Tensor, "3 H W"],
        code: Float[Tensor, "N D"],
        alpha: float = 1.0,
        *,
        masks: Float[Tensor, "N 1 h w"] | None = None,
        preserve_color: PreserveColor = "none",
        tile: Tile = "auto",
    ) -> UInt8[Tensor, "3 H W"]:
        """What a call makes of a photo, from 8-bit pixels to 8-bit pixels: in tiles, no whole picture is ever float.

        The three numbers of a pixel lie side by side in memory, as `save_pixels` would have them. Arguments and
        errors are those of a call.
        """
        _check_content(pixels)
        self._check(pixels[None], code, alpha, masks, preserve_color, tile)
        result = torch.empty(*pixels.shape[1:], 3, dtype=torch.uint8).permute(2, 0, 1)

        def make(side: int | None, keep_trunk: bool) -> UInt8[Tensor, "3 H W"]:
            for top, left, part in self._parts(pixels, code, alpha, masks, preserve_color, side, keep_trunk):
                result[:, top : top + part.shape[2], left : left + part.shape[3]] = part[0].mul(255).round_()
            return result

        return self._within_memory(pixels, tile, make)

    def _check(
        self,
        content: Tensor,
        code: Tensor,
        alpha: float,
        masks: Tensor | None,
        preserve_color: PreserveColor,
        tile: Tile,
    ) -> None:
        if masks is not None:
            check_masks(masks, len(code))
            if len(content) > 1:
                raise ValueError(f"masks are for one photo, not {len(content)}: call once for each")
        counts = (1, len(content)) if masks is None else (len(masks),)
        if code.ndim != 2 or code.shape[1] != self.model.code_size or len(code) not in counts:
            raise ValueError(
                f"this model's style codes are of shape ({' or '.join(map(str, counts))}, {self.model.code_size}), not "
                f"{tuple(code.shape)}: encode_style gives one"
            )
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}: must be between 0 (the photo's own look) and 1 (the style)")
        if alpha < 1 and self.style_names:
            raise ValueError(f"alpha is {alpha}: {NO_STRENGTH}")
        if preserve_color == "covariance":
            raise ValueError("covariance recolours the painting, not the picture: encode_style(painting, like=photo)")
        if preserve_color not in ("none", "luminance"):
            raise ValueError(f"unknown preserve_color '{preserve_color}': choose none or luminance")
        if tile is not None and tile != "auto":
            if not isinstance(tile, int) or tile < SMALLEST_TILE:
                raise ValueError(f"tile is {tile!r}: must be 'auto', None, or at least {SMALLEST_TILE} pixels")
            if self._network is None:
                raise ValueError(f"tile is {tile}: this model cannot be cut into tiles; leave it at 'auto'")

    # Memory

    @property
    def _network(self) -> nn.Module | None:
        """What paints, where it says how it can be cut into tiles."""
        network = getattr(self.model, "transformer", self.model)
        return network if isinstance(network, nn.Module) and hasattr(network, "reach") else None

    def _side(self, content: Content, tile: Tile) -> int | None:
        """The side of the tiles to begin with; None: the picture is not cut."""
        if tile != "auto" or self._network is None:
            return None if tile == "auto" else tile
        pixels = content.numel() // 3
        return DEFAULT_TILE if pixels * int(self._network.bytes_per_pixel) > self._room() else None  # type: ignore[arg-type]

    def _room(self) -> float:
        """Bytes that a picture may take."""
        free = free_memory(self.device)
        return MEMORY_SHARE * (ASSUMED_MEMORY if free is None else free)

    def _can_keep_trunk(self, content: Content) -> bool:
        trunk = getattr(self._network, "trunk", None)
        return trunk is not None and content.numel() // 3 * trunk.bytes_per_pixel <= min(self._room(), KEPT_MEMORY)

    def _within_memory(self, content: Content, tile: Tile, make: Callable[[int | None, bool], Result]) -> Result:
        """What `make` makes with as much memory as there is.

        Where it runs out, the picture is cut, then the network's trunk too, then the tiles are halved.
        """
        side, keep_trunk = self._side(content, tile), self._can_keep_trunk(content)
        while True:
            try:
                return make(side, keep_trunk)
            except Exception as error:
                if not out_of_memory(error) or tile is None or self._network is None:
                    raise
                reason = type(error).__name__
                if side is None:
                    side = DEFAULT_TILE
                elif keep_trunk:
                    keep_trunk = False
                elif side // 2 < SMALLEST_TILE:
                    raise
                else:
                    side //= 2
            logger.warning("out of memory (%s): begun again in tiles of %d pixels", reason, side)

    # Painting

    def _parts(
        self,
        content: Content,
        codes: Tensor,
        alpha: float,
        masks: Tensor | None,
        preserve_color: PreserveColor,
        side: int | None,
        keep_trunk: bool,
    ) -> Iterator[Part]:
        """The picture in parts; those of all styles are made in step and added up."""
        height, width = content.shape[-2:]
        codes = codes.to(self.device)
        mixed = masks is not None
        masks = None if masks is None else masks.to("cpu", torch.float32)
        bare = masks is not None and not is_covered(masks)  # somewhere the photo's own look shows
        own = None
        if alpha < 1 or (bare and not self.style_names):
            own = self.encode_style(_seen_whole(content))
        if alpha < 1:
            codes = blend_codes([own, codes], [1 - alpha, alpha])  # type: ignore[list-item]
        looks = [self._look(content, code, side, keep_trunk) for code in (codes.split(1) if mixed else [codes])]
        if bare and own is not None:
            looks.append(self._look(content, own, side, keep_trunk))
        for top, left, picture in looks[0]:
            picture = picture[:, :, : height - top, : width - left]
            extent = picture.shape[2:]
            rows, columns = (top, top + extent[0]), (left, left + extent[1])
            if masks is not None:
                weights = mask_shares(masks, (height, width), rows, columns)
                picture = picture * weights[0]
                for look, weight in zip(looks[1:], weights[1:], strict=False):
                    picture.addcmul_(next(look)[2][:, :, : extent[0], : extent[1]], weight)
                if bare and own is None:
                    picture.addcmul_(_window(content, rows, columns).cpu().float(), weights[-1])
            if preserve_color == "luminance":
                picture = with_colors_of(picture, _window(content, rows, columns).cpu().float())
            yield top, left, picture

    def _look(self, content: Content, code: Tensor, side: int | None, keep_trunk: bool) -> Iterator[Part]:
        """The picture of one style, in parts."""
        read = partial(self._read, content)
        forward = partial(self._forward, code=code)
        size = content.shape[-2], content.shape[-1]
        network = self._network
        if side is None or network is None:
            model = exact(self.model) if size[0] * size[1] > LARGE else self.model  # type: ignore[arg-type]
            yield 0, 0, forward(model, read((0, size[0]), (0, size[1])))  # type: ignore[arg-type]
        else:
            reach = network.reach_around_trunk if keep_trunk else network.reach
            grid = Grid(network.multiple, network.minimum, reach)  # type: ignore[arg-type]
            yield from paint_in_tiles(self.model, forward, read, size, side, grid, keep_trunk)  # type: ignore[arg-type]

    def _read(self, content: Content, rows: Interval, columns: Interval) -> Float[Tensor, "B 3 h w"]:
        return channels_last(_window(content, rows, columns), self.device)

    def _forward(
        self, model: StyleModel, photo: Float[Tensor, "B 3 h w"], code: Float[Tensor, "#B D"]
    ) -> Float[Tensor, "B 3 h w"]:
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return model(photo, code).float().nan_to_num(0).clamp_(0, 1).cpu()


# Pictures that may be large


def _window(content: Content, rows: Interval, columns: Interval) -> Float[Tensor, "B 3 h w"]:
    """A part of a picture; beyond its right and its lower border it is continued."""
    height, width = content.shape[-2:]
    part = content[..., slice(*rows), slice(*columns)]
    if part.ndim == 3:
        part = part[None].float().div_(255)
    down, right = max(rows[1] - height, 0), max(columns[1] - width, 0)
    return F.pad(part, (0, right, 0, down), mode="replicate") if down or right else part


def _seen_whole(content: Content) -> Float[Tensor, "B 3 h w"]:
    """The photo as the network looks at a painting."""
    return content if content.ndim == 4 else shrink_pixels(content, STYLE_SIZE)


def _thinned(content: Content, pixels: int = 2**20) -> Float[Tensor, "B 3 h w"]:
    """Every n-th pixel of every n-th row, so that about `pixels` remain: the colours of all."""
    step = max(1, round((content.shape[-2] * content.shape[-1] / pixels) ** 0.5))
    thinned = content[..., ::step, ::step]
    return thinned if thinned.ndim == 4 else thinned[None].float().div_(255)


# Checks


def _check_image(image: Tensor, name: str) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or image.numel() == 0:
        raise ValueError(
            f"the {name} must be a float tensor of shape (B, 3, H, W) with values in [0, 1], "
            f"not {image.dtype} of shape {tuple(image.shape)}: load_image gives one"
        )


def _check_content(content: Content) -> Content:
    """One photo, as float or as 8-bit pixels."""
    if content.is_floating_point():
        _check_image(content, "photo")
        if len(content) > 1:
            raise ValueError(f"there must be one photo, not {len(content)}")
    elif content.dtype != torch.uint8 or content.ndim != 3 or len(content) != 3 or content.numel() == 0:
        raise ValueError(
            f"the pixels must be uint8 of shape (3, H, W), not {content.dtype} of shape {tuple(content.shape)}: "
            "load_pixel_picture gives them"
        )
    return content
