"""Optimized parameters: pixels, a Laplacian pyramid of them, or a network.

Shapes: H x W pixels. Images are float RGB in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from arbitrary_nst.models.hrnet import HRNet
from arbitrary_nst.nn.pyramids import collapse, interpolate, laplacian_pyramid, with_details_of
from arbitrary_nst.optimization.presets import OptimizationConfig, Origin, Stage

Image = Float[torch.Tensor, "1 3 _ _"]

PYRAMID_LEVELS = 5
"""Details of a pyramid, beside the small picture that remains (Kolkin et al. 2019)."""


class Pixels(nn.Module):
    """A picture whose pixels are what is optimized."""

    def __init__(self, image: Image, unit: float) -> None:
        super().__init__()
        self.unit = unit
        self.values = nn.Parameter((image / unit).contiguous())

    def forward(self) -> Image:
        return self.unit * self.values


class Pyramid(nn.Module):
    """A picture whose Laplacian pyramid is what is optimized: one step moves whole areas as well as single pixels."""

    def __init__(self, image: Image, unit: float) -> None:
        super().__init__()
        self.unit = unit
        levels = laplacian_pyramid(image / unit, PYRAMID_LEVELS)
        self.levels = nn.ParameterList([nn.Parameter(level.contiguous()) for level in levels])

    def forward(self) -> Image:
        return self.unit * collapse(list(self.levels))


class Painted(nn.Module):
    """A picture that a network paints of a photo: the network's weights are what is optimized."""

    def __init__(self, network: nn.Module, content: Image) -> None:
        super().__init__()
        self.network, self.content = network, content

    def forward(self) -> Image:
        return self.network(self.content)


def begin(
    config: OptimizationConfig,
    stage: Stage,
    origin: Origin,
    photo: Image | None,
    source: Image | None,
    paintings: Sequence[Image],
    device: torch.device,
    generator: torch.Generator,
) -> tuple[nn.Module, Any]:
    """The canvas of the first scale, and its optimizer.

    Args:
        origin: how pixels begin.
        source: the picture that they begin as, or whose details they take; not needed for noise.
    """
    if config.canvas == "hrnet":
        assert photo is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            network = HRNet()
        canvas = Painted(network.to(device, memory_format=torch.channels_last), photo)  # type: ignore[call-overload]
        return canvas, optimizer_for(canvas, config)
    if origin == "noise" or source is None:
        noise = torch.randn(1, 3, *stage.extent, generator=generator)
        image = 0.5 + config.noise * config.pixel_unit * noise.to(device)
    elif origin == "tinted":
        tint = torch.cat([painting.mean((2, 3), keepdim=True) for painting in paintings]).mean(0, keepdim=True)
        image = with_details_of(tint.expand_as(source), source)
    else:
        image = source
    canvas = _canvas(image, config)
    return canvas, optimizer_for(canvas, config)


def _canvas(image: Image, config: OptimizationConfig) -> Pixels | Pyramid:
    return (Pyramid if config.canvas == "pyramid" else Pixels)(image, config.pixel_unit)


def optimizer_for(canvas: nn.Module, config: OptimizationConfig) -> torch.optim.Optimizer:
    """A fresh optimizer of all that the canvas lets change."""
    parameters = list(canvas.parameters())
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, config.learning_rate)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, config.learning_rate)
    # One iteration, one evaluation a step; the tolerances would end it silently, and depend on the loss's units.
    return torch.optim.LBFGS(
        parameters,
        config.learning_rate,
        max_iter=1,
        tolerance_grad=-1.0,
        tolerance_change=0.0,
        history_size=config.history,
    )


def enlarge(
    canvas: nn.Module,
    optimizer: Any,
    stage: Stage,
    photo: Image | None,
    source: Image | None,
    config: OptimizationConfig,
) -> tuple[nn.Module, Any]:
    """The canvas at the next scale, and its optimizer: Adam's state of pixels goes on, others begin anew.

    Args:
        source: whose finest details are put back, where the stage asks for it.
    """
    if isinstance(canvas, Painted):
        assert photo is not None
        return Painted(canvas.network, photo), optimizer
    image = interpolate(canvas().detach(), stage.extent, "bicubic")
    if stage.details and source is not None:
        image = with_details_of(image, source)
    bigger = _canvas(image, config)
    successor = optimizer_for(bigger, config)
    if config.optimizer == "adam" and isinstance(canvas, Pixels) and isinstance(bigger, Pixels):
        state = optimizer.state[canvas.values]
        successor.state[bigger.values] = {
            "step": state["step"],
            "exp_avg": interpolate(state["exp_avg"], stage.extent, "bicubic"),
            "exp_avg_sq": interpolate(state["exp_avg_sq"], stage.extent, "bilinear"),  # bicubic would undershoot zero
        }
    return bigger, successor
