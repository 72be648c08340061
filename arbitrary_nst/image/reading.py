"""Files to tensors: upright, in sRGB, transparency apart, whatever the mode, the depth and the colour profile."""

import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageFile
from torch import Tensor

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image.exif import kept_exif
from arbitrary_nst.image.profiles import CODE_POINTS, coded_colours, colour_profile
from arbitrary_nst.image.resizing import fitted_size
from arbitrary_nst.image.tiff import CAMERA_RAW, BinaryFile, TiffPicture, at_full_page
from arbitrary_nst.runtime.files import (
    FORMATS,
    HEIF_REMEDY,
    ImageError,
    PathLike,
    access_failure,
    detail,
    reraise_with_path,
)

DEFAULT_MAX_PIXELS = 16384 * 16384
"""Largest width x height that is decoded unless told otherwise; about 3 GB as a float tensor."""

PIPE_TIMEOUT = 10.0
"""Seconds to wait for the first byte from a pipe."""

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
_HEAD = 2**16  # bytes in which a file says what it is, and in what colours
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_CAMERA_RAW_HEADS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"IIII", b"II\x1a\0")


@runtime_checkable
class Readable(Protocol):
    """A binary file, open for reading; it need not be able to go back."""

    def read(self) -> bytes: ...


Source = PathLike | bytes | Readable | Image.Image | np.ndarray
"""What holds a picture: a path, an encoded file as bytes or open for reading, a Pillow image, or its pixels.

Pixels are uint8 arrays of gray, (H, W), of RGB, (H, W, 3), or of RGBA, (H, W, 4).
"""


@dataclass(frozen=True)
class Picture:
    """A decoded file: sRGB in [0, 1], and its transparency (0 clear, 1 opaque; None if the file has none) kept apart.

    Colours are not multiplied by alpha.
    """

    rgb: Float[Tensor, "1 3 H W"]
    alpha: Float[Tensor, "1 1 H W"] | None = None
    exif: bytes = b""
    """The part that is true of a picture made from this one, as `save_image` takes it; empty if there is none."""


@dataclass(frozen=True)
class PixelPicture:
    """A decoded file in 8 bits, a quarter of a `Picture`'s memory: sRGB in 0..255, and its transparency or None.

    The three numbers of a pixel lie side by side in memory.
    """

    rgb: UInt8[Tensor, "3 H W"]
    alpha: UInt8[Tensor, "1 H W"] | None = None
    exif: bytes = b""
    """As in `Picture`."""


