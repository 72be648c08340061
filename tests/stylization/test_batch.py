"""Ten thousand pictures: what exists is left alone, processes share, failures are told twice, nothing is left half."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageCms

from arbitrary_nst.image import load_image, load_picture, resize, save_image
from arbitrary_nst.stylization import jobs as batch
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"{photo}_stylized_{style}" for photo in ("deep/logo-png", "lake") for style in ("dots-png", "waves-png")]
DATE, ORIGINAL_DATE, ORIENTATION, PLACE, TAKEN = 306, 36867, 274, 0x8825, 0x8769


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def modified(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in names(folder)}


@pytest.fixture
def stylizer(model_file):
    return Stylizer.from_pretrained(model_file, "cpu")


@pytest.fixture
def photo(pictures):
    return load_image(pictures / "content" / "lake.jpg")


@pytest.fixture
def paintings(pictures):
    return [load_image(pictures / "style" / f"{name}.png") for name in ("dots", "waves")]


def assert_written(path: Path, expected: torch.Tensor, levels: float = 0.5) -> None:
    assert (load_image(path) - expected).abs().max() <= levels / 255 + 1e-5


# What is computed once


def test_paintings_and_photos_are_encoded_once_whatever_the_strength(stylize, monkeypatch):
    encoded = []
    encode = Stylizer.encode_style
    monkeypatch.setattr(Stylizer, "encode_style", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    assert stylize("--alpha", "0.5") == 0
    assert len(encoded) == 2 + 2  # two paintings and two photos, in four results


# What exists


def test_what_exists_is_left_alone_and_the_rest_made(stylize, pictures, capsys):
    assert stylize() == 0
    before = modified(pictures / "out")
    (pictures / "out" / "lake_stylized_dots-png.png").unlink()
    capsys.readouterr()
    assert stylize("--skip-existing") == 0
    after = modified(pictures / "out")
    assert {name for name in after if after[name] != before[name]} == {"lake_stylized_dots-png.png"}
    assert "1 picture written, 3 skipped" in capsys.readouterr().out


def test_nothing_is_loaded_where_all_is_done(stylize, monkeypatch, capsys):
    assert stylize() == 0
    monkeypatch.setattr(Stylizer, "from_pretrained", None)
    assert stylize("--skip-existing") == 0
    assert "0 pictures written, 4 skipped" in capsys.readouterr().out


def test_paintings_of_results_that_exist_are_not_looked_at(stylize, pictures):
    assert stylize() == 0
    (pictures / "style" / "dots.png").write_bytes(b"broken since")
    assert stylize("--skip-existing") == 0


def test_another_format_is_another_result(stylize, pictures):
    assert stylize() == 0
    assert stylize("--skip-existing", "--format", "jpg") == 0
    assert len(names(pictures / "out")) == 8


# Names


def photos(folder: Path, *made: str) -> None:
    for name in made:
        save_image(torch.rand(1, 3, 8, 9), folder / name)


def test_a_photo_that_comes_later_is_made_and_the_others_keep_their_names(stylize, pictures, capsys):
    content, styles = pictures / "more", pictures / "styles"
    photos(content, "b.png", "sub/b.png")
    photos(styles, "c.png", "sub/c.png")
    assert stylize(content=content, style=styles) == 0
    before = modified(pictures / "out")
    assert set(before) == {
        f"{photo}_stylized_{style}.png" for photo in ("b-png", "sub/b-png") for style in ("c-png", "sub-c-png")
    }
    photos(content, "b.jpg", "a/b.png")
    photos(styles, "c.jpg", "a/c.png")
    assert stylize("--skip-existing", content=content, style=styles) == 0
    assert "12 pictures written, 4 skipped" in capsys.readouterr().out
    after = modified(pictures / "out")
    assert len(after) == 16
    assert {name: after[name] for name in before} == before


def test_names_that_could_be_read_in_two_ways_are_two(stylize, pictures, capsys):
    photos(pictures / "more", "a.jpg", "a_stylized_b.jpg", "a_stylized.jpg")
    photos(pictures / "styles", "c.jpg", "b_stylized_c.jpg", "stylized_c.jpg")
    assert stylize(content=pictures / "more", style=pictures / "styles") == 0
    assert "9 pictures written" in capsys.readouterr().out
    assert len(names(pictures / "out")) == 9


def test_photos_of_one_name_in_two_folders_are_two_pictures(stylize, pictures):
    photos(pictures, "one/b.jpg", "two/b.jpg")
    style = pictures / "style" / "dots.png"
    assert stylize(content=pictures / "one" / "b.jpg", style=style) == 0
    assert names(pictures / "out") == ["b_stylized_dots-png.png"]
    assert stylize(content=pictures / "*" / "b.jpg", style=style) == 0
    assert names(pictures / "out")[1:] == ["one/b_stylized_dots-png.png", "two/b_stylized_dots-png.png"]


def test_names_too_long_for_a_disk_are_shortened(stylize, pictures, capsys):
    styles = [f"{letter * 60}.jpg" for letter in "abcdef"]
    photos(pictures / "styles", *styles)
    photos(pictures / "more", f"{'p' * 240}.jpg", f"{'p' * 239}q.jpg", f"{'é' * 120}.jpg")
    weights = ["--style-weights", *"111111"]
    for _ in range(2):
        assert stylize(*weights, "--skip-existing", content=pictures / "more", style=pictures / "styles") == 0
    written = names(pictures / "out")
    assert len(written) == 3
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".png") for name in written)
    assert "0 pictures written, 3 skipped" in capsys.readouterr().out


# Originals


@pytest.mark.parametrize("name", ["content/lake.jpg", "style/dots.png", "mask.png", "content/../content/lake.jpg"])
def test_what_is_read_is_never_written_over(stylize, pictures, capsys, name):
    save_image(torch.ones(1, 3, 8, 8), pictures / "mask.png")
    before = modified(pictures)
    files = {"content": pictures / "content" / "lake.jpg", "style": pictures / "style" / "dots.png"}
    assert stylize("--mask", str(pictures / "mask.png"), **files, output=pictures / name) == 2
    assert Path(name).name in capsys.readouterr().err
    assert modified(pictures) == before


def test_a_result_among_the_photos_is_not_written_over_but_may_be_left_alone(stylize, pictures, capsys):
    (pictures / "content" / "lake_stylized_dots-png.png").symlink_to("lake.jpg")
    before = modified(pictures)
    assert stylize(content=pictures / "content" / "lake.jpg", output=pictures / "content") == 2
    assert "lake_stylized_dots-png.png" in capsys.readouterr().err
    assert modified(pictures) == before
    assert stylize("--skip-existing", content=pictures / "content" / "lake.jpg", output=pictures / "content") == 0
    assert "1 picture written, 1 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["out", "."])
def test_results_are_neither_photos_nor_paintings_of_the_next_run(stylize, tmp_path, capsys, output):
    photos(tmp_path / "all", "a.jpg", "deep/b.jpg")
    output = tmp_path / "all" / output
    for _ in range(2):
        assert stylize(content=tmp_path / "all", style=tmp_path / "all", output=output) == 0
        assert "4 pictures written" in capsys.readouterr().out
    assert stylize("--skip-existing", content=tmp_path / "all" / "**" / "*", style=tmp_path / "all", output=output) == 0
    assert "0 pictures written, 4 skipped" in capsys.readouterr().out
    result = output / "a_stylized_a.png"
    assert stylize(content=result, style=tmp_path / "all" / "a.jpg", output=output) == 0  # one that is named is taken
    assert (output / "a-stylized_a-png_stylized_a.png").is_file()


def test_a_result_in_the_folder_of_the_photo_is_no_second_photo(stylize, tmp_path):
    photos(tmp_path / "one", "a.jpg")
    for _ in range(2):
        assert stylize(content=tmp_path / "one", style=tmp_path / "one", output=tmp_path / "one" / "new.png") == 0


# Formats and metadata


@pytest.mark.parametrize(("suffix", "pillow"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_folders_get_the_format_asked_for(stylize, pictures, suffix, pillow):
    assert stylize("--format", suffix) == 0
    assert names(pictures / "out") == [f"{name}.{suffix}" for name in NAMES]
    assert Image.open(pictures / "out" / f"{NAMES[0]}.{suffix}").format == pillow


def test_quality_makes_files_larger(stylize, pictures):
    sizes = []
    for quality in ("20", "90"):
        assert stylize("--format", "jpg", "--quality", quality, "--strip") == 0
        sizes.append((pictures / "out" / "lake_stylized_dots-png.jpg").stat().st_size)
    assert sizes[1] > 1.3 * sizes[0]


@pytest.fixture
def camera_photo(tmp_path):
    """Stored lying on its side, with dates, a place, a thumbnail and a wide colour profile's worth of EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[DATE], exif[271] = 6, "2020:02:03 04:05:06", "Camera"
    exif.get_ifd(TAKEN).update({ORIGINAL_DATE: "2020:01:02 03:04:05", 0x927C: b"maker" * 40, 0xA002: 40})
    exif.get_ifd(PLACE).update({1: "N", 2: (48.0, 30.0, 1.5)})
    path = tmp_path / "camera.jpg"
    Image.effect_noise((40, 24), 60).convert("RGB").save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_metadata_is_kept_without_what_is_true_no_more(stylize, pictures, camera_photo, suffix):
    assert stylize("--format", suffix, content=camera_photo, style=pictures / "style" / "dots.png") == 0
    result = Image.open(pictures / "out" / f"camera_stylized_dots-png.{suffix}")
    assert result.size == (24, 40)
    exif = result.getexif()
    assert (exif[DATE], exif[271]) == ("2020:02:03 04:05:06", "Camera")
    assert exif.get(ORIENTATION, 1) == 1
    assert not exif.get_ifd(1)  # the thumbnail's
    if suffix != "tiff":
        assert dict(exif.get_ifd(TAKEN)) == {ORIGINAL_DATE: "2020:01:02 03:04:05"}
        assert exif.get_ifd(PLACE)[2] == (48.0, 30.0, 1.5)
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(result.info["icc_profile"])))


