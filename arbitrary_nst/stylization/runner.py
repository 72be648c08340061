"""A model run on pictures of any size, octave by octave and in tiles, within the free memory.

Shapes: B batch, D numbers of a style code, H x W pixels, h x w of a part of them. Images are float RGB in [0, 1].
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from arbitrary_nst.models.blocks import TilingSpec
from arbitrary_nst.nn.octaves import Octave, View, count_octaves, pyramid
from arbitrary_nst.runtime.devices import channels_last, free_memory, out_of_memory
from arbitrary_nst.stylization.options import SMALLEST_TILE, Tile
from arbitrary_nst.stylization.tiling import Part, Progress, stylize_in_tiles, with_exact_statistics

logger = logging.getLogger(__name__)

Content = Float[Tensor, "B 3 H W"] | UInt8[Tensor, "3 H W"]
"""Photos in [0, 1], or the 8-bit pixels of one."""

Result = TypeVar("Result")

DEFAULT_TILE = 1024

MEMORY_SHARE = 0.5
"""Of the free memory, how much a picture may take that is not cut."""

CACHE_MEMORY = 4 * 2**30
"""Bytes, at most, for the whole maps of a network's trunk, where a picture is cut into tiles."""

ASSUMED_MEMORY = 4 * 2**30
"""Bytes that are taken to be free where the device does not say."""

LARGE = 2**20
"""Pixels beyond which a picture that is not cut is painted with the exact statistics that tiles have."""


@dataclass(frozen=True)
class Cut:
    """How a picture is cut."""

    side: int | None
    """Of the tiles, in pixels; None: the picture is not cut."""
    cache_trunk: bool
    """Run the network's trunk on the whole picture."""


class TiledRunner:
    """Runs a model on pictures of any size.

    Args:
        dtype: of the network that paints.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.spec: TilingSpec | None = getattr(getattr(model, "transformer", model), "tiling", None)
        """None: the model cannot be cut into tiles."""
        self.coarse_to_fine: bool = getattr(model, "coarse_to_fine", False)

    # Memory

    def cut(self, content: Content, tile: Tile) -> Cut:
        """What to begin with."""
        pixels, spec, side = content.numel() // 3, self.spec, None if tile == "auto" else tile
        free = free_memory(self.device)
        room = MEMORY_SHARE * (ASSUMED_MEMORY if free is None else free)
        if tile == "auto" and spec is not None and pixels * spec.bytes_per_pixel > room:
            side = DEFAULT_TILE
        trunk = None if spec is None else spec.trunk
        return Cut(side, trunk is not None and pixels * trunk.bytes_per_pixel <= min(room, CACHE_MEMORY))

    def within_memory(self, content: Content, tile: Tile, make: Callable[[Cut], Result]) -> Result:
        """Call `make` with a cut that fits into the free memory.

        Where it runs out, the picture is cut, then the network's trunk too, then the tiles are halved.
        """
        cut = self.cut(content, tile)
        while True:
            try:
                return make(cut)
            except Exception as error:
                if not out_of_memory(error) or tile is None or self.spec is None:
                    raise
                reason = type(error).__name__
                if cut.side is None:
                    cut = replace(cut, side=DEFAULT_TILE)
                elif cut.cache_trunk:
                    cut = replace(cut, cache_trunk=False)
                elif cut.side // 2 < SMALLEST_TILE:
                    raise
                else:
                    cut = replace(cut, side=cut.side // 2)
            logger.warning("out of memory (%s): begun again in tiles of %d pixels", reason, cut.side)

    # Painting

    def __call__(
        self, content: Content, code: Float[Tensor, "#B D"], cut: Cut, octaves: int | None, progress: Progress
    ) -> Iterator[Part]:
        """The picture of one style, in parts: octave by octave, of which the last is given as it is painted.

        Args:
            octaves: how many at most, where the model paints several; None: as many as the picture has.
        """
        most = count_octaves(content.shape[-2], content.shape[-1]) if self.coarse_to_fine else 1
        levels = pyramid(content, most if octaves is None else min(most, octaves))
        precision = torch.float32 if self.spec is None else self.dtype  # exported models have one of their own
        guides = precision if self.coarse_to_fine else None
        octave, done, total = Octave(levels[0], guides=guides), 0.0, sum(level.numel() for level in levels)
        for level, larger in pairwise(levels):
            share = level.numel() / total
            painted = torch.empty_like(level, device="cpu")
            for top, left, part in self._octave(octave, code, cut, _within(progress, done, share)):
                place = painted[:, :, top : top + part.shape[2], left : left + part.shape[3]]
                place.copy_(part[:, :, : place.shape[2], : place.shape[3]])
            octave, done = Octave(larger, level, painted, guides), done + share
        yield from self._octave(octave, code, cut, _within(progress, done, 1 - done))

    def _octave(self, octave: Octave, code: Tensor, cut: Cut, progress: Progress) -> Iterator[Part]:
        """One octave in parts, cut into tiles where it is larger than one."""
        forward, (height, width) = partial(self._forward, code=code), octave.size
        if cut.side is None or self.spec is None or max(height, width) <= cut.side:
            model = with_exact_statistics(self.model, progress) if height * width > LARGE else self.model
            yield 0, 0, forward(model, octave.read((0, height), (0, width)))
        else:
            size, spec = octave.size, self.spec
            yield from stylize_in_tiles(
                self.model, forward, octave.read, size, cut.side, spec, cut.cache_trunk, progress
            )

    def _forward(self, model: Any, view: View, code: Float[Tensor, "#B D"]) -> Float[Tensor, "B 3 h w"]:
        content = channels_last(view.content, self.device)
        octave = () if view.guide is None else (channels_last(view.guide, self.device), view.first)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            painted = model(content, code, *octave).float()
        painted = view.anchored(painted).clamp_(0, 1).cpu()
        if painted.isnan().any():
            raise ValueError("the model paints NaN: its weights are broken; train it again, or load another")
        return painted


def _within(progress: Progress, begin: float, share: float) -> Progress:
    """The progress of a part of the work, which begins at `begin` and is `share` of all."""
    return lambda done: progress(begin + share * done)
