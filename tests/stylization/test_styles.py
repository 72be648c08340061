"""Style files say where they come from and are used by no other model; the gallery is of the model that ships."""

import json
import os
import re
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from runpy import run_path

import pytest
import torch
from safetensors.torch import load_file, save_file

from arbitrary_nst import __version__
from arbitrary_nst.commands import main
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.image.synthetic import synthetic_photo as scene
from arbitrary_nst.models import CoarseToFine, multi_style
from arbitrary_nst.models.serialization import ModelIdentity, model_identity, save_model
from arbitrary_nst.stylization.style_files import (
    GALLERY_FILE,
    SavedStyle,
    StyleFileError,
    find_styles,
    gallery,
    load_style,
    read_style,
    save_gallery,
    save_style,
)
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

ROOT = Path(__file__).resolve().parents[2]
NOBODY = ModelIdentity("light", "0" * 64)


@pytest.fixture
def style():
    return SavedStyle("Waves, by night", torch.randn(1, 100), NOBODY, {"file": "wäves.jpg", "width": 40})


@pytest.fixture
def run(pictures, model_file):
    """`style SUBCOMMAND` in the folder of pictures."""

    def call(subcommand, *arguments, model=True):
        chosen = ["--model", str(model_file)] if model else []
        return main(["style", subcommand, *map(str, arguments), *chosen])

    return call


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are always Unicode there")
def test_a_painting_whose_name_is_not_utf8_is_saved(run, pictures, capsys):
    (pictures / "style" / "dots.png").rename(pictures / "style" / os.fsdecode(b"caf\xe9.png"))
    assert run("save", pictures / "style", "--output", pictures / "saved") == 0
    saved = pictures / "saved" / os.fsdecode(b"caf\xe9.style")
    assert read_style(saved).name == r"caf\udce9"
    assert read_style(saved).provenance["file"] == r"caf\udce9.png"
    capsys.readouterr()
    assert run("list", pictures / "saved", model=False) == 0
    assert r"caf\udce9.png" in capsys.readouterr().out


def test_a_sheet_and_a_mixture_among_the_styles_are_none_of_them_the_next_time(run, pictures):
    assert run("save", pictures / "style", "--output", pictures / "style") == 0
    for painting in (pictures / "style").glob("*.png"):
        painting.unlink()
    for _ in range(2):
        assert run("show", pictures / "style", "--output", pictures / "style" / "sheet.png") == 0
    (pictures / "style" / "sheet.png").unlink()
    for _ in range(2):
        assert run("mix", pictures / "style", "--output", pictures / "style" / "mix.style", model=False) == 0


def test_metadata_cannot_steer_the_terminal(run, tmp_path, capsys):
    hostile = ModelIdentity("\x1b]0;title\x07", "0" * 64)
    files = [tmp_path / f"{name}.style" for name in "abc"]
    for file, model in zip(files, (hostile, hostile, NOBODY), strict=True):
        save_style(SavedStyle("\x1b[2J" + file.stem, torch.zeros(1, 3), model), file)
    assert run("mix", *files[:2], "--output", tmp_path / "mix.style", model=False) == 0
    assert run("mix", *files[1:], "--output", tmp_path / "mix.style", model=False) == 2
    assert run("show", files[0], "--output", tmp_path / "sheet.png") == 1
    files[0].write_bytes(files[0].read_bytes().replace(b"style 1", b"\\u001bc"))
    assert run("list", tmp_path, model=False) == 1
    said = capsys.readouterr()
    assert "[2Ja" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_weights_of_a_mix_are_refused_by_their_option(run, style, tmp_path, capsys):
    for name in ("a", "b"):
        save_style(style, tmp_path / f"{name}.style")
    paths = (tmp_path / "a.style", tmp_path / "b.style", "--output", tmp_path / "c.style")
    assert run("mix", *paths, "--weights", "1", "2", "3", model=False) == 2
    assert "--weights" in capsys.readouterr().err


# Who a model is


def test_weights_are_hashed_once_until_the_file_changes(model_file, light_model, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("arbitrary_nst.models.serialization.sha256", lambda *a: hashed.append(1) or sha256(*a))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model_file.read_bytes())
    assert model_identity(copy) == model_identity(copy) == model_identity(str(copy))
    assert len(hashed) == 1
    save_model(light_model, "light", copy, half=True)
    assert model_identity(copy) != model_identity(model_file)
    assert len(hashed) >= 2


