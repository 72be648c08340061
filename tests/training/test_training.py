"""The loop: it lowers the loss, writes what it promises, and learns styles by their names."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from arbitrary_nst.data import ImageDataset, open_pictures
from arbitrary_nst.image import save_image
from arbitrary_nst.models import MODELS, CoarseToFine, FixedStyles
from arbitrary_nst.models.serialization import load_model, model_card, save_model
from arbitrary_nst.training import fit, loop
from arbitrary_nst.training import run as building
from arbitrary_nst.training.datasets import opened, split
from arbitrary_nst.training.objectives import loss_network
from arbitrary_nst.training.schedule import ema_update, parameter_groups, scheduled_rate
from runs import make_pictures, rows, tiny_run, without_downloads


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of seconds: random features and backbone, tiny crops."""
    make_pictures(tmp_path)
    without_downloads(monkeypatch)
    return tiny_run(tmp_path)


@pytest.mark.slow
def test_a_run_lowers_its_loss_and_writes_what_it_promises(config):
    path = fit(replace(config, steps=25, validate_every=25, save_every=25, learning_rate=3e-4))
    losses = [float(row["loss"]) for row in rows(config.run_dir / "train.csv")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert len(losses) == 25
    assert len(rows(config.run_dir / "validation.csv")) == 1
    samples = sorted(p.name for p in (config.run_dir / "samples").iterdir())
    assert samples == ["random-0000025.png", "samples-0000025.png"]
    assert (config.run_dir / "losses.png").is_file()
    assert (config.run_dir / "metrics.png").is_file()
    card = (config.run_dir / "model_card.md").read_text()
    assert "# Model card: light" in card
    assert "| style_gap | 0." in card
    assert model_card(path)[1]["steps"] == 25
    assert model_card(path)[1]["held_out"] == {"photos": 1, "paintings": 1, "fixed": False}
    assert load_model(path).code_size == CoarseToFine.code_size
    assert not list(config.run_dir.glob("*.partial"))


@pytest.mark.slow
def test_pictures_of_a_run_are_not_trained_on(config):
    config = replace(config, run_dir=Path(config.content_data[0], "run"), steps=1, validate_every=1)

    def photos():
        pictures = opened(config.content_data, config)
        assert isinstance(pictures, ImageDataset)
        return pictures.paths

    before = photos()
    fit(config)
    assert (config.run_dir / "losses.png").is_file()
    assert photos() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photos", "paintings", "held"), [(12, 12, (1, 1)), (12, 9, (1, 0)), (9, 12, (0, 1)), (1, 1, (0, 0))]
)
def test_what_is_held_out_is_said_at_the_start_and_on_the_card(config, caplog, capsys, photos, paintings, held):
    for folder, count in ((config.content_data[0], photos), (config.style_data[0], paintings)):
        for index in range(count, 12):
            Path(folder, f"{index}.png").unlink()
    path = fit(replace(config, steps=1, validation_pairs=6))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("held out")]
    assert f"{held[0]} of {photos} photos, {held[1]} of {paintings} paintings" in line
    assert "--validation-pairs 6" in line
    for option, count in zip(("--content-data", "--style-data"), held, strict=True):
        assert (option in caplog.text) == (not count)
    card = (config.run_dir / "model_card.md").read_text()
    for name, count in zip(("photos", "paintings"), held, strict=True):
        assert (f"{name} that were held out (1)" in card) == bool(count)
        assert (f"{name} that were trained on" in card) == (not count)
    assert model_card(path)[1]["held_out"] == {"photos": held[0], "paintings": held[1], "fixed": False}


@pytest.mark.slow
def test_pictures_that_live_on_the_device_are_nearly_the_same_samples(config):
    fit(replace(config, steps=2))
    fit(replace(config, steps=2, resident=True, run_dir=config.run_dir.with_name("resident")))
    ours, theirs = (rows(folder / "train.csv") for folder in (config.run_dir, config.run_dir.with_name("resident")))
    for one, other in zip(ours, theirs, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=0.05)


@pytest.mark.slow
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


# Styles that a model knows by name


@pytest.fixture
def paintings(config):
    """The files of the first paintings of the collection."""
    return [str(Path(config.style_data[0]) / f"{index}.png") for index in range(4)]


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


@pytest.mark.slow
def test_single_style_lowers_the_loss_of_its_paper(config, paintings, monkeypatch):
    monkeypatch.setattr(building, "loss_network", loss_network)
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
    folder = open_pictures([tmp_path / "flat"], 40)
    pairs, (_, held, numbers), _ = split(folder, folder, replace(config, validation_pairs=40), range(100, 112))
    assert set(numbers.tolist()) == set(range(100, 112))
    for index in range(40):
        for style, number in ((held[index], int(numbers[index])), pairs[index][1:3]):
            assert style[0, 20, 20].item() == pytest.approx((number - 100) / 20, abs=0.01)
            assert style[0, 0, 0] > style[0, -1, 0]


