"""Training: the loop that fits every style model to its objective."""

import os
import sys
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.data import Batch
from arbitrary_nst.devices import keep_freed_memory
from arbitrary_nst.models.files import save_model
from arbitrary_nst.objectives import sum_of
from arbitrary_nst.tracking import Tracker
from arbitrary_nst.training.checkpoints import BEST, MODEL, CheckpointError
from arbitrary_nst.training.config import TrainConfig
from arbitrary_nst.training.interruption import Interruption, TrainingInterrupted, kept_from_children
from arbitrary_nst.training.pictures import on_device
from arbitrary_nst.training.processes import agree
from arbitrary_nst.training.record import Progress, card_of, plot_record, save_offending, write_card
from arbitrary_nst.training.run import Run, prepare
from arbitrary_nst.training.schedule import scheduled_rate
from arbitrary_nst.training.validation import show, validate


class TrainingDiverged(FloatingPointError):
    """Step after step has a gradient that cannot be used."""


@dataclass(frozen=True)
class Step:
    """What a step did."""

    losses: dict[str, Float[Tensor, ""]]
    """Weighted, means over the passes, of this process."""
    gradient: float
    """Norm before clipping, of all processes together."""
    rate: float
    """Learning rate."""
    taken: bool
    parts: list[Batch]
    """The batches of this process, one a pass."""
    signal: int
    """That came to any process; 0: none."""


def train(config: TrainConfig) -> int:
    """The command: train, say where the model is, and return the exit code.

    0: done; 1: a file of the run cannot be written; 128 + N: stopped by signal N, with a checkpoint (130 Ctrl-C,
    138 SIGUSR1, 143 SIGTERM).
    """
    keep_freed_memory()
    try:
        path = fit(config)
    except TrainingInterrupted as stop:
        print(stop)
        return 128 + stop.number
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started speaks for all
        print(f"the model is {path}")
    return 0


def fit(config: TrainConfig) -> Path:
    """Train, and return the file of the finished model.

    Raises:
        TrainingDiverged: step after step has no usable gradient; the state before them is saved, and their batch.
        TrainingInterrupted: a signal came; there is a checkpoint.
        CheckpointError: a file of the run cannot be written; the last checkpoint is whole.
        ImageError, ValueError: the data or the options cannot be used.
        WeightsNotFoundError: weights of the feature network or the backbone are missing.
    """
    run = prepare(config)
    config, state, main = run.config, run.state, run.fabric.is_global_zero
    tracker = Tracker(config.run_dir, run.description(), config.wandb, step=state.step, silent=not main)
    progress = Progress(run)
    try:
        with Interruption() as interruption, closing(descend(run, interruption)) as steps:
            for step in steps:
                last = finished(run)
                lost = progress.count(step.taken) >= config.patience
                saving = last or lost or step.signal or state.step % config.save_every == 0
                if saving or state.step % config.log_every == 0:
                    tracker.scalars(state.step, progress.values(step))
                if main and (last or state.step % config.validate_every == 0):
                    keep_best(run, validated(run, tracker))
                if saving:
                    if main:
                        run.files.write(MODEL, lambda path: save_model(run.average, config.model, path, card_of(run)))
                        run.files.save(state)
                    run.fabric.barrier()  # nobody leaves before it is written
                if lost:
                    raise TrainingDiverged(say_lost(run, step))
                if step.signal:
                    name = Signals(step.signal).name
                    raise TrainingInterrupted(step.signal, f"{name}: stopped after step {state.step}; --resume goes on")
        if main:
            tracker.model(config.run_dir / MODEL, write_card(run))
    finally:
        progress.close()
        tracker.keep(lambda: plot_record(config.run_dir))
        tracker.close()
    return config.run_dir / MODEL


def descend(run: Run, interruption: Interruption) -> Generator[Step, None, None]:
    """Steps from where the run stands, until they or its time are at an end: what changes weights is all here.

    Closing it ends the processes that prepare batches.
    """
    fabric, module, optimizer, state, config = run.fabric, run.module, run.optimizer, run.state, run.config
    stream, began = iter(run.loader), time.monotonic() - state.seconds
    while not finished(run):
        rate = scheduled_rate(state.step, config, state.seconds)
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * rate
        with kept_from_children():  # the processes that prepare batches start here
            parts = [on_device(next(stream), fabric.device) for _ in range(config.accumulate)]

        torch.manual_seed((config.seed << 40) + state.step * fabric.world_size + fabric.global_rank)
        optimizer.zero_grad()
        losses = backward(fabric, module, parts)
        norm: Any = fabric.clip_gradients(module, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
        gradient, elapsed = float(norm), time.monotonic() - began
        refused, state.seconds, signal = agree(
            fabric, state.exploding(gradient, config.explosion), elapsed, interruption.signal
        )
        if not refused:
            optimizer.step()
            run.ema.update_parameters(run.model)
        elif state.scaler is not None:
            state.scaler.update()  # a smaller scale may be all that is missing
        state.count(gradient, not refused)
        yield Step(losses, gradient, rate, not refused, parts, int(signal))


def backward(fabric: Any, module: Any, parts: list[Batch]) -> dict[str, Float[Tensor, ""]]:
    """Add up the gradients of a step's passes to those of one joint batch; return the means of the losses."""
    means: dict[str, Tensor] = {}
    for index, part in enumerate(parts, 1):
        with fabric.no_backward_sync(module, enabled=index < len(parts)):
            losses = {name: loss / len(parts) for name, loss in module(*part).items()}
            fabric.backward(sum_of(losses.values()))
        means = {name: loss.detach() + means.get(name, 0.0) for name, loss in losses.items()}
    return means


def finished(run: Run) -> bool:
    """Whether the steps or the time are at an end."""
    minutes = run.config.minutes
    return run.state.step >= run.config.steps or (minutes is not None and run.state.seconds >= 60 * minutes)


def validated(run: Run, tracker: Tracker) -> float:
    """Validate the running mean of the weights, record it with grids of samples, and return the objective."""
    results = validate(run.fabric, run.averaged, run.judge, run.sets)
    for name, means in results.items():
        tracker.scalars(run.state.step, means, name)
    show(run.fabric, run.average, run.sets["validation"], tracker, run.state.step)
    run.state.validation = results["validation"]
    return results["validation"]["objective"]


def keep_best(run: Run, objective: float) -> None:
    """Keep the model of the lowest validation."""
    if objective < run.state.best:
        run.state.best = objective
        run.files.write(BEST, lambda path: save_model(run.average, run.config.model, path, card_of(run)))


def say_lost(run: Run, step: Step) -> str:
    """Save the batch of the last step, and say what there is to do."""
    config, loss = run.config, float(sum_of(step.losses.values()))
    kept = save_offending(run, step.parts)
    return (
        f"{config.patience} steps in a row without a usable gradient at step {run.state.step}: its norm is "
        f"{step.gradient:.4g}, the loss {loss:.4g}, the batch kept as {kept}. {run.files.files()[-1]} is the state "
        f"before them. Resume with a lower --learning-rate (now {config.learning_rate}) or with --precision float32."
    )
