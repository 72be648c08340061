"""Files to tensors and back: the one place that knows bytes, EXIF, colour profiles and transparency.

Everywhere else an image is float, RGB (sRGB), (B, 3, H, W), in [0, 1].
"""

import math
import os
from dataclasses import dataclass
from functools import cache
from io import BufferedWriter, BytesIO, FileIO, UnsupportedOperation
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import (  # noqa: F401 (importing a plugin registers its format in `Image.OPEN` and `Image.SAVE`)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor
from torch.nn.functional import interpolate

from arbitrary_nst.paths import FORMATS, SUFFIXES, ImageError, PathLike, access_failure, detail, naming, written_whole

DEFAULT_MAX_PIXELS = 16384 * 16384
"""Largest width x height that is decoded unless told otherwise; about 3 GB as a float tensor."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes the picture upright
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # gray with more than 8 bits
_WHITE_LEVELS = {"I;12": 2**12 - 1, "I;16S": 2**15 - 1, "I;16BS": 2**15 - 1}  # by raw mode, where it is not 2**16 - 1
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0

_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, *range(40091, 40096))
"""What EXIF says of a photo and not of its pixels: description, camera, resolution, software, date, artist, rating,
copyright, and titles."""
_EXIF_FOLDERS = (0x8769, 0x8825)  # how the photo was taken, and where
_EXIF_OF_PIXELS = (0x927C, 0xA000, 0xA001, 0xA002, 0xA003, 0xA005)  # maker's notes, version, colours, size, interop
_LARGEST_EXIF = 65533 - 6  # what fits into a JPEG


@dataclass(frozen=True)
class Picture:
    """A decoded file: sRGB in [0, 1], and its transparency (0 clear, 1 opaque; None if the file has none) kept apart.

    Colours are not multiplied by alpha.
    """

    rgb: Float[Tensor, "1 3 H W"]
    alpha: Float[Tensor, "1 1 H W"] | None = None


@dataclass(frozen=True)
class PixelPicture:
    """A decoded file in 8 bits, a quarter of a `Picture`'s memory: sRGB in 0..255, and its transparency or None.

    The three numbers of a pixel lie side by side in memory.
    """

    rgb: UInt8[Tensor, "3 H W"]
    alpha: UInt8[Tensor, "1 H W"] | None = None


def load_picture(path: PathLike, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Picture:
    """The first frame of a JPEG, PNG, WebP, TIFF, BMP or GIF file, upright, in sRGB, transparency apart.

    16-bit gray keeps its precision; float TIFF is taken as [0, 1], or divided by its maximum where that exceeds 1.
    A header that announces more than `max_pixels` pixels is refused before anything is decoded (None: no limit).
    Raises ImageError whatever is wrong with the file.
    """
    with naming(path, _reading_failure):
        colour, alpha = _decode(path, max_pixels)
        return Picture(_to_tensor(colour, 3), None if alpha is None else _to_tensor(alpha, 1))


def load_image(path: PathLike, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Float[Tensor, "1 3 H W"]:
    """The colours of `load_picture`: sRGB in [0, 1]. Raises ImageError."""
    return load_picture(path, max_pixels).rgb


def load_pixel_picture(path: PathLike, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> PixelPicture:
    """What `load_picture` reads, in 8 bits. Raises ImageError."""
    with naming(path, _reading_failure):
        colour, alpha = _decode(path, max_pixels)
        opacity = None if alpha is None else torch.from_numpy(np.array(alpha))[None]
        return PixelPicture(_to_pixels(colour), opacity)


def load_pixels(path: PathLike, short_side: int, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> UInt8[Tensor, "3 H W"]:
    """The colours of `load_picture` in 0..255, shrunk until the short side is at most `short_side` pixels.

    The aspect is kept and the filter antialiased; a smaller image stays as it is. A JPEG is decoded at 1/2, 1/4 or
    1/8 where that is enough, so huge photos are cheap. Raises ImageError, and ValueError if `short_side` < 1.
    """
    if short_side < 1:
        raise ValueError(f"short_side must be at least 1, not {short_side}")
    with naming(path, _reading_failure):
        colour, _ = _decode(path, max_pixels, short_side)
        return _to_pixels(colour).contiguous()


def load_exif(path: PathLike) -> bytes:
    """The EXIF of a file, to be written into a picture made from it; empty where there is none that can be read.

    Without what concerns the file itself and not the photo: orientation, thumbnail, size, and the maker's notes, which
    refer to places in the file and may hold previews.
    """
    if not os.path.isfile(path):  # a pipe can be read only once
        return b""
    try:
        with open(path, "rb") as file:
            return _kept_exif(_identify(file, None))
    except Exception:  # whatever is wrong with EXIF, it is no reason to refuse the pixels
        return b""


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


def resize(image: Float[Tensor, "B C H W"], size: int | tuple[int, int]) -> Float[Tensor, "B C h w"]:
    """Antialiased bicubic resizing of an image in [0, 1]; the result is in [0, 1].

    `size` is (height, width), or the length of the short side, the aspect being kept. Raises ValueError below 1.
    """
    height, width = size if isinstance(size, tuple) else _fit(image.shape[-2], image.shape[-1], size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    if (height, width) == tuple(image.shape[-2:]):
        return image.clamp(0, 1)
    # Not every device has this kernel, and not every kernel takes half precision: the CPU in float32 always does.
    device = torch.device("cpu") if image.device.type == "mps" else image.device
    pixels = image.to(device, torch.promote_types(image.dtype, torch.float32))
    resized = interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 1).to(image.device, image.dtype)


def shrink_pixels(pixels: UInt8[Tensor, "3 H W"], short_side: int) -> Float[Tensor, "1 3 h w"]:
    """`resize` to a short side, for 8-bit pixels of any number: never all of them are float at once.

    A smaller image stays as it is. Raises ValueError if `short_side` < 1.
    """
    height, width = pixels.shape[1:]
    if short_side < 1:
        raise ValueError(f"short_side must be at least 1, not {short_side}")
    if short_side >= min(height, width):
        return pixels[None].float().div_(255)
    size = _fit(height, width, short_side)
    bands = [  # resizing treats one side after the other, so that bands of rows can be narrowed apart
        interpolate(
            band[None].float().div_(255), (band.shape[1], size[1]), mode="bicubic", align_corners=False, antialias=True
        )
        for band in pixels.split(1024, dim=1)
    ]
    narrowed = torch.cat(bands, 2)
    return interpolate(narrowed, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


# Errors


def _reading_failure(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too many pixels ({detail(error)}); if you trust the file, raise --max-pixels"
    if isinstance(error, OSError) and error.errno is not None:
        return access_failure(error)
    if "truncated" in str(error).lower():
        return f"the file is truncated ({detail(error)}); get a complete copy of it"
    return f"the file is damaged or of an unknown kind ({detail(error)}); get another copy, or save it as PNG"


def _writing_failure(error: Exception) -> str:
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return "its folder cannot be made, a file of that name is in the way; choose another folder"
    return f"cannot be written ({detail(error)}); try another place, or another format such as .png"


# Decoding


def _decode(
    path: PathLike, max_pixels: int | None, short_side: int | None = None
) -> tuple[Image.Image, Image.Image | None]:
    """Colours, "RGB" or for wide gray "F" in [0, 1], and alpha, "L"; upright, and shrunk where `short_side` says so."""
    if os.path.isdir(path):
        raise ImageError("is a folder; name a file in it")
    with open(path, "rb") as file:
        picture = _identify(file, max_pixels)
        width, height = picture.size
        scaled_height, scaled_width = height, width
        if short_side is not None and short_side < min(height, width):
            scaled_height, scaled_width = _fit(height, width, short_side)
            picture.draft(None, (scaled_width, scaled_height))  # pyright: ignore[reportArgumentType]
        raw_mode = _raw_mode(picture)
        picture.load()
        orientation = _orientation(picture)
        colour, alpha = _separate(picture, raw_mode)
    if (scaled_height, scaled_width) != (height, width):
        colour = colour.resize((scaled_width, scaled_height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if orientation is not None:
        colour = colour.transpose(orientation)
        alpha = None if alpha is None else alpha.transpose(orientation)
    return colour, alpha


def _identify(file: IO[bytes], max_pixels: int | None) -> ImageFile.ImageFile:
    """Read the header and check the size it announces.

    The readers are called directly and not through `Image.open`, whose own limit is a global of the process: ours
    is an argument, so threads with different limits do not meet.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError("the file is empty (0 bytes); get a complete copy of it")
    for file_format in dict.fromkeys(FORMATS.values()):
        reader, accept = Image.OPEN[file_format]
        accepted = accept(prefix) if accept is not None else False
        if isinstance(accepted, str):
            raise ImageError(f"this build of Pillow cannot read it ({accepted}); save it as PNG")
        if accepted:
            break
    else:
        raise ImageError("not an image of a known format (JPEG, PNG, WebP, TIFF, BMP, GIF); save it as one of these")
    if file.seekable():
        file.seek(0)
    else:  # a pipe
        file = BytesIO(prefix + file.read())
    picture = reader(file, "")
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"it has no pixels ({width} x {height}); get another copy")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} is {width * height} pixels, more than the limit of {max_pixels}; "
            "if you trust the file, raise --max-pixels"
        )
    if file_format == "TIFF":  # its reader checks Pillow's global limit, but only when it has to allocate
        picture.im = Image.core.new(picture.mode, getattr(picture, "_tile_size", picture.size))
    return picture


