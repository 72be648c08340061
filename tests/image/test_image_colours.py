"""Colours that a file describes without a profile, and the formats of phones: all come out in sRGB."""

import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from arbitrary_nst.image import load_image, load_picture, load_pixel_picture
from pictures import assert_close, message, pil_ramps, ramps

LEVELS = torch.tensor([[128, 96, 64], [64, 120, 100], [90, 90, 160], [255, 255, 255], [0, 0, 0], [128, 128, 128]])
"""Within sRGB, also where they are taken as Adobe RGB or Display P3."""

ADOBE_TO_XYZ = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
P3_TO_XYZ = [[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0, 0.04511, 1.04394]]
SRGB_TO_XYZ = [[0.41239, 0.35758, 0.18048], [0.21264, 0.71517, 0.07219], [0.01933, 0.11919, 0.95053]]


def swatches(side: int = 16) -> Image.Image:
    row = LEVELS.byte()[None, :, None].expand(side, -1, side, -1).flatten(1, 2)
    return Image.fromarray(row.numpy())


def colours(picture: torch.Tensor, side: int = 16) -> torch.Tensor:
    """Those in the middle of the swatches."""
    return picture[0, :, side // 2, side // 2 :: side].T


def to_srgb(linear: torch.Tensor, to_xyz: list[list[float]] = SRGB_TO_XYZ) -> torch.Tensor:
    light = linear @ torch.tensor(to_xyz).T @ torch.linalg.inv(torch.tensor(SRGB_TO_XYZ)).T
    curved = 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, curved).clamp(0, 1)


def srgb_light(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


AS_ADOBE = to_srgb((LEVELS / 255) ** (563 / 256), ADOBE_TO_XYZ)
AS_P3 = to_srgb(srgb_light(LEVELS / 255), P3_TO_XYZ)


# EXIF


def camera(space: int | None, index: str | None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    folder = exif.get_ifd(0x8769)
    if space is not None:
        folder[0xA001] = space
    if index is not None:
        folder[0xA005] = {1: index}
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    ("space", "index", "adobe"),
    [(0xFFFF, "R03", True), (2, None, True), (0xFFFF, "R98", False), (0xFFFF, None, False), (1, "R03", False)],
)
def test_adobe_rgb_by_exif(tmp_path, suffix, space, index, adobe):
    path = tmp_path / f"_a{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 100}
    swatches().save(path, exif=camera(space, index).tobytes(), **options)
    assert (AS_ADOBE - LEVELS / 255).abs().max() > 0.05
    assert_close(colours(load_image(path)), AS_ADOBE if adobe else LEVELS / 255, 3)
    kept = Image.Exif()
    kept.load(load_picture(path).exif)
    assert 0xA001 not in kept.get_ifd(0x8769)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_comes_with_the_picture(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    swatches().save(path, exif=camera(1, None).tobytes())
    kept = Image.Exif()
    kept.load(load_picture(BytesIO(path.read_bytes())).exif)
    assert kept[0x010F] == "Camera"
    assert load_pixel_picture(path).exif == load_picture(path).exif == kept.tobytes()


def test_exif_behind_the_pixels_of_a_png_is_found():
    file = BytesIO()
    swatches().save(file, "PNG", exif=camera(1, None).tobytes())
    content = file.getvalue()
    begin, pixels = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    moved = content[:begin] + content[pixels:-12] + content[begin:pixels] + content[-12:]
    assert b"Camera" in load_picture(moved).exif


def test_adobe_rgb_by_exif_in_tiff(tmp_path):  # Pillow writes no interoperability into a TIFF
    swatches().save(tmp_path / "a.tif", exif=camera(2, None).tobytes())  # of an object it writes no folders
    assert_close(colours(load_image(tmp_path / "a.tif")), AS_ADOBE, 1)


def test_a_profile_wins_over_exif(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swatches().save(tmp_path / "a.png", exif=camera(0xFFFF, "R03"), icc_profile=srgb)
    assert_close(colours(load_image(tmp_path / "a.png")), LEVELS / 255, 1)


# PNG


def with_chunks(picture: Image.Image, **chunks: bytes) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    content = file.getvalue()
    parts = [
        struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in chunks.items()
    ]
    return content[:33] + b"".join(parts) + content[33:]


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}I", *(round(value * 100000) for value in values))


SRGB_CHROMATICITIES = fixed(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE_CHROMATICITIES = fixed(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"gAMA": fixed(1.0)}, to_srgb(LEVELS / 255)),
        ({"gAMA": fixed(1 / 1.8)}, to_srgb((LEVELS / 255) ** 1.8)),
        ({"gAMA": fixed(1.0), "cHRM": SRGB_CHROMATICITIES}, to_srgb(LEVELS / 255)),
        ({"gAMA": fixed(256 / 563), "cHRM": ADOBE_CHROMATICITIES}, AS_ADOBE),
        ({"gAMA": fixed(1 / 2.2)}, LEVELS / 255),
        ({"gAMA": fixed(1 / 2.2), "cHRM": SRGB_CHROMATICITIES}, LEVELS / 255),
        ({"gAMA": fixed(1.0), "sRGB": b"\0"}, LEVELS / 255),
        ({"gAMA": fixed(0)}, LEVELS / 255),
        ({"gAMA": fixed(1.0), "cHRM": bytes(32)}, LEVELS / 255),
        ({"cICP": b"\x0c\x0d\0\1"}, AS_P3),
        ({"cICP": b"\1\x0d\0\1", "gAMA": fixed(1.0)}, LEVELS / 255),
    ],
)
def test_colours_of_png_without_a_profile(chunks, expected):
    assert_close(colours(load_image(with_chunks(swatches(), **chunks))), expected, 1.5)


