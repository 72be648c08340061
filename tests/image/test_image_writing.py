"""What is written can be read again, and appears whole or not at all."""

import errno
import os
import stat
import sys
import zipfile
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from arbitrary_nst.errors import OutputError
from arbitrary_nst.image import load_image, load_picture, save_image
from arbitrary_nst.runtime.files import FORMATS, WRITTEN_SUFFIXES
from pictures import assert_close, every_example_in_one_folder, ramps

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")

# Roundtrips


@every_example_in_one_folder
@given(height=st.integers(1, 40), width=st.integers(1, 40), suffix=st.sampled_from(LOSSLESS), seed=st.integers(0, 99))
def test_lossless_roundtrip_is_exact_to_half_a_level(tmp_path, height, width, suffix, seed):
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    save_image(image, tmp_path / f"a{suffix}")
    assert_close(load_image(tmp_path / f"a{suffix}"), image, 0.5)


@every_example_in_one_folder
@given(height=st.integers(1, 20), width=st.integers(1, 20), suffix=st.sampled_from((".png", ".tiff")))
def test_alpha_roundtrip_is_exact_and_keeps_the_colours_under_it(tmp_path, height, width, suffix):
    image, alpha = torch.rand(3, height, width), torch.rand(1, 1, height, width)
    alpha[..., 0, 0] = 0
    save_image(image, tmp_path / f"a{suffix}", alpha)
    picture = load_picture(tmp_path / f"a{suffix}")
    assert picture.alpha is not None
    assert_close(picture.rgb, image[None], 0.5)
    assert_close(picture.alpha, alpha, 0.5)


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_every_suffix_in_any_case_is_written_and_read(tmp_path, suffix):
    image = ramps(40, 60)
    path = tmp_path / f"a{suffix.upper()}"
    save_image(image, path)
    picture = load_picture(path)
    assert picture.alpha is None
    assert_close(picture.rgb, image, {"GIF": 40, "WEBP": 12, "JPEG": 8}.get(FORMATS[suffix], 0))
    assert os.listdir(tmp_path) == [path.name]


def test_alpha_in_webp_and_gif(tmp_path):
    alpha = torch.linspace(0, 1, 22).expand(13, 22)
    save_image(ramps(), tmp_path / "a.webp", alpha)
    save_image(ramps(), tmp_path / "a.gif", alpha)
    webp, gif = load_picture(tmp_path / "a.webp"), load_picture(tmp_path / "a.gif")
    assert webp.alpha is not None
    assert gif.alpha is not None
    assert_close(webp.alpha, alpha[None, None], 1)
    assert torch.equal(gif.alpha[0, 0], (alpha >= 0.5).float())
    assert (gif.rgb - ramps())[..., 11:].abs().mean() < 0.05


def test_webp_keeps_the_colours_of_clear_pixels(tmp_path):
    save_image(ramps(32, 64), tmp_path / "a.webp", torch.zeros(32, 64))
    assert_close(load_image(tmp_path / "a.webp"), ramps(32, 64), 12)


def test_jpeg_keeps_colour_at_full_resolution(tmp_path):
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, ::2], image[:, 2, :, 1::2] = 1, 1  # columns red and blue in turn
    save_image(image, tmp_path / "a.jpg")
    assert_close(load_image(tmp_path / "a.jpg"), image, 30)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_format_without_alpha_is_laid_over_white(tmp_path, suffix):
    alpha = torch.zeros(16, 32)
    alpha[:, 16:] = 1
    save_image(torch.zeros(3, 16, 32), tmp_path / f"a{suffix}", alpha)
    picture = load_picture(tmp_path / f"a{suffix}")
    assert picture.alpha is None
    assert_close(picture.rgb, (1 - alpha).expand(1, 3, 16, 32), 2)


def test_values_are_rounded_and_what_is_little_beyond_is_clamped(tmp_path):
    values = torch.tensor([-0.5, 1.5, 0.0, 100.4 / 255, 100.6 / 255])
    image = values.expand(3, 1, 5).clone().requires_grad_()
    save_image(image, tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png")[0, 0, 0], torch.tensor([0, 255, 0, 100, 101]) / 255)
    assert image.min() == -0.5  # the caller's tensor is left alone


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0, 2.0, 255.0])
def test_what_is_no_picture_in_0_to_1_is_refused(tmp_path, value):
    image = torch.full((1, 3, 4, 5), 0.5)
    image[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"image must be finite and in \[0, 1\]"):
        save_image(image, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"alpha must be finite and in \[0, 1\]"):
        save_image(torch.zeros(3, 4, 5), tmp_path / "a.png", alpha=image[0, 1])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_an_open_file_is_given_what_a_path_is(tmp_path, suffix):
    alpha, file, archive = ramps()[0, 0], BytesIO(), BytesIO()
    save_image(ramps(), tmp_path / f"a{suffix}", alpha, exif=b"")
    save_image(ramps(), file, alpha, exif=b"", format=suffix)
    with zipfile.ZipFile(archive, "w") as whole, whole.open("member", "w") as member:  # cannot go back
        save_image(ramps(), member, alpha, exif=b"", format=suffix.upper().lstrip("."))
    with zipfile.ZipFile(archive) as whole:
        assert whole.read("member") == file.getvalue() == (tmp_path / f"a{suffix}").read_bytes()


