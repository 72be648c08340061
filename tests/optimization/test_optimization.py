"""The optimize command: files in, picture and record out, interrupted without loss, and grids of experiments."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from arbitrary_nst.commands import main
from arbitrary_nst.image import load_image, load_picture, save_image
from arbitrary_nst.nn.features import VGGConfig
from arbitrary_nst.optimization import jobs as optimization
from arbitrary_nst.optimization import loop
from arbitrary_nst.optimization.jobs import expand, parse_option
from arbitrary_nst.optimization.presets import PRESETS, OptimizationConfig
from arbitrary_nst.runtime.weights import WeightsNotFoundError

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ["--content-layers", "relu2_1", "--style-layers", "relu1_1:0.5", "relu1_2:0.5"]


@pytest.fixture
def pictures(tmp_path):
    save_image(torch.rand(1, 3, 24, 36), tmp_path / "photo.png", torch.linspace(0, 1, 36).expand(1, 1, 24, 36))
    save_image(torch.rand(1, 3, 40, 40), tmp_path / "waves.png")
    save_image(torch.rand(1, 3, 40, 40), tmp_path / "dots.png")
    return tmp_path


@pytest.fixture
def optimize(pictures, monkeypatch):
    """The command with random features."""
    monkeypatch.setattr(optimization, "feature_network", lambda config: loop.feature_network(config, pretrained=False))

    def run(*options, content="photo.png", style=("waves.png",), output="out.png", preset="gatys2016"):
        monkeypatch.setattr(optimization, "DEFAULT_PRESET", preset)
        torch.manual_seed(0)
        arguments = ["optimize", "--output", str(pictures / output), "--device", "cpu", "--steps", "3", *LAYERS]
        if content:
            arguments += ["--content", str(pictures / content)]
        if style:
            arguments += ["--style", *(str(pictures / name) for name in style)]
        return main([*arguments, *map(str, options)])

    return run


def test_a_picture_of_the_photos_size_with_its_transparency(optimize, pictures):
    assert optimize() == 0
    result = load_picture(pictures / "out.png")
    assert result.rgb.shape == (1, 3, 24, 36)
    photo = load_picture(pictures / "photo.png")
    assert result.alpha is not None
    assert photo.alpha is not None
    assert torch.equal(result.alpha, photo.alpha)


@pytest.mark.parametrize(("size", "expected"), [([48], (72, 48)), ([30, 20], (30, 20))])
def test_size_is_the_short_side_or_width_and_height(optimize, pictures, size, expected):
    assert optimize("--size", *size) == 0
    assert Image.open(pictures / "out.png").size == expected


def test_large_photos_are_made_512_high_unless_told_otherwise(pictures):
    save_image(torch.rand(1, 3, 600, 900), pictures / "large.png")
    config = optimization.OptimizeConfig(content=pictures / "large.png", output=pictures / "out.png")
    assert optimization.load_material(config).extent == (512, 768)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--grid", "steps=1,2")])
@pytest.mark.parametrize("folder", ["photo", "style"])
def test_results_are_neither_the_photo_nor_paintings_of_the_next_run(optimize, pictures, folder, options):
    for name, place in (("photo.png", "photo"), ("waves.png", "style"), ("dots.png", "style")):
        (pictures / place).mkdir(exist_ok=True)
        (pictures / name).rename(pictures / place / name)
    record = ("--run-dir", pictures / folder / "run")
    for _ in range(2):
        assert optimize(*record, *options, content="photo", style=["style"], output=f"{folder}/out.png") == 0


def test_texture_and_inversion_are_the_same_command(optimize, pictures):
    assert optimize("--size", 40, 20, content=None) == 0
    assert Image.open(pictures / "out.png").size == (40, 20)
    assert optimize(style=()) == 0


def test_record_of_a_run(optimize, pictures):
    folder = pictures / "run"
    assert optimize("--run-dir", folder, "--snapshot-every", 2, "--log-every", 1, "--wandb", "off", "--steps", 4) == 0
    with (folder / "optimize.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    total = float(rows[0]["content"]) + float(rows[0]["gram"])
    assert float(rows[0]["loss"]) == pytest.approx(total, rel=1e-4)
    assert Image.open(folder / "losses.png").size[0] > 100
    snapshots = sorted((folder / "samples").iterdir())
    names = ["result-0000004.png", "snapshots-0000002.png", "snapshots-0000004.png"]
    assert [path.name for path in snapshots] == names
    assert torch.equal(load_image(snapshots[0]), load_image(pictures / "out.png"))
    assert torch.equal(load_image(snapshots[2]), load_image(pictures / "out.png"))
    options = json.loads((folder / "optimize.json").read_text())
    assert options["optimization"]["steps"] == [4]
    assert options["output"] == str(pictures / "out.png")


@pytest.mark.parametrize(("options", "count"), [((), 10), (("--snapshot-every", 0), 0), (("--snapshot-every", 8), 2)])
def test_a_tenth_of_the_steps_is_kept_unless_told_otherwise(optimize, pictures, options, count):
    folder = pictures / "run"
    assert optimize("--run-dir", folder, "--wandb", "off", "--steps", 20, *options) == 0
    assert len(list((folder / "samples").glob("snapshots-*.png"))) == count


@pytest.fixture
def stop_in_third_step(monkeypatch):
    """Do something instead of the third step of an optimization."""

    def install(act):
        step, count = torch.optim.LBFGS.step, []

        def stopped(self, closure):
            count.append(1)
            if len(count) == 3:
                act()
            return step(self, closure)

        monkeypatch.setattr(torch.optim.LBFGS, "step", stopped)

    return install


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_picture_so_far(optimize, pictures, stop_in_third_step, monkeypatch, capsys, number):
    assert optimize("--steps", 2) == 0
    two_steps = load_image(pictures / "out.png")
    save = optimization.save

    def impatiently(*given):
        for again in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), again)  # while the picture is written
        save(*given)

    monkeypatch.setattr(optimization, "save", impatiently)
    stop_in_third_step(lambda: os.kill(os.getpid(), number))
    record = ["--run-dir", pictures / "run", "--wandb", "off"]
    assert optimize("--steps", 9, *record, output="stopped.png") == 128 + number
    assert torch.equal(load_image(pictures / "stopped.png"), two_steps)
    assert torch.equal(load_image(pictures / "run" / "samples" / "result-0000002.png"), two_steps)
    assert "step 2 of 9" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_memory_that_runs_out_saves_the_picture_so_far(optimize, pictures, stop_in_third_step, capsys):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    stop_in_third_step(full)
    assert optimize("--steps", 9) == 1
    assert (pictures / "out.png").is_file()
    assert "--size" in capsys.readouterr().err


def test_a_signal_stops_a_grid_after_saving_what_there_is(optimize, pictures, stop_in_third_step):
    stop_in_third_step(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert optimize("--grid", "gram_weight=1,10,100", "--steps", 2, output="sheet.png") == 128 + signal.SIGTERM
    assert [path.name for path in (pictures / "sheet").iterdir()] == ["gram_weight=1.png"]
    assert (pictures / "sheet.png").is_file()


def test_experiments_of_a_grid_have_records_of_their_own(optimize, pictures):
    record = ["--run-dir", pictures / "run", "--wandb", "off"]
    assert optimize("--grid", "gram_weight=1,10", *record, output="sheet.png") == 0
    for weight in (1, 10):
        folder = pictures / "run" / f"gram_weight={weight}"
        assert json.loads((folder / "optimize.json").read_text())["optimization"]["gram_weight"] == weight
        assert (folder / "optimize.csv").is_file()


@pytest.mark.parametrize("folder", ["file", "file/run", "/dev/null/run"])
def test_a_record_that_cannot_be_written_is_refused_before_pictures_are_read(optimize, pictures, folder, capsys):
    (pictures / "file").write_bytes(b"")
    assert optimize("--run-dir", pictures / folder, content="nowhere.png") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["file/out.png", "folder.png"])
def test_a_result_that_cannot_be_written_is_refused_before_pictures_are_read(optimize, pictures, output, capsys):
    (pictures / "file").write_bytes(b"")
    (pictures / "folder.png").mkdir()
    assert optimize(output=output, content="nowhere.png") == 1
    assert output in capsys.readouterr().err


@pytest.mark.parametrize("place", ["sheet", "sheet/decay=1.png", "run/decay=0.5"])
def test_a_picture_of_a_grid_that_cannot_be_written_is_refused_before_work(optimize, pictures, place, capsys):
    path = pictures / place
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if path.suffix == ".png" else path.touch()
    options = ["--grid", "decay=1,0.5", "--run-dir", pictures / "run", "--wandb", "off"]
    assert optimize(*options, output="sheet.png", content="nowhere.png") == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert "nowhere" not in said


def test_long_labels_of_a_grid_fit_the_disk(optimize, pictures):
    layers = "+".join(f"relu{layer}:0.{'1' * 30}" for layer in ("1_1", "1_2", "2_1"))
    grid = [f"style_layers={layers}", f"content_layers={layers}", "gram_weight=1,10"]
    record = ["--run-dir", pictures / "run", "--wandb", "off"]
    assert optimize("--grid", *grid, *record, "--steps", 1, output="sheet.png") == 0
    pictures_made = sorted(path.stem for path in (pictures / "sheet").iterdir())
    assert len(pictures_made) == 2
    assert all(name.startswith("style_layers=relu1_1") for name in pictures_made)
    assert sorted(path.name for path in (pictures / "run").iterdir()) == pictures_made


@pytest.mark.parametrize("content", ["photos", "photos/*.png"])
def test_several_photos_are_refused_and_one_of_a_folder_is_taken(optimize, pictures, capsys, content, monkeypatch):
    save_image(torch.rand(1, 3, 20, 30), pictures / "photos" / "a.png")
    assert optimize(content=content) == 0
    assert load_image(pictures / "out.png").shape == (1, 3, 20, 30)
    save_image(torch.rand(1, 3, 20, 30), pictures / "photos" / "b.png")
    monkeypatch.setattr(optimization, "feature_network", lambda config: pytest.fail("work has begun"))
    assert optimize(content=content) == 2
    said = capsys.readouterr().err
    assert "--content" in said
    assert "2 photos" in said


def test_a_painting_that_is_named_twice_has_two_weights(optimize, pictures):
    assert optimize("--style-weights", 1, 2, 1, style=("waves.png", "dots.png", "waves.png")) == 0
    thrice = load_image(pictures / "out.png")
    assert optimize("--style-weights", 2, 2, style=("waves.png", "dots.png")) == 0
    assert (thrice - load_image(pictures / "out.png")).abs().max() <= 2 / 255


@pytest.mark.parametrize("output", ["photo.png", "waves.png", "link.png", "sheet/../photo.png"])
def test_a_result_never_replaces_what_is_read(optimize, pictures, output, capsys):
    (pictures / "link.png").symlink_to(pictures / "photo.png")
    (pictures / "sheet").mkdir()
    before = (pictures / output).read_bytes()
    assert optimize(output=output) == 2
    assert (pictures / output).read_bytes() == before


def test_a_result_never_replaces_a_mask(optimize, pictures):
    for name in ("photo_mask.png", "style_mask.png"):
        save_image(torch.ones(1, 3, 8, 8), pictures / name)
    before = (pictures / "photo_mask.png").read_bytes()
    masks = ["--mask", pictures / "photo_mask.png", pictures / "style_mask.png"]
    assert optimize(*masks, output="photo_mask.png", preset="kolkin2022") == 2
    assert (pictures / "photo_mask.png").read_bytes() == before


def test_pictures_of_a_grid_never_replace_what_is_read(optimize, pictures):
    photo = pictures / "sheet" / "decay=1.png"
    photo.parent.mkdir()
    photo.write_bytes((pictures / "photo.png").read_bytes())
    assert optimize("--grid", "decay=1,0.5", content="sheet/decay=1.png", output="sheet.png") == 2


def test_missing_weights_are_noticed_before_pictures_are_read(optimize, monkeypatch, capsys):
    def missing(config):
        raise WeightsNotFoundError("vgg19 is not here")

    monkeypatch.setattr(optimization, "feature_network", missing)
    assert optimize(content="nowhere.png") == 1
    assert "vgg19 is not here" in capsys.readouterr().err


def test_a_grid_makes_every_combination_and_one_sheet(optimize, pictures):
    grid = ["--grid", "gram_weight=0.1,10,1000", "content_layers=relu2_1,relu1_2:0.5+relu1_1"]
    assert optimize(*grid, "--steps", 2, output="sheet.png") == 0
    names = {path.name for path in (pictures / "sheet").iterdir()}
    assert len(names) == 6
    assert "gram_weight=10_content_layers=relu1_2-0.5+relu1_1.png" in names
    width, height = Image.open(pictures / "sheet.png").size
    assert width > 2 * 192
    assert height > 3 * 192


def test_a_diverging_experiment_leaves_its_cell_empty(optimize, pictures, capsys):
    grid = ["--grid", "learning_rate=1,1e30", "--optimizer", "adam", "--pixel-unit", 0.004]
    assert optimize(*grid, output="sheet.png") == 1
    assert "learning_rate=1e30" in capsys.readouterr().err
    assert [path.name for path in (pictures / "sheet").iterdir()] == ["learning_rate=1.png"]
    assert (pictures / "sheet.png").is_file()


def test_grid_values_have_the_type_of_their_option():
    assert parse_option("learning_rate", "1e-3") == 1e-3
    assert parse_option("relative", "true") is True
    assert parse_option("optimizer", "adam") == "adam"
    assert parse_option("total_variation_power", "1") == 1
    assert parse_option("steps", "10+20") == (10, 20)
    assert parse_option("style_layers", "relu1_1:0.5+relu2_1") == {"relu1_1": 0.5, "relu2_1": 1.0}
    assert parse_option("pooling", "average") == "average"
    ((_, config),) = expand(["pooling=average"], PRESETS["torchvision-notebook"])
    assert config == replace(PRESETS["torchvision-notebook"], vgg=VGGConfig("vgg19", "average"))
    labels = [label for label, _ in expand(["decay=0.5,1", "history=5,10"], OptimizationConfig())]
    assert labels == ["decay=0.5, history=5", "decay=0.5, history=10", "decay=1, history=5", "decay=1, history=10"]


@pytest.mark.parametrize(
    "axis", ["decay=fast", "nonsense=1", "vgg=vgg19", "network=vgg11", "decay=", "optimizer=sgd", "relative=perhaps"]
)
def test_grids_of_nonsense_are_refused(axis):
    with pytest.raises(ValueError, match="--grid"):
        expand([axis], OptimizationConfig())


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--size", 1, 2, 3], "--size"),
        (["--style-scale", 0], "--style-scale"),
        (["--snapshot-every", 5], "--run-dir"),
        (["--style-weights", 1, 2], "styles need"),
        (["--size", 10], "too small"),
        (["--learning-rate", -1], "--learning-rate"),
    ],
)
def test_contradictory_options_exit_with_2(optimize, options, flag, capsys):
    assert optimize(*options) == 2
    assert flag in capsys.readouterr().err


def test_missing_and_broken_files_are_named(optimize, pictures, capsys):
    assert optimize(content="nowhere.png") == 1
    assert "nowhere.png" in capsys.readouterr().err
    (pictures / "broken.png").write_bytes(b"no picture")
    assert optimize(style=("broken.png",)) == 1
    assert "broken.png" in capsys.readouterr().err
    assert not (pictures / "out.png").exists()


@pytest.mark.slow
def test_a_preset_sets_the_defaults_and_options_change_it():
    code = """
