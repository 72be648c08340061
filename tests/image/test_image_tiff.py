"""TIFF files of every layout: planes apart or together, strips or tiles, either byte order, the picture on any page."""

import struct
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from arbitrary_nst.image import load_image, load_picture
from pictures import assert_close, message, ramps

RGB, CMYK, YCBCR, SENSOR, LINEAR_RAW = 2, 5, 6, 32803, 34892
REDUCED, MASK = 1, 4


@dataclass(frozen=True)
class Page:
    """Samples (H, W, C) and how they lie in the file; `side` is that of tiles, `below` are its SubIFDs."""

    samples: np.ndarray
    photometric: int = RGB
    separate: bool = False
    side: int | None = None
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)
    below: tuple["Page", ...] = ()


def tiff(*pages: Page, order: Literal["<", ">"] = "<", big: bool = False) -> bytes:
    """An uncompressed TIFF made by hand: Pillow writes neither planes nor tiles nor 16-bit colours."""
    address = "Q" if big else "I"
    content = bytearray(b"II" if order == "<" else b"MM")
    content += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HI", 42, 0)
    link = len(content) - struct.calcsize(address)  # where the place of the next page is to be written

    def write(page: Page) -> tuple[int, int]:
        """Where the page begins, and where it names the next one."""
        height, width, channels = page.samples.shape
        stored = page.samples.astype(page.samples.dtype.newbyteorder(order))
        planes = [stored[..., i : i + 1] for i in range(channels)] if page.separate else [stored]
        rows, columns = (page.side, page.side) if page.side else (5, width)
        parts = []
        for plane, y, x in product(planes, range(0, height, rows), range(0, width, columns)):
            part = plane[y : y + rows, x : x + columns]
            if page.side:
                part = np.pad(part, [(0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)])
            parts.append((len(content), part.nbytes))
            content.extend(part.tobytes())
        tags: dict[int, tuple[int, ...]] = {256: (width,), 257: (height,), 258: (stored.itemsize * 8,) * channels}
        tags |= {259: (1,), 262: (page.photometric,), 277: (channels,), 284: (2 if page.separate else 1,)}
        offsets, counts = tuple(offset for offset, _ in parts), tuple(count for _, count in parts)
        if page.side:
            tags |= {322: (columns,), 323: (rows,), 324: offsets, 325: counts}
        else:
            tags |= {273: offsets, 278: (rows,), 279: counts}
        if page.below:
            tags |= {330: tuple(write(lower)[0] for lower in page.below)}
        entries = b""
        for tag, values in sorted((tags | page.tags).items()):
            value = struct.pack(f"{order}{len(values)}I", *values)
            if len(value) > struct.calcsize(address):
                content.extend(value)
                value = struct.pack(order + address, len(content) - len(value))
            entries += struct.pack(f"{order}HH{address}", tag, 4, len(values)) + value.ljust(
                struct.calcsize(address), b"\0"
            )
        begin = len(content)
        content.extend(struct.pack(order + ("Q" if big else "H"), len(entries) // (20 if big else 12)) + entries)
        content.extend(bytes(struct.calcsize(address)))
        return begin, len(content) - struct.calcsize(address)

    for page in pages:
        begin, following = write(page)
        struct.pack_into(order + address, content, link, begin)
        link = following
    return bytes(content)


def smooth(channels: int, bits: int, height: int = 23, width: int = 37) -> np.ndarray:
    """Every channel another slope, from end to end of the range."""
    down, right = np.mgrid[:height, :width] / [[[height - 1]], [[width - 1]]]
    slopes = [right, down, (down + right) / 2, 1 - right / 2, 1 - down / 2, right / 2]
    return (np.stack(slopes[:channels], 2) * (2**bits - 1)).round().astype(f"u{bits // 8}")


# Layouts


@pytest.mark.parametrize(("separate", "side"), list(product((True, False), (None, 16, 64))))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("kind", "channels", "photometric", "extra"),
    [
        ("rgb", 3, RGB, ()),
        ("opacity", 4, RGB, (2,)),
        ("premultiplied", 4, RGB, (1,)),
        ("another channel", 4, RGB, (0,)),
        ("cmyk", 4, CMYK, ()),
        ("gray", 1, 1, ()),
    ],
)
def test_every_layout_gives_the_same_picture(tmp_path, kind, channels, photometric, extra, bits, order, separate, side):
    stored = smooth(channels, bits)
    values = stored / (2**bits - 1)
    if kind == "premultiplied":
        stored = (np.concatenate((values[..., :3] * values[..., 3:], values[..., 3:]), 2) * (2**bits - 1)).round()
        stored = stored.astype(f"u{bits // 8}")
    page = Page(stored, photometric, separate, side, {338: extra} if extra else {})
    (tmp_path / "a.tif").write_bytes(tiff(page, order=order))
    picture = load_picture(tmp_path / "a.tif")
    colours = (1 - values[..., :3]) * (1 - values[..., 3:]) if kind == "cmyk" else values[..., :3]
    expected = torch.from_numpy(colours).float().permute(2, 0, 1)[None].expand(1, 3, -1, -1)
    assert_close(picture.rgb, expected, {"premultiplied": 3, "cmyk": 2}.get(kind, 1))
    assert (picture.alpha is not None) == (kind in ("opacity", "premultiplied"))
    if picture.alpha is not None:
        assert_close(picture.alpha[0, 0], torch.from_numpy(values[..., 3]).float(), 1)


@pytest.mark.parametrize("separate", [False, True])
def test_uncompressed_luma_and_chroma(tmp_path, separate):
    ycbcr = np.asarray(Image.fromarray((ramps(24, 40)[0] * 255).byte().permute(1, 2, 0).numpy()).convert("YCbCr"))
    page = Page(ycbcr, YCBCR, separate, tags={530: (1, 1)})
    (tmp_path / "a.tif").write_bytes(tiff(page))
    assert_close(load_image(tmp_path / "a.tif"), ramps(24, 40), 3)


def test_planes_of_gray_with_opacity_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(Page(smooth(2, 8), 1, True, tags={338: (2,)})))
    assert "LA" in message(tmp_path / "a.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_signed_samples_of_8_bits_are_refused(tmp_path, channels):
    page = Page(smooth(channels, 8), RGB if channels == 3 else 1, tags={339: (2,) * channels})
    (tmp_path / "a.tif").write_bytes(tiff(page))
    assert "signed" in message(tmp_path / "a.tif")


# Pages


def flat(level: int, **options: Any) -> Page:
    return Page(np.full((6, 9, 3), level, np.uint8), **options)


THUMBNAIL = flat(50, tags={254: (REDUCED,)})


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "pages",
    [
        (THUMBNAIL, flat(200)),
        (flat(50, tags={255: (2,)}), flat(200)),
        (flat(50, tags={254: (MASK,)}), flat(200)),
        (THUMBNAIL, THUMBNAIL, flat(200), flat(90)),
        (flat(50, tags={254: (REDUCED,)}, below=(THUMBNAIL, flat(200))), flat(90)),
        (flat(50, tags={254: (REDUCED,)}, below=(THUMBNAIL,)), flat(200)),
        (flat(200, below=(THUMBNAIL,)), THUMBNAIL),
        (flat(200, tags={254: (2,)}), flat(90, tags={254: (2,)})),  # a page of several
        (flat(200, tags={254: (REDUCED,)}),),
    ],
)
def test_the_first_full_page_is_the_picture(tmp_path, pages, big):
    (tmp_path / "a.tif").write_bytes(tiff(*pages, big=big))
    assert_close(load_image(tmp_path / "a.tif"), torch.full((1, 3, 6, 9), 200 / 255), 0)