def test_gamma_of_gray_and_palettes():
    levels = LEVELS[[3, 4, 5]] / 255  # those that are gray
    for picture in (swatches().convert("L"), swatches().convert("LA"), swatches().quantize()):
        shades = colours(load_image(with_chunks(picture, gAMA=fixed(1.0))))[[3, 4, 5]]
        assert_close(shades, to_srgb(levels), 2)


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(transfer):
    assert "dynamic range" in message(with_chunks(swatches(), cICP=bytes([9, transfer, 0, 1])))


# BMP


@pytest.mark.parametrize(("opacity", "kept"), [(0, False), (7, True), (255, True)])
def test_a_bmp_without_any_opacity_is_opaque(opacity, kept):
    """A V4 header of 32 bits with a mask for alpha, as screenshots have it."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + b"BGRs" + bytes(48)
    pixels = bytes([30, 20, 10, opacity, 60, 50, 40, opacity])
    content = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels
    picture = load_picture(content)
    assert torch.equal(picture.rgb[0, :, 0] * 255, torch.tensor([[10.0, 40], [20, 50], [30, 60]]))
    assert (picture.alpha is not None) == kept
    assert picture.alpha is None or torch.equal(picture.alpha * 255, torch.full((1, 1, 1, 2), float(opacity)))


# AVIF and HEIC


def heic(picture: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = BytesIO()
    pillow_heif.from_pillow(picture).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def avif(picture: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, "AVIF", quality=100, subsampling="4:4:4", **options)
    return file.getvalue()


@pytest.mark.parametrize(("encode", "name"), [(heic, "a.heic"), (avif, "a.avif")])
def test_pictures_of_phones(tmp_path, encode, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pil_ramps(32, 48).transpose(Image.Transpose.ROTATE_90)
    (tmp_path / name).write_bytes(encode(turned, exif=exif.tobytes()))
    assert_close(load_image(tmp_path / name), ramps(32, 48), 6)
    clear = pil_ramps(32, 48)
    clear.putalpha(clear.getchannel("R"))
    picture = load_picture(encode(clear))
    assert picture.alpha is not None
    assert_close(picture.alpha, ramps(32, 48)[:, :1], 3)
    assert "32 is 1536 pixels" in message(encode(clear), max_pixels=1000)
    for kept in (0.3, 0.8):
        content = encode(clear)
        assert message(content[: int(kept * len(content))])


@pytest.mark.parametrize("encode", [heic, avif])
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18)])
def test_code_points_of_phones(encode, primaries, transfer):
    content = bytearray(encode(swatches()))
    place = content.index(b"colrnclx") + 8
    content[place : place + 4] = struct.pack(">HH", primaries, transfer)
    if transfer == 13:
        assert_close(colours(load_image(bytes(content))), AS_P3, 6)
    else:
        assert "dynamic range" in message(bytes(content))


def test_heic_without_its_package_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "arbitrary_nst[heif]" in message(Path(tmp_path / "a.heic"))


@pytest.mark.parametrize("content", [b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x10ftypcrx \0\0\0\1", b"IIU\0\x18\0\0\0"])
def test_other_camera_raws_are_told_as_such(content):
    assert "develop" in message(content + bytes(100))
