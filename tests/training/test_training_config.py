"""Options of a run: presets, files of options, contradictions, and the objective that they make."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import tyro

from arbitrary_nst.commands import chosen_default, main, read_options
from arbitrary_nst.errors import OutputError
from arbitrary_nst.models import FIXED_STYLES, MODELS
from arbitrary_nst.models.adain import ENCODER
from arbitrary_nst.models.serialization import ModelFileError, load_model
from arbitrary_nst.runtime.weights import WeightsNotFoundError
from arbitrary_nst.training import PRESETS, CheckpointError, TrainConfig, fit
from arbitrary_nst.training.checkpoints import Checkpoints, TrainingState
from arbitrary_nst.training.config import build_objective, save_config
from arbitrary_nst.training.objectives import AdaINObjective, OctavesObjective, PredictionObjective, RelativeObjective
from runs import make_pictures, sketch_run, sketches, tiny_run, without_downloads


@pytest.fixture
def config(tmp_path):
    return tiny_run(tmp_path)


def test_contradictory_options_are_refused_by_their_names(config):
    for change, message in (
        ({"model": "mona"}, "--model mona"),
        ({"crop_size": 100}, "--crop-size 100"),
        ({"steps": 0}, "--steps 0"),
        ({"validation_pairs": 0}, "--validation-pairs 0"),
        ({"minutes": 0.0}, "--minutes 0"),
        ({"max_grad_ratio": 1.0}, "--max-grad-ratio 1"),
        ({"preset": "gatys"}, "--preset gatys: choose one of johnson2016, "),
        ({"add_styles": True, "init": config.run_dir}, "--add-styles: needs --model multi-style"),
        ({"add_styles": True, "model": "multi-style"}, "--add-styles: needs .* --init"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **change)
    with pytest.raises(ValueError, match="--objective octaves: paper paints no octaves"):
        build_objective(replace(config, model="paper", objective="octaves"))
    with pytest.raises(ValueError, match="--objective adain: light decodes no features"):
        build_objective(replace(config, objective="adain"))
    with pytest.raises(ValueError, match="--loss-weights tv_weight"):
        build_objective(replace(config, loss_weights={"tv_weight": 1.0}))
    assert asdict(build_objective(replace(config, loss_weights={"moment_weight": 7.0})))["moment_weight"] == 7.0


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("light", OctavesObjective()),
        ("paper", PredictionObjective()),
        ("adain", AdaINObjective()),
        ("adain-vgg19", AdaINObjective(vgg=replace(ENCODER, network="vgg19"))),
        ("single-style", RelativeObjective()),
        ("multi-style", RelativeObjective()),
        ("normalization-network", OctavesObjective()),
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


@pytest.mark.parametrize("beside", [[], ["--preset", "light"]])
def test_weights_on_the_command_line_stand_beside_those_of_a_preset(beside, monkeypatch, tmp_path):
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    given = []
    monkeypatch.setattr("arbitrary_nst.commands.train.fit", lambda config: given.append(config) or tmp_path)
    words = ["--content-data", "a", "--style-data", "b", "--run-dir", "c", *beside]
    assert main(["train", *words, "--loss-weights", "content_weight", "4", "style_weight", "0.5"]) == 0
    preset = PRESETS["light"]["loss_weights"] if beside else {}
    assert given[0].loss_weights == preset | {"content_weight": 4.0, "style_weight": 0.5}


@pytest.mark.parametrize("words", [["content_weight"], ["content_weight", "high"]])
def test_weights_need_numbers(words, capsys):
    given = ["--content-data", "a", "--style-data", "b", "--run-dir", "c"]
    assert main(["train", *given, "--loss-weights", *words]) == 2
    assert words[-1] in capsys.readouterr().err


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
    run = replace(config, loss_weights={"moment_weight": 2.0}, minutes=1.5, resume=True, compile=True)
    save_config(run, tmp_path / "saved" / "config.json")
    arguments = ["--config", str(tmp_path / "saved" / "config.json"), "--steps", "7", "--init", "some.safetensors"]
    taken = tyro.cli(TrainConfig, args=arguments, default=chosen_default(TrainConfig, PRESETS, arguments))
    expected = asdict(run) | {"steps": 7, "resume": False, "config": taken.config, "init": taken.init}
    assert asdict(taken) == expected
    assert str(taken.init) == "some.safetensors"
    preset = chosen_default(TrainConfig, PRESETS, [*arguments, "--preset", "huang2017"])
    assert (preset.model, preset.crop_size, preset.run_dir) == ("adain-vgg19", 256, run.run_dir)


def test_options_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "config.json").write_text('{"explosion": 9.0, "steps": 3}')
    assert read_options(TrainConfig, tmp_path / "config.json") == {"max_grad_ratio": 9.0, "steps": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a JSON file of options"),
        ('{"stepz": 3}', "there is no option 'stepz'; did you mean steps?"),
        ('{"steps": "many"}', "steps: Input should be a valid integer"),
        ('{"augmentation": {"hues": 1}}', "augmentation has no hues"),
        ('{"crop_size": 100}', "--crop-size 100: must be a multiple of 8"),
        ("[" * 100_000, "not a JSON file of options"),
        (" " * (1 << 20) + "{}", "not a JSON file of options"),
        ('{"allow_pipe": true}', "allow_pipe"),
    ],
)
def test_a_wrong_file_of_options_is_refused_by_its_name(tmp_path, monkeypatch, capsys, text, said):
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    path = tmp_path / "options.json"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_device_file_that_never_ends_is_refused(capsys):
    assert main(["train", "--config", "/dev/zero"]) == 2
    assert "/dev/zero" in capsys.readouterr().err


# Commands in a file of options


@pytest.mark.parametrize(
    "path", ["pipe:touch it", "http://host/{0..1}.tar::pipe:touch it", "http://host/0.tar::p{i,i}pe:touch it"]
)
@pytest.mark.parametrize("option", ["content_data", "style_data"])
def test_commands_of_a_file_are_refused_unless_they_are_allowed(config, tmp_path, monkeypatch, capsys, option, path):
    pytest.importorskip("webdataset")
    taken = taken_configurations(monkeypatch)
    file = tmp_path / "config.json"
    data = {"content_data": ["a.tar"], "style_data": ["b.tar"], option: [path]}
    file.write_text(json.dumps(data | {"run_dir": str(tmp_path)}))
    for command in (["--config", str(file)], ["--resume", "--run-dir", str(tmp_path)]):
        assert main(["train", *command]) == 2
        said = capsys.readouterr().err
        assert "--allow-pipe" in said
        assert f"--{option.replace('_', '-')}" in said
        assert main(["train", *command, "--allow-pipe"]) == 0
        assert getattr(taken.pop(), option) == (path,)
        assert main(["train", *command, f"--{option.replace('_', '-')}", "c.tar"]) == 0
        assert getattr(taken.pop(), option) == ("c.tar",)


def test_commands_of_the_command_line_are_run(tmp_path, monkeypatch):
    taken = taken_configurations(monkeypatch)
    data = ["--content-data", "pipe:cat a.tar", "--style-data", "pipe:cat b.tar"]
    assert main(["train", *data, "--run-dir", str(tmp_path)]) == 0
    assert taken[0].content_data == ("pipe:cat a.tar",)


def taken_configurations(monkeypatch):
    """What the command is called with, in place of a training."""
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    taken = []
    monkeypatch.setattr("arbitrary_nst.commands.train.train", lambda config: taken.append(config) or 0)
    return taken


# Runs that go on


def test_a_resumed_run_has_its_own_options_and_those_of_the_command_line(config, tmp_path, monkeypatch):
    taken = taken_configurations(monkeypatch)
    before = replace(config, steps=77, batch_size=3, run_dir=tmp_path / "elsewhere")
    save_config(before, tmp_path / "run" / "config.json")
    resume = ["--resume", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *resume, "--batch-size", "5"]) == 0
    expected = replace(config, steps=77, batch_size=5, resume=True, run_dir=tmp_path / "run")
    assert asdict(taken.pop()) == asdict(expected)
    (tmp_path / "file.json").write_text(json.dumps({"steps": 88, "run_dir": str(tmp_path / "run")}))
    assert main(["train", "--config", str(tmp_path / "file.json"), "--resume"]) == 0
    assert (taken[0].steps, taken[0].batch_size, taken[0].run_dir) == (88, 3, tmp_path / "run")


def test_a_resumed_run_says_what_has_changed_and_goes_on_with_it(config, tmp_path, monkeypatch, capsys):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    run = sketch_run(tmp_path, steps=2, save_every=2, precision="float16")
    fit(run)
    capsys.readouterr()
    fit(replace(run, steps=4, precision="float32", backbone_rate=0.5, resume=True))
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if " is now " in line] == [
        "--steps",
        "--backbone-rate",
        "--precision",
    ]
    assert "--steps is now 4, was 2" in said
    assert json.loads((run.run_dir / "config.json").read_text())["steps"] == 4


def test_a_run_is_not_resumed_with_another_model_and_nothing_is_decoded_before(config, tmp_path, monkeypatch):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    run = sketch_run(tmp_path, steps=2)
    fit(run)
    monkeypatch.setattr("arbitrary_nst.training.run.opened", None)
    with pytest.raises(ValueError, match=r"--model light: .*config\.json is of a run that trains sketch"):
        fit(replace(run, model="light", resume=True))


def test_a_checkpoint_of_other_options_is_refused_in_a_line(tmp_path):
    one, two = (
        TrainingState(net, net, torch.optim.Adam(net.parameters()))
        for net in (torch.nn.Linear(width, 1) for width in (1, 2))
    )
    files = Checkpoints(tmp_path, 1)
    files.save(one)
    with pytest.raises(CheckpointError, match=r"checkpoint-0000000\.pt: does not fit the options .*config\.json"):
        files.load(two, torch.device("cpu"))


@pytest.mark.parametrize("folder", ["file", "file/run", "/dev/null/run"])
def test_a_run_folder_that_cannot_be_written_to_is_refused_before_pictures_are_read(tmp_path, monkeypatch, folder):
    sketches(monkeypatch)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"config\.json: .*cannot be written"):
        fit(sketch_run(tmp_path, run_dir=tmp_path / folder))


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_a_bad_init_is_noticed_before_pictures_are_read(config, tmp_path, monkeypatch, content):
    without_downloads(monkeypatch)
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\.safetensors"):
        fit(replace(config, init=path))


def test_missing_weights_are_noticed_before_pictures_are_read(config, monkeypatch):
    def missing(*given):
        raise WeightsNotFoundError("vgg16 is not here")

    for name in ("loss_network", "feature_network"):
        without_downloads(monkeypatch)
        monkeypatch.setattr(f"arbitrary_nst.training.run.{name}", missing)
        with pytest.raises(WeightsNotFoundError):
            fit(config)


def test_a_run_from_the_configuration_of_another_is_the_same_run(tmp_path, monkeypatch, capsys):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    monkeypatch.setattr(TrainConfig, "__init__", getattr(TrainConfig.__init__, "__wrapped__", TrainConfig.__init__))
    first = load_model(fit(sketch_run(tmp_path, steps=2, precision="auto"))).state_dict()
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["precision"] in ("float32", "bfloat16")
    assert saved["objective"] == "relative"
    assert saved["loss_weights"]["moment_weight"] == 14.0
    assert json.dumps(saved, indent=2) in capsys.readouterr().out
    again = ["--config", str(tmp_path / "run" / "config.json"), "--run-dir", str(tmp_path / "again")]
    assert main(["train", *again]) == 0
    second = load_model(tmp_path / "again" / "model.safetensors").state_dict()
    assert all((value == second[name]).all() for name, value in first.items())
