"""Pictures in 8 bits: what is read and written is what the float functions read and write."""

import os
import signal
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.errors import OutputError
from arbitrary_nst.image import (
    load_picture,
    load_pixel_picture,
    resize,
    resize_pixels,
    save_image,
    save_pixels,
    shrink_pixels,
)
from arbitrary_nst.runtime.files import WRITTEN_SUFFIXES, ImageError


def pixels(height: int = 13, width: int = 22, channels: int = 3) -> torch.Tensor:
    return (torch.rand(channels, height, width) * 256).byte()


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_the_file_is_that_of_the_float_image(tmp_path, suffix, with_alpha):
    rgb, alpha = pixels(), pixels(channels=1) if with_alpha else None
    save_pixels(rgb, tmp_path / f"ours{suffix}", alpha)
    save_image(rgb[None] / 255, tmp_path / f"float{suffix}", None if alpha is None else alpha / 255)
    assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"float{suffix}").read_bytes()


def test_pixels_side_by_side_in_memory_give_the_same_file(tmp_path):
    rgb = pixels()
    save_pixels(rgb, tmp_path / "a.png")
    save_pixels(rgb.permute(1, 2, 0).contiguous().permute(2, 0, 1), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_is_read_is_what_was_written(tmp_path):
    rgb, alpha = pixels(), pixels(channels=1)
    save_pixels(rgb, tmp_path / "a.png", alpha)
    picture = load_pixel_picture(tmp_path / "a.png")
    assert torch.equal(picture.rgb, rgb)
    assert picture.alpha is not None
    assert torch.equal(picture.alpha, alpha)
    assert picture.rgb.permute(1, 2, 0).is_contiguous()
    assert torch.equal(load_picture(tmp_path / "a.png").rgb[0], rgb / 255)


def test_a_file_without_transparency_has_none(tmp_path):
    save_pixels(pixels(), tmp_path / "a.png")
    assert load_pixel_picture(tmp_path / "a.png").alpha is None


@pytest.mark.parametrize(
    ("rgb", "alpha"),
    [
        (torch.rand(3, 4, 4), None),
        (pixels()[None], None),
        (pixels(channels=1), None),
        (pixels(), torch.rand(1, 13, 22)),
        (pixels(), pixels(5, 5, 1)),
    ],
)
def test_what_are_no_pixels_is_refused(tmp_path, unchecked, rgb, alpha):
    with pytest.raises(ValueError, match="must be uint8"):
        save_pixels(rgb, tmp_path / "a.png", alpha)
    assert os.listdir(tmp_path) == []


def test_errors_name_the_file(tmp_path):
    with pytest.raises(OutputError, match=r"a\.xyz: unknown suffix"):
        save_pixels(pixels(), tmp_path / "a.xyz")
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        load_pixel_picture(tmp_path / "none.png")
    with pytest.raises(ValueError, match="quality"):
        save_pixels(pixels(), tmp_path / "a.jpg", quality=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_shrunk_pixels_are_the_resized_image(height, width, side):
    rgb = pixels(height, width)
    expected = resize(rgb[None] / 255, min(side, height, width))
    assert_close(shrink_pixels(rgb, side), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [20, 90, (31, 17), (70, 20)])
def test_resized_pixels_are_the_resized_image_rounded(size):
    rgb = torch.arange(240).view(1, 60, 4).repeat_interleave(10, 2).expand(3, -1, -1).byte()
    expected = (resize(rgb[None] / 255, size)[0] * 255).round()
    assert_close(resize_pixels(rgb, size).float(), expected, atol=2, rtol=0)


def test_many_rows_are_narrowed_in_bands():
    rgb = pixels(2500, 50)
    assert_close(shrink_pixels(rgb, 20), resize(rgb[None] / 255, 20), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="short_side"):
        shrink_pixels(rgb, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_a_file_that_cannot_grow_is_told_with_the_systems_own_reason_and_leaves_nothing(tmp_path, suffix):
    import resource

    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(OSError: .*too large"):
            save_pixels(pixels(200, 200), tmp_path / f"a{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == []
