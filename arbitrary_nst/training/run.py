"""The built parts of a run: processes, pictures, networks, state."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from arbitrary_nst.data import Batch, Batches, Resumable, batches
from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.metrics import feature_network
from arbitrary_nst.models import FixedStyles
from arbitrary_nst.models.style_prediction import StylePredictor
from arbitrary_nst.objectives import loss_network
from arbitrary_nst.provenance import versions
from arbitrary_nst.training.checkpoints import Checkpoints, TrainingState
from arbitrary_nst.training.config import TrainConfig, build_objective, objective_name, objective_weights, save_config
from arbitrary_nst.training.networks import TrainingModule, compile_networks, starting_model
from arbitrary_nst.training.pictures import familiar, names_of, opened, split
from arbitrary_nst.training.processes import launch
from arbitrary_nst.training.schedule import parameter_groups, running_mean

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FAMILIAR_PAIRS = 16
"""Pairs of pictures that are trained on, at which validation looks too."""

EXAMPLES = 64
"""Paintings of which a new style predictor learns what is usual."""


@dataclass
class Run:
    """What `loop.fit` works with."""

    config: TrainConfig
    """With everything resolved that was left to the machine."""
    fabric: "Fabric"
    module: Any
    """The networks as Fabric runs them."""
    averaged: TrainingModule
    """The same networks with the running mean of the weights, in evaluation mode."""
    judge: VGGFeatures
    """What `metrics` look through."""
    state: TrainingState
    files: Checkpoints
    loader: Batches
    sets: dict[str, Batch]
    """Fixed pairs to validate on, by name."""

    @property
    def model(self) -> nn.Module:
        return self.state.model

    @property
    def ema(self) -> Any:
        return self.state.ema

    @property
    def average(self) -> Any:
        """The model whose weights are the running mean."""
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

    Raises what `loop.fit` raises before its first step.
    """
    fabric, precision = launch(config)
    objective = build_objective(config)
    resolved = {"objective": objective_name(config), "loss_weights": objective_weights(objective)}
    config = replace(config, device=fabric.device.type, precision=precision, **resolved)
    files = Checkpoints(config.run_dir, config.keep)
    files.check(config.resume)
    resident = fabric.device if config.resident else None
    contents, styles = (opened(paths, config, resident) for paths in (config.content_data, config.style_data))
    names = names_of(styles)

    torch.manual_seed(config.seed)
    model = starting_model(config, names)
    known = [model.style_names.index(name) for name in names] if isinstance(model, FixedStyles) else None
    pairs, held_out = split(contents, styles, config, known)
    predictor = getattr(model, "predictor", None)
    if isinstance(predictor, StylePredictor) and not (config.init or config.resume):
        predictor.measure(familiar(pairs, config.crop_size, EXAMPLES, config.augmentation)[1])
    ema = AveragedModel(model, multi_avg_fn=running_mean(config.ema_decay), use_buffers=True)
    module, judge = TrainingModule(model.train(), loss_network(objective), objective), feature_network()
    averaged = TrainingModule(ema.module, module.features, objective).eval()
    for network in (module, ema, judge):
        network.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        compile_networks(fabric, module, config)
    launched, optimizer = fabric.setup(module, torch.optim.Adam(parameter_groups(model, config)))
    state = TrainingState(model, ema, optimizer, getattr(fabric.strategy.precision, "scaler", None))
    if config.resume:
        files.load(state, fabric.device)

    sets = {"validation": held_out}
    if known is None:  # else nothing is held out
        sets["familiar"] = familiar(pairs, held_out[0].shape[-1], min(FAMILIAR_PAIRS, config.validation_pairs))
    first, last = (step * config.accumulate for step in (state.step, config.steps))
    sampler = Resumable(first, last, config.batch_size, fabric.global_rank, fabric.world_size)
    loader = batches(pairs, sampler, 0 if config.resident else config.workers)
    run = Run(config, fabric, launched, averaged, judge, state, files, loader, sets)
    if fabric.is_global_zero:
        print(save_config(config, config.run_dir), flush=True)
    return run