from arbitrary_nst.commands import main, optimize
own = lambda config: config.optimization
optimize.optimize_files = lambda c: print(c.preset, own(c).optimizer, own(c).decay, own(c).scales) or 0
raise SystemExit(main(["optimize", "--output", "out.png", "--preset", "d2l", "--decay", "0.25"]))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.split("\n")[0] == f"d2l adam 0.25 {PRESETS['d2l'].scales}"
    without_output = code.replace('"--output", "out.png", ', "")
    refused = subprocess.run([sys.executable, "-c", without_output], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "output" in refused.stderr


def test_an_unknown_preset_is_refused(optimize, capsys):
    assert optimize("--preset", "nonsense") == 2
    assert "gatys2016" in capsys.readouterr().err


def test_the_default_compares_places(optimize, pictures):
    assert optimization.OptimizeConfig(output=pictures / "out.png").optimization == PRESETS["kolkin2022"]
    assert optimize(preset="kolkin2022") == 0
    result = load_image(pictures / "out.png")
    assert result.shape == (1, 3, 24, 36)
    assert (result - load_image(pictures / "photo.png")).abs().max() > 0.01


def test_masks_say_which_region_takes_its_style_from_which(optimize, pictures):
    """The painting is dark on the left and light on the right; the masks exchange the sides."""
    sides = torch.where(torch.arange(40) < 20, 0.1, 0.9).expand(1, 3, 40, 40)
    save_image(sides, pictures / "sides.png")
    save_image((sides > 0.5).float(), pictures / "style_mask.png")
    save_image((sides < 0.5).float(), pictures / "photo_mask.jpg")
    masks = ["--mask", pictures / "photo_mask.jpg", pictures / "style_mask.png"]
    options = ["--palette-weight", 10, "--steps", 60, "--no-split", "--learning-rate", 0.02, *masks]
    assert optimize(*options, style=("sides.png",), preset="kolkin2022") == 0
    result = load_image(pictures / "out.png")
    assert result[..., :16].mean() > result[..., 20:].mean() + 0.2


@pytest.mark.parametrize(
    ("masks", "preset", "message"),
    [
        (["waves.png"], "kolkin2022", "2 in all"),
        (["waves.png", "waves.png"], "gatys2016", "--preset"),
        (["white.png", "black.png"], "kolkin2022", "white"),
        (["white.png", "nowhere.png"], "kolkin2022", "nowhere.png"),
    ],
)
def test_masks_that_do_not_fit_are_refused(optimize, pictures, capsys, masks, preset, message):
    save_image(torch.ones(1, 3, 8, 8), pictures / "white.png")
    save_image(torch.zeros(1, 3, 8, 8), pictures / "black.png")
    assert optimize("--mask", *(pictures / name for name in masks), preset=preset) != 0
    assert message in capsys.readouterr().err
