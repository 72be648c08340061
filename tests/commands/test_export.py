"""ONNX: what is exported computes what the model computes, at sizes that it was not exported at."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from arbitrary_nst.commands import export as exporting
from arbitrary_nst.commands import main
from arbitrary_nst.commands.export import TOLERANCE, ExportConfig, ExportMismatch, export
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.models.fixed_styles import multi_style
from arbitrary_nst.models.light import TOKENS, VIEW_SIZE, CoarseToFine, LightTransformer
from arbitrary_nst.models.onnx import STYLE_ENCODER, STYLIZER, OnnxModel, open_session
from arbitrary_nst.models.serialization import ModelFileError, ModelIdentity, model_identity, save_model
from arbitrary_nst.models.style_prediction import StyleNetwork
from arbitrary_nst.stylization.stylizer import Stylizer

pytestmark = pytest.mark.slow  # its files take seconds to export

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CoarseToFine(
            StyleNetwork(tokens=TOKENS), LightTransformer(quarter=8, eighth=8, half=4, deep=1, fine=1)
        ).eval()
        torch.nn.init.normal_(model.affine.weight, std=0.3)  # styles that differ
        return model


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    """A small model's files, in every precision, calibrated on two pictures."""
    folder = tmp_path_factory.mktemp("exported")
    for name in "ab":
        save_image(torch.rand(1, 3, 96, 110), folder / "pictures" / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "load_model", lambda source: small_model)
        assert export(ExportConfig(output=folder, float16=True, int8=(folder / "pictures",), calibration_size=96)) == 0
    return folder


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (3, 40, 17), (2, 131, 64), (1, 64, 200)])
def test_pictures_agree_at_any_batch_and_size(folder, small_model, batch, height, width):
    ours, theirs = small_model, OnnxModel(folder)
    content, painting = torch.rand(batch, 3, height, width), torch.rand(batch, 3, 80 + height, 80 + width)
    with torch.inference_mode():
        code = ours.encode_style(painting)
        torch.testing.assert_close(theirs.encode_style(painting), code, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(theirs(content, code), ours(content, code), atol=TOLERANCE, rtol=0)
        assert theirs(content, code).shape == content.shape
        torch.testing.assert_close(theirs(content, code[:1]), ours(content, code[:1]), atol=TOLERANCE, rtol=0)


def test_the_stylizer_takes_it_for_a_model(folder, small_model):
    photo, painting = torch.rand(1, 3, 50, 61), torch.rand(1, 3, 90, 100)
    pictures = []
    for model in (small_model, OnnxModel(folder)):
        stylizer = Stylizer(model, "cpu", "float32")
        pictures.append(stylizer(photo, stylizer.encode_style(painting)))
    torch.testing.assert_close(*pictures, atol=TOLERANCE, rtol=0)


def test_the_command_line_runs_it(folder, small_model, tmp_path, capsys):
    save_image(torch.rand(1, 3, 12, 61), tmp_path / "photo.png")  # smaller than the network wants it
    save_image(torch.rand(1, 3, 60, 100), tmp_path / "painting.png")
    paths = ["--content", str(tmp_path / "photo.png"), "--style", str(tmp_path / "painting.png")]
    command = ["stylize", *paths, "--output", str(tmp_path / "out.png"), "--backend", "onnx"]
    assert main([*command, "--model", str(folder)]) == 0
    stylizer = Stylizer(small_model, "cpu", "float32")
    expected = stylizer(
        load_image(tmp_path / "photo.png"), stylizer.encode_style(load_image(tmp_path / "painting.png"))
    )
    assert (load_image(tmp_path / "out.png") - expected).abs().max() < 1.5 / 255 + TOLERANCE
    assert main(command) == 2
    assert "export" in capsys.readouterr().err


def test_a_style_file_knows_the_exported_model_as_its_own(folder):
    assert model_identity(folder) == model_identity("light")


@pytest.mark.parametrize("name", ["stylizer_float16.onnx", "stylizer_int8.onnx"])
def test_a_lower_precision_is_chosen_by_its_file(folder, tmp_path, name):
    save_image(torch.rand(1, 3, 40, 61), tmp_path / "photo.png")
    save_image(torch.rand(1, 3, 90, 100), tmp_path / "painting.png")
    paths = ["--content", str(tmp_path / "photo.png"), "--style", str(tmp_path / "painting.png")]
    command = ["stylize", *paths, "--output", str(tmp_path / "out.png"), "--backend", "onnx"]
    assert main([*command, "--model", str(folder / name)]) == 0
    stylizer = Stylizer(OnnxModel(folder / name), "cpu", "float32")
    painting = load_image(tmp_path / "painting.png")
    expected = stylizer(load_image(tmp_path / "photo.png"), stylizer.encode_style(painting))
    assert (load_image(tmp_path / "out.png") - expected).abs().max() < 1.5 / 255
    assert model_identity(folder / name) == model_identity(folder)


def test_stylizers_of_another_model_are_removed(folder, tmp_path):
    for file in folder.glob("*.onnx"):
        shutil.copy(file, tmp_path)
    exporting.remove_other_models(tmp_path, model_identity("light"))
    assert len(list(tmp_path.glob("*.onnx"))) == 4
    exporting.remove_other_models(tmp_path, ModelIdentity("light", "0" * 64))
    assert sorted(file.name for file in tmp_path.glob("*.onnx")) == [STYLE_ENCODER, STYLIZER]


def with_metadata(source, target, change):
    import onnx

    model = onnx.load(source)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "arbitrary_nst"]
    entry.value = change(entry.value)
    onnx.save(model, target)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "no JSON", '{"model": 1}', '"light"', "[" * 100_000])
