"""Record of a run: the bar and the numbers of a step, the model's card, a batch that failed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from arbitrary_nst.data import Batch
from arbitrary_nst.image import save_image
from arbitrary_nst.image.figures import line_plot
from arbitrary_nst.runtime.devices import peak_memory
from arbitrary_nst.runtime.files import atomic_write
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
    """The bar on the terminal, the speed since the last row of numbers, and the steps that had to be skipped.

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
        self._since, self._steps = time.monotonic(), 0
        self._unreadable = run.state.unreadable
        self.skipped_in_a_row = 0

    def count(self, taken: bool) -> int:
        """One step more, taken or skipped. Returns how many were skipped in a row."""
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        self._steps += 1
        self._show(self._bar.update)
        return self.skipped_in_a_row

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block from the speed and from the estimate of the bar."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began
        self._bar.unpause()

    def values(self, step: "Step") -> dict[str, float]:
        """Losses, means over the processes, and everything else that is recorded of a step; the bar shows some of it.

        All processes must ask together.
        """
        run, state, fabric = self._run, self._run.state, self._run.fabric
        losses: Any = fabric.all_reduce(torch.stack(list(step.losses.values())).float(), reduce_op="mean")
        unreadable: Any = fabric.all_reduce(torch.tensor(run.loader.skipped, device=fabric.device), reduce_op="sum")
        state.unreadable = self._unreadable + int(unreadable)
        now = time.monotonic()
        speed = self._steps * run.pairs_in_a_step / (now - self._since)
        self._since, self._steps = now, 0
        loss = float(losses.sum())
        shown = {"loss": f"{loss:.3f}", "images": f"{speed:.1f}/s", "skipped": state.skipped, "bad": state.unreadable}
        self._show(lambda: self._bar.set_postfix(shown))
        memory = peak_memory(fabric.device) or 0.0
        measured = (step.gradient, step.rate, speed, memory, state.skipped, state.unreadable)
        values = dict(zip(step.losses, losses.tolist(), strict=True)) | {"loss": loss}
        return values | dict(zip(MEASURES, measured, strict=True))

    def close(self) -> None:
        self._show(self._bar.close)

    def _show(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except OSError:  # the terminal is gone
            self._bar.disable = True


def card_of(run: Run) -> dict[str, Any]:
    """Facts about the model for its users."""
    state, held_out = run.state, asdict(run.held_out)
    return {"steps": state.step, "validation": state.validation, "held_out": held_out, "config": run.description()}


def write_card(run: Run, path: Path) -> None:
    """The model's card as a page."""
    description = run.description()
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in run.state.validation.items())
    text = f"""# Model card: {run.config.model}

Trained for {run.state.step} steps of {run.pairs_in_a_step} pairs in {run.state.seconds / 3600:.2f} hours on
{description["versions"]["device"]}; {run.state.skipped} of them were skipped, {run.state.unreadable} pictures could not
be read. The weights are the EMA of those that were trained. Whether they may be used freely depends on the
pictures that they were trained on, which are named below.

Figures on {run.held_out.description()}, at {run.sets["validation"][0].shape[-1]} pixels (lower is better):

| | |
|---|---|
{rows}
```json
{json.dumps(description, default=str, indent=2)}
```
"""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def save_offending(run: Run, micro_batches: list[Batch]) -> Path:
    """The batches of a step as pictures to look at and as tensors to run again. Returns the pictures' file."""
    from safetensors.torch import save_file

    content, style, number = (
        torch.cat(list(tensors)).cpu().contiguous() for tensors in zip(*micro_batches, strict=True)
    )
    name = f"step-{run.state.step:07}-process-{run.fabric.global_rank}"
    path = run.config.run_dir / "offending" / f"{name}.png"
    with torch.no_grad():
        save_image(grid(run.fabric, run.model, (content, style, number)), path)
    tensors: dict[str, Tensor] = {"content": content, "style": style, "number": number}
    save_file(tensors, path.with_suffix(".safetensors"))
    return path


def plot_record(run_dir: Path) -> None:
    """Plot the CSV files: losses of the steps, and metrics of held-out pictures and of a part of the training data."""
    curves = _curves(run_dir, "train", lambda name: name not in MEASURES)
    if curves:
        line_plot(run_dir / "losses.png", curves, x_label="step", y_label="weighted loss", logarithmic=True)
    metrics = {}
    for section in ("validation", "train_subset"):
        found = _curves(run_dir, section, lambda name: name in METRICS)
        metrics |= {f"{name}, {section}": curve for name, curve in found.items()}
    if metrics:
        line_plot(run_dir / "metrics.png", metrics, x_label="step", logarithmic=True)


def _curves(run_dir: Path, section: str, wanted: Callable[[str], bool]) -> dict[str, tuple[list[float], list[float]]]:
    rows = read_rows(run_dir / f"{section}.csv")
    steps = [float(row["step"]) for row in rows]
    names = [name for name in (rows[0] if rows else ()) if name != "step" and wanted(name)]
    return {name: (steps, [float(row[name] or "nan") for row in rows]) for name in names}
