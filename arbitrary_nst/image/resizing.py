"""Antialiased resizing of images in [0, 1] and of 8-bit pixels."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate


def resize(image: Float[Tensor, "B C H W"], size: int | tuple[int, int]) -> Float[Tensor, "B C h w"]:
    """Antialiased bicubic resizing of an image in [0, 1]; the result is in [0, 1].

    `size` is (height, width), or the length of the short side, the aspect being kept. Raises ValueError below 1.
    """
    height, width = size if isinstance(size, tuple) else fitted_size(image.shape[-2], image.shape[-1], size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    if (height, width) == tuple(image.shape[-2:]):
        return image.clamp(0, 1)
    # Not every device has this kernel, and not every kernel takes half precision: the CPU in float32 always does.
    device = torch.device("cpu") if image.device.type == "mps" else image.device
    pixels = image.to(device, torch.promote_types(image.dtype, torch.float32))
    resized = interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 1).to(image.device, image.dtype)


def resize_pixels(pixels: UInt8[Tensor, "C H W"], size: int | tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """`resize` for 8-bit pixels of any number: those of a larger picture are never all float at once.

    To a (height, width) a larger picture is resized twice, first to a short side as long as the longer of these.
    """
    short_side = size if isinstance(size, int) else max(size)
    return resize(shrink_pixels(pixels, short_side), size)[0].mul(255).round_().byte()


def shrink_pixels(pixels: UInt8[Tensor, "C H W"], short_side: int) -> Float[Tensor, "1 C h w"]:
    """`resize` to a short side, for 8-bit pixels of any number: never all of them are float at once.

    A smaller image stays as it is. Raises ValueError if `short_side` < 1.
    """
    height, width = pixels.shape[1:]
    if short_side < 1:
        raise ValueError(f"short_side must be at least 1, not {short_side}")
    if short_side >= min(height, width):
        return pixels[None].float().div_(255)
    size = fitted_size(height, width, short_side)
    bands = [  # resizing treats one side after the other, so that bands of rows can be narrowed apart
        interpolate(
            band[None].float().div_(255), (band.shape[1], size[1]), mode="bicubic", align_corners=False, antialias=True
        )
        for band in pixels.split(1024, dim=1)
    ]
    narrowed = torch.cat(bands, 2)
    return interpolate(narrowed, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def fitted_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with this short side and the same aspect, each at least 1 where `short_side` is."""
    scale = short_side / min(height, width)
    long_side = max(short_side, math.floor(max(height, width) * scale + 0.5))
    return (short_side, long_side) if height <= width else (long_side, short_side)
