"""A picture is the same read from a path, bytes, an open file, a Pillow image or an array."""

import zipfile
from io import BytesIO, StringIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from arbitrary_nst.image import load_image, load_picture
from arbitrary_nst.runtime.files import ImageError
from pictures import message, pil_ramps, png, ramps


def encoded(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pil_ramps().transpose(Image.Transpose.ROTATE_90), exif=exif)


def test_bytes_and_open_files(tmp_path):
    (tmp_path / "a.png").write_bytes(turned())
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as whole:
        whole.writestr("a.png", turned())
    with zipfile.ZipFile(archive) as whole, whole.open("a.png") as member, open(tmp_path / "a.png", "rb") as file:
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), turned(), BytesIO(turned()), member, file):
            assert torch.equal(load_image(source), ramps()), source


def test_an_open_file_is_read_from_where_it_is():
    file = BytesIO(b"before" + turned())
    file.seek(6)
    assert torch.equal(load_image(file), ramps())


def test_pillow_images_are_brought_upright_and_kept():
    with Image.open(BytesIO(turned())) as picture:
        assert torch.equal(load_image(picture), ramps())
        assert picture.size == (13, 22)
    assert torch.equal(load_image(pil_ramps()), ramps())
    assert torch.equal(load_image(pil_ramps().convert("CMYK")), ramps())
    transparent = pil_ramps()
    transparent.putalpha(pil_ramps().getchannel("R"))
    alpha = load_picture(transparent).alpha
    assert alpha is not None
    assert torch.equal(alpha, ramps()[:, :1])


def test_a_pillow_image_keeps_its_own_transparent_colour():
    with Image.open(BytesIO(png(2, 0, [b"\x1b"], b"\0\2"))) as picture:
        alpha = load_picture(picture).alpha
        assert alpha is not None
        assert alpha[0, 0, 0].tolist() == [1, 1, 0, 1]
        assert picture.info["transparency"] == 2


def test_arrays():
    array = np.asarray(pil_ramps())
    assert torch.equal(load_image(array), ramps())
    assert torch.equal(load_image(array[:, ::-1]), ramps().flip(3))
    assert torch.equal(load_image(array[..., 0]), ramps()[:, :1].expand(1, 3, 13, 22))
    picture = load_picture(np.concatenate((array, array[..., 1:2]), 2))
    assert picture.alpha is not None
    assert torch.equal(picture.rgb, ramps())
    assert torch.equal(picture.alpha, ramps()[:, 1:2])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 3)),
        np.zeros((4, 5, 3), np.uint16),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="uint8"):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, torch.zeros(3, 4, 5), [[0, 1]]])
def test_what_is_no_source_is_refused(source):
    with pytest.raises((TypeError, ValueError)):
        load_image(source)


def test_errors_name_the_source():
    assert message(b"no picture").startswith("bytes: ")
    assert message(BytesIO(b"")).startswith("file object: ")
    assert "binary" in message(StringIO("text"))
    assert "--max-pixels" in message(pil_ramps(), max_pixels=10)


def test_results_are_ordinary_tensors():
    image = load_image(turned())
    assert not image.is_inference()
    image[0, 0, 0, 0] = 0.5
    (image * torch.ones(1, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jfi", ".JPE"])
def test_other_suffixes_of_jpeg(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(encoded(pil_ramps(), "JPEG"))
    assert load_image(tmp_path / f"a{suffix}").shape == (1, 3, 13, 22)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ImageError, match="known format"):
        load_image(b"no picture at all")
