"""Pictures shrunk for training, resizing, and the limit on what is decoded."""

import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_picture, load_pixels, resize, save_image
from arbitrary_nst.runtime.files import WRITTEN_SUFFIXES, ImageError
from pictures import every_example_in_one_folder, message, pil_ramps, png, ramps

# Training pixels


def test_pixels_equal_the_image_when_small_enough(tmp_path):
    save_image(ramps(), tmp_path / "a.png")
    for short_side in (13, 14, 500):
        assert torch.equal(load_pixels(tmp_path / "a.png", short_side)[None] / 255, ramps())


@every_example_in_one_folder
@given(height=st.integers(1, 150), width=st.integers(1, 150), short_side=st.integers(1, 60))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pixels_have_the_short_side_and_the_aspect(tmp_path, suffix, height, width, short_side):
    pil_ramps(height, width).save(tmp_path / f"a{suffix}")
    pixels = load_pixels(tmp_path / f"a{suffix}", short_side)
    assert min(pixels.shape[1:]) == min(short_side, height, width)
    scale = min(pixels.shape[1:]) / min(height, width)
    assert abs(pixels.shape[1] - height * scale) <= 0.5
    assert abs(pixels.shape[2] - width * scale) <= 0.5


def test_a_huge_jpeg_is_decoded_small(tmp_path, monkeypatch):
    pil_ramps(800, 1600).save(tmp_path / "a.jpg")
    decoded = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda self: (decoded.append(self.size), load(self))[1])
    assert load_pixels(tmp_path / "a.jpg", 100).shape == (3, 100, 200)
    assert max(decoded) == (200, 100)


def test_pixels_of_wide_gray_and_bad_short_side(tmp_path):
    Image.fromarray(np.full((40, 40), 32896, dtype=np.uint16)).save(tmp_path / "a.png")
    assert torch.equal(load_pixels(tmp_path / "a.png", 10), torch.full((3, 10, 10), 128, dtype=torch.uint8))
    with pytest.raises(ValueError, match="short_side"):
        load_pixels(tmp_path / "a.png", 0)


# Resizing


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.one_of(st.integers(1, 80), st.tuples(st.integers(1, 80), st.integers(1, 80))),
)
def test_resize_gives_exactly_the_size_asked_for(height, width, size):
    image = torch.rand(2, 3, height, width)
    resized = resize(image, size)
    assert resized.shape[:2] == (2, 3)
    assert resized.min() >= 0
    assert resized.max() <= 1
    if isinstance(size, tuple):
        assert resized.shape[2:] == size
    else:
        assert min(resized.shape[2:]) == size
        scale = size / min(height, width)
        assert abs(resized.shape[2] - height * scale) <= 0.5 + 1e-9
        assert abs(resized.shape[3] - width * scale) <= 0.5 + 1e-9


def test_resize_values():
    constant = torch.full((1, 3, 30, 20), 0.3)
    torch.testing.assert_close(resize(constant, 7), torch.full((1, 3, 11, 7), 0.3))
    noise = torch.rand(1, 3, 128, 128)  # each pixel is a mean of hundreds; without a filter it is one of the noise
    assert resize(noise, 8).std() < 0.05
    image = torch.rand(1, 3, 9, 9)
    assert torch.equal(resize(image, (9, 9)), image)
    assert resize(image.half(), 5).dtype == torch.float16
    for size in (0, (0, 5), (5, -1)):
        with pytest.raises(ValueError, match="at least 1"):
            resize(image, size)


# Size limit


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_the_size_limit_is_ours_and_pillows_is_not_asked(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    save_image(ramps(), path)
    line = message(path, max_pixels=13 * 22 - 1)
    assert "22 x 13" in line
    assert "--max-pixels" in line
    assert str(path) in line
    if suffix != ".webp":  # its reader always asks, but no WebP is large enough to be refused
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for limit in (13 * 22, None, DEFAULT_MAX_PIXELS):
            assert load_picture(path, max_pixels=limit).rgb.shape == (1, 3, 13, 22)
    assert (10 if suffix != ".webp" else 1024**3 // 12) == Image.MAX_IMAGE_PIXELS


def test_a_bomb_is_refused_by_its_header(tmp_path):
    bomb = png(8, 0, [b"\0"]).replace(struct.pack(">II", 1, 1), struct.pack(">II", 60000, 60000), 1)
    header, rest = bomb[12:29], bomb[33:]
    (tmp_path / "bomb.png").write_bytes(bomb[:29] + struct.pack(">I", zlib.crc32(header)) + rest)
    assert "3600000000 pixels" in message(tmp_path / "bomb.png")


def test_threads_with_different_limits_do_not_meet(tmp_path):
    save_image(ramps(), tmp_path / "a.tif")
    outcomes: list[bool] = []

    def decode(limit: int | None) -> None:
        for _ in range(20):
            try:
                load_picture(tmp_path / "a.tif", max_pixels=limit)
                outcomes.append(limit is None)
            except ImageError:
                outcomes.append(limit == 10)

    threads = [threading.Thread(target=decode, args=(limit,)) for limit in (None, 10, None, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 80
