"""Gradients that cannot be used: the step is skipped; many in a row end the run, its state and batch kept."""

from dataclasses import replace

import pytest
import torch

from arbitrary_nst.image import load_image
from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.training import TrainingDiverged, fit
from arbitrary_nst.training.checkpoints import Checkpoints, TrainingState
from arbitrary_nst.training.networks import TrainingModule
from runs import make_pictures, rows, sketch_run, sketches


@pytest.fixture
def config(tmp_path, monkeypatch):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    return sketch_run(tmp_path, log_every=1, save_every=2, steps=4)


@pytest.fixture
def spoil(monkeypatch):
    """Multiply the losses of some steps, numbered from 1, by a factor."""

    def install(steps, factor):
        forward, calls = TrainingModule.forward, []

        def spoilt(module, *batch):
            losses = forward(module, *batch)
            calls.extend([1] if module.training else [])
            wrong = module.training and len(calls) in steps
            return {name: loss * (factor if wrong else 1.0) for name, loss in losses.items()}

        monkeypatch.setattr(TrainingModule, "forward", spoilt)

    return install


def test_nan_stops_the_run_and_keeps_the_last_good_state_and_the_batch(config, spoil):
    spoil({3, 4}, float("nan"))
    with pytest.raises(TrainingDiverged, match=r"2 steps in a row .* at step 4: its norm is nan") as stopped:
        fit(replace(config, patience=2))
    newest = Checkpoints(config.run_dir, 2).files()[-1]
    assert str(newest) in str(stopped.value)
    before, after = (torch.load(path, weights_only=True) for path in Checkpoints(config.run_dir, 2).files())
    assert (before["step"], after["step"], after["skipped"]) == (2, 4, 2)
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    from safetensors.torch import load_file

    (picture,) = (config.run_dir / "offending").glob("*.png")
    assert str(picture) in str(stopped.value)
    batch = load_file(picture.with_suffix(".safetensors"))
    assert batch["content"].shape == batch["style"].shape == (2, 3, 32, 32)
    first_photo = load_image(picture)[:, :, 2:34, 2:34]  # grids have a border of two pixels
    assert (first_photo - batch["content"][:1]).abs().max() <= 0.5 / 255 + 1e-6


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(config, spoil):
    spoil({2}, float("inf"))
    model = load_model(fit(config))
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert [row["skipped"] for row in rows(config.run_dir / "train.csv")] == ["0", "1", "1", "1"]


def test_an_exploding_gradient_is_skipped(config, spoil):
    spoil({60}, 1e6)
    fit(replace(config, steps=61, save_every=61, validate_every=61))
    skipped = [int(row["skipped"]) for row in rows(config.run_dir / "train.csv")]
    assert skipped == [0] * 59 + [1, 1]


def test_exploding_means_many_times_the_median_once_there_are_many():
    model, average = (torch.nn.Linear(1, 1) for _ in range(2))
    state = TrainingState(model, average, torch.optim.Adam(model.parameters()))
    assert not state.is_spike(1e30, 10)
    assert state.is_spike(float("nan"), 10)
    assert state.is_spike(float("inf"), 10)
    for number in range(300):
        state.count(1.0 if number % 3 else 1000.0, taken=True)
    assert len(state.gradients) == 100
    assert not state.is_spike(9.9, 10)
    assert state.is_spike(10.1, 10)