def test_damaged_metadata_is_one_line(folder, pictures, capsys, text):
    shutil.copy(folder / STYLE_ENCODER, pictures)
    with_metadata(folder / STYLIZER, pictures / STYLIZER, lambda _: text)
    paths = ["--content", str(pictures / "content"), "--style", str(pictures / "style")]
    assert main(["stylize", *paths, "--output", str(pictures / "out"), "--model", str(pictures)]) == 1
    errors = capsys.readouterr().err.strip()
    assert str(pictures / STYLIZER) in errors
    assert len(errors.splitlines()) == 1


def test_files_of_different_models_are_not_mixed(folder, tmp_path):
    shutil.copy(folder / STYLE_ENCODER, tmp_path)
    other = {"identity": ["light", "0" * 64]}
    with_metadata(folder / STYLIZER, tmp_path / STYLIZER, lambda text: json.dumps(json.loads(text) | other))
    with pytest.raises(ModelFileError, match=STYLE_ENCODER):
        OnnxModel(tmp_path)
    shutil.copy(folder / STYLE_ENCODER, tmp_path / STYLIZER)
    with pytest.raises(ModelFileError, match="content"):
        OnnxModel(tmp_path)


def test_an_output_that_is_a_file_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load_model", lambda source: pytest.fail("work has begun"))
    (tmp_path / "file").touch()
    assert main(["export", "--output", str(tmp_path / "file")]) == 2
    assert main(["export", "--output", str(tmp_path / "file" / "below")]) == 2
    assert main(["export", "--output", str(tmp_path / "light.onnx")]) == 2


@pytest.mark.parametrize("option", ["model", "int8"])
def test_what_is_read_is_not_written_over(tmp_path, monkeypatch, option, pictures, capsys):
    monkeypatch.setattr(exporting, "load_model", lambda source: pytest.fail("work has begun"))
    read = tmp_path / STYLIZER
    (pictures / "style" / "dots.png").rename(read)
    assert main(["export", "--output", str(tmp_path), f"--{option}", str(read)]) == 2
    assert str(read) in capsys.readouterr().err


