"""Octaves of a picture: the sizes from coarse to fine, and what each is painted from.

Shapes: B batch, H x W pixels of an octave, h x w = H / 2 x W / 2 of the one before. Images are float RGB in [0, 1].
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from arbitrary_nst.image import resize

Interval = tuple[int, int]
"""Begin and end along one side of a picture, the end not included."""

FIRST_OCTAVE = 512
"""Pixels: short side at which the first of several octaves is painted, whatever the size of the picture."""

SMALLEST_LEVEL = 450
"""Pixels: a picture is halved as long as its short side stays at least this."""

ANCHORED = 0.3
"""Share of the octave before in what a picture shows between a quarter and half of its size."""

NOISE = 0.15
"""Standard deviation of the noise in the guide of every octave."""

NOISE_SIDE = 1024
"""Pixels: side of the squares that noise is laid in."""

BAND = 256
"""Rows of 8-bit pixels that are halved at once."""


def count_octaves(height: int, width: int) -> int:
    """The number of octaves of a picture: 1 below a short side of 900 pixels, one more for every doubling."""
    return max(1, (min(height, width) // SMALLEST_LEVEL).bit_length())


def halve(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """The image at half the size: means of 2 x 2 pixels. Both sides must be even."""
    return F.avg_pool2d(image, 2)


def double(image: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
    """The image at twice the size, bilinear."""
    return F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)


def guide(
    content: Float[Tensor, "B 3 H W"], coarse: Float[Tensor, "B 3 h w"], painted: Float[Tensor, "B 3 h w"]
) -> Float[Tensor, "B 3 H W"]:
    """The painted picture of the octave before with the content image's detail in this octave.

    Args:
        content: the content image in this octave.
        coarse: the content image in the octave before.
        painted: the painted picture of the octave before.
    """
    return content + double(painted - coarse)


def anchor(painted: Float[Tensor, "B 3 H W"], before: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 H W"]:
    """The painted picture, held to the octave before it.

    At a quarter of its size it is that picture: light, dark and palette stay those of the first octave. At half of its
    size `ANCHORED` of every difference is taken back: most strokes stay where they were. Beyond that an octave is free
    to add strokes and to sharpen edges. So a large print looks like a small one.

    Args:
        before: the painted picture of the octave before; sides are half of the painted picture's, rounded up.
    """
    height, width = painted.shape[2:]
    rows, columns = -(-height // 4), -(-width // 4)
    missing = window(before, (0, 2 * rows), (0, 2 * columns)) - halve(window(painted, (0, 4 * rows), (0, 4 * columns)))
    return painted + double(torch.lerp(double(halve(missing)), missing, ANCHORED))[:, :, :height, :width]


@lru_cache(maxsize=1)
def noise_field() -> Float[Tensor, "1 1 s s"]:
    """The noise that guides carry: mean 0, standard deviation `NOISE`, the same on every machine.

    A convolution paints every place of an even area alike. The noise tells places apart, so that strokes can begin
    and end there. It has three parts of equal variance: white, smooth over some 4 pixels, and smooth over some 16. Its
    numbers are those of a permuted congruential generator of 32 bits, counted through the rows.
    """
    state = torch.arange(NOISE_SIDE**2, device="cpu") * 747796405 + 2891336453 & 0xFFFFFFFF
    word = ((state >> (state >> 28) + 4) ^ state) * 277803737 & 0xFFFFFFFF
    white = ((word >> 22 ^ word).double() / 2**32 - 0.5).float().view(1, 1, NOISE_SIDE, NOISE_SIDE)
    fine = double(double(halve(halve(white))))
    broad = double(double(halve(halve(fine))))
    total = torch.stack([part / part.std() for part in (white, fine, broad)]).sum(0)
    return total * (NOISE / total.std())


def noise(rows: Interval, columns: Interval) -> Float[Tensor, "1 1 h w"]:
    """A window of the noise, which has no end.

    Every square of the plane holds the field, rolled by other steps than its neighbours, so that nothing comes again at
    equal distances.
    """
    field = noise_field()[0, 0]
    bands = []
    for i, top, bottom in _squares(rows):
        parts = [
            field[_rolled(top, bottom, 131 * i + 397 * j * j)][:, _rolled(left, right, 611 * i * i + 173 * j)]
            for j, left, right in _squares(columns)
        ]
        bands.append(torch.cat(parts, 1))
    return torch.cat(bands)[None, None]


def _squares(interval: Interval) -> list[tuple[int, int, int]]:
    """The squares that an interval crosses along one side: their number, and begin and end of the part in each."""
    begin, end = interval
    numbers = range(begin // NOISE_SIDE, -(-end // NOISE_SIDE))
    return [(n, max(begin, n * NOISE_SIDE), min(end, (n + 1) * NOISE_SIDE)) for n in numbers]


def _rolled(begin: int, end: int, step: int) -> Int[Tensor, " w"]:
    return (torch.arange(begin, end, device="cpu") + step) % NOISE_SIDE


def with_noise(content: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The guide of first octaves: content images with the noise."""
    height, width = content.shape[2:]
    return content + noise((0, height), (0, width)).to(content.device)