def test_a_format_wins_over_the_suffix_and_an_open_file_needs_one(tmp_path):
    save_image(ramps(), tmp_path / "a.part", format="png")
    assert torch.equal(load_image(tmp_path / "a.part"), ramps())
    unusable: list[dict[str, Any]] = [{}, {"format": ".avif"}, {"format": "xyz"}]
    for options in unusable:
        with pytest.raises(ValueError, match="format"):
            save_image(ramps(), BytesIO(), **options)


def test_half_precision_is_saved(tmp_path):
    save_image(ramps().to(torch.bfloat16), tmp_path / "a.png")
    assert_close(load_image(tmp_path / "a.png"), ramps(), 1)


def test_quality_makes_jpeg_and_webp_larger(tmp_path):
    noise = torch.rand(3, 64, 64)
    for suffix in (".jpg", ".webp"):
        save_image(noise, tmp_path / f"low{suffix}", quality=20)
        save_image(noise, tmp_path / f"high{suffix}", quality=100)
        assert (tmp_path / f"high{suffix}").stat().st_size > 2 * (tmp_path / f"low{suffix}").stat().st_size


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 4, 4, 4), (4, 4), (3, 0, 4)])
def test_a_wrong_shape_is_refused(tmp_path, shape):
    with pytest.raises((ValueError, TypeError)):
        save_image(torch.zeros(shape), tmp_path / "a.png")
    with pytest.raises((ValueError, TypeError)):
        save_image(torch.zeros(3, 4, 4), tmp_path / "a.png", alpha=torch.zeros(4, 5))
    with pytest.raises((ValueError, TypeError)):
        save_image(torch.zeros(3, 4, 4, dtype=torch.uint8), tmp_path / "a.png")
    with pytest.raises(ValueError, match="quality"):
        save_image(torch.zeros(3, 4, 4), tmp_path / "a.png", quality=0)


# Saving


def test_missing_folders_are_made(tmp_path):
    save_image(ramps(), tmp_path / "one" / "two" / "a.png")
    assert torch.equal(load_image(tmp_path / "one" / "two" / "a.png"), ramps())


@pytest.mark.parametrize("name", ["a.xyz", "a", ".png"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match="unknown suffix") as raised:
        save_image(ramps(), tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert ".png" in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("in the way")
    in_the_way = "a file is where a folder should be"
    for name, matter in {"folder.png": "is a folder", "file/a.png": in_the_way, "file/b/a.png": in_the_way}.items():
        with pytest.raises(OutputError, match=matter) as raised:
            save_image(ramps(), tmp_path / name)
        assert str(raised.value).startswith(str(tmp_path / name))


def test_an_image_too_large_for_its_format(tmp_path):
    with pytest.raises(OutputError, match=r"\.png") as raised:
        save_image(torch.zeros(3, 1, 16384), tmp_path / "a.webp")
    assert "16383" in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError, match="the name is too long"):
        save_image(ramps(), tmp_path / ("x" * 300 + ".png"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("function", "thrown", "matter"),
    [
        ("replace", OSError(errno.EIO, "Input/output error"), "input/output error"),
        ("fsync", OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        ("replace", PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
    ],
)
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function, thrown, matter):
    (tmp_path / "a.png").write_bytes(b"the old file")

    def fail(*arguments):
        assert len(os.listdir(tmp_path)) == 2  # the temporary is there, and in the same folder
        raise thrown

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OutputError, match=matter) as raised:
        save_image(ramps(), tmp_path / "a.png")
    assert str(raised.value).startswith(str(tmp_path / "a.png"))
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"the old file"


def test_interruption_leaves_no_temporary(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_image(ramps(), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


def test_a_failing_encoder_touches_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"the old file")

    def fail(*arguments, **options):
        raise OSError("encoder error -2")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="encoder error"):
        save_image(ramps(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"the old file"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_an_ordinary_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_image(ramps(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.png").symlink_to(tmp_path / "real" / "b.png")
    save_image(ramps(), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_symlink()
    assert torch.equal(load_image(tmp_path / "real" / "b.png"), ramps())