def test_strip_leaves_only_the_pixels(stylize, pictures, camera_photo):
    kept, stripped = pictures / "kept", pictures / "stripped"
    assert stylize(content=camera_photo, output=kept) == 0
    assert stylize("--strip", content=camera_photo, output=stripped) == 0
    result = Image.open(stripped / "camera_stylized_dots-png.png")
    assert not result.getexif()
    assert "icc_profile" not in result.info
    assert torch.equal(
        load_image(kept / "camera_stylized_dots-png.png"), load_image(stripped / "camera_stylized_dots-png.png")
    )


def test_equal_results_are_equal_files(stylize, pictures, camera_photo):
    for folder in ("one", "two"):
        assert stylize(content=camera_photo, output=pictures / folder) == 0
    first, second = ((pictures / folder / "camera_stylized_dots-png.png").read_bytes() for folder in ("one", "two"))
    assert first == second


@pytest.mark.parametrize("content", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", bytes(60000)])
def test_damaged_metadata_is_no_reason_to_refuse_a_photo(stylize, pictures, content):
    path = pictures / "odd.png"
    Image.effect_noise((24, 24), 60).convert("RGB").save(path, exif=content)
    assert load_picture(path).exif == b""
    assert stylize(content=path) == 0


# Failures


def test_failures_are_listed_again_at_the_end(stylize, pictures, capsys):
    (pictures / "content" / "broken.png").write_bytes(b"no picture")
    (pictures / "style" / "empty.jpg").touch()
    assert stylize() == 1
    said = capsys.readouterr()
    assert "4 pictures written, 2 failures" in said.out
    again = said.err[said.err.index("2 failed:") :].splitlines()
    assert [name in line for name, line in zip(("empty.jpg", "broken.png"), again[1:], strict=True)] == [True, True]
    assert said.err.count("broken.png") == said.err.count("empty.jpg") == 2


def test_a_full_disk_is_named_and_leaves_nothing(stylize, pictures, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert stylize() == 1
    errors = capsys.readouterr().err
    assert "4 failed:" in errors
    assert errors.count("lake_stylized_dots-png.png: the disk is full") == 2
    assert names(pictures / "out") == []


@pytest.mark.parametrize("pixels", [0, batch.OVERLAP_PIXELS])
def test_photos_that_have_the_memory_alone_come_out_the_same(stylize, pictures, monkeypatch, pixels):
    monkeypatch.setattr(batch, "OVERLAP_PIXELS", pixels)
    (pictures / "content" / "broken.png").write_bytes(b"no picture")
    assert stylize() == 1
    assert names(pictures / "out") == [f"{name}.png" for name in NAMES]


# Progress


@pytest.mark.slow
def test_the_bar_moves_within_a_picture(stylize, pictures, monkeypatch):
    class Bar(batch.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "disable": False, "file": open(os.devnull, "w")})  # noqa: SIM115

        def update(self, n=1):
            super().update(n)
            seen.append(self.n)

    seen = []
    monkeypatch.setattr(batch, "tqdm", Bar)
    (pictures / "content" / "broken.png").write_bytes(b"no picture")
    assert stylize("--tile", "64", "--content-size", "90", style=pictures / "style" / "dots.png") == 1
    assert all(after > before - 1e-9 for before, after in pairwise(seen))
    assert seen[-1] == pytest.approx(3)
    assert len({value for value in seen if 0 < value < 3}) > 10


# Interruption

MANY = 400


@pytest.fixture
def running(pictures, model_file):
    """A batch of many pictures in a process of its own, after its first results."""
    for index in range(MANY):
        shutil.copy(pictures / "content" / "lake.jpg", pictures / "content" / f"{index}.jpg")
    paths = ["--content", pictures / "content", "--style", pictures / "style", "--output", pictures / "out"]
    command = [sys.executable, "-m", "arbitrary_nst", "stylize", *paths, "--model", model_file, "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and len(list(pictures.glob("out/*.png"))) < 3:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_whole_results_and_nothing_else(running, pictures, sent, code):
    running.send_signal(sent)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    done = names(pictures / "out")
    assert 3 <= len(done) < 2 * MANY
    assert f"interrupted: {len(done)} pictures written, of {2 * MANY + 4}" in errors
    assert "Traceback" not in errors
    for name in done:
        assert not name.startswith(".")
        assert load_picture(pictures / "out" / name).rgb.shape[2:] in [(21, 34), (19, 27)]


@pytest.mark.parametrize(
    ("output", "code"),
    [("file", 2), ("file/out", 2), ("file/out.png", 1), (f"{'x' * 300}.png", 1), ("x" * 300, 1), ("full", 1)],
)
def test_where_nothing_can_be_written_is_said_before_work(stylize, pictures, monkeypatch, capsys, output, code):
    (pictures / "file").touch()
    (pictures / "full").mkdir()
    (pictures / "full" / "deep").touch()  # where the photo of a subfolder goes
    single = output.endswith(".png")
    paths = {"content": pictures / "content" / "lake.jpg", "style": pictures / "style" / "dots.png"} if single else {}
    monkeypatch.setattr(Stylizer, "from_pretrained", lambda *arguments: pytest.fail("work has begun"))
    assert stylize(output=pictures / output, **paths) == code
    said = capsys.readouterr().err
    assert output in said
    assert len(said.splitlines()) == 1


# Several processes


def test_processes_share_the_photos_without_overlap(stylize, pictures, monkeypatch, capsys):
    shutil.copy(pictures / "content" / "lake.jpg", pictures / "content" / "deep" / "lake.jpg")
    assert stylize(output=pictures / "alone") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank, share in enumerate((2, 1)):
        monkeypatch.setenv("RANK", str(rank))
        capsys.readouterr()
        assert stylize(output=pictures / f"rank{rank}") == 0
        assert f"process {rank + 1} of 2: {share} of 3 photos" in capsys.readouterr().out
        made += names(pictures / f"rank{rank}")
    assert sorted(made) == names(pictures / "alone")
    assert len(made) == 6


def test_a_process_without_photos_is_content(stylize, pictures, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")
    monkeypatch.setenv("RANK", "4")
    assert stylize() == 0
    assert not (pictures / "out").exists()


@pytest.mark.parametrize(("rank", "processes"), [("2", "2"), ("first", "2"), ("-1", "2")])
def test_a_wrong_rank_is_refused(stylize, monkeypatch, capsys, rank, processes):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert stylize() == 2
    assert "RANK" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo and signals")
def test_torchrun_does_the_rest_where_a_process_fails(pictures, model_file):
    """torchrun stops all processes when one has failed: here that with the bad photos is done before the other."""
    for index in range(0, 60, 2):
        (pictures / "content" / f"{index}.jpg").write_bytes(b"no picture")
        shutil.copy(pictures / "content" / "lake.jpg", pictures / "content" / f"{index + 1}.jpg")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "infer.py"]
    paths = ["--content", pictures / "content", "--style", pictures / "style", "--output", pictures / "out"]
    done = subprocess.run(
        [*torchrun, *paths, "--model", model_file, "--device", "cpu", "--content-size", "256"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "process 1 of 2" in done.stdout
    assert "process 2 of 2" in done.stdout
    assert len(names(pictures / "out")) == 2 * (30 + 2)


# Strokes, masks, colours, tiles


@pytest.mark.slow
def test_the_scale_multiplies_the_size_at_which_paintings_are_looked_at(stylize, pictures, stylizer, photo, paintings):
    assert stylize("--style-scale", "2") == 0
    code = stylizer.encode_style(resize(paintings[0], 80), None)
    assert_written(pictures / "out" / "lake_stylized_dots-png.png", stylizer(photo, code))
    assert stylize("--style-scale", "0.5", "--style-size", "30") == 0
    code = stylizer.encode_style(resize(paintings[0], 15), None)
    assert_written(pictures / "out" / "lake_stylized_dots-png.png", stylizer(photo, code))


def save_mask(path: Path, values: torch.Tensor) -> str:
    save_image(values.expand(1, 3, -1, -1), path)
    return str(path)


@pytest.fixture
def halves(pictures):
    """Left and right, of different sizes."""
    left = save_mask(pictures / "left.png", (torch.arange(64) < 32).float().expand(64, -1))
    return ["--mask", left, save_mask(pictures / "right.png", (torch.arange(16) >= 8).float().expand(16, -1))]


def test_masks_put_styles_in_their_places(stylize, pictures, stylizer, photo, paintings, halves):
    assert stylize(*halves) == 0
    assert names(pictures / "out") == [
        "deep/logo-png_stylized_dots-png+waves-png.png",
        "lake_stylized_dots-png+waves-png.png",
    ]
    written = load_image(pictures / "out" / "lake_stylized_dots-png+waves-png.png")
    first, second = (stylizer(photo, stylizer.encode_style(painting)) for painting in paintings)
    assert (written - first)[..., :15].abs().max() <= 0.5 / 255 + 1e-5
    assert (written - second)[..., 19:].abs().max() <= 0.5 / 255 + 1e-5


def test_masks_and_styles_that_are_named_twice_keep_their_places(stylize, pictures, stylizer, photo, paintings, halves):
    left, right = halves[1:]
    dots, waves = (pictures / "style" / f"{name}.png" for name in ("dots", "waves"))
    assert stylize("--mask", left, right, style=[dots, dots], content=pictures / "content" / "lake.jpg") == 0
    alone = stylizer(photo, stylizer.encode_style(paintings[0]))
    written = load_image(pictures / "out" / "lake_stylized_dots-png+dots-png.png")
    assert (written - alone)[..., :15].abs().max() <= 0.5 / 255 + 1e-5
    assert (written - alone)[..., 19:].abs().max() <= 0.5 / 255 + 1e-5
    assert stylize("--mask", left, left, right, style=[waves, dots, waves]) == 0
    written = load_image(pictures / "out" / "lake_stylized_waves-png+dots-png+waves-png.png")
    codes = [stylizer.encode_style(painting) for painting in paintings]
    both = (stylizer(photo, codes[0]) + stylizer(photo, codes[1])) / 2
    assert (written - both)[..., :15].abs().max() <= 1 / 255
    assert (written - stylizer(photo, codes[1]))[..., 19:].abs().max() <= 0.5 / 255 + 1e-5


def test_weights_of_a_style_that_is_named_twice_add_up(stylize, pictures, stylizer, photo, paintings):
    dots, waves = (pictures / "style" / f"{name}.png" for name in ("dots", "waves"))
    assert stylize("--style-weights", "1", "2", "3", style=[dots, waves, dots]) == 0
    code = blend_codes([stylizer.encode_style(painting) for painting in paintings], [4, 2])
    assert_written(pictures / "out" / "lake_stylized_dots-png+waves-png+dots-png.png", stylizer(photo, code))


def test_weights_divide_the_place_where_masks_overlap(stylize, pictures, stylizer, photo, paintings):
    everywhere = save_mask(pictures / "all.png", torch.ones(8, 8))
    shutil.copy(everywhere, pictures / "again.png")
    assert stylize("--mask", everywhere, str(pictures / "again.png"), "--style-weights", "3", "1") == 0
    first, second = (stylizer(photo, stylizer.encode_style(painting)) for painting in paintings)
    assert_written(pictures / "out" / "lake_stylized_dots-png+waves-png.png", 0.75 * first + 0.25 * second, levels=1)


def test_as_many_masks_as_styles(stylize, halves, capsys):
    assert stylize(*halves[:2]) == 2
    assert "2 styles need as many masks, not 1" in capsys.readouterr().err


def test_without_one_of_its_masks_a_picture_is_not_made(stylize, pictures, halves, capsys):
    (pictures / "right.png").write_bytes(b"no picture")
    assert stylize(*halves) == 1
    assert "right.png" in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_luminance_keeps_the_photos_colours(stylize, pictures, stylizer, photo, paintings):
    assert stylize("--preserve-color", "luminance") == 0
    expected = stylizer(photo, stylizer.encode_style(paintings[0]), preserve_color="luminance")
    assert_written(pictures / "out" / "lake_stylized_dots-png.png", expected)


def test_covariance_recolours_the_painting_for_every_photo(stylize, pictures, stylizer, photo, paintings):
    assert stylize("--preserve-color", "covariance", "--style-scale", "2") == 0
    expected = stylizer(photo, stylizer.encode_style(paintings[0], scale=2.0, like=photo))
    assert_written(pictures / "out" / "lake_stylized_dots-png.png", expected, levels=1)


@pytest.mark.slow
@pytest.mark.parametrize("colours", ["luminance", "covariance"])
def test_everything_works_together(stylize, pictures, halves, stylizer, photo, paintings, colours):
    options = [*halves, "--style-weights", "2", "1", "--alpha", "0.5", "--content-size", "96", "--style-scale", "2"]
    options += ["--preserve-color", colours, "--tile", "64", "--format", "webp"]
    assert stylize(*options, content=pictures / "content" / "lake.jpg") == 0
    assert Image.open(pictures / "out" / "lake_stylized_dots-png+waves-png.webp").size == (155, 96)
    assert stylize("--style-weights", "2", "1", "--preserve-color", colours, output=pictures / "blend") == 0
    like = photo if colours == "covariance" else None
    code = blend_codes([stylizer.encode_style(painting, like=like) for painting in paintings], [2, 1])
    expected = stylizer(photo, code, preserve_color="none" if like is not None else "luminance")
    assert_written(pictures / "blend" / "lake_stylized_dots-png+waves-png.png", expected, levels=1)


@pytest.mark.slow
def test_tiles_change_nothing(stylize, pictures):
    files = {"content": pictures / "content" / "lake.jpg", "style": pictures / "style" / "dots.png"}
    for side in ("off", "auto", "64"):
        options = ["--content-size", "96", "--precision", "float32", "--tile", side]
        assert stylize(*options, **files, output=pictures / f"{side}.png") == 0
    whole = load_image(pictures / "off.png")
    assert_written(pictures / "auto.png", whole, levels=1)
    assert_written(pictures / "64.png", whole, levels=1)


# Style files


@pytest.fixture
def saved(pictures, model_file):
    """`dots` as a style file instead of a painting."""
    from arbitrary_nst.commands import main

    painting, target = pictures / "style" / "dots.png", pictures / "style" / "dots.style"
    assert main(["style", "save", str(painting), "--output", str(target), "--model", str(model_file)]) == 0
    painting.unlink()
    return target


def test_a_style_file_stands_for_its_painting(stylize, pictures, stylizer, photo, paintings, saved):
    codes = [stylizer.encode_style(painting) for painting in paintings]
    assert stylize() == 0
    assert names(pictures / "out") == [f"{name.replace('dots-png', 'dots-style')}.png" for name in NAMES]
    assert_written(pictures / "out" / "lake_stylized_dots-style.png", stylizer(photo, codes[0]))
    assert stylize("--style-weights", "1", "3", style=[saved, pictures / "style" / "waves.png"]) == 0
    blended = stylizer(photo, blend_codes(codes, [1, 3]))
    assert_written(pictures / "out" / "lake_stylized_dots-style+waves-png.png", blended)


def test_a_style_file_of_another_model_is_refused_by_name(stylize, pictures, saved, capsys):
    assert stylize("--model", "light") == 1
    errors = capsys.readouterr().err
    assert "dots.style: was made with the model 'light' (weights " in errors
    assert "but this is the model 'light' (weights " in errors
    assert names(pictures / "out") == ["deep/logo-png_stylized_waves-png.png", "lake_stylized_waves-png.png"]


def test_the_gallery_is_of_the_shipped_model(stylize, pictures, capsys):
    assert stylize(style="gallery:starry-night") == 1
    assert "gallery:starry-night: was made with the model 'light'" in capsys.readouterr().err
    assert stylize("--model", "light", style=["gallery:starry-night", "gallery:milk*"]) == 0
    assert "lake_stylized_starry-night.png" in names(pictures / "out")
    assert "lake_stylized_milkmaid.png" in names(pictures / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preserve-color", "covariance"], "--preserve-color covariance: recolours paintings"),
        (["--style-scale", "2"], "--style-scale 2.0: needs paintings"),
    ],
)
def test_what_only_paintings_can_do_is_refused(stylize, saved, capsys, options, message):
    assert stylize(*options, style=saved) == 2
    assert message in capsys.readouterr().err
