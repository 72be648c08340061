"""The user's object: a photo and style codes in, a picture out.

Shapes: B batch, N styles, D numbers of a style code, H x W pixels, h x w of a part of them or of a mask. Images are
float RGB in [0, 1]; where a whole one would be too large for that, 8-bit pixels.
"""

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import chain
from operator import add
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import resize, shrink_pixels
from arbitrary_nst.image.arguments import check_tensor, is_number, is_whole
from arbitrary_nst.image.color import PreserveColor, match_covariance, with_colors_of
from arbitrary_nst.image.masks import check_masks, mask_shares
from arbitrary_nst.models import FixedStyles, StyleModel
from arbitrary_nst.models.light import combine_views
from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.nn.octaves import window
from arbitrary_nst.nn.statistics import style_shares
from arbitrary_nst.runtime.devices import channels_last, chosen_device, chosen_precision
from arbitrary_nst.stylization.options import SMALLEST_TILE, STYLE_SIZE, PaintOptions, Precision, Tile
from arbitrary_nst.stylization.runner import LARGE, Content, Cut, TiledRunner
from arbitrary_nst.stylization.tiling import Part, Progress, no_progress

NO_STRENGTH = "a model that knows only its own styles has no code of the photo to blend with; leave it at 1"

OVERSHOOT = 0.25
"""How far values may lie outside [0, 1], as resizing leaves them; they are clamped. Further is another range."""


def blend_codes(
    codes: Sequence[Float[Tensor, "#B D"]], weights: Sequence[float] | None = None
) -> Float[Tensor, "#B D"]:
    """Weighted mean of style codes: a style between styles (Dumoulin et al. 2017).

    Args:
        codes: at least one, each of shape (B, D) or (1, D), of the same model.
        weights: one for each code, not negative, not all zero. They are divided by their sum. None: all equal.

    Returns:
        A style code of shape (B, D).

    Raises:
        ValueError: without codes, or for weights that are negative, all zero, not finite, or of another number.
        TypeError: for what is no tensor.
    """
    if len(codes) == 0:
        raise UsageError("there is no style code to blend")
    for code in codes:
        check_tensor(code, "code", "encode_style gives one")
    if len({code.shape[-1:] for code in codes}) > 1:
        raise UsageError("style codes of different models cannot be blended: encode all with one")
    shares = style_shares(weights, len(codes))
    return reduce(add, (code * share for code, share in zip(codes, shares, strict=True)))


