"""Learning rates, and the EMA of the weights that becomes the model."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from arbitrary_nst.training.config import TrainConfig


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters: those of a pretrained backbone at their own rate, the rest at the full one."""
    groups: dict[float, list[nn.Parameter]] = {config.backbone_rate: [], 1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[config.backbone_rate if "backbone." in name else 1.0].append(parameter)
    return [{"params": group, "scale": scale, "lr": 0.0} for scale, group in groups.items() if group]


def ema_update(decay: float) -> Callable[..., None]:
    """Exponential moving average that forgets the random start: the decay of update n is at most (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(averages: Any, values: Any, updates: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # counters of batch norms
            torch._foreach_copy_(averages, values)
            return
        count = int(updates)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + count) / (10 + count)))

    return update


def scheduled_rate(step: int, config: TrainConfig, seconds: float = 0.0) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to zero at the end of the steps or of the time.

    Args:
        seconds: that the run has taken before this step; they count where --minutes limits them.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    progress = (
        step / config.steps if config.minutes is None else max(step / config.steps, seconds / 60 / config.minutes)
    )
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
