"""Tensors to files: rounded to 8 bits, encoded, and put in their place when they are whole."""

import os
from functools import cache
from io import BufferedWriter, BytesIO, FileIO, UnsupportedOperation
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from arbitrary_nst.errors import OutputError, UsageError
from arbitrary_nst.image.arguments import check_tensor, is_whole
from arbitrary_nst.image.exif import main_exif
from arbitrary_nst.runtime.files import FORMATS, WRITTEN_SUFFIXES, PathLike, atomic_write, detail, reraise_with_path

OVERSHOOT = 0.5
"""How far beyond [0, 1] values may lie that are clamped and not refused."""


@runtime_checkable
class Writable(Protocol):
    """A binary file, open for writing."""

    def write(self, content: bytes, /) -> object: ...


def save_image(
    image: Float[Tensor, "... 3 H W"],
    path: PathLike | Writable,
    alpha: Float[Tensor, "... H W"] | None = None,
    quality: int = 95,
    exif: bytes | None = None,
    format: str | None = None,
) -> None:
    """Write one image, rounded to 8 bits.

    The write is atomic: an existing file stays until the new one is complete. Missing folders are made.

    Args:
        image: (1, 3, H, W) or (3, H, W), in [0, 1]. Values up to 0.5 outside this range, as networks and resizing give
            them, are clamped.
        path: path of the file, or a binary file that is open for writing.
        alpha: (H, W) with any leading ones. It is rejoined in PNG, WebP and TIFF and cut at one half in GIF; in JPEG
            and BMP, which hold none, the image is laid over white.
        quality: of JPEG and WebP, from 1 to 100.
        exif: empty or of a `Picture`. JPEG, PNG, WebP and TIFF then hold it and an sRGB profile (a TIFF no folders of
            it, such as place and exposure); None writes neither.
        format: a suffix such as ".png", which an open file needs; by default that of `path`.

    Raises:
        OutputError: if the file cannot be written.
        ValueError: for a wrong shape, dtype or quality, for values that are not finite or lie further beyond [0, 1]
            (divide levels by 255), and for an open file without a format.
    """
    file_format = _format(path, quality, format)
    image, alpha = _checked(image, alpha)
    with reraise_with_path(
        path if isinstance(path, (str, os.PathLike)) else "open file", _writing_failure, OutputError
    ):
        _write(_to_values(image, alpha, file_format), path, file_format, quality, exif)


def save_pixels(
    rgb: UInt8[Tensor, "3 H W"],
    path: PathLike,
    alpha: UInt8[Tensor, "1 H W"] | None = None,
    quality: int = 95,
    exif: bytes | None = None,
) -> None:
    """`save_image` for 8-bit pixels, without a float picture on the way.

    No copy is made of those that lie as in a `PixelPicture` and have no alpha. Raises OutputError, and ValueError for a
    wrong shape, dtype or quality.
    """
    file_format = _format(path, quality)
    check_tensor(rgb, "pixels", "load_pixel_picture gives them")
    if rgb.dtype != torch.uint8 or rgb.ndim != 3 or len(rgb) != 3 or rgb.numel() == 0:
        raise UsageError(f"rgb must be uint8 of shape (3, H, W), not {rgb.dtype} of {tuple(rgb.shape)}")
    if alpha is not None and (alpha.dtype != torch.uint8 or alpha.shape != (1, *rgb.shape[1:])):
        raise UsageError(f"alpha must be uint8 of shape (1, H, W), not {alpha.dtype} of {tuple(alpha.shape)}")
    with reraise_with_path(path, _writing_failure, OutputError):
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


def _format(path: PathLike | Writable, quality: int, suffix: str | None = None) -> str:
    """Pillow's name of the format of a suffix, or else of the suffix of a path."""
    if not (is_whole(quality) and 1 <= quality <= 100):
        raise UsageError(f"quality must be a whole number from 1 to 100, not {quality!r}")
    known = " ".join(WRITTEN_SUFFIXES)
    if suffix is not None:
        suffix = "." + suffix.lower().removeprefix(".")
        if suffix not in WRITTEN_SUFFIXES:
            raise UsageError(f"format must be one of {known}, not {suffix}")
    if isinstance(path, (str, os.PathLike)):
        with reraise_with_path(path, _writing_failure, OutputError):
            if os.path.isdir(path):
                raise OutputError("is a folder; name a file in it")
            suffix = suffix or Path(path).suffix.lower()
            if suffix not in WRITTEN_SUFFIXES:
                raise OutputError(f"unknown suffix '{suffix}'; use one of {known}")
    elif suffix is None:
        raise UsageError(f"an open file needs a format, one of {known}")
    return FORMATS[suffix]


def _checked(
    image: Float[Tensor, "... 3 H W"], alpha: Float[Tensor, "... H W"] | None
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "1 H W"] | None]:
    check_tensor(image, "image", "load_image gives one")
    if alpha is not None:
        check_tensor(alpha, "alpha", "load_picture gives one")
    shape = tuple(image.shape)
    if len(shape) not in (3, 4) or shape[-3] != 3 or (len(shape) == 4 and shape[0] != 1) or 0 in shape:
        raise UsageError(f"image must be (1, 3, H, W) or (3, H, W), not {shape}")
    if not image.is_floating_point() or (alpha is not None and not alpha.is_floating_point()):
        raise UsageError("image and alpha must be floating point in [0, 1]")
    if alpha is not None and (tuple(alpha.shape[-2:]) != shape[-2:] or alpha.numel() != shape[-2] * shape[-1]):
        raise UsageError(f"alpha must be one {shape[-2]} x {shape[-1]} mask, not {tuple(alpha.shape)}")
    for name, values in {"image": image, "alpha": alpha}.items():
        if values is not None:
            low, high = (bound.item() for bound in values.detach().float().aminmax())  # both are NaN where there is one
            if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
                raise UsageError(f"{name} must be finite and in [0, 1], not from {low:g} to {high:g}")
    return image.reshape(shape[-3:]), None if alpha is None else alpha.reshape(1, *shape[-2:])


def _clean(values: Tensor) -> Tensor:
    """A float32 copy on the CPU, in [0, 1]."""
    return values.detach().to("cpu", torch.float32, copy=True).clamp_(0, 1)


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
    values: UInt8[np.ndarray, "H W C"],
    path: PathLike | Writable,
    file_format: str,
    quality: int,
    exif: bytes | None,
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
    if not isinstance(path, (str, os.PathLike)):
        encoded = BytesIO()  # an encoder may want to go back, which not every file can
        picture.save(encoded, file_format, **options)
        path.write(encoded.getvalue())
        return
    with atomic_write(Path(os.path.realpath(path))) as partial, BufferedWriter(_Stream(partial, "w")) as file:
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
    return f"cannot be written ({detail(error)}); try another place, or another format such as .png"
