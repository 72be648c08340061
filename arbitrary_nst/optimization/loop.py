"""Style transfer by optimization: pixels, or a network that paints them, are fitted to one photo and one style.

Gatys et al. 2016 optimize pixels for statistics of whole pictures, Kolkin et al. 2019 and 2022 a pyramid of them for
what is at each place. With a photo and no painting the loop inverts features, with a painting and no photo it
synthesizes textures (Gatys et al. 2015); with a network in the place of pixels it is Li et al. 2019.

Shapes: B batch, C channels, H x W pixels, h x w those of a scale. Images are float RGB in [0, 1].
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from arbitrary_nst.errors import OptimizationDiverged, UsageError
from arbitrary_nst.image import resize
from arbitrary_nst.image.color import PreserveColor, match_covariance, with_colors_of
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import total_variation
from arbitrary_nst.nn.perceptual import Statistics, blended
from arbitrary_nst.nn.statistics import style_shares
from arbitrary_nst.optimization.canvases import begin, enlarge
from arbitrary_nst.optimization.local_targets import LocalTargets
from arbitrary_nst.optimization.presets import PRESETS, SMALLEST_SIDE, OptimizationConfig, Stage
from arbitrary_nst.runtime.devices import channels_last, chosen_device

Image = Float[Tensor, "1 3 _ _"]


class Targets:
    """Targets that a picture is compared with, computed once, and the comparison.

    Several paintings have one target: the weighted mean of their statistics. To compare with the mean gives the same
    gradient as the weighted sum of comparisons with each.

    Args:
        content: the photo, or None for no content term.
        styles: paintings of any sizes; none for no style terms.
        weights: of the paintings, summing to 1.
        local: what is compared place by place, if anything.
    """

    def __init__(
        self,
        features: VGGFeatures,
        config: OptimizationConfig,
        content: Image | None,
        styles: Sequence[Image],
        weights: list[float],
        local: LocalTargets | None = None,
    ) -> None:
        self.features, self.config, self.local, self.loss = features, config, local, config.loss
        self.content: dict[str, Tensor] = {}
        self.style: Statistics = {}
        with torch.no_grad():
            if content is not None and self.loss.content:
                maps = features(content)
                self.content = {layer: maps[layer].clone() for layer in self.loss.content}
            if styles and (self.loss.gram or self.loss.moments):
                self.style = blended([self.loss.statistics(features(style)) for style in styles], weights)
        if not (self.content or self.style or (local and (local.content or local.regions))):
            raise UsageError("there is nothing to optimize for: give a photo or a painting that the preset looks at")

    def __call__(self, image: Image) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss by name, weighted; their sum is the loss."""
        config, maps = self.config, self.features(image)
        losses = self.loss(maps, self.content, self.style)
        if self.local is not None:
            losses |= self.local(image, maps)
        if config.total_variation_weight:
            variation = total_variation(image, config.total_variation_power)
            losses["total_variation"] = config.total_variation_weight * variation
        return losses


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
    config: OptimizationConfig,
    *,
    style_weights: Sequence[float] | None = None,
    style_scale: float = 1.0,
    size: tuple[int, int] | None = None,
    init_image: Image | None = None,
    regions: Sequence[Int[Tensor, "1 1 _ _"]] = (),
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
        start: a picture to begin from instead of the configuration's `init`.
        regions: labels of the photo's pixels, then of each painting's, of any sizes: each region of the photo takes its
            style from the places of the paintings with the same label. Only local terms know them.
        preserve_color: the photo's colours, by recolouring the paintings beforehand ("covariance") or by taking
            only the luminance of the result ("luminance").
        features: the feature network, where it is at hand; it must have the configuration's layers.

    Raises:
        ValueError: nothing to optimize for, contradictory arguments, or a scale of too few pixels.
        OptimizationDiverged: the loss is no longer a number.
        WeightsNotFoundError: the feature network's weights are not to be had.
    """
    stages = _stages(content, size, config)
    weights = style_shares(style_weights, len(styles))
    if preserve_color != "none" and content is None:
        raise UsageError("there is no photo whose colours could be preserved")
    if config.canvas == "hrnet" and content is None:
        raise UsageError("a network paints a photo: give one, or optimize pixels")
    if regions and (len(regions) != 1 + len(styles) or not config.local):
        raise UsageError("regions must be labelled in the photo and in every painting, for terms that compare places")
    device = chosen_device(device)
    if preserve_color == "covariance":
        styles = [match_covariance(style, content) for style in styles]  # pyright: ignore[reportArgumentType]
    if features is None:
        features = feature_network(config)
    features.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    origin = "content" if init_image is not None else config.init if styles and content is not None else "noise"
    canvas, optimizer, done = None, None, 0
    generator = torch.Generator().manual_seed(seed)
    total = sum(stage.steps for stage in stages)
    for stage in stages:
        photo = None if content is None else channels_last(resize(content, stage.extent), device)
        short = max(SMALLEST_SIDE, round(min(stage.extent) * style_scale))
        paintings = [channels_last(resize(style, short), device) for style in styles]
        source = photo if init_image is None else channels_last(resize(init_image, stage.extent), device)
        if canvas is None:
            canvas, optimizer = begin(config, stage, origin, photo, source, paintings, device, generator)
        else:
            canvas, optimizer = enlarge(canvas, optimizer, stage, photo, source, config)
        low = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        local = None
        if config.local:
            with low:
                local = LocalTargets(
                    features, config, stage, photo, paintings, weights, canvas().detach(), regions, generator
                )
        targets = Targets(features, config, photo, paintings, weights, local)
        recolor = photo if preserve_color == "luminance" else None
        for terms in descend(canvas, targets, optimizer, config, done, stage.steps, low):
            done += 1
            yield Iterate(done, total, terms, canvas, recolor)


def refine(content: Image, result: Image, styles: Sequence[Image], steps: int, **options: Any) -> Image:
    """A picture that was painted by other means, optimized further as the preset kolkin2022 does, on the CPU.

    Every scale, from coarse to fine, begins with the picture's own details of that size.

    Args:
        content: the photo.
        result: the picture to begin from.
        styles: paintings.
        steps: at every scale, and as many with layers matched one by one.
        options: as `optimize` takes them.

    Raises what `optimize` raises.
    """
    config = replace(PRESETS["kolkin2022"], steps=(steps,), details="all")
    size = (result.shape[2], result.shape[3])
    (last,) = deque(optimize(content, styles, config, init_image=result, size=size, **options), maxlen=1)
    return last.image


def descend(
    canvas: nn.Module,
    targets: Targets,
    optimizer: Any,
    config: OptimizationConfig,
    done: int,
    steps: int,
    autocast: Any,
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
        rate = config.learning_rate * config.decay ** (step // config.decay_every)
        if config.optimizer == "lbfgs" and step == done:  # along the gradient, by one grey level on average
            rate *= numbers / (255 * config.pixel_unit)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step(closure)
        last = step == done + steps - 1
        if (last or step % 10 == 0) and not torch.stack(list(terms.values())).isfinite().all():
            raise OptimizationDiverged(
                f"the loss is no longer a number at step {step + 1}: try a lower --learning-rate (now "
                f"{config.learning_rate:g}), or --optimizer adam with a rate of a few grey levels"
            )
        yield terms


def feature_network(config: OptimizationConfig, pretrained: bool = True) -> VGGFeatures:
    """The frozen features that an optimization compares pictures in, no deeper than it needs."""
    layers = {**(config.content_layers if config.content_weight else {}), **config.style_layers}
    return VGGFeatures(layers, config.vgg, pretrained)


def _stages(content: Image | None, size: tuple[int, int] | None, config: OptimizationConfig) -> list[Stage]:
    if size is None and content is None:
        raise UsageError("without a photo the size of the picture must be given")
    height, width = size or content.shape[2:]  # pyright: ignore[reportOptionalMemberAccess]
    stages = config.stages(height, width)
    if min(min(stage.extent) for stage in stages) < SMALLEST_SIDE:
        raise UsageError(
            f"a picture of {width}x{height} is too small: its shortest side, at the smallest of --scales, must be "
            f"at least {SMALLEST_SIDE} pixels"
        )
    return stages
