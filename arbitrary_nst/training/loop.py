"""Training: the loop that fits every style model to its objective."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.data import Batch
from arbitrary_nst.data.workers import explained
from arbitrary_nst.errors import ImageError, TrainingDiverged, TrainingInterrupted
from arbitrary_nst.models.serialization import save_model
from arbitrary_nst.tracking import Tracker
from arbitrary_nst.training.checkpoints import BEST, CARD, MODEL
from arbitrary_nst.training.config import TrainConfig
from arbitrary_nst.training.datasets import on_device
from arbitrary_nst.training.distributed import agree
from arbitrary_nst.training.interruption import Interruption
from arbitrary_nst.training.objectives import sum_of
from arbitrary_nst.training.record import Progress, card_of, plot_record, save_offending, write_card
from arbitrary_nst.training.run import Run, prepare
from arbitrary_nst.training.schedule import scheduled_rate
from arbitrary_nst.training.validation import show, validate


@dataclass(frozen=True)
class Step:
    """Results of one step."""

    losses: dict[str, Float[Tensor, ""]]
    """Weighted, means over the passes, of this process."""
    gradient: float
    """Norm before clipping, of all processes together."""
    rate: float
    """Learning rate."""
    taken: bool
    micro_batches: list[Batch]
    """The batches of this process, one a pass."""
    signal: int
    """That came to any process; 0: none."""


def fit(config: TrainConfig) -> Path:
    """Train, and return the file of the finished model.

    Raises:
        TrainingDiverged: step after step has no usable gradient; the state before them is saved, and their batch.
        TrainingInterrupted: a signal came; there is a checkpoint.
        CheckpointError: a file of the run cannot be written; the last checkpoint is whole.
        WorkerError: a process that prepares batches has ended or cannot hand them over.
        ImageError, ValueError: the data or the options cannot be used.
        WeightsNotFoundError: weights of the feature network or the backbone are missing.
    """
    run = prepare(config)
    config, state, main = run.config, run.state, run.fabric.is_global_zero
    tracker = Tracker(config.run_dir, run.description(), config.wandb, step=state.step, silent=not main)
    progress = Progress(run)
    try:
        with (
            explained(),
            Interruption(run.loader.stop_signal) as interruption,
            closing(descend(run, interruption)) as steps,
        ):
            for step in steps:
                last = finished(run)
                lost = progress.count(step.taken) >= config.patience
                saving = last or lost or step.signal or state.step % config.save_every == 0
                if saving or state.step % config.log_every == 0:
                    tracker.scalars(state.step, progress.values(step))
                with progress.paused():
                    try:
                        if main and (last or state.step % config.validate_every == 0):
                            keep_best(run, validated(run, tracker))
                    finally:  # whatever validation or a full disk say
                        if saving:
                            save(run)
                if lost:
                    raise TrainingDiverged(divergence_message(run, step))
                if step.signal:
                    name = Signals(step.signal).name
                    raise TrainingInterrupted(step.signal, f"{name}: stopped after step {state.step}; --resume goes on")
        if main:
            run.files.write(CARD, lambda path: write_card(run, path))
            tracker.model(config.run_dir / MODEL, config.run_dir / CARD)
    finally:
        progress.close()
        tracker.keep(lambda: plot_record(config.run_dir))
        tracker.close()
    return config.run_dir / MODEL


def descend(run: Run, interruption: Interruption) -> Generator[Step, None, None]:
    """Steps from where the run stands, until they or its time are at an end: what changes weights is all here.

    Closing it ends the processes that prepare batches.
    """
    began = time.monotonic() - run.state.seconds
    with closing(iter(run.loader)) as stream:
        while not finished(run):
            yield take_step(run, stream, interruption, began)


def take_step(run: Run, stream: Iterator[Batch], interruption: Interruption, began: float) -> Step:
    """One step with the next batches of a stream.

    Args:
        began: when the run did, interruptions left out, by the clock `time.monotonic`.
    """
    fabric, module, optimizer, state, config = run.fabric, run.module, run.optimizer, run.state, run.config
    rate = scheduled_rate(state.step, config, state.seconds)
    for group in optimizer.param_groups:
        group["lr"] = group["scale"] * rate
    micro_batches = [on_device(next(stream), fabric.device) for _ in range(config.accumulate)]

    torch.manual_seed((config.seed << 40) + state.step * fabric.world_size + fabric.global_rank)
    optimizer.zero_grad()
    losses = backward(fabric, module, micro_batches)
    norm: Any = fabric.clip_gradients(module, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
    gradient, elapsed = float(norm), time.monotonic() - began
    refused, state.seconds, signal = agree(
        fabric, state.is_spike(gradient, config.max_grad_ratio), elapsed, interruption.signal
    )
    if not refused:
        optimizer.step()
        run.ema.update_parameters(run.model)
    elif state.scaler is not None:
        state.scaler.update()  # a smaller scale may be all that is missing
    state.count(gradient, not refused)
    return Step(losses, gradient, rate, not refused, micro_batches, int(signal))


def backward(fabric: Any, module: Any, micro_batches: list[Batch]) -> dict[str, Float[Tensor, ""]]:
    """Add up the gradients of a step's passes to those of one joint batch; return the means of the losses."""
    means: dict[str, Tensor] = {}
    for index, micro_batch in enumerate(micro_batches, 1):
        with fabric.no_backward_sync(module, enabled=index < len(micro_batches)):
            losses = {name: loss / len(micro_batches) for name, loss in module(*micro_batch).items()}
            fabric.backward(sum_of(losses.values()))
        means = {name: loss.detach() + means.get(name, 0.0) for name, loss in losses.items()}
    return means


def finished(run: Run) -> bool:
    """Return True if the steps or the time are over."""
    minutes = run.config.minutes
    return run.state.step >= run.config.steps or (minutes is not None and run.state.seconds >= 60 * minutes)


def validated(run: Run, tracker: Tracker) -> float:
    """Validate the EMA of the weights, record it with grids of samples, and return the objective."""
    results = validate(run.fabric, run.averaged, run.judge, run.sets)
    for name, means in results.items():
        tracker.scalars(run.state.step, means, name)
    show(run.fabric, run.average, run.sets["validation"], tracker, run.state.step)
    run.state.validation = results["validation"]
    return results["validation"]["objective"]


def save(run: Run) -> None:
    """Write the checkpoint and, since a disk may fill, then the model. Nobody leaves before they are written."""
    if run.fabric.is_global_zero:
        run.files.save(run.state)
        run.files.write(MODEL, lambda path: save_model(run.average, run.config.model, path, card_of(run)))
    run.fabric.barrier()


def keep_best(run: Run, objective: float) -> None:
    """Keep the model of the lowest validation."""
    if objective < run.state.best:
        run.files.write(BEST, lambda path: save_model(run.average, run.config.model, path, card_of(run)))
        run.state.best = objective


def divergence_message(run: Run, step: Step) -> str:
    """Save the batch of the last step, and say what there is to do."""
    config, loss = run.config, float(sum_of(step.losses.values()))
    try:
        kept = f"kept as {save_offending(run, step.micro_batches)}"
    except (OSError, ImageError) as error:
        kept = f"not kept ({error})"
    return (
        f"{config.patience} steps in a row without a usable gradient at step {run.state.step}: its norm is "
        f"{step.gradient:.4g}, the loss {loss:.4g}, the batch {kept}. {run.files.files()[-1]} is the state "
        f"before them. Resume with a lower --learning-rate (now {config.learning_rate}) or with --precision float32."
    )
