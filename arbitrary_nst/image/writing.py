"""Tensors to files: rounded to 8 bits, encoded, and put in their place when they are whole."""

import errno
import os
from functools import cache
from io import BufferedWriter, BytesIO, FileIO, UnsupportedOperation
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from arbitrary_nst.image.exif import main_exif
from arbitrary_nst.paths import FORMATS, SUFFIXES, ImageError, PathLike, detail, naming, written_whole


def save_image(
    image: Float[Tensor, "... 3 H W"],
    path: PathLike,
    alpha: Float[Tensor, "... H W"] | None = None,
    quality: int = 95,
    exif: bytes | None = None,
) -> None:
    """Write one image, (1, 3, H, W) or (3, H, W) in [0, 1], in the format that the suffix of `path` names.

    Values are clamped and rounded to 8 bits; NaN becomes 0. `alpha`, (H, W) with any leading ones, is rejoined in
    PNG, WebP and TIFF, cut at one half in GIF, and in JPEG and BMP, which hold none, the image is laid over white.
    `quality`, 1 to 100, concerns JPEG and WebP. With `exif`, empty or of `load_exif`, JPEG, PNG, WebP and TIFF hold it
    and an sRGB profile (a TIFF no folders of it, such as place and exposure); None writes neither. Missing folders are
    made. The file appears whole or not at all, and what stood there before stays until then. Raises ImageError, and
    ValueError for a wrong shape, dtype or quality.
    """
    file_format = _format(path, quality)
    image, alpha = _checked(image, alpha)
    with naming(path, _writing_failure):
        _write(_to_values(image, alpha, file_format), path, file_format, quality, exif)


def save_pixels(
    rgb: UInt8[Tensor, "3 H W"],
    path: PathLike,
    alpha: UInt8[Tensor, "1 H W"] | None = None,
    quality: int = 95,
    exif: bytes | None = None,
) -> None:
    """`save_image` for 8-bit pixels, without a float picture on the way.

    No copy is made of those that lie as in a `PixelPicture` and have no alpha. Raises ImageError, and ValueError for a
    wrong shape, dtype or quality.
    """
    file_format = _format(path, quality)
    if rgb.dtype != torch.uint8 or rgb.ndim != 3 or len(rgb) != 3 or rgb.numel() == 0:
        raise ValueError(f"rgb must be uint8 of shape (3, H, W), not {rgb.dtype} of {tuple(rgb.shape)}")
    if alpha is not None and (alpha.dtype != torch.uint8 or alpha.shape != (1, *rgb.shape[1:])):
        raise ValueError(f"alpha must be uint8 of shape (1, H, W), not {alpha.dtype} of {tuple(alpha.shape)}")
    with naming(path, _writing_failure):
        if alpha is not None and file_format in ("JPEG", "BMP"):
            values = _to_values(rgb.float().div_(255), alpha.float().div_(255), file_format)
        else:
            channels = rgb if alpha is None else torch.cat((rgb, alpha))
            values = channels.permute(1, 2, 0).contiguous().numpy()
        _write(values, path, file_format, quality, exif)


def encode_jpeg(pixels: UInt8[Tensor, "3 H W"], quality: int) -> bytes:
    """A JPEG file with colours at half the resolution, as photos have them."""
    file = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


# Encoding


def _format(path: PathLike, quality: int) -> str:
    """What Pillow calls the format that a path names."""
    with naming(path, _writing_failure):
        file_format = FORMATS.get(Path(path).suffix.lower())
        if file_format is None:
            raise ImageError(f"unknown suffix '{Path(path).suffix}'; use one of {' '.join(SUFFIXES)}")
        if os.path.isdir(path):
            raise ImageError("is a folder; name a file in it")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, not {quality}")
    return file_format


def _checked(
    image: Float[Tensor, "... 3 H W"], alpha: Float[Tensor, "... H W"] | None
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "1 H W"] | None]:
    shape = tuple(image.shape)
    if len(shape) not in (3, 4) or shape[-3] != 3 or (len(shape) == 4 and shape[0] != 1) or 0 in shape:
        raise ValueError(f"image must be (1, 3, H, W) or (3, H, W), not {shape}")
    if not image.is_floating_point() or (alpha is not None and not alpha.is_floating_point()):
        raise ValueError("image and alpha must be floating point in [0, 1]")
    if alpha is not None and (tuple(alpha.shape[-2:]) != shape[-2:] or alpha.numel() != shape[-2] * shape[-1]):
        raise ValueError(f"alpha must be one {shape[-2]} x {shape[-1]} mask, not {tuple(alpha.shape)}")
    return image.reshape(shape[-3:]), None if alpha is None else alpha.reshape(1, *shape[-2:])


def _clean(values: Tensor) -> Tensor:
    """A float32 copy on the CPU, in [0, 1]."""
    copied = values.detach().to("cpu", torch.float32, copy=True)
    return copied.nan_to_num_(nan=0.0, posinf=1.0, neginf=0.0).clamp_(0, 1)


def _to_values(
    image: Float[Tensor, "3 H W"], alpha: Float[Tensor, "1 H W"] | None, file_format: str
) -> UInt8[np.ndarray, "H W C"]:
    """Rounded to 8 bits, alpha as a fourth channel; laid over white where the format holds none."""
    rgb = _clean(image)
    opacity = None if alpha is None else _clean(alpha)
    if opacity is not None and file_format in ("JPEG", "BMP"):
        rgb, opacity = rgb * opacity + (1 - opacity), None
    channels = rgb if opacity is None else torch.cat((rgb, opacity))
    return channels.mul_(255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


class _Stream(FileIO):
    """A file that hides its descriptor: Pillow's encoders, given one, do not say why they cannot write."""

    def fileno(self) -> int:
        raise UnsupportedOperation("fileno")


def _write(
    values: UInt8[np.ndarray, "H W C"], path: PathLike, file_format: str, quality: int, exif: bytes | None
) -> None:
    """Encode into a file."""
    picture = Image.fromarray(values)
    options: dict[str, Any] = {
        "JPEG": {"quality": quality, "subsampling": "4:4:4"},
        "WEBP": {"quality": quality, "exact": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }.get(file_format, {})
    if file_format == "GIF":
        picture, options = _to_palette(picture)
    if exif is not None and file_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["icc_profile"] = _srgb_profile()
        if exif:
            options["exif"] = main_exif(exif) if file_format == "TIFF" else exif
    with written_whole(Path(os.path.realpath(path))) as partial, BufferedWriter(_Stream(partial, "w")) as file:
        picture.save(file, file_format, **options)


def _to_palette(picture: Image.Image) -> tuple[Image.Image, dict[str, int]]:
    """256 dithered colours; with alpha 255, and the last one for whatever is more clear than opaque."""
    rgb = picture.convert("RGB")
    colours = 256 if picture.mode == "RGB" else 255
    palette = rgb.quantize(colours, Image.Quantize.MEDIANCUT)
    paletted = rgb.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if picture.mode == "RGB":
        return paletted, {}
    clear = picture.getchannel("A").point([255] * 128 + [0] * 128)
    paletted.putpalette(((paletted.getpalette() or [])[: 3 * 255] + [0] * 3 * 256)[: 3 * 256])
    paletted.paste(255, mask=clear)
    return paletted, {"transparency": 255}


@cache
def _srgb_profile() -> bytes:
    """Without the date of its making, so that equal pictures are equal files."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


# Errors


def _writing_failure(error: Exception) -> str:
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return "its folder cannot be made, a file of that name is in the way; choose another folder"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "its name is too long for this disk; choose a shorter one"
    return f"cannot be written ({detail(error)}); try another place, or another format such as .png"
