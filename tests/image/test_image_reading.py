"""Every orientation, mode, depth and colour profile comes out as upright sRGB, transparency apart."""

import os
import struct
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageCms

from arbitrary_nst.image import load_image, load_picture, load_pixels, reading, resize
from pictures import assert_close, message, pil_ramps, png, ramps

# Orientation

# Stored rows and columns for each EXIF orientation, from the upright array (EXIF 2.3, figure 4.6.4-A).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


def save_turned(path: Path, orientation: int, upright: Image.Image, **options: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(upright))))
    stored.save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options", "levels"),
    [
        (".jpg", {"quality": 100, "subsampling": 0}, 4),
        (".png", {}, 0),
        (".webp", {"lossless": True}, 0),
        (".tif", {}, 0),
        (".tif", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_all_orientations_come_out_upright(tmp_path, orientation, suffix, options, levels):
    save_turned(tmp_path / f"a{suffix}", orientation, pil_ramps(), **options)
    assert_close(load_image(tmp_path / f"a{suffix}"), ramps(), levels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_alpha_and_wide_gray_are_turned_too(tmp_path, orientation):
    transparent = pil_ramps()
    transparent.putalpha(pil_ramps().getchannel("R"))
    save_turned(tmp_path / "a.png", orientation, transparent)
    picture = load_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert torch.equal(picture.rgb, ramps())
    assert torch.equal(picture.alpha, ramps()[:, :1])
    wide = Image.fromarray((ramps()[0, 2] * 65535).round().numpy().astype(np.uint16))
    save_turned(tmp_path / "b.png", orientation, wide)
    assert_close(load_image(tmp_path / "b.png"), ramps()[:, 2:].expand(1, 3, 13, 22), 0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_for_training_are_upright(tmp_path, orientation):
    save_turned(tmp_path / "a.jpg", orientation, pil_ramps(301, 450), quality=95)
    pixels = load_pixels(tmp_path / "a.jpg", 30)
    assert pixels.shape == (3, 30, 45)
    assert pixels.dtype == torch.uint8
    assert_close(pixels[None] / 255, resize(ramps(301, 450), 30), 8)


def test_broken_exif_is_ignored(tmp_path):
    pil_ramps().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage")
    assert torch.equal(load_image(tmp_path / "a.png"), ramps())


# Modes


@pytest.mark.parametrize(
    ("mode", "suffix", "levels"),
    [
        ("1", ".png", 0),
        ("1", ".tif", 0),
        ("1", ".bmp", 0),
        ("L", ".png", 0),
        ("L", ".jpg", 6),
        ("L", ".tif", 0),
        ("L", ".bmp", 0),
        ("L", ".gif", 0),
        ("P", ".png", 0),
        ("P", ".gif", 0),
        ("P", ".tif", 0),
        ("P", ".bmp", 0),
        ("CMYK", ".tif", 0),
        ("CMYK", ".jpg", 8),
        ("YCbCr", ".tif", 2),
        ("LAB", ".tif", 2),
        ("RGBX", ".tif", 0),
    ],
)
def test_modes_come_out_as_pillow_shows_them(tmp_path, mode, suffix, levels):
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 takes an uncompressed YCbCr TIFF for one of four samples")
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        stored = ImageCms.profileToProfile(pil_ramps(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        assert stored is not None
    else:
        stored = pil_ramps().convert(mode)
    stored.save(tmp_path / f"a{suffix}")
    expected = torch.from_numpy(np.array(stored.convert("RGB"))).permute(2, 0, 1)[None] / 255
    picture = load_picture(tmp_path / f"a{suffix}")
    assert picture.alpha is None
    assert picture.rgb.dtype == torch.float32
    assert picture.rgb.is_contiguous()
    assert_close(picture.rgb, expected, levels)
    if mode in ("CMYK", "YCbCr", "LAB"):  # the colours themselves, not only what Pillow says of them
        assert (picture.rgb - ramps()).abs().mean() < 2 / 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_kept_apart(tmp_path, mode):
    stored = pil_ramps().convert("RGBA" if mode == "RGBA" else mode)
    stored.putalpha(pil_ramps().getchannel("G"))
    assert stored.mode == mode
    path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
    stored.save(path)
    picture = load_picture(path)
    assert picture.alpha is not None
    assert torch.equal(picture.alpha, ramps()[:, 1:2])
    expected = torch.from_numpy(np.array(stored.convert("RGBA")))[..., :3].permute(2, 0, 1)[None] / 255
    assert torch.equal(picture.rgb, expected)


def test_palette_with_transparent_entries(tmp_path):
    paletted = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    paletted.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    paletted.save(tmp_path / "bytes.png", transparency=bytes([0, 128, 255]))
    paletted.save(tmp_path / "index.png", transparency=1)
    paletted.save(tmp_path / "index.gif", transparency=1)
    for name, alphas in {"bytes.png": [0, 128, 255], "index.png": [255, 0, 255], "index.gif": [255, 0, 255]}.items():
        picture = load_picture(tmp_path / name)
        assert picture.alpha is not None
        assert torch.equal(picture.alpha[0, 0, 0] * 255, torch.tensor(alphas).float()), name
        assert torch.equal(picture.rgb[0, :, 0], torch.eye(3)), name


@pytest.mark.parametrize(
    ("content", "values", "alphas"),
    [
        (png(1, 0, [b"\x55"], b"\0\1"), [0, 255] * 4, [255, 0] * 4),
        (png(2, 0, [b"\x1b"], b"\0\2"), [0, 85, 170, 255], [255, 255, 0, 255]),
        (png(4, 0, [b"\x0f\x5a"], b"\0\5"), [0, 255, 85, 170], [255, 255, 0, 255]),
        (png(8, 0, [b"\0\7\xff"], b"\0\7"), [0, 7, 255], [255, 0, 255]),
        (png(16, 0, [b"\0\0\x12\x34\xff\xff"], b"\x12\x34"), [0, 0x1234 / 257, 255], [255, 0, 255]),
        (png(8, 2, [b"\1\1\1\2\2\2"], b"\0\2\0\2\0\2"), [1, 2], [255, 0]),
        (png(16, 2, [b"\1\0\1\0\1\0\2\0\2\0\2\0"], b"\2\0\2\0\2\0"), [1, 2], [255, 0]),
    ],
)
def test_transparent_colour_of_png_at_every_depth(tmp_path, content, values, alphas):
    (tmp_path / "a.png").write_bytes(content)
    picture = load_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    for channel in picture.rgb[0, :, 0]:
        torch.testing.assert_close(channel * 255, torch.tensor(values).float(), atol=1e-3, rtol=0)
    assert torch.equal(picture.alpha[0, 0, 0] * 255, torch.tensor(alphas).float())


def test_16_bit_colour_with_alpha(tmp_path):
    (tmp_path / "a.png").write_bytes(png(16, 6, [b"\x10\0\x80\0\xff\xff\x40\0"]))
    picture = load_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert_close(picture.rgb[0, :, 0, 0], torch.tensor([0x1000, 0x8000, 0xFFFF]) / 65535, 1)
    assert_close(picture.alpha[0, 0, 0, 0], torch.tensor(0x4000 / 65535), 1)


@pytest.mark.parametrize("kind", ["I;16.png", "I;16.tif", "I;16B.tif", "I.tif", "I;16-lzw.tif"])
def test_16_bit_gray_keeps_its_precision(tmp_path, kind):
    values = np.arange(65536, dtype=np.int64).reshape(256, 256)
    dtype = {"I;16B": ">u2", "I": "<i4"}.get(kind.split(".")[0], "<u2")
    path = tmp_path / kind.replace(";", "")
    options: dict[str, Any] = {"compression": "tiff_lzw"} if "lzw" in kind else {}
    Image.fromarray(values.astype(dtype)).save(path, **options)
    expected = torch.from_numpy(values / 65535).float().expand(1, 3, 256, 256)
    assert_close(load_image(path), expected, 1e-4)


def tiff(bits: int, photometric: int, sample_format: int, samples: bytes, width: int) -> bytes:
    """An uncompressed gray TIFF of one row made by hand, of kinds that Pillow does not write."""
    values = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: 1, 279: len(samples)}
    tags = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**values, 339: sample_format}.items()]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4) + samples


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(12, 1, 1, b"\xff\xf0\x00\x80\0\0", 4), [1, 0, 2048 / 4095, 0]),
        (tiff(16, 0, 1, struct.pack("<3H", 0, 65535 // 5, 65535), 3), [1, 0.8, 0]),  # white is zero
        (tiff(16, 1, 2, struct.pack("<3h", -9, 0, 32767), 3), [0, 0, 1]),
        (tiff(32, 1, 1, struct.pack("<3I", 0, 2**31, 2**32 - 1), 3), [0, 0.5, 1]),
    ],
)
def test_rare_depths_of_gray_tiff(tmp_path, content, expected):
    (tmp_path / "a.tif").write_bytes(content)
    assert_close(load_image(tmp_path / "a.tif")[0, 1, 0], torch.tensor(expected).float(), 0.01)


def test_32_bit_gray_uses_its_whole_range(tmp_path):
    Image.fromarray(np.array([[0, 2**30, 2**31 - 1, -5]], dtype=np.int32)).save(tmp_path / "a.tif")
    expected = torch.tensor([0, 0.5, 1, 0]).expand(1, 3, 1, 4)
    torch.testing.assert_close(load_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 1.0, 0.5], [0.0, 0.25, 1.0, 0.5]),
        ([0.0, 127.5, 255.0, -3.0], [0.0, 0.5, 1.0, 0.0]),
        ([float("nan"), 0.5, float("inf"), -float("inf")], [0.0, 0.5, 1.0, 0.0]),
        ([float("nan"), 2.0, float("inf"), 4.0], [0.0, 0.5, 1.0, 1.0]),
        ([float("nan")] * 4, [0.0] * 4),
    ],
)
def test_float_tiff(tmp_path, values, expected):
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tif")
    torch.testing.assert_close(load_image(tmp_path / "a.tif"), torch.tensor(expected).expand(1, 3, 1, 4))
    pixels = load_pixels(tmp_path / "a.tif", 8)
    assert torch.equal(pixels[0, 0], (torch.tensor(expected) * 255).round().byte())