@pytest.mark.slow
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
    checkpoint = torch.load(run.run_dir / "checkpoint-0000004.pt", weights_only=True)["model"]
    assert all(torch.equal(value, checkpoint[name]) for name, value in old.items())


@pytest.mark.slow
def test_a_resumed_run_that_adds_styles_ends_as_an_uninterrupted_one(config, paintings):
    before = fit(fixed(config, *paintings[:2], steps=1))
    run = fixed(config, *paintings[2:4], name="whole", init=before, add_styles=True)
    whole = load_model(fit(run)).state_dict()
    halved = replace(run, run_dir=config.run_dir.with_name("halved"))
    count = loop.Progress.count

    def stop_after_three(progress, taken):
        if progress._run.state.step == 3:
            raise KeyboardInterrupt
        return count(progress, taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Progress, "count", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            fit(halved)
    with pytest.raises(ValueError, match=r"its styles are 0, 1, 2, 3, those of --style-data 2, 3; --add-styles"):
        fit(replace(halved, init=None, resume=True, add_styles=False))
    resumed = load_model(fit(replace(halved, init=None, resume=True))).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_a_run_that_has_written_its_first_checkpoint_only_is_resumed(config, paintings):
    before = fit(fixed(config, *paintings[:2], steps=1))
    plain = fixed(config, *paintings[:2], name="plain")
    grown = fixed(config, *paintings[2:4], name="grown", init=before, add_styles=True)
    for run, names in ((plain, ("0", "1")), (grown, ("0", "1", "2", "3"))):
        fit(run).unlink()
        resumed = load_model(fit(replace(run, steps=6, resume=True)))
        assert isinstance(resumed, FixedStyles)
        assert resumed.style_names == names


def test_init_with_other_styles_or_of_another_model_is_refused(config, paintings):
    before = fit(fixed(config, *paintings[:2], steps=1))
    with pytest.raises(ValueError, match=r"its styles are 0, 1, those of --style-data 2; --add-styles"):
        fit(fixed(config, paintings[2], name="other", init=before))
    with pytest.raises(ValueError, match="name of its own"):
        fit(fixed(config, paintings[1], name="known", init=before, add_styles=True))
    with pytest.raises(ValueError, match=r"holds a model 'multi-style', not 'light'"):
        fit(replace(config, init=before))


@pytest.mark.slow
def test_init_with_the_same_styles_goes_by_their_names(config, paintings):
    """Whatever the order of --style-data, and at a learning rate of zero exactly as it was."""
    before = fit(fixed(config, *paintings[:2], steps=1))
    again = load_model(fit(fixed(config, *paintings[1::-1], name="again", init=before, learning_rate=0.0)))
    assert isinstance(again, FixedStyles)
    assert again.style_names == ("0", "1")
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_model(before).state_dict().items())


# Trouble


def test_one_bad_picture_does_not_end_a_run(config, caplog):
    Path(config.style_data[0], "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    fit(replace(config, steps=1))
    assert "broken.jpg" in caplog.text
    assert "left out 1 of 13 pictures" in caplog.text


@pytest.mark.slow
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
    timed = replace(config, minutes=2.0)
    assert scheduled_rate(50, timed, seconds=30) == rates[50]
    assert scheduled_rate(50, timed, seconds=90) == pytest.approx(rates[75])
    assert scheduled_rate(50, timed, seconds=120) == pytest.approx(0)


def test_a_pretrained_backbone_learns_at_its_own_rate(config):
    model = MODELS["light"]()
    slow, full = parameter_groups(model, config)
    assert (slow["scale"], full["scale"]) == (config.backbone_rate, 1.0)
    backbone = sum(p.numel() for name, p in model.named_parameters() if name.startswith("predictor.backbone."))
    assert sum(p.numel() for p in slow["params"]) == backbone
    assert sum(p.numel() for p in full["params"]) == sum(p.numel() for p in model.parameters()) - backbone


def test_a_new_predictor_learns_what_is_usual_among_the_paintings(config, tmp_path):
    new: Any = building.prepare(config)
    usual = new.model.predictor.embed[0].usual
    assert usual.abs().max() > 0.1
    assert torch.equal(new.average.predictor.embed[0].usual, usual)
    usual.zero_()
    save_model(new.model, "light", tmp_path / "init.safetensors")
    begun: Any = building.prepare(replace(config, init=tmp_path / "init.safetensors", run_dir=tmp_path / "begun"))
    assert not begun.model.predictor.embed[0].usual.any()


def test_the_ema_forgets_its_start_and_then_decays_slowly():
    update, average = ema_update(0.5), [torch.zeros(1)]
    update(average, [torch.ones(1)], 0)
    assert average[0].item() == pytest.approx(0.9)  # decay 1 / 10 at the first update
    update(average, [torch.zeros(1)], 1000)
    assert average[0].item() == pytest.approx(0.45)