def _raw_mode(picture: ImageFile.ImageFile) -> str:
    """How samples lie in the file ("L;4", "RGB;16B"), which `mode` no longer says; known only before loading."""
    arguments: Any = picture.tile[0][3] if picture.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _orientation(picture: Image.Image) -> Image.Transpose | None:
    """What makes a loaded picture upright. (TIFF is upright already: its reader follows the tag.)"""
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # whatever is wrong with EXIF, it is no reason to refuse the pixels
        return None


def _kept_exif(picture: Image.Image) -> bytes:
    """What `load_exif` keeps of an opened file's EXIF."""
    found = Image.Image.getexif(picture)  # a PNG's own method decodes the pixels in search of more
    kept = Image.Exif()
    kept.update({tag: found[tag] for tag in _EXIF_TAGS if tag in found})
    for folder in _EXIF_FOLDERS:
        entries = {tag: value for tag, value in found.get_ifd(folder).items() if tag not in _EXIF_OF_PIXELS}
        if entries:
            kept.get_ifd(folder).update(entries)
    if not len(kept) and not kept._ifds:
        return b""
    content = kept.tobytes()
    return content if len(content) <= _LARGEST_EXIF else b""


def _main_exif(content: bytes) -> Image.Exif:
    """EXIF without its folders: Pillow cannot write these into a compressed TIFF."""
    found, kept = Image.Exif(), Image.Exif()
    found.load(content)
    kept.update({tag: value for tag, value in found.items() if tag in _EXIF_TAGS})
    return kept


