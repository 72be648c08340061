"""What the tests of images share: small pictures of known colours, a PNG made by hand, comparison in levels."""

import struct
import zlib

import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from arbitrary_nst.image import load_picture
from arbitrary_nst.runtime.files import ImageError

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