def test_the_identity_is_of_the_weights_and_not_of_the_file(light_model, model_file, tmp_path):
    same = model_identity(model_file)
    assert same.name == "light"
    assert re.fullmatch("[0-9a-f]{64}", same.weights)
    save_model(light_model, "light", tmp_path / "renamed.safetensors", card={"data": "told since"})
    assert model_identity(tmp_path / "renamed.safetensors") == same


def test_other_weights_are_another_model(light_model, model_file, tmp_path):
    path = tmp_path / "trained.safetensors"
    state = load_file(str(model_file))
    state["affine.bias"][0] += 1e-3
    save_file(state, str(path), {"model": "light"})
    save_model(light_model, "light", tmp_path / "half.safetensors", half=True)
    identities = {model_identity(file) for file in (model_file, path, tmp_path / "half.safetensors", "light")}
    assert len(identities) == 4


# Files


def test_a_style_comes_back_as_it_was(style, tmp_path):
    save_style(style, tmp_path / "new" / "a.style")
    loaded = read_style(tmp_path / "new" / "a.style")
    assert torch.equal(loaded.code, style.code)
    assert (loaded.name, loaded.model, loaded.provenance) == (style.name, style.model, style.provenance)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.style"]


@pytest.mark.parametrize("code", [torch.zeros(2, 5), torch.full((1, 5), float("nan")), torch.zeros(5)])
def test_what_is_no_code_is_not_saved(code, tmp_path, unchecked):
    with pytest.raises(StyleFileError, match="finite"):
        save_style(SavedStyle("a", code, NOBODY), tmp_path / "a.style")
    with pytest.raises(StyleFileError, match=r"must end in \.style"):
        save_style(SavedStyle("a", torch.zeros(1, 5), NOBODY), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def header(**changes):
    return {"format": "arbitrary_nst style 1", "name": "a", "model": "light", "weights": "0", **changes}


@pytest.mark.parametrize(
    ("tensors", "metadata", "matter"),
    [
        ({"code": torch.zeros(1, 5)}, None, "not a style file"),
        ({"code": torch.zeros(1, 5)}, header(format="arbitrary_nst style 2"), "arbitrary_nst style 2"),
        ({"code": torch.zeros(1, 5)}, header(provenance="{"), "damaged"),
        ({"code": torch.zeros(1, 5)}, header(provenance="3"), "damaged"),
        ({"cod": torch.zeros(1, 5)}, header(), "damaged"),
        ({"code": torch.zeros(3, 5)}, header(), "damaged"),
        ({"code": torch.full((1, 5), float("inf"))}, header(), "not finite"),
    ],
)
def test_foreign_and_damaged_files_are_refused_by_name(tmp_path, tensors, metadata, matter):
    save_file(tensors, str(tmp_path / "a.style"), metadata)
    with pytest.raises(StyleFileError, match=matter) as raised:
        read_style(tmp_path / "a.style")
    assert str(raised.value).startswith(str(tmp_path / "a.style"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no style", b"\xff" * 4000, (2**40).to_bytes(8, "little") + b"{}"])
def test_files_of_another_kind_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.style").write_bytes(content)
    with pytest.raises(StyleFileError, match=r"a\.style: not a style file"):
        read_style(tmp_path / "a.style")
    with pytest.raises(StyleFileError, match="no such style file"):
        read_style(tmp_path / "b.style")


def test_a_style_of_another_model_is_refused_naming_both(style, model_file, tmp_path):
    save_style(style, tmp_path / "a.style")
    with pytest.raises(StyleFileError) as raised:
        load_style(tmp_path / "a.style", model_file)
    assert str(style.model) in str(raised.value)
    assert str(model_identity(model_file)) in str(raised.value)
    assert str(model_file) in str(raised.value)


# Names


@pytest.mark.parametrize("name", ["caf\u00e9", os.fsdecode(b"bytes_\xff")])
def test_a_style_file_may_have_any_name(style, tmp_path, name):
    path = tmp_path / f"{name}.style"
    try:
        path.touch()
    except OSError:
        pytest.skip("no such name on this disk")
    save_style(replace(style, name=name), path)
    assert read_style(path).name == name.encode("utf-8", "backslashreplace").decode()
    assert torch.equal(read_style(path).code, style.code)


def test_folders_give_style_files_beside_paintings(pictures, style):
    save_style(style, pictures / "style" / "dots.style")
    save_style(style, pictures / "style" / "deep" / "night.STYLE")
    found = dict(find_styles([pictures / "style", pictures / "style" / "dots.png"]))
    assert list(found) == ["deep-night-STYLE", "dots-png", "dots-style", "waves-png"]
    assert [path.name for path in found.values()] == ["night.STYLE", "dots.png", "dots.style", "waves.png"]


def test_the_gallery_stands_among_paths_in_their_order(pictures):
    painting = pictures / "style" / "dots.png"
    found = find_styles(["gallery:scream", painting, "gallery:starry-*", "gallery:scream"])
    assert [name for name, _ in found] == ["scream", "dots-png", "starry-night", "scream"]


def test_an_unknown_name_of_the_gallery_is_refused_with_the_nearest():
    with pytest.raises(StyleFileError, match="did you mean gallery:starry-night"):
        find_styles(["gallery:stary-night"])
    with pytest.raises(StyleFileError, match="no such style in the gallery; `style list`"):
        load_style("gallery:xyzzy")


# The gallery


def test_the_gallery_is_of_the_model_that_ships():
    shipped = model_identity("light")
    for name, style in gallery().items():
        assert style.model == shipped, (
            f"gallery:{name} was made with {style.model}, but {shipped} ships: the weights have changed. "
            "Make the gallery again: python tools/make_gallery.py --paintings FOLDER"
        )


def test_the_gallery_holds_titles_and_codes_and_no_picture():
    assert len(gallery()) == 23
    assert {path.name for path in GALLERY_FILE.parent.iterdir()} == {"light.safetensors"}
    assert GALLERY_FILE.stat().st_size < 250_000
    for name, style in gallery().items():
        assert re.fullmatch("[a-z][a-z-]+", name)
        assert style.code.shape == (1, CoarseToFine.code_size)
        assert set(style.provenance) == {"title", "artist", "year"}
        assert int(style.provenance["year"].removeprefix("c. ")) < 1900


def test_the_gallery_is_varied():
    """No two of its pictures are alike, as mean differences in levels go."""
    stylizer = Stylizer.from_pretrained(device="cpu", precision="float32")
    pictures = torch.cat([stylizer(scene(64), style.code) for style in gallery().values()]).flatten(1)
    distances = 255 * torch.cdist(pictures, pictures, p=1) / pictures.shape[1]
    assert distances[~torch.eye(len(distances), dtype=torch.bool)].min() > 5


def test_the_gallery_is_made_of_a_list(tmp_path, monkeypatch):
    save_image(torch.rand(1, 3, 90, 90), tmp_path / "a.png")
    rows = "file\tname\ttitle\tartist\tyear\na.png\tnoise\tNoise, with an é\tNobody\t1899\n"
    (tmp_path / "list.tsv").write_text(rows, encoding="utf-8")
    target = tmp_path / "gallery.safetensors"
    options = ["--paintings", tmp_path, "--list", tmp_path / "list.tsv", "--output", target]
    monkeypatch.setattr(sys, "argv", ["make_gallery.py", *map(str, options)])
    run_path(str(ROOT / "tools" / "make_gallery.py"), run_name="__main__")
    monkeypatch.setattr("arbitrary_nst.stylization.style_files.GALLERY_FILE", target)
    gallery.cache_clear()
    try:
        assert gallery()["noise"].provenance == {"title": "Noise, with an é", "artist": "Nobody", "year": "1899"}
        assert load_style("gallery:noise").code.shape == (1, CoarseToFine.code_size)
    finally:
        gallery.cache_clear()


def test_a_gallery_keeps_its_order(style, tmp_path, monkeypatch):
    names = ["zebra", "ant", "mole"]
    save_gallery([SavedStyle(name, style.code, NOBODY) for name in names], tmp_path / "gallery.safetensors")
    monkeypatch.setattr("arbitrary_nst.stylization.style_files.GALLERY_FILE", tmp_path / "gallery.safetensors")
    gallery.cache_clear()
    try:
        assert list(gallery()) == names
    finally:
        gallery.cache_clear()


# Commands


def test_save_tells_where_a_style_comes_from(run, pictures, model_file):
    painting = pictures / "style" / "dots.png"
    assert (
        run("save", painting, "--output", pictures / "my dots.style", "--style-size", "30", "--style-scale", "2") == 0
    )
    style = read_style(pictures / "my dots.style")
    assert (style.name, style.model) == ("my dots", model_identity(model_file))
    expected = Stylizer.from_pretrained(model_file, "cpu").encode_style(load_image(painting), 30, 2.0)
    assert torch.allclose(style.code, expected, atol=1e-5)
    told = dict(style.provenance)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told.pop("date"))
    digest = sha256(painting.read_bytes()).hexdigest()
    assert told == {
        **{"file": "dots.png", "sha256": digest, "width": 40, "height": 40},
        **{"style_size": 30, "style_scale": 2.0, "version": __version__},
    }


def test_save_makes_a_file_for_every_painting_and_names_what_it_cannot(run, pictures, capsys):
    (pictures / "style" / "broken.png").write_bytes(b"no picture")
    assert run("save", pictures / "style", "--output", pictures / "saved") == 1
    assert sorted(path.name for path in (pictures / "saved").iterdir()) == ["dots.style", "waves.style"]
    said = capsys.readouterr()
    assert "2 styles written" in said.out
    assert said.err.count("broken.png") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["save", "style", "--output", "one.style"], "one.style: is one file, but there are 2 paintings"),
        (["save", "style", "--output", "out", "--style-scale", "9"], "--style-scale 9.0"),
        (["save", "style", "--output", "out", "--style-size", "0"], "--style-size 0"),
        (["mix", "gallery:scream", "--output", "a.style"], "two styles or more"),
        (["mix", "gallery:scream", "style/dots.png", "--output", "a.style"], "`style save` makes one"),
        (
            ["mix", "gallery:scream", "gallery:irises", "--weights", "1", "--output", "a.style"],
            "as many weights, not 1",
        ),
        (["show", "--output", "sheet.txt"], "must name a picture"),
    ],
)
def test_what_cannot_be_is_refused(pictures, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(pictures)
    assert main(["style", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_with_styles_of_its_own_saves_none(pictures, tmp_path, capsys):
    save_model(multi_style(["wave"]), "multi-style", tmp_path / "fixed.safetensors")
    options = ["--output", str(tmp_path / "saved"), "--model", str(tmp_path / "fixed.safetensors")]
    assert main(["style", "save", str(pictures / "style"), *options]) == 1
    assert "only its own styles" in capsys.readouterr().err


def test_list_presents_the_gallery(capsys):
    assert main(["style", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gallery())
    line = next(line for line in lines if line.startswith("gallery:starry-night "))
    assert line.split("  ")[-1] == "1889"
    assert "The Starry Night" in line
    assert "Vincent van Gogh" in line


def test_list_presents_files_and_names_the_damaged(run, pictures, model_file, capsys):
    assert run("save", pictures / "style", "--output", pictures / "saved") == 0
    (pictures / "saved" / "broken.style").write_bytes(b"no style")
    hostile = SavedStyle("\x1b[2J\n", torch.zeros(1, 3), NOBODY)
    save_style(hostile, pictures / "saved" / "hostile.style")
    capsys.readouterr()
    assert run("list", pictures / "saved", model=False) == 1
    said = capsys.readouterr()
    assert "broken.style" in said.err
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) == 3
    line = next(line for line in said.out.splitlines() if "waves.style" in line)
    assert "waves.png" in line
    assert str(model_identity(model_file)) in line


def test_mix_writes_the_weighted_mean_and_its_recipe(run, pictures, model_file):
    assert run("save", pictures / "style", "--output", pictures / "saved") == 0
    files = [pictures / "saved" / f"{name}.style" for name in ("waves", "dots")]
    target = pictures / "mixed.style"
    assert run("mix", *files, "--weights", "3", "1", "--output", target, model=False) == 0
    waves, dots, mixed = map(read_style, [*files, target])
    assert torch.allclose(mixed.code, blend_codes([waves.code, dots.code], [3, 1]))
    assert (mixed.name, mixed.model) == ("mixed", model_identity(model_file))
    recipe = mixed.provenance["recipe"]
    assert [(part["name"], part["weight"]) for part in recipe] == [("waves", 3.0), ("dots", 1.0)]
    assert recipe[0]["provenance"] == json.loads(json.dumps(dict(waves.provenance)))
    assert run("mix", target, files[0], "--output", pictures / "again.style", model=False) == 0
    assert read_style(pictures / "again.style").provenance["recipe"][0]["provenance"]["recipe"] == recipe


def test_styles_of_two_models_do_not_mix(run, pictures, capsys):
    assert run("save", pictures / "style" / "dots.png", "--output", pictures / "a.style") == 0
    assert run("mix", pictures / "a.style", "gallery:scream", "--output", pictures / "b.style", model=False) == 2
    assert "scream: was made with the model 'light'" in capsys.readouterr().err
    assert not (pictures / "b.style").exists()


def test_show_paints_the_test_picture_in_every_style(run, pictures, capsys):
    assert run("save", pictures / "style" / "dots.png", "--output", pictures / "dots.style") == 0
    styles = [pictures / "dots.style", pictures / "style" / "waves.png", "gallery:scream"]
    assert run("show", *styles, "--output", pictures / "sheet.png") == 1
    said = capsys.readouterr()
    assert "2 styles" in said.out
    assert "gallery:scream: was made with" in said.err
    sheet = load_image(pictures / "sheet.png")
    assert sheet.shape[3] > 3 * 256
    photo = scene(256)
    left = [x for x in range(20) if (sheet[:, :, -262:-6, x : x + 256] - photo).abs().max() < 0.5 / 255 + 1e-6]
    assert len(left) == 1


def test_show_breaks_many_styles_into_rows(pictures):
    chosen = [f"gallery:{name}" for name in list(gallery())[:6]]
    assert main(["style", "show", *chosen, "--output", str(pictures / "sheet.png")]) == 0
    height, width = load_image(pictures / "sheet.png").shape[2:]
    assert 2 * 256 < height < 3 * 256
    assert 5 * 256 < width < 6 * 256


def test_the_test_picture_is_a_picture_of_any_size():
    for size in (16, 100):
        picture = scene(size)
        assert picture.shape == (1, 3, size, size)
        assert picture.std() > 0.1
        assert torch.equal(picture, scene(size))


def test_no_style_command_writes_over_what_it_reads(tmp_path, capsys):
    painting = tmp_path / "waves.png"
    save_image(torch.rand(1, 3, 80, 80), painting)
    assert main(["style", "save", str(painting), "--output", str(tmp_path)]) == 0
    saved = next(tmp_path.glob("*.style"))
    before = painting.read_bytes(), saved.read_bytes()
    assert main(["style", "show", str(painting), "--output", str(painting)]) == 2
    assert main(["style", "mix", str(saved), "gallery:scream", "--output", str(saved)]) == 2
    assert (painting.read_bytes(), saved.read_bytes()) == before


def test_saved_styles_keep_their_names_whatever_comes_besides(run, pictures):
    for folder in ("a", "b"):
        save_image(torch.rand(1, 3, 80, 80), pictures / folder / "x.png")
    save_image(torch.rand(1, 3, 80, 80), pictures / "b" / "X.jpg")
    paintings = [pictures / "b" / "x.png", pictures / "b" / "X.jpg"]
    assert run("save", *paintings, "--output", pictures / "saved") == 0
    before = {path.name for path in (pictures / "saved").iterdir()}
    assert len(before) == 2
    assert run("save", pictures / "a", *paintings[::-1], "--output", pictures / "saved") == 0
    after = {path.name: read_style(path) for path in (pictures / "saved").iterdir()}
    assert len(after) == 3
    digests = {path: sha256(path.read_bytes()).hexdigest() for path in paintings}
    assert {after[name].provenance["sha256"] for name in before} == set(digests.values())


def test_the_name_of_a_saved_style_fits_the_disk(run, pictures):
    painting = pictures / f"{'x' * 251}.png"
    (pictures / "style" / "dots.png").rename(painting)
    assert run("save", painting, "--output", pictures / "saved") == 0
    (saved,) = (pictures / "saved").iterdir()
    assert saved.name.startswith("xxx")
    assert read_style(saved).name == saved.stem


@pytest.mark.parametrize(
    ("arguments", "output", "code"),
    [
        (["save", "style"], "saved.png", 2),
        (["save", "style"], "file", 2),
        (["save", "style"], "file/below", 2),
        (["save", "style/dots.png"], "file/a.style", 1),
        (["save", "style/dots.png"], f"{'x' * 300}.style", 1),
        (["mix", "gallery:scream", "gallery:irises"], "folder.style", 1),
        (["show", "gallery:scream"], "file/sheet.png", 1),
    ],
)
def test_where_nothing_can_be_written_is_said_before_work(pictures, monkeypatch, capsys, arguments, output, code):
    (pictures / "file").touch()
    (pictures / "folder.style").mkdir()
    monkeypatch.chdir(pictures)
    monkeypatch.setattr(Stylizer, "from_pretrained", lambda *arguments: pytest.fail("work has begun"))
    monkeypatch.setattr("arbitrary_nst.commands.style.read_style", lambda path: pytest.fail("work has begun"))
    assert main(["style", *arguments, "--output", output]) == code
    said = capsys.readouterr().err
    assert output in said
    assert len(said.splitlines()) == 1


def test_a_style_that_is_named_twice_counts_twice(pictures):
    names = ["gallery:scream", "gallery:irises", "gallery:scream"]
    assert main(["style", "mix", *names, "--weights", "3", "1", "2", "--output", str(pictures / "a.style")]) == 0
    scream, irises = (gallery()[name].code for name in ("scream", "irises"))
    assert torch.allclose(read_style(pictures / "a.style").code, blend_codes([scream, irises], [5, 1]))
