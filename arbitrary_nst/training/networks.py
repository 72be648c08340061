"""The networks of a run: the model, the frozen features that its loss looks at, and where they begin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from arbitrary_nst.errors import UsageError
from arbitrary_nst.models import FIXED_STYLES, MODELS, FixedStyles
from arbitrary_nst.models.serialization import load_model, model_card, model_file
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.runtime.devices import channels_last
from arbitrary_nst.runtime.files import detail
from arbitrary_nst.training.checkpoints import MODEL
from arbitrary_nst.training.config import TrainConfig
from arbitrary_nst.training.objectives import Objective, OctavesObjective, sum_of


class TrainingModule(nn.Module):
    """Model, frozen features and objective as one module: a batch in, named losses out.

    Where a model knows a single style, its painting's features are computed once for the whole batch.
    """

    def __init__(self, model: nn.Module, features: VGGFeatures, objective: Objective) -> None:
        super().__init__()
        self.model: Any = model
        self.features, self.objective = features, objective
        self.single = isinstance(model, FixedStyles) and model.code_size == 1

    def forward(
        self, content: Float[Tensor, "B 3 S S"], style: Float[Tensor, "B 3 S S"], number: Int[Tensor, "B"]
    ) -> dict[str, Float[Tensor, ""]]:
        if self.single:
            style, number = style[:1], number[:1]
        if isinstance(self.objective, OctavesObjective):  # encodes the style image itself, once for each octave
            return self.objective(self.model, self.features, content, style)
        code = style_codes(self.model, style, number)
        return self.objective(self.model, self.features, content, style, code)


def style_codes(model: Any, style: Float[Tensor, "B 3 S S"], number: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
    """Style codes of paintings, or those of the model's own styles by their numbers."""
    return model.codes(number) if isinstance(model, FixedStyles) else model.encode_style(style)


def given_model(config: TrainConfig) -> nn.Module | None:
    """The model of --init, or, to know its styles, that of the run to resume; None: a run begins with a new one.

    Raises ModelFileError or WeightsNotFoundError where there is none, UsageError where the file holds another model.
    """
    source = _source(config)
    if source is None:
        return None
    held, _ = model_card(model_file(source))
    if held != config.model:
        raise UsageError(f"{source}: holds a model '{held}', not '{config.model}': change --model or --init")
    return load_model(source)


def _source(config: TrainConfig) -> Path | None:
    """The file of a model that is there before this start."""
    if config.resume and config.model not in FIXED_STYLES:
        return None  # a checkpoint has all the weights
    return config.run_dir / MODEL if _has_styles(config) else config.init


def _has_styles(config: TrainConfig) -> bool:
    """Return True if the run has already written a model that knows all its styles."""
    return config.resume and (config.run_dir / MODEL).exists()


def starting_model(config: TrainConfig, model: nn.Module | None, names: Sequence[str] = ()) -> nn.Module:
    """The model as training finds it: new, or the one that is given, with the styles that are to be learned.

    Args:
        names: those of the paintings, which a model of fixed styles knows them by.

    Raises ValueError where the given model has other styles.
    """
    if model is None:
        options: dict[str, Any] = {"styles": names} if config.model in FIXED_STYLES else {}
        return MODELS[config.model](pretrained=not config.resume, **options)
    if not isinstance(model, FixedStyles):
        return model
    if config.add_styles and not _has_styles(config):
        model.add_styles(names)
    elif config.add_styles and set(names) <= set(model.style_names):
        model.train_only(names)
    elif set(names) != set(model.style_names):
        raise UsageError(
            f"{_source(config)}: its styles are {', '.join(model.style_names)}, those of --style-data "
            f"{', '.join(names)}; --add-styles with --init learns new ones"
        )
    return model


def compile_networks(fabric: Any, module: TrainingModule, config: TrainConfig) -> None:
    """Compile the networks in place, and try them forward and backward.

    Raises ValueError where this machine cannot compile them.
    """
    module.compile()
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.batch_size, 3, config.crop_size, config.crop_size)
    content, style = (channels_last(torch.rand(shape, generator=generator), fabric.device) for _ in range(2))
    try:
        with fabric.autocast():
            losses = module(content, style, torch.zeros(len(content), dtype=torch.int64, device=fabric.device))
        sum_of(losses.values()).backward()
    except Exception as error:
        raise UsageError(f"--compile: torch.compile fails here ({detail(error)[:300]}); leave it out") from error
    module.zero_grad()
