"""What a training step costs beside the bare forward and backward passes of the networks in it.

    python benchmarks/training_step.py [--model light] [--crop-size 256] [--batch-size 8] [--steps 30] [--device auto]

Both are timed in turn in one run; the medians and their ratio are printed. A step is the one that `train` takes: its
batch is waited for, losses, clipping, optimizer and EMA are in it. The bare passes are, on a batch that lies
ready: the model from painting and photo to picture, the feature network on photo, painting and picture, and back from
the mean of the picture's deepest features, without losses.
"""

import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from arbitrary_nst.runtime.devices import keep_freed_memory
from arbitrary_nst.training import TrainConfig
from arbitrary_nst.training.interruption import Interruption
from arbitrary_nst.training.loop import descend
from arbitrary_nst.training.run import Run, prepare

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Config:
    """Time training steps beside bare passes."""

    model: Literal["light", "paper", "normalization-network"] = "light"
    crop_size: int = 256
    batch_size: int = 8
    steps: int = 30
    """Timed steps; a fifth as many before them warm up."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    workers: int = 1
    threads: int = 2
    content_data: tuple[str, ...] = (str(EXAMPLES / "content"),)
    style_data: tuple[str, ...] = (str(EXAMPLES / "styles"),)


def bare_passes(run: Run, batch: Any) -> None:
    """Forward and backward through the networks as the objective calls them."""
    model, features = run.module.model, run.module.features
    content, style, _ = batch
    with run.fabric.autocast():
        with torch.no_grad():
            features(content), features(style)
        deepest = list(features(model(content, model.encode_style(style))).values())[-1]
        loss = deepest.float().mean()
    run.fabric.backward(loss)
    run.optimizer.zero_grad()


def main(config: Config) -> None:
    keep_freed_memory()  # as the command does
    torch.set_num_threads(config.threads)
    count = config.steps + config.steps // 5
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(
            TrainConfig(
                content_data=config.content_data,
                style_data=config.style_data,
                run_dir=Path(folder),
                model=config.model,
                steps=1 + count,
                batch_size=config.batch_size,
                crop_size=config.crop_size,
                device=config.device,
                precision=config.precision,
                workers=config.workers,
                validation_pairs=1,
                max_grad_ratio=1e9,
                wandb="off",
            )
        )
        with closing(descend(run, Interruption())) as steps:  # and its workers
            batch = next(steps).micro_batches[0]
            times: dict[str, list[float]] = {"bare": [], "step": []}
            for index in range(count):
                for name, call in (("bare", lambda: bare_passes(run, batch)), ("step", lambda: next(steps))):
                    _synchronize(run.fabric.device)
                    start = time.perf_counter()
                    call()
                    _synchronize(run.fabric.device)
                    if index >= count - config.steps:
                        times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["step"] / medians["bare"]
    print(f"{config}; {run.config.precision} on {run.fabric.device}; torch {torch.__version__}")
    print(f"bare {medians['bare']:.1f} ms  step {medians['step']:.1f} ms  ratio {ratio:.3f}")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Config))
