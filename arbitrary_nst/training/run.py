"""The built parts of a run: processes, pictures, networks, state."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from arbitrary_nst.data import Batch, Batches, ImageDataset, ImageStream, Resumable, batches
from arbitrary_nst.evaluation.metrics import feature_network
from arbitrary_nst.models import FIXED_STYLES, FixedStyles
from arbitrary_nst.models.style_prediction import StylePredictor
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.runtime.files import check_writable
from arbitrary_nst.runtime.provenance import versions
from arbitrary_nst.training.checkpoints import Checkpoints, TrainingState
from arbitrary_nst.training.config import (
    CONFIG,
    TrainConfig,
    build_objective,
    changed_options,
    objective_name,
    objective_weights,
    save_config,
)
from arbitrary_nst.training.datasets import HeldOut, names_of, opened, split, train_subset
from arbitrary_nst.training.distributed import launch
from arbitrary_nst.training.networks import TrainingModule, compile_networks, given_model, starting_model
from arbitrary_nst.training.objectives import loss_network
from arbitrary_nst.training.schedule import ema_update, parameter_groups

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

TRAIN_SUBSET_PAIRS = 16
"""Pairs of pictures that are trained on, at which validation looks too."""

EXAMPLES = 64
"""Paintings of which a new style predictor learns what is usual."""


@dataclass
class Run:
    """State and parts of a run, as `loop.fit` uses them."""

    config: TrainConfig
    """With everything resolved that was left to the machine."""
    fabric: "Fabric"
    module: Any
    """The networks as Fabric runs them."""
    averaged: TrainingModule
    """The same networks with the EMA of the weights, in evaluation mode."""
    judge: VGGFeatures
    """What `metrics` look through."""
    state: TrainingState
    files: Checkpoints
    loader: Batches
    sets: dict[str, Batch]
    """Fixed pairs to validate on, by name."""
    held_out: HeldOut

    @property
    def model(self) -> nn.Module:
        return self.state.model

    @property
    def ema(self) -> Any:
        return self.state.ema

    @property
    def average(self) -> Any:
        """The model whose weights are the EMA."""
        return self.state.ema.module

    @property
    def optimizer(self) -> Any:
        return self.state.optimizer

    @property
    def pairs_in_a_step(self) -> int:
        return self.config.batch_size * self.config.accumulate * self.fabric.world_size

    def description(self) -> dict[str, Any]:
        """The configuration, and what else a run depends on."""
        facts = {"processes": self.fabric.world_size, "pairs_in_a_step": self.pairs_in_a_step}
        return asdict(self.config) | facts | {"versions": versions(self.fabric.device)}


def prepare(config: TrainConfig) -> Run:
    """Build a run as its configuration asks, or as its newest checkpoint left it; write and print the configuration.

    Raises what `loop.fit` raises before its first step. What can be wrong with files and networks is found before a
    picture is decoded.
    """
    fabric, precision = launch(config)
    objective = build_objective(config)
    resolved = {"objective": objective_name(config), "loss_weights": objective_weights(objective)}
    config = replace(config, device=fabric.device.type, precision=precision, **resolved)
    files = Checkpoints(config.run_dir, config.keep)
    files.check(config.resume)
    changes = changed_options(config) if config.resume else []
    if fabric.is_global_zero:
        check_writable(config.run_dir / CONFIG)

    torch.manual_seed(config.seed)  # features and judge draw numbers only where they are not pretrained
    features, judge, given = loss_network(objective), feature_network(), given_model(config)
    torch.manual_seed(config.seed)
    model = None if config.model in FIXED_STYLES else starting_model(config, given)
    resident = fabric.device if config.resident else None
    contents, styles = (opened(paths, config, resident) for paths in (config.content_data, config.style_data))
    names = names_of(styles)
    model = model or starting_model(config, given, names)
    known = [model.style_names.index(name) for name in names] if isinstance(model, FixedStyles) else None
    pairs, validation, held_out = split(contents, styles, config, known)
    predictor = getattr(model, "predictor", None)
    if isinstance(predictor, StylePredictor) and not (config.init or config.resume):
        predictor.measure(train_subset(pairs, config.crop_size, EXAMPLES, config.augmentation)[1])
    ema = AveragedModel(model, multi_avg_fn=ema_update(config.ema_decay), use_buffers=True)
    module = TrainingModule(model.train(), features, objective)
    averaged = TrainingModule(ema.module, features, objective).eval()
    for network in (module, ema, judge):
        network.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        compile_networks(fabric, module, config)
    launched, optimizer = fabric.setup(module, torch.optim.Adam(parameter_groups(model, config)))
    state = TrainingState(model, ema, optimizer, getattr(fabric.strategy.precision, "scaler", None))
    if config.resume:
        scales = [group["scale"] for group in optimizer.param_groups]
        files.load(state, fabric.device)
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["scale"] = scale

    sets = {"validation": validation}
    if known is None:  # else all paintings are trained on
        sets["train_subset"] = train_subset(
            pairs, validation[0].shape[-1], min(TRAIN_SUBSET_PAIRS, config.validation_pairs)
        )
    first, last = (step * config.accumulate for step in (state.step, config.steps))
    sampler = Resumable(first, last, config.batch_size, fabric.global_rank, fabric.world_size)
    loader = batches(pairs, sampler, 0 if config.resident else config.workers)
    run = Run(config, fabric, launched, averaged, judge, state, files, loader, sets, held_out)
    if fabric.is_global_zero:
        files.write(CONFIG, lambda path: print(save_config(config, path), *changes, sep="\n", flush=True))
        print_held_out(held_out, contents, styles, config)
    return run


def print_held_out(held_out: HeldOut, contents: Any, styles: Any, config: TrainConfig) -> None:
    """Print the data of the validation, and a warning if it is training data."""
    counts = [f"{held_out.photos} of {_counted(contents)} photos"]
    if not held_out.fixed:
        counts.append(f"{held_out.paintings} of {_counted(styles)} paintings")
    print(
        f"held out of training: {', '.join(counts)} (--validation-pairs {config.validation_pairs}: a tenth at most)",
        flush=True,
    )
    for option in held_out.missing():
        logger.warning(
            "%s: none of fewer than ten pictures, or shards of a stream, is held out; validation looks at what is "
            "trained on, and does not show overfitting",
            option,
        )


def _counted(pictures: ImageDataset | ImageStream) -> str:
    return str(len(pictures)) if isinstance(pictures, ImageDataset) else f"{len(pictures.urls)} shards of"
