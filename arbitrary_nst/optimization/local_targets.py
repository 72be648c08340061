"""Comparison of pictures place by place: hypercolumns of the output beside those of a photo and of paintings.

A hypercolumn stacks the features of several layers at one place. Places are drawn anew at every step, so memory does
not grow with their number.

Shapes: H x W pixels, h x w positions of a layer, N places of the output, M of the paintings, D numbers of a
hypercolumn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import (
    cosine_distance,
    covariance_loss,
    nearest_neighbor_loss,
    paired_cosine_distance,
    relaxed_emd_loss,
    self_similarity_loss,
    vectors_at,
)
from arbitrary_nst.nn.pyramids import with_details_of
from arbitrary_nst.optimization.presets import OptimizationConfig, Stage

Image = Float[Tensor, "1 3 _ _"]
Maps = Mapping[str, Float[Tensor, "1 _ _ _"]]
Points = Float[Tensor, "N 2"]

CELL = 4
"""Pixels: places whose nearest neighbours are fixed lie in the middle of squares of this side."""

CHUNK = 1024
"""Places whose distances to all of a painting's are computed at once."""


@dataclass
class Region:
    """A part of the photo, and what is known of the part of the paintings that it takes its style from."""

    label: int
    places: Int[Tensor, " P"]
    """Its pixels, as indices into the flattened picture."""
    colors: Float[Tensor, "1 M 3"] | None = None
    columns: Float[Tensor, "1 M D"] | None = None
    """Hypercolumns."""
    layers: dict[str, Float[Tensor, "1 M _"]] = field(default_factory=dict)
    """Vectors of each layer by itself, where layers are matched one by one."""
    points: Points | None = None
    """Where the picture's hypercolumns have a target for the whole of a scale."""
    nearest: Int[Tensor, " N"] | None = None
    """Which of `columns` it is."""


