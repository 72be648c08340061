"""Style transfer by optimization: pixels, or a network that paints them, are fitted to one photo and one style.

Gatys et al. 2016 optimize pixels. With a photo and no painting the same loop inverts features, with a painting and no
photo it synthesizes textures (Gatys et al. 2015); with a network in the place of pixels it is Li et al. 2019.

Shapes: B batch, C channels, H x W pixels, h x w those of a scale. Images are float RGB in [0, 1].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.color import PreserveColor, match_covariance, with_colors_of
from arbitrary_nst.devices import channels_last, chosen_device
from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.image import resize
from arbitrary_nst.losses import (
    content_loss,
    relative_content_loss,
    relative_difference,
    squared_difference,
    total_variation,
)
from arbitrary_nst.models.hrnet import HRNet
from arbitrary_nst.recipes import Recipe
from arbitrary_nst.statistics import gram_matrix, moments, style_shares

Image = Float[Tensor, "1 3 _ _"]

SMALLEST_SIDE = 16
"""Pixels: VGG halves a picture four times on its way to relu5_1."""


class OptimizationDiverged(FloatingPointError):
    """The loss is no longer a number."""


class Targets:
    """What a picture is compared with, computed once, and the comparison.

    Several paintings have one target: the weighted mean of their statistics. To compare with the mean gives the same
    gradient as the weighted sum of comparisons with each.

    Args:
        content: the photo, or None for no content term.
        styles: paintings of any sizes; none for no style terms.
        weights: of the paintings, summing to 1.
    """

    def __init__(
        self,
        features: VGGFeatures,
        recipe: Recipe,
        content: Image | None,
        styles: Sequence[Image],
        weights: list[float],
    ) -> None:
        self.features, self.recipe = features, recipe
        self.content: dict[str, Tensor] = {}
        self.gram: dict[str, Tensor] = {}
        self.moments: dict[str, Tensor] = {}
        with torch.no_grad():
            if content is not None and recipe.content_weight:
                maps = features(content)
                self.content = {layer: maps[layer].clone() for layer in recipe.content_layers}
            for style, weight in zip(styles, weights, strict=True):
                maps = features(style)
                for layer in recipe.style_layers:
                    if recipe.gram_weight:
                        self.gram[layer] = self.gram.get(layer, 0) + weight * gram_matrix(maps[layer])
                    if recipe.moment_weight:
                        self.moments[layer] = self.moments.get(layer, 0) + weight * moments(maps[layer])
        if not (self.content or self.gram or self.moments):
            raise ValueError("there is nothing to optimize for: give a photo or a painting, and a weight above zero")

    def __call__(self, image: Image) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss by name, weighted; their sum is the loss."""
        recipe, maps, losses = self.recipe, self.features(image), {}
        difference = relative_difference if recipe.relative else squared_difference
        compare_content = relative_content_loss if recipe.relative else content_loss
        if self.content:
            losses["content"] = self._sum(
                recipe.content_weight,
                recipe.content_layers,
                {layer: compare_content(maps[layer], target) for layer, target in self.content.items()},
            )
        for name, statistic, targets, weight in (
            ("gram", gram_matrix, self.gram, recipe.gram_weight),
            ("moments", moments, self.moments, recipe.moment_weight),
        ):
            if targets:
                differences = {layer: difference(statistic(maps[layer]), target) for layer, target in targets.items()}
                losses[name] = self._sum(weight, recipe.style_layers, differences)
        if recipe.total_variation_weight:
            variation = total_variation(image, recipe.total_variation_power)
            losses["total_variation"] = recipe.total_variation_weight * variation
        return losses

    def _sum(self, weight: float, layer_weights: dict[str, float], terms: dict[str, Tensor]) -> Tensor:
        power = 2 if self.recipe.squared_weights else 1
        return torch.stack([(weight * layer_weights[layer]) ** power * term for layer, term in terms.items()]).sum()


class Pixels(nn.Module):
    """A picture whose pixels are what is optimized."""

    def __init__(self, image: Image, unit: float) -> None:
        super().__init__()
        self.unit = unit
        self.values = nn.Parameter((image / unit).contiguous())

    def forward(self) -> Image:
        return self.unit * self.values


class Painted(nn.Module):
    """A picture that a network paints of a photo: the network's weights are what is optimized."""

    def __init__(self, network: nn.Module, content: Image) -> None:
        super().__init__()
        self.network, self.content = network, content

    def forward(self) -> Image:
        return self.network(self.content)


