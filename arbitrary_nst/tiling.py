"""Pictures of any size through a network in bounded memory: tiles that differ in nothing from the whole.

A tile needs two things that it does not have. What its border looks like to the network: it is read with as many pixels
around it as the network reaches, which are cut away again. And the statistics that instance norms divide by, which are
the whole picture's: they are measured norm by norm, each in one pass over all tiles, before the first tile is painted.
Where the small maps of a network's trunk fit into memory, the trunk runs once, on the whole picture, and only what
comes before and after it goes tile by tile.

Shapes: C channels, H x W pixels of the whole picture, h x w of a part. Images are float RGB in [0, 1].
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.normalization import AdaptiveInstanceNorm2d, ConditionalInstanceNorm2d, Grain, Statistics
from arbitrary_nst.statistics import mean_std

FEATHER = 8
"""Pixels by which a tile is painted beyond its own: twice as many, at every seam, fade from one tile to the next."""

Interval = tuple[int, int]
"""Begin and end along one side of a picture, the end not included."""

Window = tuple[Interval, Interval]
"""Rows and columns."""

Read = Callable[[Interval, Interval], Float[Tensor, "1 3 h w"]]
"""Rows and columns of a picture, continued at its right and its lower border where they lie beyond."""

Part = tuple[int, int, Float[Tensor, "1 3 h w"]]
"""Top, left, and pixels of a part of a picture."""


@dataclass(frozen=True)
class Grid:
    """What a network asks of whoever cuts its pictures into tiles; it has these as attributes.

    Besides, it has `bytes_per_pixel`: what one pass over a picture that is not cut takes on the processor, the picture
    apart, in the precision that takes more; measured at 1024 x 1024 and rounded up. One that has a `trunk` (`Kept`)
    has `reach_around_trunk` too: the reach of all that is not in the trunk.

    Args:
        multiple: of which the sides of what it is given must be multiples; tiles begin and end at such places, so that
            its strides meet the pixels that they would meet in the whole picture.
        minimum: length of a side.
        reach: how far away from a pixel, at most, another can be that has a part in it, statistics apart.
    """

    multiple: int
    minimum: int
    reach: int

    def padded(self, length: int) -> int:
        """The length of a side as the network is given it."""
        return max(-(-length // self.multiple) * self.multiple, self.minimum)


# Geometry


@dataclass(frozen=True)
class Span:
    """A tile along one side of a picture: its own pixels, and those that it paints, both without and with others'."""

    core: Interval
    painted: Interval


