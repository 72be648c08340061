"""The loop: it lowers the loss, goes on where it stopped, and stops at NaN with the last good checkpoint kept."""

import csv
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import tyro

from arbitrary_nst import training
from arbitrary_nst.data import PictureFolder
from arbitrary_nst.image import save_image
from arbitrary_nst.models import FIXED_STYLES, MODELS, FixedStyles
from arbitrary_nst.models.files import load_model
from arbitrary_nst.objectives import AdaINObjective, PredictionObjective, RelativeObjective, loss_network
from arbitrary_nst.training import (
    PRESETS,
    TrainConfig,
    TrainingDiverged,
    build_objective,
    fit,
    parameter_groups,
    running_mean,
    scheduled_rate,
    split,
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


# Styles that a model knows by name


@pytest.fixture
def paintings(config):
    """The files of the first paintings of the collection."""
    return [config.style_data[0] / f"{index}.png" for index in range(4)]


def fixed(config, *paintings, model="multi-style", name="fixed", **changes):
    """A run of a model of fixed styles in a folder of its own, quick enough for features with random weights."""
    run_dir = config.run_dir.with_name(name)
    return replace(config, model=model, style_data=paintings, run_dir=run_dir, **changes)


@pytest.mark.parametrize(("model", "count"), [("single-style", 1), ("multi-style", 2)])
def test_fixed_styles_lower_their_loss_and_are_named_by_their_paintings(config, paintings, model, count):
    changes: dict[str, Any] = {"steps": 12, "validate_every": 12, "save_every": 12, "learning_rate": 3e-3}
    run = fixed(config, *paintings[:count], model=model, **changes)
    trained = load_model(fit(run))
    assert isinstance(trained, FixedStyles)
    assert trained.style_names == ("0", "1")[:count]
    losses = [float(row["loss"]) for row in rows(run.run_dir / "train.csv")]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_single_style_lowers_the_loss_of_its_paper(config, paintings, vgg16_file, monkeypatch):
    monkeypatch.setattr(training, "loss_network", loss_network)
    changes: dict[str, Any] = {"steps": 20, "save_every": 20, "validate_every": 20}
    run = fixed(config, paintings[0], model="single-style", objective="johnson", **changes)
    fit(run)
    losses = [float(row["loss"]) for row in rows(run.run_dir / "train.csv")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_several_paintings_are_too_many_for_a_single_style(config, paintings):
    with pytest.raises(ValueError, match=r"one style, not 2 \(0, 1\): choose multi-style"):
        fit(fixed(config, *paintings[:2], model="single-style"))


def test_paintings_of_fixed_styles_are_neither_held_out_nor_changed(config, tmp_path):
    for index in range(12):
        painting = torch.full((1, 3, 40, 40), index / 20)
        painting[:, :, 0] = 1.0  # a bright upper edge
        save_image(painting, tmp_path / "flat" / f"{index:02}.png")
    folder = PictureFolder(sorted((tmp_path / "flat").iterdir()), 40)
    pairs, (_, held, numbers) = split(folder, folder, replace(config, validation_pairs=40), range(100, 112))
    assert set(numbers.tolist()) == set(range(100, 112))
    for index in range(40):
        for style, number in ((held[index], int(numbers[index])), pairs[index][1:]):
            assert style[0, 20, 20].item() == pytest.approx((number - 100) / 20, abs=0.01)
            assert style[0, 0, 0] > style[0, -1, 0]


def test_added_styles_leave_everything_else_as_it_was_to_the_last_bit(config, paintings):
    before = fit(fixed(config, *paintings[:2]))
    run = fixed(config, *paintings[2:4], name="grown", init=before, add_styles=True, learning_rate=1e-2)
    grown = load_model(fit(run))
    assert isinstance(grown, FixedStyles)
    assert grown.style_names == ("0", "1", "2", "3")
    old, new = load_model(before).state_dict(), grown.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    mean = (old["table.0"] + old["table.1"]) / 2
    for name in new.keys() - old.keys():
        assert (new[name] - mean).abs().max() > 1e-4
    checkpoint = torch.load(run.run_dir / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(value, checkpoint[name]) for name, value in old.items())


def test_a_resumed_run_that_adds_styles_ends_as_an_uninterrupted_one(config, paintings):
    before = fit(fixed(config, *paintings[:2], steps=1))
    run = fixed(config, *paintings[2:4], name="whole", init=before, add_styles=True)
    whole = load_model(fit(run)).state_dict()
    halved = replace(run, run_dir=config.run_dir.with_name("halved"))
    count = training.Progress.count

    def stop_after_three(progress, taken):
        count(progress, taken)
        if progress._bar.n == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Progress, "count", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            fit(halved)
    with pytest.raises(ValueError, match=r"its styles are 0, 1, 2, 3, those of --style-data 2, 3; --add-styles"):
        fit(replace(halved, init=None, resume=True, add_styles=False))
    resumed = load_model(fit(replace(halved, init=None, resume=True))).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_init_with_other_styles_or_of_another_model_is_refused(config, paintings):
    before = fit(fixed(config, *paintings[:2], steps=1))
    with pytest.raises(ValueError, match=r"its styles are 0, 1, those of --style-data 2; --add-styles"):
        fit(fixed(config, paintings[2], name="other", init=before))
    with pytest.raises(ValueError, match="name of its own"):
        fit(fixed(config, paintings[1], name="known", init=before, add_styles=True))
    with pytest.raises(ValueError, match=r"holds a model 'multi-style', not 'light'"):
        fit(replace(config, init=before))


def test_init_with_the_same_styles_goes_by_their_names(config, paintings):
    """Whatever the order of --style-data, and at a learning rate of zero exactly as it was."""
    before = fit(fixed(config, *paintings[:2], steps=1))
    again = load_model(fit(fixed(config, *paintings[1::-1], name="again", init=before, learning_rate=0.0)))
    assert isinstance(again, FixedStyles)
    assert again.style_names == ("0", "1")
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_model(before).state_dict().items())


# Trouble


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(config, monkeypatch):
    objective, calls = build_objective(config), []

    def poisoned(module, content, style, number):
        calls.append(1)
        losses = objective(module.model, module.features, content, style, module.model.encode_style(style))
        return {name: loss * (float("nan") if len(calls) > 2 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(training.TrainingModule, "forward", poisoned)
    with pytest.raises(TrainingDiverged, match=r"2 steps in a row .* at step 4, .*nan.*checkpoint\.pt"):
        fit(replace(config, patience=2))
    state = torch.load(config.run_dir / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values() if value.is_floating_point())


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(config, monkeypatch):
    forward, calls = training.TrainingModule.forward, []

    def infinite_once(module, *batch):
        calls.append(1)
        losses = forward(module, *batch)
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
        ({"preset": "gatys"}, "--preset gatys: choose one of johnson2016, "),
        ({"add_styles": True, "init": config.run_dir}, "--add-styles: needs --model multi-style"),
        ({"add_styles": True, "model": "multi-style"}, "--add-styles: needs .* --init"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **change)
    with pytest.raises(ValueError, match="--objective adain: light decodes no features"):
        build_objective(replace(config, objective="adain"))
    with pytest.raises(ValueError, match="--loss-weights tv_weight"):
        build_objective(replace(config, loss_weights={"tv_weight": 1.0}))
    assert asdict(build_objective(replace(config, loss_weights={"gram_weight": 7.0})))["gram_weight"] == 7.0


# Objectives and presets


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("light", RelativeObjective()),
        ("paper", PredictionObjective()),
        ("adain", AdaINObjective()),
        ("adain-vgg19", AdaINObjective(network="vgg19")),
        ("single-style", RelativeObjective()),
        ("multi-style", RelativeObjective()),
        ("normalization-network", RelativeObjective()),
    ],
)
def test_each_model_has_its_objective(config, model, expected):
    assert build_objective(replace(config, model=model)) == expected


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_arguments_of_a_configuration_whose_objective_can_be_built(config, name):
    paths = {key: getattr(config, key) for key in ("content_data", "style_data", "run_dir")}
    preset = TrainConfig(**paths, **PRESETS[name], preset=name)
    weights = asdict(build_objective(preset))
    assert all(weights[key] == value for key, value in preset.loss_weights.items())


def test_help_names_every_model_and_preset(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in (*MODELS, *PRESETS))
    assert set(FIXED_STYLES) <= set(MODELS)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_can_be_made_before_their_paths_are_given(name, monkeypatch):
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    missing = dict.fromkeys(("content_data", "style_data", "run_dir"), tyro.MISSING)
    assert TrainConfig(**missing, **PRESETS[name], preset=name).preset == name