@dataclass(frozen=True)
class Iterate:
    """One step of an optimization. Nothing leaves the device before it is asked for.

    The picture is that of the moment: ask for it before the next step. The losses are those at which the step's
    gradient was taken, of the picture before it.
    """

    step: int
    """From 1 on, counted through all scales."""
    steps: int
    """How many there will be."""
    terms: dict[str, Tensor]
    canvas: nn.Module
    recolor: Image | None = None

    @property
    def losses(self) -> dict[str, float]:
        """Weighted terms by name."""
        return {name: value.item() for name, value in self.terms.items()}

    @property
    def image(self) -> Image:
        """The picture, on the CPU, in [0, 1]."""
        with torch.no_grad():
            image = self.canvas().float().clamp(0, 1)
            if self.recolor is not None:
                image = with_colors_of(image, self.recolor)
        return image.cpu()


def optimize(
    content: Image | None,
    styles: Sequence[Image],
    recipe: Recipe,
    *,
    style_weights: Sequence[float] | None = None,
    style_scale: float = 1.0,
    size: tuple[int, int] | None = None,
    start: Image | None = None,
    preserve_color: PreserveColor = "none",
    device: torch.device | str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    features: VGGFeatures | None = None,
) -> Iterator[Iterate]:
    """Optimize, yielding an `Iterate` a step; stop whenever the picture pleases.

    Args:
        content: the photo; None synthesizes a texture.
        styles: paintings; none inverts the photo's features.
        style_weights: one for each painting, not all zero; None: all equal.
        style_scale: short side of the paintings in units of the picture's: smaller gives finer strokes.
        size: height and width of the picture; None: the photo's.
        start: a picture to begin from instead of the recipe's `start`.
        preserve_color: the photo's colours, by recolouring the paintings beforehand ("covariance") or by taking
            only the luminance of the result ("luminance").
        features: the feature network, where it is at hand; it must have the recipe's layers.

    Raises:
        ValueError: nothing to optimize for, contradictory arguments, or a scale of too few pixels.
        OptimizationDiverged: the loss is no longer a number.
        WeightsNotFoundError: the feature network's weights are not to be had.
    """
    extents = _extents(content, size, recipe)
    weights = style_shares(style_weights, len(styles))
    if preserve_color != "none" and content is None:
        raise ValueError("there is no photo whose colours could be preserved")
    if recipe.canvas == "hrnet" and content is None:
        raise ValueError("a network paints a photo: give one, or optimize pixels")
    device = chosen_device(device)
    if preserve_color == "covariance":
        styles = [match_covariance(style, content) for style in styles]  # pyright: ignore[reportArgumentType]
    if features is None:
        features = feature_network(recipe)
    features.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    if start is None and recipe.start == "content" and styles:
        start = content
    canvas, optimizer, done = None, None, 0
    total = sum(steps for _, steps in recipe.schedule)
    for extent, (_, steps) in zip(extents, recipe.schedule, strict=True):
        photo = None if content is None else channels_last(resize(content, extent), device)
        paintings = [channels_last(resize(style, round(min(extent) * style_scale)), device) for style in styles]
        targets = Targets(features, recipe, photo, paintings, weights)
        canvas, optimizer = _enlarge(canvas, optimizer, extent, photo, recipe) or _begin(
            recipe, extent, photo, start, seed, device
        )
        recolor = photo if preserve_color == "luminance" else None
        low = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        for terms in descend(canvas, targets, optimizer, recipe, done, steps, low):
            done += 1
            yield Iterate(done, total, terms, canvas, recolor)