def test_animations_give_their_first_frame(tmp_path):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    formats: dict[str, dict[str, Any]] = {"a.gif": {}, "a.webp": {"lossless": True}, "a.png": {}, "a.tif": {}}
    for name, options in formats.items():
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        with Image.open(tmp_path / name) as written:
            assert getattr(written, "n_frames", 1) == 2
        assert_close(load_image(tmp_path / name), torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 8, 8), 0)


# Colour profiles

LINEAR_CURVE = b"curv" + bytes(8)


def icc(colour_space: bytes, curve: bytes, swap: bool = False) -> bytes:
    """A small version 2 matrix or gray profile: sRGB's primaries (red and blue exchanged by `swap`), any tone curve."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + fixed(*values)

    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    if swap:
        red, blue = blue, red
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(80)}
    if colour_space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue)}
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, content, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        padded = tag + bytes(-len(tag) % 4)
        table += name + struct.pack(">II", offset + len(content), len(tag))
        content += padded
    size = 128 + len(table) + len(content)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", colour_space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return header + bytes(128 - len(header)) + table + content


def srgb_encoded(linear: torch.Tensor) -> torch.Tensor:
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_linear_profile_is_brought_to_srgb(tmp_path, suffix):
    formats: dict[str, dict[str, Any]] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    options = formats.get(suffix, {})
    stored = pil_ramps().point(
        [max(level, 64) for level in range(256)] * 3
    )  # in the dark one level of linear light is many of sRGB
    stored.save(tmp_path / f"a{suffix}", icc_profile=icc(b"RGB ", LINEAR_CURVE), **options)
    expected = srgb_encoded(ramps().clamp(min=64 / 255))
    assert (expected - ramps().clamp(min=64 / 255)).abs().max() > 0.2
    assert_close(load_image(tmp_path / f"a{suffix}"), expected, 8 if suffix == ".jpg" else 2)


def test_alpha_and_palettes_survive_a_profile(tmp_path):
    profile = icc(b"RGB ", struct.pack(">4sIIHH", b"curv", 0, 1, 0x0233, 0), swap=True)  # gamma 2.2, red <-> blue
    transparent = Image.new("RGBA", (2, 2), (255, 0, 0, 77))
    transparent.save(tmp_path / "rgba.png", icc_profile=profile)
    Image.new("RGB", (2, 2), (255, 0, 0)).convert("P").save(tmp_path / "p.png", icc_profile=profile)
    for name in ("rgba.png", "p.png"):
        picture = load_picture(tmp_path / name)
        assert_close(picture.rgb[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]), 3)
        assert (picture.alpha is None) == (name == "p.png")
        assert picture.alpha is None or torch.equal(picture.alpha, torch.full((1, 1, 2, 2), 77 / 255))


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_gray_profile_is_brought_to_srgb(tmp_path, mode):
    if mode == "I;16":
        stored = Image.fromarray(np.full((2, 2), 65535 // 5, dtype=np.uint16))
    else:
        stored = Image.new(mode, (2, 2), {"L": 51, "LA": (51, 99)}[mode])
    stored.save(tmp_path / "a.png", icc_profile=icc(b"GRAY", LINEAR_CURVE))
    picture = load_picture(tmp_path / "a.png")
    assert_close(picture.rgb, srgb_encoded(torch.full((1, 3, 2, 2), 0.2)), 1.5)
    assert (picture.alpha is not None) == (mode == "LA")


def test_a_gray_image_with_a_colour_profile(tmp_path):
    Image.new("L", (2, 2), 51).save(tmp_path / "a.png", icc_profile=icc(b"RGB ", LINEAR_CURVE))
    assert_close(load_image(tmp_path / "a.png"), srgb_encoded(torch.full((1, 3, 2, 2), 0.2)), 1.5)


@pytest.mark.parametrize(
    "profile", [b"garbage", icc(b"RGB ", LINEAR_CURVE)[:200], icc(b"GRAY", LINEAR_CURVE), icc(b"CMYK", LINEAR_CURVE)]
)
def test_a_broken_or_mismatched_profile_is_ignored(tmp_path, profile):
    pil_ramps().save(tmp_path / "a.png", icc_profile=profile)
    assert torch.equal(load_image(tmp_path / "a.png"), ramps())


@pytest.mark.parametrize("profile", [None, b"garbage", icc(b"RGB ", LINEAR_CURVE)])
def test_adobe_cmyk_jpeg_is_not_negative(tmp_path, profile):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    ink.save(tmp_path / "a.jpg", quality=100, icc_profile=profile)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()[:4000]
    assert_close(load_image(tmp_path / "a.jpg")[0, :, 8, 8], torch.tensor([1.0, 0.0, 0.0]), 4)


# Pipes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_without_a_writer_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIPE_TIMEOUT", 0.05)
    os.mkfifo(tmp_path / "pipe")
    assert "nothing came through this pipe for 0.05 seconds" in message(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path):
    encoded = BytesIO()
    pil_ramps().save(encoded, "PNG")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(encoded.getvalue()))
    writer.start()
    assert torch.equal(load_image(tmp_path / "pipe"), ramps())
    writer.join()
