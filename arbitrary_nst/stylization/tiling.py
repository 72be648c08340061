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

from arbitrary_nst.models.blocks import TilingSpec
from arbitrary_nst.nn.normalization import AdaptiveInstanceNorm2d, ConditionalInstanceNorm2d, Statistics
from arbitrary_nst.nn.octaves import Interval
from arbitrary_nst.nn.statistics import mean_std

FEATHER = 8
"""Pixels by which a tile is painted beyond its own: twice as many, at every seam, fade from one tile to the next."""

Window = tuple[Interval, Interval]
"""Rows and columns."""

Read = Callable[[Interval, Interval], Any]
"""What a network is given in rows and columns of a picture, which is continued at its right and its lower border."""

Part = tuple[int, int, Float[Tensor, "1 3 h w"]]
"""Top, left, and pixels of a part of a picture."""

Progress = Callable[[float], None]
"""Is told what share of the work is done, 0 to 1."""


def no_progress(share: float) -> None:
    """Progress that nobody asks for."""


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
    """Slice of an interval in an outer one at 1 / scale of the resolution."""
    return slice((interval[0] - outer[0]) // scale, (interval[1] - outer[0]) // scale)


# Feathering


def fade_in(part: Tensor, earlier: Tensor, dim: int) -> None:
    """Let the beginning of a part, along one dimension, fade from the end of the earlier part to itself; in place.

    What each contributes grows or falls linearly; at every position it is 1 together.
    """
    width = earlier.shape[dim]
    ramp = (torch.arange(width, dtype=part.dtype, device=part.device) + 0.5) / width
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
        """Mean and variance of everything that was added; the variance divides by the count."""
        return self.mean.float(), (self.squares / self.count).float()


def shallow_copy(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its parameters and buffers, and nothing else."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def instance_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that need statistics of the whole picture, in the order of the network."""
    return [m for m in model.modules() if isinstance(m, (ConditionalInstanceNorm2d, AdaptiveInstanceNorm2d))]


def with_exact_statistics(model: nn.Module, progress: Progress = no_progress) -> nn.Module:
    """A model for one large picture at a time, its norms' statistics as exact as those of tiles.

    The processor's kernel for instance norms adds up all squares of a channel in one float32: of 1024 x 1024 positions
    its deviations are wrong by 0.02 %, of 4096 x 4096 by 1.4 % and more. A model without such norms is given back.

    Args:
        progress: is told how many of the norms are reached.
    """
    if not instance_norms(model):
        return model
    model = shallow_copy(model)
    reached = {norm: index / len(instance_norms(model)) for index, norm in enumerate(instance_norms(model))}

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        progress(reached[norm])
        whole = RunningStatistics()
        whole.add(inputs[0])
        norm.statistics = whole.statistics  # type: ignore[assignment]

    for norm in reached:
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


class CachedTrunk(nn.Module):
    """Replacement of a trunk: its output for the whole picture, of which a tile reads its part.

    Args:
        scale: the trunk works at 1 / scale of the resolution.
        size: height and width of the picture.
        tiles: how many it is gathered from.
    """

    origin: tuple[int, int] = (0, 0)
    maps: Tensor

    def __init__(self, trunk: nn.Module, scale: int, size: tuple[int, int], tiles: int) -> None:
        super().__init__()
        self.trunk, self.scale = with_exact_statistics(trunk), scale
        self.size, self.missing = size, tiles

    def gather(self, core: Window, features: Float[Tensor, "1 C h w"], *others: Any) -> None:
        """Take what the trunk is given in the core of a tile; with the last one, run it."""
        scale = self.scale
        if not hasattr(self, "maps"):
            shape = (1, features.shape[1], self.size[0] // scale, self.size[1] // scale)
            self.maps = features.new_empty(shape).to(memory_format=torch.channels_last)
        self.maps[:, :, within(core[0], (0, 0), scale), within(core[1], (0, 0), scale)] = features
        self.missing -= 1
        if not self.missing:
            self.maps = self.trunk(self.maps, *others)

    def forward(self, features: Float[Tensor, "1 C h w"], *others: Any) -> Float[Tensor, "1 D h w"]:
        top, left = (begin // self.scale for begin in self.origin)
        return self.maps[:, :, top : top + features.shape[2], left : left + features.shape[3]]


def set_origin(model: nn.Module, origin: tuple[int, int]) -> None:
    """Say where in the picture a tile begins."""
    for module in model.modules():
        if isinstance(module, CachedTrunk):
            module.origin = origin


def stylize_in_tiles(
    model: nn.Module,
    forward: Callable[[nn.Module, Any], Float[Tensor, "1 3 h w"]],
    read: Read,
    size: tuple[int, int],
    tile: int,
    spec: TilingSpec,
    cache_trunk: bool = False,
    progress: Progress = no_progress,
) -> Iterator[Part]:
    """The picture that a model makes of a whole picture, in parts, top to bottom.

    The model runs once a tile for each of its norms, as far as that norm, and once more. It is left as it is.

    Args:
        forward: how the model is called with what `read` gives; its result is on the CPU.
        size: height and width of the picture. The parts go beyond, as far as the picture has to be continued.
        tile: side of a tile in pixels; what is read at once is larger by twice the network's halo.
        spec: what the network needs of tiles.
        cache_trunk: keep the maps of its `trunk` whole (`CachedTrunk`); norms in it cost nothing then, and the halo is
            that of the rest.
        progress: is told how many of all runs are done.
    """
    height, width = map(spec.padded, size)
    trunk = spec.trunk if cache_trunk else None
    halo = spec.halo if trunk is None else trunk.outer_halo
    side = max(tile // spec.multiple, 1) * spec.multiple
    rows, columns = spans(height, side, spec.multiple), spans(width, side, spec.multiple)
    cores = [(row.core, column.core) for row in rows for column in columns]
    model = shallow_copy(model)

    def seen(row: Interval, column: Interval) -> Window:
        return widened(row, halo, height), widened(column, halo, width)

    done = 0

    def run(window: Window) -> Float[Tensor, "1 3 h w"]:
        nonlocal done
        set_origin(model, (window[0][0], window[1][0]))
        try:
            return forward(model, read(*window))
        finally:
            done += 1
            progress(done / runs)

    def watch(layer: nn.Module, see: Callable[..., None]) -> None:
        _watch(layer, ((core, seen(*core)) for core in cores), run, see)

    def measure(layers: Iterable[Any]) -> None:
        for norm in layers:
            whole = RunningStatistics()
            watch(norm, lambda core, features, *others, whole=whole: whole.add(features))
            norm.statistics = whole.statistics

    unmeasured = instance_norms(model)
    runs = len(cores) * (len(unmeasured) + 1)
    if trunk is not None:
        network: Any = next(module for module in model.modules() if hasattr(module, "trunk"))
        inside = instance_norms(network.trunk)
        runs += len(cores) * (1 - len(inside))
        first = unmeasured.index(inside[0])
        measure(unmeasured[:first])
        unmeasured = unmeasured[first + len(inside) :]
        cached = CachedTrunk(network.trunk, trunk.scale, (height, width), len(cores))
        watch(network.trunk, cached.gather)
        network.trunk = cached
    measure(unmeasured)

    def paint(row: Span, column: Span) -> Float[Tensor, "1 3 h w"]:
        window = seen(row.painted, column.painted)
        painted = run(window)
        return painted[:, :, within(row.painted, window[0]), within(column.painted, window[1])].contiguous()

    yield from mosaic(paint, rows, columns)