class Stylizer:
    """Stylize photos with style codes; a painting is encoded once and used often.

        stylizer = Stylizer.from_pretrained()
        code = stylizer.encode_style(load_image("painting.jpg"))
        save_image(stylizer(load_image("photo.jpg"), code, alpha=0.8), "out.png")

    Images, codes and masks may have any floating dtype and are converted to float32. Results are float32 tensors,
    whatever autocast, default device and default dtype the caller has set.

    Args:
        model: any style model; it is moved to the device in float32, frozen, and set to evaluation mode.
        device: where to compute; None chooses (`chosen_device`).
        precision: of the network that paints: "float32", "bfloat16", or "auto", which is bfloat16 where the device
            multiplies it natively. Paintings are always encoded in float32.

    Raises:
        ValueError: for an unknown precision or a device that is not available.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"unknown precision '{precision}': choose auto, float32 or bfloat16")
        self.device = chosen_device(device)
        self.dtype = torch.bfloat16 if chosen_precision(precision, self.device) == "bfloat16" else torch.float32
        model = model.eval().requires_grad_(False).to(self.device, torch.float32)
        self.model: StyleModel = model  # type: ignore[assignment]
        self._runner = TiledRunner(model, self.device, self.dtype)

    @classmethod
    def from_pretrained(
        cls, source: str | Path = "light", device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> "Stylizer":
        """Build a stylizer with weights that ship, that training wrote, or that are on the Hugging Face hub.

        Args:
            source: the name of a model that ships, "light"; a .safetensors file; the folder of a training run or of an
                exported model, or an exported stylizer (.onnx); or a repository of the hub, "OWNER/NAME" or
                "OWNER/NAME@REVISION", whose model.safetensors is downloaded once and kept in the hub's cache.
            device: where to compute; None chooses.
            precision: "float32", "bfloat16" or "auto", as in the constructor.

        Returns:
            A stylizer with the model on the device.

        Raises:
            WeightsNotFoundError: if the weights are neither on this machine nor downloadable.
            ModelFileError: if the file is no model of this package.
            ValueError: for an unknown precision or a device that is not available.
        """
        return cls(load_model(source), device, precision)

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the only styles that the model knows; empty for a model that takes any painting."""
        return self.model.style_names if isinstance(self.model, FixedStyles) else ()

    @torch.no_grad()
    def style_code(self, name: str) -> Float[Tensor, "1 D"]:
        """Style code of one of the model's own styles.

        Args:
            name: one of `style_names`.

        Returns:
            A style code of shape (1, D).

        Raises:
            ValueError: if the model has no style of that name.
        """
        if not isinstance(self.model, FixedStyles):
            raise UsageError(f"no style named '{name}': this model takes any painting; encode_style gives its code")
        return self.model.style_code(name)

    @torch.no_grad()
    def encode_style(
        self,
        style: Float[Tensor, "B 3 H W"],
        size: int | None = STYLE_SIZE,
        scale: float = 1.0,
        like: Float[Tensor, "1 3 h w"] | UInt8[Tensor, "3 h w"] | None = None,
    ) -> Float[Tensor, "B D"]:
        """Encode paintings: one style code for each.

        Args:
            style: paintings of shape (B, 3, H, W), in [0, 1].
            size: short side in pixels to which larger paintings are shrunk. Smaller ones are not enlarged. A smaller
                size gives finer strokes. None looks at every painting at its own size. A coarse-to-fine model looks at
                them twice: at this size for the first octave, and at up to twice this size for the others.
            scale: factor of the size that is looked at, and so of the strokes; positive. It enlarges too.
            like: one photo, (1, 3, h, w) in [0, 1] or 8-bit pixels (3, h, w). The paintings are recoloured to its
                colours (`match_covariance`) before they are encoded, and the code is for this photo.

        Returns:
            Style codes of shape (B, D).

        Raises:
            ValueError: if a tensor is no image, a number is out of range, or the model has only its own styles.
            TypeError: if `style` or `like` is no tensor.
        """
        style = _checked_image(style, "style")
        if size is not None and not (is_whole(size) and size >= 1):
            raise UsageError(f"size is {size!r}: must be a whole number of at least 1 pixel, or None")
        if not (is_number(scale) and 0 < scale < float("inf")):
            raise UsageError(f"scale is {scale!r}: must be a number, positive and finite")
        if like is not None:
            like = _thinned(_checked_photo(like))
        side = min(style.shape[2:])
        views = [side if size is None else min(side, size)]
        if self._runner.coarse_to_fine and size is not None and side > size:
            views.append(min(side, 2 * size))
        codes = []
        for seen in (max(1, round(view * scale)) for view in views):
            view = style if seen == side else resize(style, seen)
            if like is not None:
                view = torch.cat([match_covariance(painting, like.to(view.device)) for painting in view.split(1)])
            with torch.autocast(self.device.type, enabled=False):
                codes.append(self.model.encode_style(channels_last(view, self.device)))
        return codes[0] if len(codes) == 1 else combine_views(*codes)

    def content_code(self, content: Content) -> Float[Tensor, "B D"]:
        """Encode content images as styles: the codes that a strength below 1 blends the styles' codes with.

        Args:
            content: photos of shape (B, 3, H, W), in [0, 1], or the 8-bit pixels of one, (3, H, W).

        Returns:
            Style codes of shape (B, D).

        Raises:
            ValueError: if a tensor is no image, or the model has only its own styles.
        """
        if content.ndim == 4:
            return self.encode_style(content)
        _check_pixels(content)
        return self.encode_style(shrink_pixels(content, STYLE_SIZE))

    @torch.no_grad()
    def __call__(
        self,
        content: Float[Tensor, "B 3 H W"],
        code: Float[Tensor, "N D"],
        alpha: float = 1.0,
        *,
        masks: Float[Tensor, "N 1 h w"] | None = None,
        preserve_color: PreserveColor = "none",
        tile: Tile = "auto",
        octaves: int | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Stylize photos.

        Args:
            content: photos of shape (B, 3, H, W), in [0, 1].
            code: (1, D) for the whole batch, or (B, D). Blend several with `blend_codes`. With masks: (N, D), one for
                each mask.
            alpha: strength in [0, 1]. 1 is the style, 0 the photo itself. Between, the style's code is blended with
                the photo's own, and the result is mixed with the photo: its share is 1 - (1 - alpha)^2.
            masks: weights in [0, 1] that say where in the one photo each style shows. They have any size and are
                stretched over the photo. Where their sum exceeds 1, they are divided by it. Where it is less, the
                rest is the photo.
            preserve_color: "luminance" keeps the photo's colours and takes only the brightness of the result
                (`with_colors_of`). For "covariance", recolour the painting: `encode_style(painting, like=photo)`.
            tile: side of the tiles in pixels, which bounds the memory and changes nothing else. None: no tiles.
                "auto": tiles if the whole photo would take too much of the free memory, and a new attempt in tiles,
                with a warning in the log, if memory runs out.
            octaves: number of octaves that a coarse-to-fine model paints at most, counted from the finest. 1 paints at
                full size at once, with strokes of a fixed size in pixels. None: down to a short side of 512
                pixels, for photos of at least 900.

        Returns:
            Pictures as large as the photos, (B, 3, H, W), on the CPU, in float32 and [0, 1].

        Raises:
            ValueError: for images, codes, masks or numbers out of range, and for an alpha below 1 with a model that
                knows only its own styles: it has no code of the photo.
            TypeError: if `content`, `code` or `masks` is no tensor.
        """
        content = _checked_image(content, "content")
        options = PaintOptions(alpha, preserve_color, tile, octaves)
        self._check(content, code, masks, options)
        if alpha == 0:
            return content.to("cpu", copy=True)
        if len(content) > 1 and (content[0, 0].numel() > LARGE or self._runner.cut(content, tile).side is not None):
            each = enumerate(content.split(1))
            return torch.cat([self(photo, code[[index % len(code)]], **vars(options)) for index, photo in each])

        def make(cut: Cut) -> Float[Tensor, "B 3 H W"]:
            result = None
            for top, left, part in self._parts(content, code, masks, options, cut):
                if part.shape == content.shape:
                    return part
                if result is None:
                    result = torch.empty(content.shape, dtype=torch.float32, device="cpu")
                result[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
            assert result is not None
            return result

        return self._runner.within_memory(content, tile, make)

    @torch.no_grad()
    def paint_pixels(
        self,
        pixels: UInt8[Tensor, "3 H W"],
        code: Float[Tensor, "N D"],
        alpha: float = 1.0,
        *,
        masks: Float[Tensor, "N 1 h w"] | None = None,
        preserve_color: PreserveColor = "none",
        tile: Tile = "auto",
        octaves: int | None = None,
        content_code: Float[Tensor, "1 D"] | None = None,
        progress: Progress = no_progress,
    ) -> UInt8[Tensor, "3 H W"]:
        """Stylize one photo of 8-bit pixels. In tiles, the whole picture is never in float.

        Args:
            pixels: the photo, (3, H, W), 0 to 255.
            code: (1, D), or with masks (N, D), one for each mask.
            alpha: strength in [0, 1], as in a call.
            masks: weights in [0, 1] of shape (N, 1, h, w), as in a call.
            preserve_color: "none" or "luminance", as in a call.
            tile: side of the tiles in pixels, "auto" or None, as in a call.
            octaves: number of octaves at most, or None, as in a call.
            content_code: what `content_code` gives for the photo, if it is at hand; used where alpha is below 1.
            progress: called with the finished share of the work, 0 to 1, while a large picture is painted. It begins
                at 0 again if memory runs out.

        Returns:
            The picture, (3, H, W), 0 to 255, on the CPU. The three numbers of a pixel are adjacent in memory.

        Raises:
            ValueError: as in a call.
            TypeError: if `pixels`, `code` or `masks` is no tensor.
        """
        _check_pixels(pixels)
        options = PaintOptions(alpha, preserve_color, tile, octaves)
        self._check(pixels[None], code, masks, options)
        result = torch.empty(*pixels.shape[1:], 3, dtype=torch.uint8, device="cpu").permute(2, 0, 1)
        if alpha == 0:
            return result.copy_(pixels)

        def make(cut: Cut) -> UInt8[Tensor, "3 H W"]:
            for top, left, part in self._parts(pixels, code, masks, options, cut, content_code, progress):
                result[:, top : top + part.shape[2], left : left + part.shape[3]] = part[0].mul(255).round_()
            return result

        return self._runner.within_memory(pixels, tile, make)

    def _check(self, content: Tensor, code: Tensor, masks: Tensor | None, options: PaintOptions) -> None:
        alpha, tile, octaves = options.alpha, options.tile, options.octaves
        check_tensor(code, "code", "encode_style gives one")
        if octaves is not None and not (is_whole(octaves) and octaves >= 1):
            raise UsageError(f"octaves is {octaves!r}: must be a whole number of at least 1, or None")
        if masks is not None:
            check_tensor(masks, "masks", "give one of shape (N, 1, h, w)")
            check_masks(masks, len(code))
            if len(content) > 1:
                raise UsageError(f"masks are for one photo, not {len(content)}: call once for each")
        counts = (1, len(content)) if masks is None else (len(masks),)
        if code.ndim != 2 or code.shape[1] != self.model.code_size or len(code) not in counts:
            raise UsageError(
                f"this model's style codes are of shape ({' or '.join(map(str, counts))}, {self.model.code_size}), not "
                f"{tuple(code.shape)}: encode_style gives one"
            )
        if not code.is_floating_point():
            raise UsageError(f"the code must be of floats, not {code.dtype}: encode_style gives one")
        if not code.float().isfinite().all():
            raise UsageError("the code has NaN or infinity in it: encode the style again")
        if not (is_number(alpha) and 0 <= alpha <= 1):
            raise UsageError(f"alpha is {alpha!r}: must be a number between 0 (the photo) and 1 (the style)")
        if alpha < 1 and self.style_names:
            raise UsageError(f"alpha is {alpha}: {NO_STRENGTH}")
        if options.preserve_color == "covariance":
            raise UsageError("covariance recolours the painting, not the picture: encode_style(painting, like=photo)")
        if options.preserve_color not in ("none", "luminance"):
            raise UsageError(f"unknown preserve_color '{options.preserve_color}': choose none or luminance")
        if tile is not None and tile != "auto":
            if not is_whole(tile) or tile < SMALLEST_TILE:
                raise UsageError(f"tile is {tile!r}: must be 'auto', None, or at least {SMALLEST_TILE} pixels")
            if self._runner.spec is None:
                raise UsageError(f"tile is {tile}: this model cannot be cut into tiles; leave it at 'auto'")

    def _parts(
        self,
        content: Content,
        codes: Tensor,
        masks: Tensor | None,
        options: PaintOptions,
        cut: Cut,
        content_code: Tensor | None = None,
        progress: Progress = no_progress,
    ) -> Iterator[Part]:
        """The picture in parts; those of all styles are made in step and added up, and the photo fills the rest."""
        height, width = content.shape[-2:]
        codes = codes.to(self.device, torch.float32)
        masks = None if masks is None else masks.to("cpu", torch.float32)
        alpha = options.alpha
        if alpha < 1:
            own = self.content_code(content) if content_code is None else content_code
            codes = blend_codes([own.to(codes), codes], [1 - alpha, alpha])
        strength = 1 - (1 - alpha) ** 2
        each = [codes] if masks is None else codes.split(1)
        done, told = [0.0] * len(each), -1.0

        def tell(index: int, share: float) -> None:
            nonlocal told
            done[index] = share
            if sum(done) > told:
                told = sum(done)
                progress(told / len(done))

        first, *others = (
            self._runner(content, code, cut, options.octaves, partial(tell, index)) for index, code in enumerate(each)
        )
        nothing_left = masks is None and strength == 1 and options.preserve_color == "none"  # of the photo
        for top, left, part in first:
            rows, columns = (top, min(top + part.shape[2], height)), (left, min(left + part.shape[3], width))
            if nothing_left:
                yield top, left, part[:, :, : rows[1] - top, : columns[1] - left]
                continue
            shares = [1.0] if masks is None else mask_shares(masks, (height, width), rows, columns)
            weights = [strength * share for share in shares]
            photo = window(content, rows, columns).cpu()
            picture = photo * (1 - sum(weights))
            for painted, weight in zip(chain([part], (next(look)[2] for look in others)), weights, strict=True):
                painted = painted[:, :, : photo.shape[2], : photo.shape[3]]
                if options.preserve_color == "luminance":
                    painted = with_colors_of(painted, photo)
                picture += painted * weight
            yield top, left, picture.clamp_(0, 1)


# Pictures that may be large


def _thinned(content: Content, pixels: int = 2**20) -> Float[Tensor, "B 3 h w"]:
    """Every n-th pixel of every n-th row, so that about `pixels` remain: the colours of all."""
    step = max(1, round((content.shape[-2] * content.shape[-1] / pixels) ** 0.5))
    thinned = content[..., ::step, ::step]
    return thinned if thinned.ndim == 4 else thinned[None].float().div_(255)


# Checks


def _checked_image(image: Tensor, name: str) -> Float[Tensor, "B 3 H W"]:
    """The image in float32, with values slightly outside [0, 1], as resizing leaves them, clamped."""
    check_tensor(image, name, "load_image gives one")
    wanted = f"the {name} must be a float tensor of shape (B, 3, H, W) with values in [0, 1]"
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point() or image.numel() == 0:
        raise UsageError(f"{wanted}, not {image.dtype} of shape {tuple(image.shape)}: load_image gives one")
    image = image.float()
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise UsageError(f"{wanted}, not from {low:g} to {high:g}: scale them, as load_image does")
    return image if low >= 0 and high <= 1 else image.clamp(0, 1)


def _check_pixels(pixels: UInt8[Tensor, "3 H W"]) -> None:
    check_tensor(pixels, "pixels", "load_pixel_picture gives them")
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or len(pixels) != 3 or pixels.numel() == 0:
        raise UsageError(
            f"the pixels must be uint8 of shape (3, H, W), not {pixels.dtype} of shape {tuple(pixels.shape)}: "
            "load_pixel_picture gives them"
        )


def _checked_photo(photo: Content) -> Content:
    """One photo, as float or as 8-bit pixels."""
    if isinstance(photo, Tensor) and not photo.is_floating_point():
        _check_pixels(photo)
        return photo
    photo = _checked_image(photo, "photo")
    if len(photo) > 1:
        raise UsageError(f"there must be one photo, not {len(photo)}")
    return photo
