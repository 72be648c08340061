"""The optimize command: files in, picture and record out, interrupted without loss, and grids of experiments."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from arbitrary_nst import gatys, optimization
from arbitrary_nst.cli import main
from arbitrary_nst.image import load_image, load_picture, save_image
from arbitrary_nst.optimization import expand, parse_option
from arbitrary_nst.recipes import PRESETS, Recipe

ROOT = Path(__file__).resolve().parents[1]
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
    monkeypatch.setattr(optimization, "feature_network", lambda recipe: gatys.feature_network(recipe, pretrained=False))

    def run(*options, content="photo.png", style=("waves.png",), output="out.png"):
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
    assert [path.name for path in snapshots] == ["snapshots-0000002.png", "snapshots-0000004.png"]
    assert torch.equal(load_image(snapshots[1]), load_image(pictures / "out.png"))


def test_interrupting_saves_the_picture_so_far(optimize, pictures, monkeypatch, capsys):
    assert optimize("--steps", 2) == 0
    two_steps = load_image(pictures / "out.png")
    step, count = torch.optim.LBFGS.step, []

    def interrupted(self, closure):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return step(self, closure)

    monkeypatch.setattr(torch.optim.LBFGS, "step", interrupted)
    assert optimize("--steps", 9, output="stopped.png") == 130
    assert torch.equal(load_image(pictures / "stopped.png"), two_steps)
    assert "step 2 of 9" in capsys.readouterr().out


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
    labels = [label for label, _ in expand(["decay=0.5,1", "history=5,10"], Recipe())]
    assert labels == ["decay=0.5, history=5", "decay=0.5, history=10", "decay=1, history=5", "decay=1, history=10"]


@pytest.mark.parametrize("axis", ["decay=fast", "nonsense=1", "decay=", "optimizer=sgd", "relative=perhaps"])
def test_grids_of_nonsense_are_refused(axis):
    with pytest.raises(ValueError, match="--grid"):
        expand([axis], Recipe())


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


def test_a_preset_sets_the_defaults_and_options_change_it():
    code = """
from arbitrary_nst import cli, optimization
optimization.optimize_files = lambda c: print(c.preset, c.recipe.optimizer, c.recipe.decay, c.recipe.scales) or 0
raise SystemExit(cli.main(["optimize", "--output", "out.png", "--preset", "d2l", "--decay", "0.25"]))
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
