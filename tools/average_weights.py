"""Average the weights of models that began with the same weights: often better than each of them.

    python tools/average_weights.py --models a.safetensors b.safetensors --shares 0.4 0.6 --output mean.safetensors

(Wortsman et al. 2022, arXiv 2203.05482.) The model card is that of the last model.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from arbitrary_nst.errors import UsageError
from arbitrary_nst.models.serialization import load_model, model_card, save_model


@dataclass(frozen=True)
class AverageConfig:
    models: tuple[Path, ...]
    """Files written by train.py."""
    shares: tuple[float, ...]
    """How much of each, summing to 1."""
    output: Path


def average(config: AverageConfig) -> None:
    """Write the mean in half precision. Raises UsageError where the models or the shares do not fit."""
    if len(config.models) != len(config.shares) or abs(sum(config.shares) - 1) > 1e-6:
        raise UsageError("--shares: one number for each of --models, which sum to 1")
    names = {model_card(path)[0] for path in config.models}
    states = [load_model(path).state_dict() for path in config.models]
    if len(names) > 1 or len({frozenset(state) for state in states}) > 1:
        raise UsageError(f"--models: are of different kinds ({', '.join(sorted(names))})")
    mean = {}
    for name, last in states[-1].items():
        terms = [share * state[name].double() for share, state in zip(config.shares, states, strict=True)]
        mean[name] = torch.stack(terms).sum(0).to(last.dtype) if last.is_floating_point() else last
    model = load_model(config.models[-1])
    model.load_state_dict(mean)
    name, card = model_card(config.models[-1])
    save_model(model, name, config.output, card, half=True)


if __name__ == "__main__":
    average(tyro.cli(AverageConfig, description=__doc__))
