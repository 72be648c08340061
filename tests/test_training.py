"""The loop: it lowers the loss, goes on where it stopped, and stops at NaN with the last good checkpoint kept."""

import csv
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from arbitrary_nst import training
from arbitrary_nst.image import save_image
from arbitrary_nst.models import MODELS
from arbitrary_nst.models.files import load_model
from arbitrary_nst.objectives import loss_network
from arbitrary_nst.training import (
    TrainConfig,
    TrainingDiverged,
    build_objective,
    fit,
    parameter_groups,
    running_mean,
    scheduled_rate,
)


@pytest.fixture
def pictures(tmp_path):
    """Folders of twelve small photos and twelve paintings: smooth ones and striped ones."""
    generator = torch.Generator().manual_seed(0)
    for kind, repeat in (("content", 16), ("style", 2)):
        for index in range(12):
            small = torch.rand(1, 3, 80 // repeat, 80 // repeat, generator=generator)
            save_image(torch.nn.functional.interpolate(small, size=(80, 80)), tmp_path / kind / f"{index}.png")
    return tmp_path


@pytest.fixture
def config(pictures, monkeypatch):
    """A run of seconds: random features and backbone, tiny crops."""
    monkeypatch.setattr(training, "loss_network", partial(loss_network, pretrained=False))
    monkeypatch.setitem(MODELS, "light", partial(MODELS["light"], pretrained=False))
    monkeypatch.setitem(MODELS, "adain", partial(MODELS["adain"], pretrained=False))
    return TrainConfig(
        content_data=(pictures / "content",),
        style_data=(pictures / "style",),
        run_dir=pictures / "run",
        steps=4,
        batch_size=2,
        crop_size=32,
        picture_size=80,
        warmup_steps=1,
        log_every=1,
        save_every=2,
        validate_every=4,
        validation_pairs=2,
        device="cpu",
        precision="float32",
        workers=0,
        wandb="off",
    )


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_lowers_its_loss_and_writes_what_it_promises(config):
    path = fit(replace(config, steps=25, validate_every=25, save_every=25, learning_rate=3e-3))
    losses = [float(row["loss"]) for row in rows(config.run_dir / "train.csv")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert len(losses) == 25
    assert len(rows(config.run_dir / "validation.csv")) == 1
    assert [p.name for p in (config.run_dir / "samples").iterdir()] == ["samples-0000025.png"]
    assert load_model(path).code_size == 100
    assert not list(config.run_dir.glob("*.partial"))


def test_adain_trains_its_decoder_only(config):
    model = MODELS["adain"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(config.seed)
    path = fit(replace(config, model="adain", ema_decay=0.0))
    trained = load_model(path).state_dict()
    assert set(trained) == set(before)
    torch.manual_seed(config.seed)
    start = MODELS["adain"]().state_dict()
    changed = {name for name in trained if not torch.equal(trained[name], start[name])}
    assert changed == {name for name in start if name.startswith("decoder")}


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(config, monkeypatch):
    whole = load_model(fit(config)).state_dict()

    halved = replace(config, run_dir=config.run_dir.with_name("halved"))
    count = training.Progress.count

    def stop_after_three(progress, taken):
        count(progress, taken)
        if progress._bar.n == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "count", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            fit(halved)
    resumed = load_model(fit(replace(halved, resume=True))).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(config, monkeypatch):
    objective, calls = build_objective(config), []

    def poisoned(module, content, style):
        calls.append(1)
        losses = objective(module.model, module.features, content, style)
        return {name: loss * (float("nan") if len(calls) > 2 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(training.TrainingModule, "forward", poisoned)
    with pytest.raises(TrainingDiverged, match=r"2 steps in a row .* at step 4, .*nan.*checkpoint\.pt"):
        fit(replace(config, patience=2))
    state = torch.load(config.run_dir / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values() if value.is_floating_point())


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(config, monkeypatch):
    forward, calls = training.TrainingModule.forward, []

    def infinite_once(module, content, style):
        calls.append(1)
        losses = forward(module, content, style)
        return {name: loss * (float("inf") if len(calls) == 2 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(training.TrainingModule, "forward", infinite_once)
    model = load_model(fit(config))
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert [row["skipped"] for row in rows(config.run_dir / "train.csv")] == ["0", "1", "1", "1"]


def test_an_earlier_run_is_neither_overwritten_nor_invented(config):
    with pytest.raises(ValueError, match="--resume: there is no"):
        fit(replace(config, resume=True))
    config.run_dir.mkdir()
    (config.run_dir / "checkpoint.pt").write_bytes(b"precious")
    with pytest.raises(ValueError, match="is of an earlier run: add --resume"):
        fit(config)
    assert (config.run_dir / "checkpoint.pt").read_bytes() == b"precious"


def test_one_bad_picture_does_not_end_a_run(config, caplog):
    (config.style_data[0] / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    fit(replace(config, steps=1))
    assert "broken.jpg" in caplog.text
    assert "left out 1 of 13 pictures" in caplog.text


def test_init_starts_from_a_model_file(config):
    first = fit(config)
    second = fit(replace(config, init=first, run_dir=config.run_dir.with_name("second"), steps=1, learning_rate=0.0))
    start, end = load_model(first).state_dict(), load_model(second).state_dict()
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_the_learning_rate_rises_then_falls_to_zero(config):
    config = replace(config, steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [scheduled_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.98, abs=0.01)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0)


def test_a_pretrained_backbone_learns_at_its_own_rate(config):
    model = MODELS["light"]()
    slow, full = parameter_groups(model, config)
    assert (slow["scale"], full["scale"]) == (config.backbone_rate, 1.0)
    backbone = sum(p.numel() for name, p in model.named_parameters() if name.startswith("predictor.backbone."))
    assert sum(p.numel() for p in slow["params"]) == backbone
    assert sum(p.numel() for p in full["params"]) == sum(p.numel() for p in model.parameters()) - backbone


def test_the_running_mean_forgets_its_start_and_then_decays_slowly():
    update, average = running_mean(0.5), [torch.zeros(1)]
    update(average, [torch.ones(1)], 0)
    assert average[0].item() == pytest.approx(0.9)  # decay 1 / 10 at the first update
    update(average, [torch.zeros(1)], 1000)
    assert average[0].item() == pytest.approx(0.45)


def test_contradictory_options_are_refused_by_their_names(config):
    for change, message in (
        ({"model": "mona"}, "--model mona"),
        ({"crop_size": 100}, "--crop-size 100"),
        ({"steps": 0}, "--steps 0"),
        ({"resume": True, "init": config.run_dir}, "--resume .* --init"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **change)
    with pytest.raises(ValueError, match="--loss-weights tv_weight"):
        build_objective(replace(config, loss_weights={"tv_weight": 1.0}))
    assert asdict(build_objective(replace(config, loss_weights={"gram_weight": 7.0})))["gram_weight"] == 7.0
