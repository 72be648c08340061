"""Photos paired with paintings: random crops and augmentation, every sample a function of (seed, index) alone.

Because nothing else decides a sample, a run that is resumed at step n sees what it would have seen, whatever the number
of workers or machines.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from arbitrary_nst.runtime.files import ImageError

Pixels = UInt8[Tensor, "3 H W"]
Crop = Float[Tensor, "3 S S"]
Sample = tuple[Crop, Crop, int, int]
"""Photo, painting, the number of the painting, and how many pictures could not be read and were replaced."""


@runtime_checkable
class Pictures(Protocol):
    """Anything with a length that gives pictures by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pixels: ...


class SampleRNG:
    """Random numbers of one sample."""

    def __init__(self, seed: int, index: int) -> None:
        self.generator = torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + index) % (1 << 63))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def integer(self, count: int) -> int:
        """One of 0 ... count - 1."""
        return int(torch.randint(count, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability


@dataclass(frozen=True)
class Augmentation:
    """Random variation of crops.

    Sizes are short sides in pixels, of which a square crop is taken: "256 to 384" with crops of 256 shows between all
    and two thirds of a square picture. Pictures smaller than that are enlarged. Colours change for a share of the
    paintings: brightness, contrast and saturation by a factor, hue by a fraction of the colour circle (Ghiasi et al.
    2017 change all, with brightness +-0.8, saturation 0.5 to 1.5 and hue +-0.2).
    """

    content_sizes: tuple[float, float] = (1.0, 2.0)
    """Short side of photos, in units of the crop."""
    style_sizes: tuple[float, float] = (1.0, 2.5)
    """Short side of paintings, in units of the crop."""
    flip_styles: bool = True
    """Paintings are mirrored, upright and sideways, each by chance."""
    colour_share: float = 0.5
    brightness: tuple[float, float] = (0.6, 1.4)
    contrast: tuple[float, float] = (0.6, 1.4)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 0.2
    identity_share: float = 0.0
    """Share of samples in which the photo is its own style, so that strength 0 gives the photo back."""


Take = Callable[[SampleRNG], tuple[Pixels, int, int]]
"""What gives a picture, its place, and how many before it could not be read."""


class PairDataset(Dataset):
    """Sample n: crops of a photo and of a painting, float RGB in [0, 1] where the pictures are kept (see `Sample`).

    In place of a picture that cannot be read comes the next one. Raises ImageError where none can.

    Args:
        contents, styles: pictures as uint8, or, to be drawn from by `streams.Streamed` only, a `ImageStream`.
        crop_size: side of the crops in pixels.
        seed: of everything random.
        numbers: what the paintings are known by, one for each; None: their places, and 0 for all of a stream. A photo
            that is its own style has the number -1.
    """

    def __init__(
        self,
        contents: Any,
        styles: Any,
        crop_size: int,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.contents, self.styles = contents, styles
        self.crop_size, self.seed = crop_size, seed
        self.augmentation = augmentation or Augmentation()
        self.numbers = numbers

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, partial(take_any, self.contents), partial(take_any, self.styles))

    def sample(self, index: int, take_content: Take, take_style: Take) -> Sample:
        """Sample `index` of the pictures that are taken."""
        rng, vary = SampleRNG(self.seed, index), self.augmentation
        pixels, _, skipped = take_content(rng)
        content = random_crop(pixels, self.crop_size, vary.content_sizes, rng)
        if rng.chance(0.5):
            content = content.flip(2)
        content = content.float().div(255)
        if rng.chance(vary.identity_share):
            return content, content, -1, skipped
        pixels, place, skipped_styles = take_style(rng)
        style = augment_style(random_crop(pixels, self.crop_size, vary.style_sizes, rng), vary, rng)
        number = place if self.numbers is None else self.numbers[place]
        return content, style.float().div(255), number, skipped + skipped_styles


def take_any(pictures: Pictures, rng: SampleRNG) -> tuple[Pixels, int, int]:
    """One of the pictures, or the next that can be read; its place; and how many could not be.

    Raises ImageError where none can.
    """
    first, count = rng.integer(len(pictures)), len(pictures)
    for skipped in range(count):
        place = (first + skipped) % count
        try:
            return pictures[place], place, skipped
        except ImageError:
            continue
    raise ImageError(f"none of the {count} pictures can be read; is their disk still there?")


def random_crop(pixels: Pixels, crop_size: int, sizes: tuple[float, float], rng: SampleRNG) -> UInt8[Tensor, "3 S S"]:
    """A square of the picture as it looks when its short side is `sizes` crops long, drawn log-uniformly."""
    height, width = pixels.shape[1:]
    short_side = math.exp(rng.uniform(math.log(sizes[0]), math.log(sizes[1])))
    side = max(1, round(min(height, width) / max(short_side, 1.0)))
    top, left = rng.integer(height - side + 1), rng.integer(width - side + 1)
    return transforms.resized_crop(pixels, top, left, side, side, [crop_size, crop_size], antialias=True)


def augment_style(style: Pixels, vary: Augmentation, rng: SampleRNG) -> Pixels:
    """Flips, and for a share of the paintings other colours."""
    for axis in (1, 2):
        if vary.flip_styles and rng.chance(0.5):
            style = style.flip(axis)
    if rng.chance(vary.colour_share):
        style = transforms.adjust_brightness(style, rng.uniform(*vary.brightness))
        style = transforms.adjust_contrast(style, rng.uniform(*vary.contrast))
        style = transforms.adjust_saturation(style, rng.uniform(*vary.saturation))
        style = transforms.adjust_hue(style, rng.uniform(-vary.hue, vary.hue))
    return style
