"""Options of a run: presets, files of options, contradictions, and the objective that they make."""

import json
from dataclasses import asdict, replace

import pytest
import tyro

from arbitrary_nst.cli import chosen_default, main
from arbitrary_nst.models import FIXED_STYLES, MODELS
from arbitrary_nst.models.files import load_model
from arbitrary_nst.objectives import AdaINObjective, PredictionObjective, RelativeObjective
from arbitrary_nst.training import PRESETS, TrainConfig, fit
from arbitrary_nst.training.config import build_objective, save_config
from runs import make_pictures, sketch_run, sketches, tiny_run


@pytest.fixture
def config(tmp_path):
    return tiny_run(tmp_path)


def test_contradictory_options_are_refused_by_their_names(config):
    for change, message in (
        ({"model": "mona"}, "--model mona"),
        ({"crop_size": 100}, "--crop-size 100"),
        ({"steps": 0}, "--steps 0"),
        ({"minutes": 0.0}, "--minutes 0"),
        ({"explosion": 1.0}, "--explosion 1"),
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


def test_a_saved_configuration_is_taken_back_and_options_beside_it_change_it(config, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    run = replace(config, loss_weights={"gram_weight": 2.0}, minutes=1.5, resume=True, compile=True)
    save_config(run, tmp_path / "saved")
    arguments = ["--config", str(tmp_path / "saved" / "config.json"), "--steps", "7", "--init", "some.safetensors"]
    taken = tyro.cli(TrainConfig, args=arguments, default=chosen_default(TrainConfig, PRESETS, arguments))
    expected = asdict(run) | {"steps": 7, "resume": False, "config": taken.config, "init": taken.init}
    assert asdict(taken) == expected
    assert str(taken.init) == "some.safetensors"
    preset = chosen_default(TrainConfig, PRESETS, [*arguments, "--preset", "huang2017"])
    assert (preset.model, preset.crop_size, preset.run_dir) == ("adain-vgg19", 256, run.run_dir)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a JSON file of options"),
        ('{"stepz": 3}', "there is no option 'stepz'; there are content_data, "),
        ('{"steps": "many"}', "steps: Input should be a valid integer"),
        ('{"augmentation": {"hues": 1}}', "augmentation has no hues"),
        ('{"crop_size": 100}', "--crop-size 100: must be a multiple of 8"),
    ],
)
def test_a_wrong_file_of_options_is_refused_by_its_name(tmp_path, monkeypatch, capsys, text, said):
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    path = tmp_path / "options.json"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_run_from_the_configuration_of_another_is_the_same_run(tmp_path, monkeypatch, capsys):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    first = load_model(fit(sketch_run(tmp_path, steps=2, precision="auto"))).state_dict()
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["precision"] in ("float32", "bfloat16")
    assert saved["objective"] == "relative"
    assert saved["loss_weights"]["gram_weight"] == 4.5
    assert json.dumps(saved, indent=2) in capsys.readouterr().out
    again = ["--config", str(tmp_path / "run" / "config.json"), "--run-dir", str(tmp_path / "again")]
    assert main(["train", *again]) == 0
    second = load_model(tmp_path / "again" / "model.safetensors").state_dict()
    assert all((value == second[name]).all() for name, value in first.items())