def test_a_full_disk_is_one_line(tmp_path, small_model, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "load_model", lambda source: small_model)
    monkeypatch.setattr(exporting, "write_graphs", full)
    assert main(["export", "--output", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err.strip()
    assert "disk is full" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_every_step_is_printed_as_it_begins(tmp_path, small_model, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "load_model", lambda source: small_model)
    monkeypatch.setattr(exporting, "write_graph", lambda *arguments: None)
    monkeypatch.setattr(exporting, "check", lambda model, folder: {STYLIZER: 0.5})
    assert main(["export", "--output", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines[:3]] == ["[1/3", "[2/3", "[3/3"]
    assert STYLIZER in lines[0]
    assert STYLE_ENCODER in lines[1]


def test_lower_precisions_are_close(folder, small_model):
    photo = load_image(folder / "pictures" / "a.png")
    code = small_model.encode_style(load_image(folder / "pictures" / "b.png")).detach()
    reference = small_model(photo, code, photo)
    for name, limit in (("stylizer_float16.onnx", 0.01), ("stylizer_int8.onnx", 0.1)):
        picture = exporting.run(open_session(folder / name), content=photo, guide=photo, view=code[:, :VIEW_SIZE])
        assert 0 < (picture - reference).abs().mean() < limit
        assert (folder / name).stat().st_size < (folder / STYLIZER).stat().st_size


def test_the_files_say_what_they_are(folder):
    import onnx

    for name in (STYLE_ENCODER, STYLIZER):
        metadata = json.loads(open_session(folder / name).get_modelmeta().custom_metadata_map["arbitrary_nst"])
        assert metadata["model"] == "light"
        assert metadata["card"]
        opset = next(entry.version for entry in onnx.load(folder / name).opset_import if not entry.domain)
        assert metadata["opset"] == opset


def test_other_kinds_of_models_are_refused(tmp_path):
    save_model(multi_style(["wave", "dots"]), "multi-style", tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="--model"):
        export(ExportConfig(output=tmp_path / "out", model=str(tmp_path / "two.safetensors")))


def test_a_difference_leaves_nothing_behind(tmp_path, small_model, monkeypatch):
    monkeypatch.setattr(exporting, "load_model", lambda source: small_model)
    monkeypatch.setattr(exporting, "check", lambda model, folder: {STYLIZER: 0.5})
    monkeypatch.setattr(exporting, "write_graphs", lambda *arguments: None)
    with pytest.raises(ExportMismatch, match=r"0\.5"):
        export(ExportConfig(output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_not_ours_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        OnnxModel(tmp_path)
    (tmp_path / STYLE_ENCODER).write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="cannot read"):
        OnnxModel(tmp_path)


@pytest.mark.parametrize(("options", "flag"), [({"opset": 12}, "--opset"), ({"calibration_size": 8}, "--calibration")])
def test_options_out_of_range_are_refused(tmp_path, options, flag):
    with pytest.raises(ValueError, match=flag):
        ExportConfig(output=tmp_path, **options)


@pytest.mark.parametrize("size", [(45, 70), (901, 933)])
def test_the_example_needs_no_torch(folder, tmp_path, small_model, size):
    photo, painting, result = (tmp_path / name for name in ("photo.png", "painting.png", "result.png"))
    save_image(torch.rand(1, 3, *size), photo)
    save_image(torch.rand(1, 3, 90, 100), painting)
    code = f"""
import runpy, sys
sys.modules["torch"] = None
sys.argv = ["example", {str(folder)!r}, {str(photo)!r}, {str(painting)!r}, {str(result)!r}]
runpy.run_path("examples/onnx_without_torch.py", run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert Image.open(result).size == size[::-1]
    stylizer = Stylizer(small_model, "cpu", "float32")
    expected = stylizer(load_image(photo), stylizer.encode_style(load_image(painting)))
    assert (load_image(result) - expected).abs().max() < 1.5 / 255 + TOLERANCE