def load_picture(source: Source, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Picture:
    """Load the first frame of a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC file, and its transparency.

    The image is upright and in sRGB. 16-bit gray keeps its precision. A float TIFF is taken as [0, 1], or divided by
    its maximum where that exceeds 1.

    Args:
        source: a path, an encoded file as bytes or open for reading, a Pillow image (upright by its own EXIF, in sRGB
            by its own profile), or a uint8 array of gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4).
        max_pixels: largest width x height. A header that announces more is refused before decoding. None: no limit.

    Returns:
        Colours (1, 3, H, W) and opacity (1, 1, H, W), both in [0, 1], and the file's EXIF. The opacity is None if the
        file has none.

    Raises:
        ImageError: if the file cannot be read.
        ValueError: for another kind of array.
        TypeError: for another kind of source.
    """
    with reraise_with_path(_name(source), _reading_failure):
        colour, alpha, exif = _decode(source, max_pixels)
        return Picture(_to_tensor(colour, 3), None if alpha is None else _to_tensor(alpha, 1), exif)


def load_image(source: Source, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Float[Tensor, "1 3 H W"]:
    """Load the colours of an image file; `load_picture` also has its transparency.

    Args:
        source: a path, an encoded file as bytes or open for reading, a Pillow image, or a uint8 array of gray (H, W),
            RGB (H, W, 3) or RGBA (H, W, 4).
        max_pixels: largest width x height that is decoded. None: no limit.

    Returns:
        The image, upright, in sRGB, (1, 3, H, W), in [0, 1].

    Raises:
        ImageError: if the file cannot be read.
        ValueError: for another kind of array.
        TypeError: for another kind of source.
    """
    return load_picture(source, max_pixels).rgb


def load_pixel_picture(
    path: PathLike, max_pixels: int | None = DEFAULT_MAX_PIXELS, short_side: int | None = None
) -> PixelPicture:
    """Read a picture as `load_picture` does, in 8 bits, shrunk as by `load_pixels` if `short_side` is given.

    Raises ImageError.
    """
    with reraise_with_path(path, _reading_failure):
        colour, alpha, exif = _decode(path, max_pixels, short_side)
        opacity = None if alpha is None else torch.from_numpy(np.array(alpha))[None]
        return PixelPicture(_to_pixels(colour), opacity, exif)


def load_pixels(
    path: PathLike, short_side: int, max_pixels: int | None = DEFAULT_MAX_PIXELS, content: bytes | None = None
) -> UInt8[Tensor, "3 H W"]:
    """The colours of `load_picture` in 0..255, shrunk until the short side is at most `short_side` pixels.

    The aspect is kept and the filter antialiased; a smaller image stays as it is. A JPEG is decoded at 1/2, 1/4 or
    1/8 where that is enough, so huge photos are cheap. Raises ImageError, and ValueError if `short_side` < 1.

    Args:
        content: the file, where it has been read already; `path` is only what errors call it.
    """
    if short_side < 1:
        raise ValueError(f"short_side must be at least 1, not {short_side}")
    with reraise_with_path(path, _reading_failure):
        colour, _, _ = _decode(path if content is None else content, max_pixels, short_side, with_exif=False)
        return _to_pixels(colour).contiguous()


# Decoding


def _name(source: Source) -> PathLike:
    """Name of a source in errors. Raises ValueError and TypeError if it is no source."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.size == 0 or source.shape[2:] not in ((), (3,), (4,)) or source.ndim < 2:
            raise UsageError(
                f"an array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), not {source.dtype} of {source.shape}"
            )
        return "array"
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or "Pillow image"
    if isinstance(source, bytes):
        return "bytes"
    if isinstance(source, (str, os.PathLike)):
        return source
    if not isinstance(source, Readable):
        raise TypeError(
            f"a picture must be a path, bytes, a binary file, a Pillow image or a uint8 array, not {type(source)}"
        )
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "file object"


def _decode(
    source: Source, max_pixels: int | None, short_side: int | None = None, with_exif: bool = True
) -> tuple[Image.Image, Image.Image | None, bytes]:
    """Colours, "RGB" or for wide gray "F" in [0, 1], and alpha, "L", upright, and shrunk by `short_side`; and EXIF."""
    with _picture(source, max_pixels) as picture:
        width, height = picture.size
        scaled_height, scaled_width = height, width
        if short_side is not None and short_side < min(height, width):
            scaled_height, scaled_width = fitted_size(height, width, short_side)
            picture.draft(None, (scaled_width, scaled_height))  # pyright: ignore[reportArgumentType]
        raw_mode = _raw_mode(picture)
        if picture.format == "PNG":  # whose EXIF may follow the pixels; a TIFF's cannot be read after them
            picture.load()
        exif = kept_exif(picture) if with_exif else b""
        picture.load()
        orientation = _orientation(picture)
        colour, alpha = _separate(picture, raw_mode)
        if picture.format == "BMP" and alpha is not None and alpha.getextrema() == (0, 0):
            alpha = None  # left empty by programs that know of no opacity
    if (scaled_height, scaled_width) != (height, width):
        size = (scaled_width, scaled_height)
        colour = colour.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        alpha = None if alpha is None else alpha.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if orientation is not None:
        colour = colour.transpose(orientation)
        alpha = None if alpha is None else alpha.transpose(orientation)
    return colour, alpha, exif


@contextmanager
def _picture(source: Source, max_pixels: int | None) -> Iterator[Image.Image]:
    """A picture whose size is within the limit, and whose pixels may still be in its file."""
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        _check_size(source, max_pixels)
        yield source
        return
    if isinstance(source, (str, os.PathLike)):
        if os.path.isdir(source):
            raise ImageError("is a folder; name a file in it")
        opened = _opened(source)
    else:
        content = source if isinstance(source, bytes) else source.read()
        if not isinstance(content, bytes):
            raise ImageError("gives text; open it in binary mode")
        opened = BytesIO(content)
    with opened as file:
        picture = _identify(file, max_pixels)
        if picture.format == "TIFF":  # its reader checks Pillow's global limit, but only when it has to allocate
            picture.im = Image.core.new(picture.mode, getattr(picture, "_tile_size", picture.size))
        yield picture


@contextmanager
def _opened(path: PathLike) -> Iterator[IO[bytes]]:
    """A file or a pipe, open for reading; nothing is waited for without end."""

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=without_waiting) as file:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISFIFO(kind):
            if not select.select([file], [], [], PIPE_TIMEOUT)[0]:
                raise ImageError(f"nothing came through this pipe for {PIPE_TIMEOUT:g} seconds; name a file")
            os.set_blocking(file.fileno(), True)
        elif not stat.S_ISREG(kind):
            raise ImageError("is a device; name a file")
        yield file


def _identify(file: BinaryFile, max_pixels: int | None) -> ImageFile.ImageFile:
    """Read the header and check the size it announces.

    The readers are called directly and not through `Image.open`, whose own limit is a global of the process: ours
    is an argument, so threads with different limits do not meet.
    """
    head = file.read(_HEAD)
    if not head:
        raise ImageError("the file is empty (0 bytes); get a complete copy of it")
    file_format, reader = _reader(head)
    if file.seekable():
        file.seek(0)
    else:  # a pipe
        file = BytesIO(head + file.read())
    if file_format == "TIFF":
        file = at_full_page(file)
    picture = reader(file, "")
    code_points = coded_colours(file_format, head)
    if code_points is not None:
        picture.info[CODE_POINTS] = code_points
    _check_size(picture, max_pixels)
    width = picture.width
    if picture.tile and picture.tile[0][0] == "bmp_rle" and width > 65535:  # two bytes may make 255 rows at once
        raise ImageError(f"a run-length encoded BMP of {width} pixels in width is not decoded; save it as PNG")
    return picture


def _reader(head: bytes) -> tuple[str, Callable[..., ImageFile.ImageFile]]:
    """The format of a file that begins so, and what opens it."""
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4], "big")]
        if brands.startswith(b"crx "):
            raise ImageError(CAMERA_RAW)
        if b"avif" not in brands and b"avis" not in brands and any(brand in brands for brand in _HEIF_BRANDS):
            try:
                from pillow_heif import HeifImageFile
            except ImportError as error:
                raise ImageError(f"reading HEIC takes pillow-heif; {HEIF_REMEDY}, or save it as JPEG") from error
            return "HEIF", HeifImageFile
    if head.startswith(_CAMERA_RAW_HEADS):
        raise ImageError(CAMERA_RAW)
    for file_format in dict.fromkeys(FORMATS.values()):
        reader, accept = Image.OPEN.get(file_format, (None, None))
        accepted = accept(head[:16]) if accept is not None else False
        if isinstance(accepted, str):
            raise ImageError(f"this build of Pillow cannot read it ({accepted}); save it as PNG")
        if accepted and reader is not None:
            return file_format, TiffPicture if file_format == "TIFF" else reader
    raise ImageError(
        "not an image of a known format (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC); save it as one of these"
    )


def _check_size(picture: Image.Image, max_pixels: int | None) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"it has no pixels ({width} x {height}); get another copy")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} is {width * height} pixels, more than the limit of {max_pixels}; "
            "if you trust the file, raise --max-pixels"
        )


def _raw_mode(picture: Image.Image) -> str:
    """Layout of the samples in the file ("L;4", "RGB;16B"), which `mode` no longer says; known only before loading."""
    tiles = getattr(picture, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _orientation(picture: Image.Image) -> Image.Transpose | None:
    """The operation that makes a loaded picture upright. (TIFF is upright already: its reader follows the tag.)"""
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # whatever is wrong with EXIF, it is no reason to refuse the pixels
        return None


def _separate(picture: Image.Image, raw_mode: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours ("RGB", or "F" for wide gray) and alpha ("L") of a loaded picture of any mode."""
    profile = colour_profile(picture)
    if picture.mode in _WIDE_MODES:
        return _separate_wide_gray(picture, raw_mode, profile)
    gray = picture.mode in ("1", "L", "LA", "La")
    alpha = None
    if picture.has_transparency_data:
        picture = _with_rescaled_transparency(picture, raw_mode)
        if picture.mode not in ("LA", "RGBA"):
            picture = picture.convert("LA" if gray else "RGBA")
        alpha = picture.getchannel("A")
    if gray:
        picture = picture.convert("L")
    elif picture.mode not in ("RGB", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    return _to_srgb(picture, profile), alpha


def _with_rescaled_transparency(picture: Image.Image, raw_mode: str) -> Image.Image:
    """Pillow scales PNG samples of 1, 2, 4 and 16 bits to 8, but not the colour that tRNS declares transparent."""
    transparent = picture.info.get("transparency")
    largest = {"1": 1, "L;2": 3, "L;4": 15}.get(raw_mode)
    if largest is not None and isinstance(transparent, int):
        transparent = min(transparent, largest) * 255 // largest
    elif raw_mode == "RGB;16B" and isinstance(transparent, tuple):
        transparent = tuple(value >> 8 for value in transparent)
    else:
        return picture
    rescaled = picture.copy()  # its own is the caller's where that gave it
    rescaled.info["transparency"] = transparent
    return rescaled


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


# Errors


def _reading_failure(error: Exception) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too many pixels ({detail(error)}); if you trust the file, raise --max-pixels"
    if isinstance(error, OSError) and error.errno is not None:
        return access_failure(error)
    if "truncated" in str(error).lower():
        return f"the file is truncated ({detail(error)}); get a complete copy of it"
    return f"the file is damaged or of an unknown kind ({detail(error)}); get another copy, or save it as PNG"