def test_big_endian_pages_and_their_layouts(tmp_path):
    full = Page(smooth(3, 16), separate=True, side=16)
    (tmp_path / "a.tif").write_bytes(tiff(THUMBNAIL, full, order=">"))
    expected = torch.from_numpy(smooth(3, 16) / 65535).float().permute(2, 0, 1)[None]
    assert_close(load_image(tmp_path / "a.tif"), expected, 1)


SENSOR_DATA = Page(smooth(1, 16), SENSOR)


@pytest.mark.parametrize(
    "content",
    [
        tiff(flat(50, tags={254: (REDUCED,)}, below=(SENSOR_DATA,))),
        tiff(flat(50, tags={254: (REDUCED,)}, below=(THUMBNAIL, SENSOR_DATA)), order=">"),
        tiff(flat(50, below=(SENSOR_DATA,))),  # its preview is not marked as one
        tiff(THUMBNAIL, Page(smooth(3, 16), LINEAR_RAW)),
        tiff(SENSOR_DATA),
        tiff(flat(50, tags={254: (REDUCED,), 50706: (1, 4, 0, 0)})),
        tiff(flat(50))[:4] + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + bytes(20),
    ],
)
def test_a_camera_raw_is_not_taken_for_its_preview(tmp_path, content):
    (tmp_path / "a.dng").write_bytes(content)
    assert "develop" in message(tmp_path / "a.dng")


@pytest.mark.parametrize("place", [0, 1])
def test_pages_in_a_circle_end(tmp_path, place):
    content = bytearray(tiff(THUMBNAIL, THUMBNAIL))
    (first,) = struct.unpack_from("<I", content, 4)
    content[-4:] = struct.pack("<I", first if place == 0 else len(content) - 4)
    (tmp_path / "a.tif").write_bytes(content)
    assert_close(load_image(tmp_path / "a.tif"), torch.full((1, 3, 6, 9), 50 / 255), 0)