class LocalTargets:
    """Targets that a picture is compared with position by position, and the comparison.

    Args:
        content: the photo, or None for no content term.
        styles: paintings of any sizes.
        weights: of the paintings, summing to 1: each gives so large a part of the places.
        picture: what the optimization begins from at this stage.
        regions: labels of the photo's pixels and of each painting's, of any sizes; a region of the photo takes its
            style from the places of the paintings with the same label.
    """

    def __init__(
        self,
        features: VGGFeatures,
        config: OptimizationConfig,
        stage: Stage,
        content: Image | None,
        styles: Sequence[Image],
        weights: Sequence[float],
        picture: Image,
        regions: Sequence[Int[Tensor, "1 1 _ _"]] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.config, self.stage, self.generator = config, stage, generator
        self.extent = (picture.shape[2], picture.shape[3])
        # what is fixed for a scale lies between four pixels, so that none of them is painted alone
        self._between = 0.5 if config.neighbor_weight and not stage.split else 0.0
        self.content: Maps = {}
        self.regions: list[Region] = []
        with torch.no_grad():
            if content is not None and config.self_similarity_weight:
                self.content = {layer: maps.clone() for layer, maps in features(content).items()}
            if styles:
                self._study(features, styles, weights, regions)
            if config.neighbor_weight and not stage.split:
                self._match(features, self._searched(content, picture))

    def _study(
        self, features: VGGFeatures, styles: Sequence[Image], weights: Sequence[float], labels: Sequence
    ) -> None:
        """Draw places of the paintings for every region of the photo, one painting's features at a time."""
        config, turns = self.config, 4 if self.config.rotations else 1
        own = _labels(labels[0] if labels else None, self.extent).to(styles[0].device)
        theirs = [
            _labels(labels[1 + i] if labels else None, (style.shape[2], style.shape[3])).to(own.device)
            for i, style in enumerate(styles)
        ]
        self.regions = [Region(label, (own == label).flatten().nonzero().flatten()) for label in own.unique().tolist()]
        for style, weight, seen in zip(styles, weights, theirs, strict=True):
            for turn in range(turns):
                painting, turned = (torch.rot90(image, turn, (2, 3)).contiguous() for image in (style, seen))
                maps = features(painting)
                for region in self.regions:
                    pool = (turned == region.label).flatten().nonzero().flatten()
                    if not any((other == region.label).any() for other in theirs):  # too small to be seen at this size
                        pool = torch.arange(turned.numel(), device=own.device)
                    index = self._draw(pool, round(weight * config.style_samples / turns))
                    self._add(region, painting, maps, index)

    def _add(self, region: Region, painting: Image, maps: Maps, index: Int[Tensor, " M"]) -> None:
        """To what a region knows of the paintings, what is at those pixels of one."""
        extent = painting.shape[2:]
        points = _centers(index, extent[1]) + self._between
        region.colors = _joined(region.colors, vectors_at(painting, index))
        if self.config.emd_weight or self.config.covariance_weight or not self.stage.split:
            region.columns = _joined(region.columns, self._columns(maps, points, extent))
        if self.stage.split:
            for layer in self.config.style_layers:
                region.layers[layer] = _joined(region.layers.get(layer), at(maps[layer], points, extent))

    def _searched(self, content: Image | None, picture: Image) -> Image:
        """The picture whose nearest neighbours are looked for: the photo, and a little of what is painted so far."""
        if content is None:
            return picture
        if self.stage.first:
            return content
        alpha = self.config.alpha
        return alpha * content + (1 - alpha) * with_details_of(picture, content)

    def _match(self, features: VGGFeatures, searched: Image) -> None:
        """Find, for every cell of the picture, the painting's place with the nearest hypercolumn, means removed."""
        maps = features(searched)
        rows, columns = (torch.arange(max(1, side // CELL), device=searched.device) for side in self.extent)
        cells = torch.cartesian_prod(rows, columns) * CELL + CELL / 2
        inside = cells.long().clamp_max(torch.tensor(self.extent, device=cells.device) - 1)
        cell_index = inside[:, 0] * self.extent[1] + inside[:, 1]
        mean = torch.cat([maps[layer].float().mean((2, 3)) * w for layer, w in self.config.style_layers.items()], 1)
        owner = torch.empty(self.extent[0] * self.extent[1], dtype=torch.long, device=cells.device)
        for region in self.regions:
            owner[region.places] = region.label
        for region in self.regions:
            assert region.columns is not None
            region.points = cells[owner[cell_index] == region.label]
            style = region.columns - region.columns.mean(1, keepdim=True)
            found = [
                cosine_distance(self._columns(maps, points, self.extent) - mean[None], style).min(2).indices[0]
                for points in region.points.split(CHUNK)
            ]
            region.nearest = torch.cat(found) if found else cell_index[:0]

    def __call__(self, image: Image, maps: Maps) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss by name, weighted.

        Args:
            maps: the image's features.
        """
        losses: dict[str, Tensor] = {}
        config = self.config
        if self.content:
            points = _centers(self._draw(torch.arange(image[0, 0].numel()), config.samples), self.extent[1])
            points = points.to(image.device)
            ours, theirs = self._columns(maps, points, self.extent), self._columns(self.content, points, self.extent)
            with torch.autocast(image.device.type, enabled=False):  # small differences of numbers near 1
                similarity = self_similarity_loss(ours, theirs)
            losses["self_similarity"] = config.self_similarity_weight * self.stage.content_factor * similarity
        for region in self.regions:
            share = len(region.places) / (self.extent[0] * self.extent[1])
            for name, term in self._compare(image, maps, region, max(1, round(share * config.samples))).items():
                losses[name] = losses.get(name, 0) + share * term
        return losses

    def _compare(self, image: Image, maps: Maps, region: Region, count: int) -> dict[str, Tensor]:
        """The terms of one region, weighted, with so many places of the picture."""
        config, terms = self.config, {}
        assert region.colors is not None
        index = self._draw(region.places, count)
        theirs = self._draw(torch.arange(region.colors.shape[1], device=image.device), count)
        points = _centers(index, self.extent[1])
        if config.emd_weight or config.covariance_weight:
            assert region.columns is not None
            ours, style = self._columns(maps, points + self._between, self.extent), region.columns[:, theirs]
            if config.emd_weight:
                terms["emd"] = config.emd_weight * relaxed_emd_loss(ours, style)
            if config.covariance_weight:
                terms["covariance"] = config.covariance_weight * covariance_loss(ours, style)
        if config.palette_weight:
            weight = config.palette_weight / max(1, config.self_similarity_weight * self.stage.content_factor)
            colors = relaxed_emd_loss(vectors_at(image, index), region.colors[:, theirs], "euclidean")
            terms["palette"] = weight * colors
        if config.neighbor_weight and self.stage.split:
            terms["neighbors"] = config.neighbor_weight * self._split(maps, points, region)
        elif config.neighbor_weight and region.points is not None and len(region.points):
            assert region.nearest is not None
            assert region.columns is not None
            chosen = self._draw(torch.arange(len(region.points), device=image.device), count)
            ours = self._columns(maps, region.points[chosen], self.extent)
            distances = paired_cosine_distance(ours, region.columns[:, region.nearest[chosen]])
            terms["neighbors"] = config.neighbor_weight * distances.mean()
        return terms

    def _split(self, maps: Maps, points: Points, region: Region) -> Float[Tensor, ""]:
        """Nearest neighbours of every layer by itself, means removed, found anew."""
        distances = []
        assert region.colors is not None
        chosen = self._draw(torch.arange(region.colors.shape[1], device=points.device), 4 * len(points))
        for layer, vectors in region.layers.items():
            style = vectors[:, chosen]
            ours = at(maps[layer], points, self.extent)
            distances.append(
                nearest_neighbor_loss(ours - ours.mean(1, keepdim=True), style - style.mean(1, keepdim=True))
            )
        return torch.stack(distances).sum()

    def _columns(self, maps: Maps, points: Points, extent: Sequence[int]) -> Float[Tensor, "1 N D"]:
        """Hypercolumns at points of a picture."""
        return torch.cat([w * at(maps[layer], points, extent) for layer, w in self.config.style_layers.items()], 2)

    def _draw(self, pool: Int[Tensor, " P"], count: int) -> Int[Tensor, " N"]:
        """Draw so many of the pool, each at most once; all of it if it has fewer."""
        order = torch.randperm(len(pool), generator=self.generator)[:count]
        return pool[order.to(pool.device)]


def at(maps: Float[Tensor, "1 C h w"], points: Points, extent: Sequence[int]) -> Float[Tensor, "1 N C"]:
    """Vectors of a feature map at points of the picture, bilinear between its positions, in float32.

    Args:
        points: row and column, in pixels; the middle of the first pixel is at 0.5.
        extent: height and width of the picture.
    """
    height, width = maps.shape[2:]
    sizes = torch.tensor([height, width], device=points.device)
    places = points * sizes / torch.tensor(list(extent), device=points.device) - 0.5
    places = places.clamp_min(0).minimum(sizes - 1.0)
    low = places.long()
    high = (low + 1).minimum(sizes - 1)
    down, across = (places - low)[:, :, None].unbind(1)
    rows, columns = torch.stack([low, high]).unbind(2)

    def corner(row: int, column: int) -> Tensor:
        return vectors_at(maps, rows[row] * width + columns[column])

    if maps.shape[2:] == tuple(extent) and not bool((places - low).any()):
        return corner(0, 0)
    upper = torch.lerp(corner(0, 0), corner(0, 1), across)
    return torch.lerp(upper, torch.lerp(corner(1, 0), corner(1, 1), across), down)


def _centers(index: Int[Tensor, " N"], width: int) -> Points:
    """The middles of pixels."""
    return torch.stack([index // width, index % width], 1) + 0.5


def _labels(labels: Int[Tensor, "1 1 _ _"] | None, extent: tuple[int, int]) -> Int[Tensor, "1 1 H W"]:
    """At that size; one region without labels."""
    if labels is None:
        return torch.zeros(1, 1, *extent, dtype=torch.long)
    return F.interpolate(labels.float(), extent, mode="nearest-exact").long()


def _joined(vectors: Float[Tensor, "1 _ C"] | None, more: Float[Tensor, "1 _ C"]) -> Float[Tensor, "1 M C"]:
    return more if vectors is None else torch.cat([vectors, more], 1)
