import builtins
import errno
import os
import stat
import struct
import sys
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from arbitrary_nst.image import (
    DEFAULT_MAX_PIXELS,
    SUFFIXES,
    ImageError,
    find_images,
    load_image,
    load_picture,
    load_pixels,
    resize,
    save_image,
)

LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
every_example_in_one_folder = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ramps(height: int = 13, width: int = 22) -> torch.Tensor:
    """Red grows to the right, green downwards, blue with both; exact in 8 bits, different in all four corners."""
    down, right = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return (torch.stack((right, down, (down + right) / 2)) * 255).round()[None] / 255


def pil_ramps(height: int = 13, width: int = 22) -> Image.Image:
    return Image.fromarray((ramps(height, width)[0] * 255).round().byte().permute(1, 2, 0).numpy())


def assert_close(actual: torch.Tensor, expected: torch.Tensor, levels: float) -> None:
    assert actual.shape == expected.shape
    difference = (actual - expected).abs().max().item() * 255
    assert difference <= levels + 1e-3, f"differs by {difference} levels"


def message(path, load=load_picture, **options) -> str:
    """The one line of the ImageError that loading `path` raises."""
    with pytest.raises(ImageError) as raised:
        load(path, **options)
    line = str(raised.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


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


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_in_any_case_is_written_and_read(tmp_path, suffix):
    image = ramps(40, 60)
    path = tmp_path / f"a{suffix.upper()}"
    save_image(image, path)
    picture = load_picture(path)
    assert picture.alpha is None
    assert_close(picture.rgb, image, {".gif": 40, ".webp": 12, ".jpg": 8, ".jpeg": 8}.get(suffix, 0))
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


def test_values_are_clamped_rounded_and_nan_is_black(tmp_path):
    values = torch.tensor([-1.0, 2.0, float("nan"), float("inf"), -float("inf"), 100.4 / 255, 100.6 / 255])
    image = values.expand(3, 1, 7).clone().requires_grad_()
    save_image(image, tmp_path / "a.png")
    expected = torch.tensor([0, 255, 0, 255, 0, 100, 101]) / 255
    assert torch.equal(load_image(tmp_path / "a.png")[0, 0, 0], expected)
    assert torch.isnan(image[0, 0, 2])  # the caller's tensor is left alone


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


def save_turned(path: Path, orientation: int, upright: Image.Image, **options) -> None:
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


def png(depth: int, colour_type: int, rows: list[bytes], transparent: bytes = b"") -> bytes:
    """A PNG made by hand: Pillow writes neither 2 and 4 bit gray nor 16 bit colours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    width = len(rows[0]) * 8 // (depth * samples)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    content = chunk(b"IHDR", header) + (chunk(b"tRNS", transparent) if transparent else b"")
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


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
    options = {"compression": "tiff_lzw"} if "lzw" in kind else {}
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
    for name, options in {"a.gif": {}, "a.webp": {"lossless": True}, "a.png": {}, "a.tif": {}}.items():
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
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
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


# Errors of reading


def test_each_reading_error_names_the_file_and_the_matter(tmp_path):
    save_image(torch.rand(3, 64, 64), tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("This is no image at all, whatever its name says.")
    (tmp_path / "short.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "header.png").write_bytes(good[:20])
    (tmp_path / "zero.png").write_bytes(png(8, 0, [b"\0"]).replace(struct.pack(">II", 1, 1), bytes(8), 1))
    (tmp_path / "folder.png").mkdir()
    expected = {
        "missing.png": "no such file",
        "empty.png": "empty",
        "text.png": "not an image",
        "short.png": "truncated",
        "header.png": "truncated",
        "zero.png": "damaged",
        "folder.png": "is a folder",
        "good.png/below.png": "no such file",
    }
    for name, matter in expected.items():
        for line in (message(tmp_path / name), message(tmp_path / name, load_pixels, short_side=8)):
            assert line.startswith(f"{tmp_path / name}: ")
            assert matter in line
            assert ";" in line  # what to do
    assert "\\n" in message(tmp_path / "line\nbreak.png")
    assert "\\x00" in message("nul\0.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_never_half_a_picture(tmp_path, suffix, kept):
    save_image(torch.rand(3, 64, 64), tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: int(len(content) * kept)])
    line = message(tmp_path / f"cut{suffix}")
    assert "truncated" in line or "damaged" in line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_gives_an_image_or_an_image_error(tmp_path, suffix, changes):
    path = tmp_path / f"a{suffix}"
    if not path.exists():
        save_image(ramps(), path, alpha=ramps()[0, 0])
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place**2 * len(content))] = value  # mostly in the header
    (tmp_path / "damaged").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rgb, failure = load_image(tmp_path / "damaged", max_pixels=10_000), ""
        except ImageError as error:
            rgb, failure = torch.zeros(1, 3, 1, 1), str(error)
    assert failure == "" or failure.startswith(str(tmp_path / "damaged"))
    assert rgb.min() >= 0
    assert rgb.max() <= 1


@pytest.mark.parametrize(
    "thrown",
    [
        OSError("broken"),
        SyntaxError("x"),
        struct.error("x"),
        EOFError(),
        IndexError("x"),
        KeyError("x"),
        TypeError("x"),
        OverflowError("x"),
        zlib.error("x"),
        RuntimeError("x"),
        RecursionError("x"),
        SystemError("x"),
    ],
)
def test_whatever_pillow_throws_becomes_an_image_error(tmp_path, monkeypatch, thrown):
    save_image(ramps(), tmp_path / "a.png")

    def load(self):
        raise thrown

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert "damaged" in message(tmp_path / "a.png")


def test_memory_and_interruption(tmp_path, monkeypatch):
    save_image(ramps(), tmp_path / "a.png")
    for thrown in (MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")):

        def load(self, thrown=thrown):
            raise thrown

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
        assert "out of memory" in message(tmp_path / "a.png")

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_picture(tmp_path / "a.png")


def test_permission_denied_is_said(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(builtins, "open", refused)
    line = message(tmp_path / "a.png")
    assert line.startswith(f"{tmp_path / 'a.png'}: permission denied")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that bind")
def test_unreadable_files_and_folders(tmp_path):
    save_image(ramps(), tmp_path / "closed" / "a.png")
    (tmp_path / "closed" / "a.png").chmod(0)
    assert "permission denied" in message(tmp_path / "closed" / "a.png")
    (tmp_path / "closed").chmod(0o500)
    with pytest.raises(ImageError, match="permission denied"):
        save_image(ramps(), tmp_path / "closed" / "b.png")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        find_images([tmp_path / "closed"])
    (tmp_path / "closed").chmod(0o700)


# Size limit


@pytest.mark.parametrize("suffix", SUFFIXES)
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


# Saving


def test_missing_folders_are_made(tmp_path):
    save_image(ramps(), tmp_path / "one" / "two" / "a.png")
    assert torch.equal(load_image(tmp_path / "one" / "two" / "a.png"), ramps())


@pytest.mark.parametrize("name", ["a.xyz", "a", ".png"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match="unknown suffix") as raised:
        save_image(ramps(), tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert ".png" in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("in the way")
    for name, matter in {"folder.png": "is a folder", "file/a.png": "in the way", "file/b/a.png": "in the way"}.items():
        with pytest.raises(ImageError, match=matter) as raised:
            save_image(ramps(), tmp_path / name)
        assert str(raised.value).startswith(str(tmp_path / name))


def test_an_image_too_large_for_its_format(tmp_path):
    with pytest.raises(ImageError, match=r"\.png") as raised:
        save_image(torch.zeros(3, 1, 16384), tmp_path / "a.webp")
    assert "16383" in str(raised.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("function", "thrown", "matter"),
    [
        ("replace", OSError(errno.EIO, "Input/output error"), "cannot be written"),
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
    with pytest.raises(ImageError, match=matter) as raised:
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
    with pytest.raises(ImageError, match="encoder error"):
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path):
    encoded = BytesIO()
    pil_ramps().save(encoded, "PNG")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(encoded.getvalue()))
    writer.start()
    assert torch.equal(load_image(tmp_path / "pipe"), ramps())
    writer.join()


# Finding


@pytest.fixture
def tree(tmp_path, monkeypatch):
    names = ["b10.png", "b2.PNG", "B1.jpg", "notes.txt", ".hidden.png", "sub/a.webp", ".git/x.png", "sub/deep/c.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths) -> list[str]:
    return [path.as_posix() for path in find_images(paths)]


def test_a_folder_is_searched_in_natural_order(tree):
    everything = ["B1.jpg", "b2.PNG", "b10.png", "sub/a.webp", "sub/deep/c.gif"]
    assert found(".") == everything
    assert found(tree) == [(tree / name).as_posix() for name in everything]
    assert find_images("sub") == [Path("sub/a.webp"), Path("sub/deep/c.gif")]
    assert find_images([]) == []


def test_order_of_arguments_holds_and_duplicates_go(tree):
    assert found("sub", "b10.png", ".", tree / "b2.PNG") == [
        *("sub/a.webp", "sub/deep/c.gif", "b10.png"),
        *("B1.jpg", "b2.PNG"),
    ]


def test_patterns(tree):
    assert found("b*.[pP][nN][gG]") == ["b2.PNG", "b10.png"]
    assert found("**/*.gif") == ["sub/deep/c.gif"]
    assert found("s?b") == ["sub/a.webp", "sub/deep/c.gif"]
    assert found("*") == found(".")
    assert found(tree / "sub" / "*.webp") == [(tree / "sub" / "a.webp").as_posix()]


def test_a_named_file_is_kept_whatever_its_suffix(tree):
    assert found("notes.txt", ".hidden.png") == ["notes.txt", ".hidden.png"]


def test_an_existing_name_wins_over_the_pattern(tree):
    (tree / "x[12].png").touch()
    (tree / "x1.png").touch()
    (tree / "[sub]").mkdir()
    (tree / "[sub]" / "y.png").touch()
    assert found("x[12].png") == ["x[12].png"]
    assert found("[sub]") == ["[sub]/y.png"]
    (tree / "x[12].png").unlink()
    assert found("x[12].png") == ["x1.png"]


@pytest.mark.parametrize(
    ("path", "matter"),
    [
        ("missing.png", "no such file"),
        ("*.jpeg", "matches"),
        ("*.txt", "matches"),
        ("empty", "no image in this folder"),
        ("", "no such file"),
    ],
)
def test_what_gives_nothing_is_named(tree, path, matter):
    (tree / "empty").mkdir()
    with pytest.raises(ImageError, match=matter) as raised:
        find_images(["b2.PNG", path])
    assert str(raised.value).startswith(path or "''")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_linked_folders_are_followed_once(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "z.png").touch()
    (tree / "sub" / "linked").symlink_to(elsewhere)
    (tree / "sub" / "loop").symlink_to(tree / "sub")
    assert found("sub") == ["sub/a.webp", "sub/deep/c.gif", "sub/linked/z.png"]


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