def descend(
    canvas: nn.Module, targets: Targets, optimizer: Any, recipe: Recipe, done: int, steps: int, autocast: Any
) -> Iterator[dict[str, Tensor]]:
    """The loop: one forward and one backward pass a step. Yields the terms of the loss after each.

    The loss that the optimizer sees is multiplied by a constant that makes the first gradient 1 on average: L-BFGS
    drops curvatures below a fixed size, and Adam's epsilon has one too, whatever the units of the losses.

    Args:
        done: steps before these, which the learning rate counts.
    """
    terms: dict[str, Tensor] = {}
    parameters = list(canvas.parameters())
    numbers = sum(parameter.numel() for parameter in parameters)
    factor = None

    def closure() -> Tensor:
        nonlocal terms, factor
        optimizer.zero_grad()
        with autocast:
            terms = targets(canvas().contiguous(memory_format=torch.channels_last))
        loss = torch.stack(list(terms.values())).sum()
        if factor is None:
            loss.backward()
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            size = torch.stack([gradient.abs().sum() for gradient in gradients]).sum()
            factor = torch.where(size > 0, numbers / size, 1.0)
            torch._foreach_mul_(gradients, factor)
        else:
            (factor * loss).backward()
        terms = {name: term.detach() for name, term in terms.items()}
        return factor * loss.detach()

    for step in range(done, done + steps):
        rate = recipe.learning_rate * recipe.decay ** (step // recipe.decay_every)
        if recipe.optimizer == "lbfgs" and step == done:  # along the gradient, by one grey level on average
            rate *= numbers / (255 * recipe.pixel_unit)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step(closure)
        last = step == done + steps - 1
        if (last or step % 10 == 0) and not torch.stack(list(terms.values())).isfinite().all():
            raise OptimizationDiverged(
                f"the loss is no longer a number at step {step + 1}: try a lower --learning-rate (now "
                f"{recipe.learning_rate:g}), or --optimizer adam with a rate of a few grey levels"
            )
        yield terms


def feature_network(recipe: Recipe, pretrained: bool = True) -> VGGFeatures:
    """The frozen features that a recipe compares pictures in, no deeper than it needs."""
    layers = {**(recipe.content_layers if recipe.content_weight else {}), **recipe.style_layers}
    return VGGFeatures(layers, recipe.network, recipe.pooling, pretrained, recipe.unit_activation, recipe.padding)


def _extents(content: Image | None, size: tuple[int, int] | None, recipe: Recipe) -> list[tuple[int, int]]:
    """Height and width of every scale."""
    if size is None and content is None:
        raise ValueError("without a photo the size of the picture must be given")
    height, width = size or content.shape[2:]  # pyright: ignore[reportOptionalMemberAccess]
    extents = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in recipe.scales]
    if min(map(min, extents)) < SMALLEST_SIDE:
        raise ValueError(
            f"a picture of {width}x{height} is too small: its shortest side, at the smallest of --scales, must be "
            f"at least {SMALLEST_SIDE} pixels"
        )
    return extents


def _begin(
    recipe: Recipe, extent: tuple[int, int], photo: Image | None, start: Image | None, seed: int, device: torch.device
) -> tuple[nn.Module, Any]:
    """The canvas of the first scale, and its optimizer."""
    if recipe.canvas == "hrnet":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = HRNet()
        canvas = Painted(network.to(device, memory_format=torch.channels_last), photo)  # type: ignore
    else:
        if start is not None:
            image = resize(start, extent)
        else:
            noise = torch.randn(1, 3, *extent, generator=torch.Generator().manual_seed(seed))
            image = 0.5 + recipe.noise * recipe.pixel_unit * noise
        canvas = Pixels(image.to(device), recipe.pixel_unit)
    return canvas, _optimizer(canvas, recipe)


def _optimizer(canvas: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(canvas.parameters())
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, recipe.learning_rate)
    # One iteration, one evaluation a step; the tolerances would end it silently, and depend on the loss's units.
    return torch.optim.LBFGS(
        parameters,
        recipe.learning_rate,
        max_iter=1,
        tolerance_grad=-1.0,
        tolerance_change=0.0,
        history_size=recipe.history,
    )


def _enlarge(
    canvas: nn.Module | None, optimizer: Any, extent: tuple[int, int], photo: Image | None, recipe: Recipe
) -> tuple[nn.Module, Any] | None:
    """The canvas at the next scale. Adam's state goes on; L-BFGS, whose memory is of other variables, begins anew."""
    if isinstance(canvas, Painted):
        return Painted(canvas.network, photo), optimizer  # pyright: ignore[reportArgumentType]
    if not isinstance(canvas, Pixels):
        return None
    bigger = Pixels(_interpolate(canvas().detach(), extent), recipe.pixel_unit)
    successor = _optimizer(bigger, recipe)
    if recipe.optimizer == "adam":
        state = optimizer.state[canvas.values]
        successor.state[bigger.values] = {
            "step": state["step"],
            "exp_avg": _interpolate(state["exp_avg"], extent),
            "exp_avg_sq": _interpolate(state["exp_avg_sq"], extent, "bilinear"),  # bicubic would undershoot zero
        }
    return bigger, successor


def _interpolate(values: Tensor, extent: tuple[int, int], mode: str = "bicubic") -> Tensor:
    return F.interpolate(values, extent, mode=mode, align_corners=False)