def _separate(picture: Image.Image, raw_mode: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours ("RGB", or "F" for wide gray) and alpha ("L") of a loaded picture of any mode."""
    profile = picture.info.get("icc_profile")
    if picture.mode in _WIDE_MODES:
        return _separate_wide_gray(picture, raw_mode, profile)
    gray = picture.mode in ("1", "L", "LA", "La")
    alpha = None
    if picture.has_transparency_data:
        _rescale_transparent_colour(picture, raw_mode)
        if picture.mode not in ("LA", "RGBA"):
            picture = picture.convert("LA" if gray else "RGBA")
        alpha = picture.getchannel("A")
    if gray:
        picture = picture.convert("L")
    elif picture.mode not in ("RGB", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    return _to_srgb(picture, profile), alpha


def _rescale_transparent_colour(picture: Image.Image, raw_mode: str) -> None:
    """Pillow scales PNG samples of 1, 2, 4 and 16 bits to 8, but not the colour that tRNS declares transparent."""
    transparent = picture.info.get("transparency")
    largest = {"1": 1, "L;2": 3, "L;4": 15}.get(raw_mode)
    if largest is not None and isinstance(transparent, int):
        picture.info["transparency"] = min(transparent, largest) * 255 // largest
    elif raw_mode == "RGB;16B" and isinstance(transparent, tuple):
        picture.info["transparency"] = tuple(value >> 8 for value in transparent)


def _separate_wide_gray(
    picture: Image.Image, raw_mode: str, profile: bytes | None
) -> tuple[Image.Image, Image.Image | None]:
    """Gray of more than 8 bits as "F" in [0, 1]. Integers up to 65535 are 16-bit samples, whatever holds them."""
    samples = np.asarray(picture)
    if picture.mode == "F":
        finite = samples[np.isfinite(samples)]
        white = max(1.0, float(finite.max(initial=0.0)))
    elif raw_mode in _WHITE_LEVELS:
        white = _WHITE_LEVELS[raw_mode]
    elif picture.mode == "I" and raw_mode == "I;32N":
        samples = samples.view(np.uint32)
        white = 65535 if samples.max() <= 65535 else 2**32 - 1
    else:
        white = 65535 if samples.max() <= 65535 else 2**31 - 1
    gray = np.nan_to_num(samples / np.float32(white), nan=0.0, posinf=1.0, neginf=0.0).astype(np.float32).clip(0, 1)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        gray = 1 - gray
    if profile is not None and picture.mode != "F":
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        curve = np.asarray(_to_srgb(ramp, profile).getchannel(0))[0] / 255
        gray = np.interp(gray, np.linspace(0, 1, 256), curve).astype(np.float32)
    transparent = picture.info.get("transparency")
    alpha = Image.fromarray(np.uint8(255) * (samples != transparent)) if isinstance(transparent, int) else None
    return Image.fromarray(gray), alpha


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """ "L", "RGB", "CMYK" or "LAB" to sRGB, by its ICC profile if that can be used."""
    converted = _by_profile(picture, profile) if profile and picture.mode != "LAB" else None
    if converted is not None:
        return converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy it


def _by_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """To sRGB by an ICC profile; None if it is broken or of another colour space than the picture."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()  # pyright: ignore[reportAttributeAccessIssue]
        if space == "RGB" and picture.mode == "L":
            picture = picture.convert("RGB")
        if {"GRAY": "L"}.get(space, space) != picture.mode:
            return None
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except MemoryError:
        raise
    except Exception:  # whatever is wrong with a profile, it is no reason to refuse the pixels
        return None


@cache
def _srgb_profile() -> bytes:
    """Without the date of its making, so that equal pictures are equal files."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def _to_tensor(picture: Image.Image, channels: int) -> Float[Tensor, "1 C H W"]:
    values = torch.from_numpy(np.array(picture))
    values = values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()
    scaled = values.to(torch.float32).div_(255) if values.dtype == torch.uint8 else values
    return scaled.expand(channels, -1, -1).contiguous()[None]


def _to_pixels(picture: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """Colours in 0..255, the three numbers of a pixel side by side in memory."""
    values = np.array(picture)
    if picture.mode == "F":
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    return torch.from_numpy(values).permute(2, 0, 1)


def _fit(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with this short side and the same aspect, each at least 1 where `short_side` is."""
    scale = short_side / min(height, width)
    long_side = max(short_side, math.floor(max(height, width) * scale + 0.5))
    return (short_side, long_side) if height <= width else (long_side, short_side)


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
            options["exif"] = _main_exif(exif) if file_format == "TIFF" else exif
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
