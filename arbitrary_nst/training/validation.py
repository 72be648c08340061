"""Validation: losses and metrics on held-out pictures and on some training pictures, and grids."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from arbitrary_nst.data import Batch
from arbitrary_nst.evaluation.metrics import OBJECTIVE, content_drift, gram_gap, image_statistics, style_gap
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.tracking import Tracker
from arbitrary_nst.training.datasets import on_device
from arbitrary_nst.training.networks import TrainingModule, style_codes

CHUNK = 8
"""Pairs that are looked at together."""


@torch.no_grad()
def validate(fabric: Any, module: TrainingModule, judge: VGGFeatures, sets: dict[str, Batch]) -> dict[str, Any]:
    """Means over each set of pairs, by its name: the losses, their sum, the metrics, and the objective of these.

    The metrics are those of `evaluation.metrics`: what an independent judge would say at this size, up to the
    precision of the run. A style gap that falls on paintings of the training data only is overfitting.

    Args:
        module: in evaluation mode.
        judge: `evaluation.metrics.feature_network`.
    """
    return {name: _means(fabric, module, judge, pairs) for name, pairs in sets.items()}


def _means(fabric: Any, module: TrainingModule, judge: VGGFeatures, pairs: Batch) -> dict[str, float]:
    sums: dict[str, float] = {}
    chunks = list(zip(*(part.split(CHUNK) for part in pairs), strict=True))
    for chunk in tqdm(chunks, "validating", leave=False, disable=None):  # a bar on terminals only
        content, style, number = on_device(chunk, fabric.device)
        with fabric.autocast():
            losses = module(content, style, number)
            output, painting, photo = (
                image_statistics(judge, image)
                for image in (stylized(module.model, content, style, number), style, content)
            )
        values = {**losses, "loss": torch.stack(list(losses.values())).sum()} | {
            "style_gap": style_gap(output, painting),
            "gram_gap": gram_gap(output, painting),
            "content_drift": content_drift(output, photo),
        }
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(content) / len(pairs[0])
    return sums | {"objective": sum(weight * sums[name] for name, weight in OBJECTIVE.items())}


def stylized(
    model: Any, content: Float[Tensor, "B 3 S S"], style: Float[Tensor, "B 3 S S"], number: Tensor
) -> Float[Tensor, "B 3 S S"]:
    """Stylized images of pairs."""
    return model(content, style_codes(model, style, number)).float().clamp(0, 1)


@torch.no_grad()
def show(fabric: Any, model: Any, pairs: Batch, tracker: Tracker, step: int) -> None:
    """Two grids of content | style | result: the first eight pairs, and eight new ones of the same pictures."""
    count = len(pairs[0])
    drawn = torch.randint(count, (2, 8), generator=torch.Generator().manual_seed(step))
    chosen = {"samples": torch.arange(min(8, count)).expand(2, -1), "random": drawn}
    for name, (photos, paintings) in chosen.items():
        batch = pairs[0][photos], pairs[1][paintings], pairs[2][paintings]
        tracker.image(step, name, grid(fabric, model, batch), "content | style | result")


@torch.no_grad()
def grid(fabric: Any, model: Any, batch: Batch) -> Float[Tensor, "3 H W"]:
    """Content, style and result of each pair of a batch, two pairs a row."""
    content, style, number = on_device(batch, fabric.device)
    with fabric.autocast():
        result = stylized(model, content, style, number)
    rows = torch.stack([content, style, result], dim=1).flatten(0, 1)
    return make_grid(rows.nan_to_num().clamp(0, 1).cpu(), nrow=6)
