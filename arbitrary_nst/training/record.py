"""What a run says of itself: the bar and the row of numbers of a step, the model's card, a batch that went wrong."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from arbitrary_nst.data import Batch
from arbitrary_nst.devices import peak_memory
from arbitrary_nst.figures import line_plot
from arbitrary_nst.image import save_image
from arbitrary_nst.paths import written_whole
from arbitrary_nst.tracking import read_rows
from arbitrary_nst.training.run import Run
from arbitrary_nst.training.validation import grid

if TYPE_CHECKING:
    from arbitrary_nst.training.loop import Step

MEASURES = (
    "gradient",
    "learning_rate",
    "images_per_second",
    "peak_memory_mb",
    "skipped",
    "unreadable_pictures",
)
"""Columns of train.csv beside the losses and their sum."""

METRICS = ("style_gap", "gram_gap", "content_drift")


class Progress:
    """The bar on the terminal, the speed since this process began, and the steps that had to be skipped.

    A crop without any detail, a white wall, has no finite gradient through a chain of instance norms: the step is
    skipped, counted and shown.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._bar = tqdm(
            total=run.config.steps,
            initial=run.state.step,
            unit="step",
            dynamic_ncols=True,
            disable=not run.fabric.is_global_zero,
        )
        self._began, self._first = time.monotonic(), run.state.step
        self._unreadable = run.state.unreadable
        self.skipped_in_a_row = 0

    def count(self, taken: bool) -> int:
        """One step more, taken or skipped. Returns how many were skipped in a row."""
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        self._bar.update()
        return self.skipped_in_a_row

    def values(self, step: "Step") -> dict[str, float]:
        """Losses, means over the processes, and everything else that is recorded of a step; the bar shows some of it.

        All processes must ask together.
        """
        run, state, fabric = self._run, self._run.state, self._run.fabric
        losses: Any = fabric.all_reduce(torch.stack(list(step.losses.values())).float(), reduce_op="mean")
        unreadable: Any = fabric.all_reduce(torch.tensor(run.loader.skipped, device=fabric.device), reduce_op="sum")
        state.unreadable = self._unreadable + int(unreadable)
        speed = (state.step - self._first) * run.pairs_in_a_step / (time.monotonic() - self._began)
        loss = float(losses.sum())
        self._bar.set_postfix(loss=f"{loss:.3f}", images=f"{speed:.1f}/s", skipped=state.skipped, bad=state.unreadable)
        memory = peak_memory(fabric.device) or 0.0
        measured = (step.gradient, step.rate, speed, memory, state.skipped, state.unreadable)
        values = dict(zip(step.losses, losses.tolist(), strict=True)) | {"loss": loss}
        return values | dict(zip(MEASURES, measured, strict=True))

    def close(self) -> None:
        self._bar.close()


def card_of(run: Run) -> dict[str, Any]:
    """What users of the model should know of it."""
    return {"steps": run.state.step, "validation": run.state.validation, "config": run.description()}


def write_card(run: Run) -> Path:
    """The model's card as a page, beside the model."""
    description, path = run.description(), run.config.run_dir / "model_card.md"
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in run.state.validation.items())
    text = f"""# Model card: {run.config.model}

Trained for {run.state.step} steps of {run.pairs_in_a_step} pairs in {run.state.seconds / 3600:.2f} hours on
{description["versions"]["device"]}; {run.state.skipped} of them were skipped, {run.state.unreadable} pictures could not
be read. The weights are the running mean of those that were trained. Whether they may be used freely depends on the
pictures that they were trained on, which are named below.

Held-out pictures, at {run.sets["validation"][0].shape[-1]} pixels (lower is better):

| | |
|---|---|
{rows}
```json
{json.dumps(description, default=str, indent=2)}
```
"""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def save_offending(run: Run, parts: list[Batch]) -> Path:
    """The batches of a step as pictures to look at and as tensors to run again. Returns the pictures' file."""
    from safetensors.torch import save_file

    content, style, number = (torch.cat(list(tensors)).cpu().contiguous() for tensors in zip(*parts, strict=True))
    name = f"step-{run.state.step:07}-process-{run.fabric.global_rank}"
    path = run.config.run_dir / "offending" / f"{name}.png"
    with torch.no_grad():
        save_image(grid(run.fabric, run.model, (content, style, number)), path)
    tensors: dict[str, Tensor] = {"content": content, "style": style, "number": number}
    save_file(tensors, path.with_suffix(".safetensors"))
    return path


def plot_record(run_dir: Path) -> None:
    """Plot the CSV files: losses of the steps, and the metrics of held-out and of familiar pictures."""
    curves = _curves(run_dir, "train", lambda name: name not in MEASURES)
    if curves:
        line_plot(run_dir / "losses.png", curves, x_label="step", y_label="weighted loss", logarithmic=True)
    metrics = {}
    for section in ("validation", "familiar"):
        found = _curves(run_dir, section, lambda name: name in METRICS)
        metrics |= {f"{name}, {section}": curve for name, curve in found.items()}
    if metrics:
        line_plot(run_dir / "metrics.png", metrics, x_label="step", logarithmic=True)


def _curves(run_dir: Path, section: str, wanted: Callable[[str], bool]) -> dict[str, tuple[list[float], list[float]]]:
    rows = read_rows(run_dir / f"{section}.csv")
    steps = [float(row["step"]) for row in rows]
    names = [name for name in (rows[0] if rows else ()) if name != "step" and wanted(name)]
    return {name: (steps, [float(row[name] or "nan") for row in rows]) for name in names}