def spans(length: int, tile: int, multiple: int, feather: int = FEATHER) -> list[Span]:
    """Tiles of nearly equal length, none longer than `tile`, whose cores divide a side.

    Args:
        length, tile: multiples of `multiple`; cores begin and end at multiples too.
        feather: by how much a tile is painted beyond its core, where there is a neighbour.
    """
    count = -(-length // tile)
    cuts = [multiple * (length // multiple * index // count) for index in range(count + 1)]
    return [Span(core, widened(core, feather, length)) for core in pairwise(cuts)]


def widened(interval: Interval, margin: int, length: int) -> Interval:
    """An interval with a margin on both sides, as far as the side of the picture goes."""
    return max(interval[0] - margin, 0), min(interval[1] + margin, length)


def within(interval: Interval, outer: Interval, scale: int = 1) -> slice:
    """Where an interval lies in an outer one at 1 / scale of the resolution."""
    return slice((interval[0] - outer[0]) // scale, (interval[1] - outer[0]) // scale)


# Feathering


def fade_in(part: Tensor, earlier: Tensor, dim: int) -> None:
    """Let the beginning of a part, along one dimension, fade from the end of the earlier part to itself; in place.

    What each contributes grows or falls linearly; at every position it is 1 together.
    """
    width = earlier.shape[dim]
    ramp = (torch.arange(width, dtype=part.dtype) + 0.5) / width
    shape = [width if index == dim else 1 for index in range(part.ndim)]
    beginning = part.narrow(dim, 0, width)
    beginning.copy_(torch.lerp(earlier, beginning, ramp.view(shape)))


def feathered(parts: Iterable[Tensor], overlap: int, dim: int) -> Iterator[Tensor]:
    """Parts of which each overlaps the next along one dimension, as parts that do not, in the same order and number.

    The parts are changed.
    """
    earlier = None
    for part in parts:
        if earlier is not None:
            finished = earlier.shape[dim] - overlap
            fade_in(part, earlier.narrow(dim, finished, overlap), dim)
            yield earlier.narrow(dim, 0, finished)
        earlier = part
    if earlier is not None:
        yield earlier


def mosaic(
    paint: Callable[[Span, Span], Float[Tensor, "1 3 h w"]],
    rows: Sequence[Span],
    columns: Sequence[Span],
    feather: int = FEATHER,
) -> Iterator[Part]:
    """The picture that tiles make, feathered, in parts that do not overlap; only a few rows of it are kept.

    Args:
        paint: the painted pixels of the tile in these rows and columns.
    """
    overlap = 2 * feather
    above: list[Tensor] = []
    for row in rows:
        left, below = 0, []
        for index, part in enumerate(feathered((paint(row, column) for column in columns), overlap, dim=3)):
            if above:
                fade_in(part, above[index], dim=2)
            finished = part.shape[2] - (0 if row is rows[-1] else overlap)
            below.append(part[:, :, finished:].clone())
            yield row.painted[0], left, part[:, :, :finished]
            left += part.shape[3]
        above = below


# Statistics of the whole


class RunningStatistics:
    """Mean and variance of every channel, of any number of parts (Chan et al. 1983), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, features: Float[Tensor, "1 C h w"]) -> None:
        """Count a part in, each of its positions once."""
        mean, std = (values.flatten().double() for values in mean_std(features, eps=0.0))
        count = features.shape[2] * features.shape[3]
        total = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + count * std.square() + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    @property
    def statistics(self) -> Statistics:
        """Of all that was added; the variance divides by their number."""
        return self.mean.float(), (self.squares / self.count).float()


def twin(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its parameters and buffers, and nothing else."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def norms(model: nn.Module) -> list[nn.Module]:
    """The layers that need statistics of the whole picture, in the order of the network."""
    return [m for m in model.modules() if isinstance(m, (ConditionalInstanceNorm2d, AdaptiveInstanceNorm2d))]


def exact(model: nn.Module) -> nn.Module:
    """A model for one large picture at a time, its norms' statistics as exact as those of tiles.

    The processor's kernel for instance norms adds up all squares of a channel in one float32: of 1024 x 1024 positions
    its deviations are wrong by 0.02 %, of 4096 x 4096 by 1.4 % and more. A model without such norms is given back.
    """
    if not norms(model):
        return model
    model = twin(model)

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        whole = RunningStatistics()
        whole.add(inputs[0])
        norm.statistics = whole.statistics  # type: ignore[assignment]

    for norm in norms(model):
        norm.register_forward_pre_hook(measure)
    return model


class _Seen(Exception):
    """The layer that is watched has seen its features: nothing after it needs to be computed."""


def _watch(
    layer: nn.Module,
    passes: Iterable[tuple[Window, Window]],
    run: Callable[[Window], object],
    see: Callable[..., None],
) -> None:
    """Show what a layer is given in the cores of all tiles; `passes` are cores and what is read.

    Args:
        see: is called within each run, with the core, the features there, and all else that the layer is given.
    """
    for core, read in passes:

        def look(module: nn.Module, inputs: tuple[Any, ...], core: Window = core, read: Window = read) -> None:
            features, *others = inputs
            scale = (read[0][1] - read[0][0]) // features.shape[2]
            see(core, features[:, :, within(core[0], read[0], scale), within(core[1], read[1], scale)], *others)
            raise _Seen

        handle = layer.register_forward_pre_hook(look)
        try:
            run(read)
        except _Seen:
            pass
        finally:
            handle.remove()


class Kept(nn.Module):
    """In the place of a trunk: what it makes of the whole picture, of which a tile is given its part.

    A trunk is the part of a network that works at 1 / `scale` of the resolution. Its `bytes_per_pixel` are what it
    takes for each pixel of the picture, in the precision that takes more; measured and rounded up.

    Args:
        size: height and width of the picture.
        tiles: how many it is gathered from.
    """

    origin: tuple[int, int] = (0, 0)
    maps: Tensor

    def __init__(self, trunk: nn.Module, size: tuple[int, int], tiles: int) -> None:
        super().__init__()
        self.trunk: Any = exact(trunk)
        place(self.trunk, (0, 0))
        self.size, self.missing = size, tiles

    def gather(self, core: Window, features: Float[Tensor, "1 C h w"], *others: Any) -> None:
        """Take what the trunk is given in the core of a tile; with the last one, run it."""
        scale = self.trunk.scale
        if not hasattr(self, "maps"):
            shape = (1, features.shape[1], self.size[0] // scale, self.size[1] // scale)
            self.maps = features.new_empty(shape).to(memory_format=torch.channels_last)
        self.maps[:, :, within(core[0], (0, 0), scale), within(core[1], (0, 0), scale)] = features
        self.missing -= 1
        if not self.missing:
            self.maps = self.trunk(self.maps, *others)

    def forward(self, features: Float[Tensor, "1 C h w"], *others: Any) -> Float[Tensor, "1 D h w"]:
        top, left = (begin // self.trunk.scale for begin in self.origin)
        return self.maps[:, :, top : top + features.shape[2], left : left + features.shape[3]]


def place(model: nn.Module, origin: tuple[int, int]) -> None:
    """Say where in the picture a tile begins."""
    for module in model.modules():
        if isinstance(module, (Grain, Kept)):
            module.origin = origin


def paint_in_tiles(
    model: nn.Module,
    forward: Callable[[nn.Module, Float[Tensor, "1 3 h w"]], Float[Tensor, "1 3 h w"]],
    read: Read,
    size: tuple[int, int],
    tile: int,
    grid: Grid,
    keep_trunk: bool = False,
) -> Iterator[Part]:
    """The picture that a model makes of a whole picture, in parts, top to bottom.

    The model runs once a tile for each of its norms, as far as that norm, and once more. It is left as it is.

    Args:
        forward: how the model is called; its result is on the CPU.
        size: height and width of the picture. The parts go beyond, as far as the picture has to be continued.
        tile: side of a tile in pixels; what is read at once is larger by twice the network's reach.
        keep_trunk: keep the maps of its `trunk` whole (`Kept`); norms in it cost nothing then, and the grid's reach is
            that of the rest.
    """
    height, width = map(grid.padded, size)
    side = max(tile // grid.multiple, 1) * grid.multiple
    rows, columns = spans(height, side, grid.multiple), spans(width, side, grid.multiple)
    cores = [(row.core, column.core) for row in rows for column in columns]
    model = twin(model)

    def seen(row: Interval, column: Interval) -> Window:
        return widened(row, grid.reach, height), widened(column, grid.reach, width)

    def run(window: Window) -> Float[Tensor, "1 3 h w"]:
        place(model, (window[0][0], window[1][0]))
        return forward(model, read(*window))

    def watch(layer: nn.Module, see: Callable[..., None]) -> None:
        _watch(layer, ((core, seen(*core)) for core in cores), run, see)

    def measure(layers: Iterable[Any]) -> None:
        for norm in layers:
            whole = RunningStatistics()
            watch(norm, lambda core, features, *others, whole=whole: whole.add(features))
            norm.statistics = whole.statistics

    unmeasured = norms(model)
    if keep_trunk:
        network: Any = next(module for module in model.modules() if hasattr(module, "trunk"))
        inside = norms(network.trunk)
        first = unmeasured.index(inside[0])
        measure(unmeasured[:first])
        unmeasured = unmeasured[first + len(inside) :]
        kept = Kept(network.trunk, (height, width), len(cores))
        watch(network.trunk, kept.gather)
        network.trunk = kept
    measure(unmeasured)

    def paint(row: Span, column: Span) -> Float[Tensor, "1 3 h w"]:
        window = seen(row.painted, column.painted)
        painted = run(window)
        return painted[:, :, within(row.painted, window[0]), within(column.painted, window[1])].contiguous()

    yield from mosaic(paint, rows, columns)