Picture = Float[Tensor, "_ 3 _ _"] | UInt8[Tensor, "3 _ _"]
"""Images in [0, 1], or the 8-bit pixels of one."""


@dataclass(frozen=True)
class View:
    """A window of an octave: what the network is given, and what its picture is anchored to."""

    content: Float[Tensor, "_ 3 _ _"]
    guide: Float[Tensor, "_ 3 _ _"] | None = None
    """What the window is painted from, the noise included; None for a model that goes without."""
    before: Float[Tensor, "_ 3 _ _"] | None = None
    """The octave before, as painted, in the same place at half the size; None in the first octave."""
    inside: tuple[int, int] = (0, 0)
    """Height and width of what lies inside the picture, not in its continuation."""

    @property
    def first(self) -> bool:
        """True for a window of the first octave."""
        return self.before is None

    def anchored(self, painted: Float[Tensor, "_ 3 _ _"]) -> Float[Tensor, "_ 3 _ _"]:
        """The network's picture of the window with the colours of the octave before."""
        if self.before is None:
            return painted
        rows, columns = painted.shape[2:]
        inside = painted[:, :, : self.inside[0], : self.inside[1]]
        return window(anchor(inside, self.before.to(painted.device)), (0, rows), (0, columns))


class Octave:
    """One octave of a content image, of which windows are read.

    Args:
        content: the content image at the size of the octave.
        coarse: the octave before; None in the first. It is resized to half the size, unless it has it.
        painted: the painted picture of the octave before, as large as `coarse`.
        guides: precision of windows that have a guide, which is added up in float32; None: windows have none, and are
            in float32.
    """

    def __init__(
        self,
        content: Picture,
        coarse: Picture | None = None,
        painted: Picture | None = None,
        guides: torch.dtype | None = torch.float32,
    ) -> None:
        self.content, self.coarse, self.painted, self.guides = content, coarse, painted, guides
        self.size: tuple[int, int] = (content.shape[-2], content.shape[-1])
        half = (-(-self.size[0] // 2), -(-self.size[1] // 2))
        if coarse is not None and painted is not None and coarse.shape[-2:] != half:
            self.coarse, self.painted = resize(coarse, half), resize(painted, half)

    def read(self, rows: Interval, columns: Interval) -> View:
        """A window, continued at the right and the lower border. It must begin at multiples of 4 pixels."""
        if self.guides is None:
            return View(window(self.content, rows, columns))
        content, guide = self._empty(rows, columns), self._empty(rows, columns)
        cuts = [*range(rows[0], max(rows[1] - BAND // 2, rows[0] + 1), BAND), rows[1]]
        for band in pairwise(cuts):  # no large picture is ever in float32
            place = slice(band[0] - rows[0], band[1] - rows[0])
            part = window(self.content, band, columns)
            content[:, :, place] = part
            changed = part if self.painted is None else part + self._change(band, columns)
            guide[:, :, place] = changed + self._noise(band, columns)
        if self.painted is None:
            return View(content, guide)
        sides = zip((rows, columns), self.painted.shape[-2:], strict=True)
        halves = [(begin // 2, min(-(-end // 2), length)) for (begin, end), length in sides]
        inside = min(rows[1], self.size[0]) - rows[0], min(columns[1], self.size[1]) - columns[0]
        return View(content, guide, window(self.painted, *halves), inside)

    def _empty(self, rows: Interval, columns: Interval) -> Float[Tensor, "_ 3 _ _"]:
        batch = len(self.content) if self.content.ndim == 4 else 1
        size = (batch, 3, rows[1] - rows[0], columns[1] - columns[0])
        device = self.content.device
        return torch.empty(size, dtype=self.guides, device=device, memory_format=torch.channels_last)

    def _noise(self, rows: Interval, columns: Interval) -> Float[Tensor, "1 1 _ _"]:
        grain = noise((rows[0], min(rows[1], self.size[0])), (columns[0], min(columns[1], self.size[1])))
        return window(grain, (0, rows[1] - rows[0]), (0, columns[1] - columns[0])).to(self.content.device)

    def _change(self, rows: Interval, columns: Interval) -> Float[Tensor, "_ 3 _ _"]:
        """What the octave before has changed in the content image, enlarged."""
        assert self.coarse is not None
        assert self.painted is not None
        sides = list(zip((rows, columns), self.coarse.shape[-2:], strict=True))
        (top, bottom), (left, right) = (
            (max(begin // 2 - 1, 0), min(-(-end // 2) + 1, length)) for (begin, end), length in sides
        )
        change = window(self.painted, (top, bottom), (left, right)) - window(self.coarse, (top, bottom), (left, right))
        change = double(change)[..., : self.size[0] - 2 * top, : self.size[1] - 2 * left]
        return window(
            change, *((begin - 2 * first, end - 2 * first) for (begin, end), first in ((rows, top), (columns, left)))
        )


def pyramid(content: Picture, octaves: int) -> list[Picture]:
    """The content image in each octave, the smallest first; the last is the image itself.

    Sides are continued until they halve evenly; the last octave is as large as it came. Where these are all octaves of
    the picture, the first has a short side of `FIRST_OCTAVE`, so that prints of all sizes begin from the same picture.
    """
    levels = [content]
    for _ in range(octaves - 1):
        levels.insert(0, _halved(levels[0]))
    if 1 < octaves == count_octaves(content.shape[-2], content.shape[-1]):
        levels[0] = resize(levels[0], FIRST_OCTAVE)
    return levels


def _halved(content: Picture) -> Float[Tensor, "_ 3 _ _"]:
    """Half of the sides, rounded up.

    Of 8-bit pixels, in float16 and in bands: no large picture is ever in float32, and nothing is rounded to 8 bits,
    which a network would take for texture in flat areas.
    """
    height, width = (-(-side // 2) for side in content.shape[-2:])
    if content.dtype == torch.float32:
        return halve(window(content, (0, 2 * height), (0, 2 * width)))
    tops = range(0, height, BAND)
    bands = (window(content, (2 * top, 2 * min(top + BAND, height)), (0, 2 * width)) for top in tops)
    return torch.cat([halve(band).half() for band in bands], 2)


def window(picture: Picture | Float[Tensor, "_ 1 _ _"], rows: Interval, columns: Interval) -> Float[Tensor, "_ _ _ _"]:
    """A part of a picture, in float32; beyond its right and its lower border it is continued."""
    height, width = picture.shape[-2:]
    part = picture[..., slice(*rows), slice(*columns)]
    part = part[None].float().div_(255) if part.ndim == 3 else part.float()
    down, right = max(rows[1] - height, 0), max(columns[1] - width, 0)
    return F.pad(part, (0, right, 0, down), mode="replicate") if down or right else part
