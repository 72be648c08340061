"""Broken, hostile and odd image files: `python tests/hostile.py FOLDER` writes some hundreds of them, a few MB.

The same seed gives the same files. The folder that a file is in says what to expect of it: a `sound` one holds a
picture, however odd; a `broken` one holds none; of a `damaged` one either may be true; a `special` one is no regular
file.
"""

import os
import random
import re
import stat
import struct
import sys
import zlib
from contextlib import suppress
from pathlib import Path

from handmade import Files, bmp, chunk, encoded, gif, patched, photo, png, resized, rich, sound, tiff


def corpus(seed: int = 0) -> dict[str, bytes]:
    """The content of every regular file, by its path in the folder."""
    bases = rich(seed)
    kinds = {
        "sound": [sound(seed)],
        "broken": [
            _no_pictures(bases),
            _truncated(bases),
            _bombs(bases),
            _without_pixels(bases),
            _contradictions(bases),
        ],
        "damaged": [_cut_at_the_end(bases), _doubtful(bases), _flipped(bases, seed)],
    }
    return {f"{kind}/{name}": content for kind, parts in kinds.items() for part in parts for name, content in part}


def write_corpus(folder: Path, seed: int = 0) -> None:
    """All regular files, and what the system has besides them: links, pipes, sockets, devices."""
    for name, content in corpus(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # a name that this file system does not have
            path.write_bytes(content)
    special = folder / "special"
    (special / "folder.jpg").mkdir(parents=True)
    for name, target in {
        "dangling.jpg": "nowhere.jpg",
        "itself.jpg": "itself.jpg",
        "loop_a.png": "loop_b.png",
        "loop_b.png": "loop_a.png",
        "null.png": os.devnull,
        "zero.png": "/dev/zero",
        "round": "..",  # a folder that is above itself
        "folder_link.jpg": "folder.jpg",
    }.items():
        with suppress(OSError):
            (special / name).symlink_to(target)
    if hasattr(os, "mkfifo"):
        os.mkfifo(special / "pipe.png")
        with suppress(OSError):
            os.mknod(special / "socket.png", stat.S_IFSOCK | 0o600)
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # who may read everything
        (special / "closed.png").write_bytes(b"")
        (special / "closed.png").chmod(0)


# Broken files


def _no_pictures(bases: dict[str, bytes]) -> Files:
    page = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
    for suffix, content in bases.items():
        yield f"one_byte.{suffix}", content[:1]
        yield f"page.{suffix}", page + suffix.encode()
        yield f"magic_alone.{suffix}", content[:12] if suffix == "webp" else content[:8]
        yield f"magic_and_zeros.{suffix}", content[:12] + bytes(300)
        yield f"magic_and_noise.{suffix}", content[:12] + random.Random(suffix).randbytes(300)
        yield f"wrong_magic.{suffix}", bytes([content[0] ^ 0x55]) + content[1:]
    for name, content in {
        "empty": b"",
        "text": b"no picture",
        "nothing": bytes(5000),
        "pdf": b"%PDF-1.7\n" + page,
        "zip": b"PK\3\4" + bytes(99),
        "psd": b"8BPS\0\1" + bytes(99),
        "heic": b"\0\0\0\x18ftypheic" + bytes(99),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "utf16": "no picture".encode("utf-16"),
    }.items():
        yield f"{name}.jpg", content


MARKS = {
    "jpg": rb"\xff[\xc0-\xfe]",
    "png": rb"IHDR|iCCP|eXIf|pHYs|IDAT|IEND",
    "webp": rb"VP8X|ICCP|VP8 |VP8L|EXIF|XMP ",
    "gif": rb"!\xf9|!\xff|!\xfe|,\0\0\0\0",
    "tif": rb"(?s)\A.{4}",
    "bmp": rb"(?s)\A.{14}",
}
"""Where the parts of a file begin."""


def _truncated(bases: dict[str, bytes]) -> Files:
    """Cut in its header, at the beginning of each part, in it, and in the pixels."""
    for suffix, content in bases.items():
        # a picture may be whole before its file ends: what it needs last, and no reader can do without
        needed = {
            "png": content.find(b"IDAT") + 4,
            "webp": content.find(b"EXIF"),
            "gif": content.rfind(b"!\xf9") - 20,  # of the first frame
            "tif": int.from_bytes(content[4:8], "little") + 12,  # the folder, which stands behind the pixels
        }.get(suffix, len(content) - 40)
        marks = [match.start() for match in re.finditer(MARKS[suffix], content)]
        places = {place + step for place in marks for step in (0, 3, 7)} | {needed * part // 9 for part in range(1, 10)}
        for place in sorted(place for place in places | {5, 14, 20, 27} if 1 < place <= needed):
            yield f"cut_{place}.{suffix}", content[:place]


def _bombs(bases: dict[str, bytes]) -> Files:
    """Small files that claim to be, or would become, enormous."""
    for suffix, sizes in {
        "png": [(60000, 60000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)],
        "jpg": [(65500, 65500)],
        "gif": [(65535, 65535)],
        "bmp": [(2**31 - 1, 2**31 - 1), (60000, -60000), (2**31 - 1, 1)],
        "webp": [(2**24, 2**24), (2**24, 2**8)],
        "tif": [(60000, 60000), (2**32 - 1, 2**32 - 1), (2**32 - 1, 1)],
    }.items():
        for width, height in sizes:
            yield f"claims_{width}x{height}.{suffix}", resized(bases[suffix], suffix, width, height)
    full = zlib.compress(bytes(30_000_000))
    pixels = chunk(b"IDAT", zlib.compress(bytes(30)))
    yield "bomb_in_profile.png", png(5, 5, chunk(b"iCCP", b"x\0\0" + full), pixels)
    yield "bomb_in_text.png", png(5, 5, chunk(b"zTXt", b"x\0\0" + full), pixels)
    yield "bomb_in_international_text.png", png(5, 5, chunk(b"iTXt", b"x\0\1\0\0\0" + full), pixels)
    yield "run_lengths_jump.bmp", bmp(2**28, 1, 8, 1, b"\0\2\xff\xff\0\1", 4)
    yield "claims_by_deflate.tif", tiff({256: 50000, 257: 50000, 259: 8, 278: 50000, 279: len(full)}, full)


def _without_pixels(bases: dict[str, bytes]) -> Files:
    for suffix in ("png", "jpg", "bmp", "tif"):
        for width, height in ((0, 18), (26, 0), (0, 0)):
            yield f"{width}x{height}.{suffix}", resized(bases[suffix], suffix, width, height)
    yield "no_frame.gif", gif((4, 4), (0, 0, 0, 0))[:25] + b";"


def _contradictions(bases: dict[str, bytes]) -> Files:
    """What each header may say and no reader can do."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(30)))
    yield "no_pixels.png", png(5, 5, chunk(b"tEXt", b"a\0b"))
    yield "colour_type_5.png", png(5, 5, pixels, colour=5)
    yield "depth_3.png", png(5, 5, pixels, depth=3)
    yield "filter_200.png", png(5, 5, chunk(b"IDAT", zlib.compress(b"\xc8\1\2\3\4\5" * 5)))
    yield "pixels_not_packed.png", png(5, 5, chunk(b"IDAT", b"no zlib at all"))
    yield "long_chunk.png", png(5, 5, struct.pack(">I", 2**31 - 1) + b"tEXt" + bytes(40))
    yield "wrong_checksum.png", patched(png(5, 5, pixels), 29, b"\0\0\0\0")
    jpg = encoded(photo(), "jpg")
    frame, scan, huffman = jpg.index(b"\xff\xc0"), jpg.index(b"\xff\xda"), jpg.index(b"\xff\xc4")
    yield "no_frame.jpg", jpg[:frame] + jpg[scan:]
    yield "no_scan.jpg", jpg[:scan] + b"\xff\xd9"
    yield "no_tables.jpg", jpg[:huffman] + b"\xff\xc4\xff\xff"
    yield "12_bits.jpg", patched(jpg, frame + 4, b"\x0c")
    yield "99_components.jpg", patched(jpg, frame + 9, b"\x63")
    yield "no_components.jpg", patched(jpg, frame + 9, b"\0")
    yield "lossless.jpg", patched(jpg, frame + 1, b"\xc3")
    yield "sampling_0.jpg", patched(jpg, frame + 11, b"\0")
    for name, tags in {
        "samples_65535": {277: 65535},
        "samples_0": {277: 0},
        "bits_0": {258: 0},
        "bits_77": {258: 77},
        "compression_99": {259: 99},
        "photometric_99": {262: 99},
        "pixels_beyond": {273: 2**32 - 1},
        "rows_0_deflate": {278: 0, 259: 8},
        "deflate_not_packed": {259: 8},
        "jpeg_without": {259: 7},
        "tile_huge": {322: 2**31, 323: 2**31, 324: 8, 325: 1, 259: 8},
        "planar_9": {284: 9, 259: 5},
        "palette_none": {262: 3},
    }.items():
        yield f"{name}.tif", tiff(tags)
    yield "folder_beyond.tif", b"II*\0\xff\xff\xff\xff" + bytes(40)
    yield "folder_at_0.tif", b"II*\0\0\0\0\0" + bytes(40)
    yield "folder_of_65535.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(60)
    yield "bits_3.bmp", bmp(4, 3, 3, 0, bytes(36))
    yield "compression_99.bmp", bmp(4, 3, 24, 99, bytes(36))
    yield "few_pixels.bmp", bmp(400, 300, 24, 0, bytes(36))
    yield "header_of_7.bmp", patched(bases["bmp"], 14, struct.pack("<I", 7))
    yield "palette_of_2_31.bmp", patched(bmp(4, 3, 8, 0, bytes(12), 4), 46, struct.pack("<I", 2**31 - 1))
    yield "run_beyond.bmp", bmp(4, 2, 8, 1, b"\xff\1\xff\1", 4)
    yield "codes_of_200.gif", gif((2, 2), (0, 0, 2, 2), b"\xc8\1\0\0")
    yield "no_pixels.gif", gif((2, 2), (0, 0, 2, 2), b"\2\0")
    yield "size_lies.webp", patched(bases["webp"], 4, b"\xff\xff\xff\xff")
    yield "no_picture.webp", bases["webp"][: bases["webp"].index(b"ICCP")]
    yield "no_stream.webp", patched(bases["webp"], bases["webp"].index(b"VP8 ") + 8, bytes(12))


# Damaged files: a picture or none


def _cut_at_the_end(bases: dict[str, bytes]) -> Files:
    for suffix, content in bases.items():
        for missing in (1, 2, 9):
            yield f"without_last_{missing}.{suffix}", content[:-missing]


def _flipped(bases: dict[str, bytes], seed: int, times: int = 16) -> Files:
    """A few bytes are others, more often in the header."""
    for suffix, content in bases.items():
        for index in range(times):
            chance, flipped = random.Random(f"{seed} {suffix} {index}"), bytearray(content)
            for _ in range(chance.randint(1, 6)):
                flipped[int(chance.random() ** 3 * len(content))] = chance.randrange(256)
            yield f"flipped_{index}.{suffix}", bytes(flipped)


def _doubtful(bases: dict[str, bytes]) -> Files:
    """What one reader takes and another refuses; more or fewer pixels than the header says."""
    full = zlib.compress(bytes(30_000_000))
    yield "bomb_in_pixels.png", png(5, 5, chunk(b"IDAT", full))
    yield "bomb_in_pixels.tif", tiff({259: 8, 279: len(full)}, full)
    yield "too_few_rows.png", png(5, 500, chunk(b"IDAT", zlib.compress(bytes(30))))
    yield "segment_of_1.jpg", patched(bases["jpg"], 4, b"\0\1")
    yield "tile_0.tif", tiff({322: 0, 323: 0, 324: 8, 325: 1, 273: 0})
    yield "codes_of_0.gif", gif((2, 2), (0, 0, 2, 2), b"\0\1\0\0")
    for suffix, content in bases.items():
        yield f"claims_more.{suffix}", resized(content, suffix, 300, 200)
        yield f"claims_less.{suffix}", resized(content, suffix, 3, 2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/hostile.py FOLDER")
    write_corpus(Path(sys.argv[1]))
