from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from arbitrary_nst.errors import UsageError
from arbitrary_nst.models import MODELS
from arbitrary_nst.models.serialization import load_model, model_card, save_model

SPEC = spec_from_file_location("average_weights", Path(__file__).parents[1] / "tools" / "average_weights.py")
assert SPEC is not None
assert SPEC.loader is not None
TOOL = module_from_spec(SPEC)
SPEC.loader.exec_module(TOOL)


@pytest.fixture
def two(tmp_path):
    """Two models of one kind, with weights of 1 and of 3."""
    paths = tmp_path / "one.safetensors", tmp_path / "three.safetensors"
    for path, value in zip(paths, (1.0, 3.0), strict=True):
        model = MODELS["light"](pretrained=False)
        for weight in model.parameters():
            weight.data.fill_(value)
        save_model(model, "light", path, {"steps": value})
    return paths


def averaged(models, shares, folder):
    TOOL.average(TOOL.AverageConfig(tuple(models), shares, folder / "mean.safetensors"))
    return folder / "mean.safetensors"


def test_every_weight_is_the_weighted_mean(two, tmp_path):
    mean = averaged(two, (0.25, 0.75), tmp_path)
    assert model_card(mean) == ("light", {"steps": 3.0})
    assert all(torch.equal(weight, torch.full_like(weight, 2.5)) for weight in load_model(mean).parameters())


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.6)])
def test_shares_are_of_all_models_and_sum_to_one(two, tmp_path, shares):
    with pytest.raises(UsageError, match="--shares"):
        averaged(two, shares, tmp_path)


def test_models_are_of_one_kind(two, tmp_path):
    other = tmp_path / "other.safetensors"
    save_model(MODELS["normalization-network"](pretrained=False), "normalization-network", other)
    with pytest.raises(UsageError, match="light, normalization-network"):
        averaged((two[0], other), (0.5, 0.5), tmp_path)
