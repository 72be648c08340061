"""The command line: every photo in every style, exact names, sizes and exit codes, one clear line for each failure."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from arbitrary_nst.commands import COMMANDS, main
from arbitrary_nst.image import load_image, load_picture
from arbitrary_nst.models import multi_style
from arbitrary_nst.models.serialization import model_file as source_file
from arbitrary_nst.models.serialization import save_model
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

ROOT = Path(__file__).resolve().parents[2]


def test_every_photo_is_made_in_every_style_at_its_own_size(stylize, pictures):
    assert stylize() == 0
    assert {path.relative_to(pictures / "out").as_posix() for path in (pictures / "out").rglob("*.*")} == {
        "lake_stylized_dots-png.png",
        "lake_stylized_waves-png.png",
        "deep/logo-png_stylized_dots-png.png",
        "deep/logo-png_stylized_waves-png.png",
    }
    assert Image.open(pictures / "out" / "lake_stylized_dots-png.png").size == (34, 21)


def test_transparency_is_rejoined(stylize, pictures):
    stylize()
    before = load_picture(pictures / "content" / "deep" / "logo.png")
    after = load_picture(pictures / "out" / "deep" / "logo-png_stylized_dots-png.png")
    assert before.alpha is not None
    assert after.alpha is not None
    assert torch.equal(before.alpha, after.alpha)
    assert load_picture(pictures / "out" / "lake_stylized_dots-png.png").alpha is None


def test_the_command_line_and_the_python_api_agree(stylize, pictures, model_file):
    stylize("--alpha", "0.5")
    stylizer = Stylizer.from_pretrained(model_file, "cpu")
    code = stylizer.encode_style(load_image(pictures / "style" / "dots.png"))
    expected = stylizer(load_image(pictures / "content" / "lake.jpg"), code, alpha=0.5)
    written = load_image(pictures / "out" / "lake_stylized_dots-png.png")
    assert (written - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_styles_blend_into_one(stylize, pictures, model_file):
    assert stylize("--style-weights", "3", "1", content=pictures / "content" / "lake.jpg") == 0
    (path,) = (pictures / "out").iterdir()
    assert path.name == "lake_stylized_dots-png+waves-png.png"
    stylizer = Stylizer.from_pretrained(model_file, "cpu")
    codes = [stylizer.encode_style(load_image(pictures / "style" / f"{name}.png")) for name in ("dots", "waves")]
    expected = stylizer(load_image(pictures / "content" / "lake.jpg"), blend_codes(codes, [0.75, 0.25]))
    assert (load_image(path) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_one_photo_in_one_style_may_go_to_a_file_of_any_format(stylize, pictures):
    target = pictures / "new" / "result.webp"
    assert stylize(content=pictures / "content" / "lake.jpg", style=pictures / "style" / "dots.png", output=target) == 0
    assert Image.open(target).format == "WEBP"


@pytest.mark.parametrize("suffix", [".avif", ".HEIC", ".xyz", ".mp4"])
def test_a_file_that_cannot_be_written_does_not_become_a_folder(stylize, pictures, capsys, suffix):
    output = pictures / f"result{suffix}"
    assert stylize(output=output) == 2
    assert f"--output {output}" in capsys.readouterr().err
    assert not output.exists()
    output.mkdir()
    assert stylize(content=pictures / "content" / "lake.jpg", output=output) == 0
    assert len(list(output.iterdir())) == 2


def test_several_results_do_not_go_to_one_file(stylize, pictures, capsys):
    assert stylize(output=pictures / "out.png") == 2
    assert "--output" in capsys.readouterr().err
    assert not (pictures / "out.png").exists()


def test_the_content_size_is_the_short_side(stylize, pictures):
    stylize("--content-size", "42")
    assert Image.open(pictures / "out" / "lake_stylized_dots-png.png").size == (68, 42)
    logo = load_picture(pictures / "out" / "deep" / "logo-png_stylized_dots-png.png")
    assert logo.rgb.shape == (1, 3, 42, 60)
    assert logo.alpha is not None
    assert logo.alpha.shape == (1, 1, 42, 60)


def test_bad_files_are_named_and_the_others_still_done(stylize, pictures, capsys):
    (pictures / "content" / "broken.png").write_bytes(b"no picture")
    (pictures / "style" / "empty.jpg").touch()
    assert stylize() == 1
    errors = capsys.readouterr().err
    assert "broken.png" in errors
    assert "empty.jpg" in errors
    assert len(list((pictures / "out").rglob("*.png"))) == 4


def test_a_blend_that_lacks_a_painting_is_not_made(stylize, pictures):
    (pictures / "style" / "empty.jpg").touch()
    assert stylize("--style-weights", "1", "1", "1") == 1
    assert not (pictures / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "1.5"], "--alpha 1.5"),
        (["--alpha", "nan"], "--alpha nan"),
        (["--content-size", "0"], "--content-size 0"),
        (["--style-size", "-3"], "--style-size -3"),
        (["--max-pixels", "-1"], "--max-pixels -1"),
        (["--style-scale", "5"], "--style-scale 5"),
        (["--quality", "0"], "--quality 0"),
        (["--tile", "3"], "--tile 3"),
    ],
)
def test_options_out_of_range_are_refused_by_name(stylize, options, message, capsys):
    assert stylize(*options) == 2
    assert message in capsys.readouterr().err


def test_wrong_weights_are_refused_before_any_work(stylize, capsys):
    assert stylize("--style-weights", "1") == 2
    assert "2 styles need as many weights, not 1" in capsys.readouterr().err


def test_the_pixel_limit_refuses_and_can_be_raised(stylize, pictures, capsys):
    assert stylize("--max-pixels", "600", content=pictures / "content" / "lake.jpg") == 1
    assert "--max-pixels" in capsys.readouterr().err
    assert stylize("--max-pixels", "0", content=pictures / "content" / "lake.jpg") == 0


def test_a_path_that_leads_nowhere_is_one_line(stylize, pictures, capsys):
    assert stylize(content=pictures / "nowhere") == 1
    errors = capsys.readouterr().err.strip()
    assert "nowhere" in errors
    assert "\n" not in errors


def test_unknown_model_lists_those_that_ship(pictures, capsys):
    arguments = ["--content", str(pictures), "--style", str(pictures), "--output", str(pictures / "out")]
    assert main(["stylize", *arguments, "--model", "mona"]) == 1
    assert "mona" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_the_folder_of_a_run_stands_for_its_model(pictures, model_file, backend):
    run_dir = pictures / "runs" / "light"
    run_dir.mkdir(parents=True)
    (run_dir / "model.safetensors").write_bytes(model_file.read_bytes())
    options = {"--content": "content/lake.jpg", "--style": "style/dots.png", "--output": "out.png"}
    paths = [str(word) for option, path in options.items() for word in (option, pictures / path)]
    assert main(["stylize", *paths, "--model", str(run_dir), "--device", "cpu", "--backend", backend]) == 0
    written = load_image(pictures / "out.png")
    assert main(["stylize", *paths, "--model", str(model_file), "--device", "cpu"]) == 0
    assert torch.equal(load_image(pictures / "out.png"), written)


def test_a_folder_without_a_model_says_what_is_missing(pictures, stylize, capsys):
    assert stylize("--model", str(pictures / "content")) == 1
    errors = capsys.readouterr().err
    assert "model.safetensors" in errors
    assert "stylizer.onnx" in errors


@pytest.mark.parametrize(
    "metadata",
    [
        {"options": "[]"},
        {"options": '{"styles": 5}'},
        {"options": '{"styles": [1, 2]}'},
        {"card": "[]"},
        {"card": "null"},
        {"card": "[" * 100_000},
    ],
)
def test_a_model_file_with_a_damaged_header_is_one_line(pictures, stylize, model_file, capsys, metadata):
    path = pictures / "damaged.safetensors"
    save_file(load_file(str(model_file)), str(path), {"model": "light", **metadata})
    assert stylize("--model", str(path)) == 1
    errors = capsys.readouterr().err.strip()
    assert "damaged.safetensors" in errors
    assert len(errors.splitlines()) == 1


def test_a_folder_named_as_a_shipped_model_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "light").mkdir()
    assert source_file("light").suffix == ".safetensors"


# Models that know only their own styles


@pytest.fixture(scope="module")
def fixed_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fixed") / "fixed.safetensors"
    model = multi_style(["wave", "ink v1.2"])
    with torch.no_grad():
        model.table[1].uniform_(-1, 1)
    save_model(model, "multi-style", path)
    return path


@pytest.fixture
def stylize_fixed(pictures, fixed_file):
    def run(*options):
        paths = ["--content", str(pictures / "content" / "lake.jpg"), "--output", str(pictures / "out")]
        return main(["stylize", *paths, "--model", str(fixed_file), "--device", "cpu", *options])

    return run


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["ink v1.2", "wave"]),
        (["--style", "ink v1.2"], ["ink v1.2"]),
        (["--style", "wave", "ink v1.2", "--style-weights", "1", "3"], ["wave+ink v1.2"]),
    ],
)
def test_own_styles_are_named_and_without_names_all_of_them(stylize_fixed, pictures, fixed_file, options, names):
    assert stylize_fixed(*options) == 0
    files = sorted((pictures / "out").iterdir())
    assert [file.name for file in files] == [f"lake_stylized_{name}.png" for name in names]
    stylizer = Stylizer.from_pretrained(fixed_file, "cpu")
    blended = blend_codes([stylizer.style_code(name) for name in ("wave", "ink v1.2")], [1, 3])
    code = blended if "+" in names[0] else stylizer.style_code(names[0])
    expected = stylizer(load_image(pictures / "content" / "lake.jpg"), code)
    assert (load_image(files[0]) - expected).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--style", "oil"], "--style oil: this model knows only its own styles: wave, ink v1.2"),
        (["--alpha", "0.5"], "--alpha 0.5: a model that knows only its own styles"),
        (["--style-weights", "1"], "2 styles need as many weights, not 1"),
    ],
)
def test_what_own_styles_cannot_do_is_refused_before_any_work(stylize_fixed, pictures, capsys, options, message):
    assert stylize_fixed(*options) == 2
    assert message in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_missing_painting_is_refused(pictures, model_file, capsys):
    paths = ["--content", str(pictures / "content"), "--output", str(pictures / "out")]
    assert main(["stylize", *paths, "--model", str(model_file)]) == 2
    assert "--style: name at least one painting" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("name", ["\U0001f3a8 caf\u00e9", os.fsdecode(b"bytes_\xff")])
def test_names_that_the_terminal_cannot_show_end_no_work(pictures, model_file, monkeypatch, encoding, name):
    painting = pictures / f"{name}.png"
    try:
        (pictures / "style" / "dots.png").rename(painting)
    except OSError:
        pytest.skip("no such name on this disk")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    model = ["--model", str(model_file), "--device", "cpu"]
    styles, out = str(pictures / "styles"), pictures / name
    assert main(["style", "save", str(painting), "--output", styles, *model]) == 0
    assert main(["style", "list", styles]) == 0
    content = ["--content", str(painting), str(pictures / "style")]
    assert main(["stylize", *content, "--style", str(painting), styles, "--output", str(out), *model]) == 0
    assert len(list(out.iterdir())) == 4


def test_usage_lists_the_commands_and_an_unknown_one_exits_with_2(capsys):
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in COMMANDS)
    assert main(["stilize"]) == 2
    assert "stilize" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", [["infer.py"], ["train.py"], ["-m", "arbitrary_nst", "stylize"]])
def test_scripts_explain_themselves_and_refuse_missing_options(command):
    helped = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert helped.returncode == 0
    assert "usage:" in helped.stdout
    refused = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
