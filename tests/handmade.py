"""Image files that are odd but sound, and the parts of which these and broken ones are made."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF"}

Files = Iterator[tuple[str, bytes]]
"""Names and contents."""


def sound(seed: int = 0) -> Files:
    """Files that hold a picture, every kind of oddity in them."""
    for files in (_modes(seed), _metadata(seed), _jpegs(seed), _pngs(seed), _tiffs(seed), _others(seed), _long()):
        yield from files
    yield from _names(rich(seed))


# Parts


def photo(seed: int = 0, height: int = 18, width: int = 26) -> Image.Image:
    """Ramps with noise, so that no format makes it tiny."""
    down, right = np.mgrid[:height, :width] / 30
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return Image.fromarray((np.stack((right, down, down * right), 2) * 190 + noise).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, suffix: str, **options) -> bytes:
    file = BytesIO()
    picture.save(file, FORMATS[suffix], **options)
    return file.getvalue()


def exif(orientation: int = 6) -> Image.Exif:
    content = Image.Exif()
    content[0x0112], content[0x010F], content[0x0132] = orientation, "Camera", "2020:02:03 04:05:06"
    return content


def profile(space: Literal["LAB", "sRGB"] = "sRGB") -> bytes:
    """Without the date of its making."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    return content[:24] + bytes(12) + content[36:]


def rich(seed: int = 0) -> dict[str, bytes]:
    """A file of every format, by its suffix, with all the kinds of segments that it knows."""
    metadata = {"exif": exif(1).tobytes(), "icc_profile": profile()}
    options = {
        "jpg": metadata | {"quality": 90, "comment": b"a comment"},
        "png": metadata | {"dpi": (72, 72)},
        "webp": metadata | {"xmp": b"<x/>"},
        "tif": {"compression": "tiff_lzw", "icc_profile": profile()},
        "bmp": {},
        "gif": {"comment": b"a comment", "save_all": True, "append_images": [photo(seed + 1)], "duration": 10},
    }
    return {suffix: encoded(photo(seed), suffix, **given) for suffix, given in options.items()}


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, interlaced: bool = False) -> bytes:
    """A PNG of these chunks; without any, gray pixels of one level."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    chunks = chunks or (chunk(b"IDAT", zlib.compress(bytes((width + 1) * height))),)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(tags: dict[int, int], pixels: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of one folder, every tag one LONG; pixels begin behind it. Gray 8 x 4, unless tags say otherwise."""
    given = {256: 8, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4, 279: 32} | tags
    offset = 8 + 2 + 12 * (len(given) + (273 not in given)) + 4
    given.setdefault(273, offset)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(given.items()))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(given)) + entries + bytes(4) + (pixels or bytes(range(32)))


def bmp(width: int, height: int, bits: int, compression: int, pixels: bytes, colours: int = 0) -> bytes:
    palette = b"".join(bytes([level, level, 255 - level, 0]) for level in range(colours))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + palette + pixels


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], pixels: bytes = b"") -> bytes:
    """A GIF of four colours with one frame (left, top, width, height); `pixels` begin with the size of the codes."""
    codes = [4, 1] * (frame[2] * frame[3]) + [5]  # each pixel begins the table of codes anew
    bits = sum(code << 3 * place for place, code in enumerate(codes)).to_bytes(len(codes) * 3 // 8 + 1, "little")
    pixels = pixels or bytes([2, len(bits)]) + bits + b"\0"
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + bytes(range(0, 240, 20))
    return head + b"," + struct.pack("<HHHHB", *frame, 0) + pixels + b";"


def patched(content: bytes, place: int, replacement: bytes) -> bytes:
    return content[:place] + replacement + content[place + len(replacement) :]


def resized(content: bytes, suffix: str, width: int, height: int) -> bytes:
    """The same file with a header that claims another size (checksums are right)."""
    if suffix == "png":
        header = patched(content[12:29], 4, struct.pack(">II", width, height))
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    if suffix == "jpg":
        return patched(content, content.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))
    if suffix == "gif":
        return patched(content, 6, struct.pack("<HH", width, height))
    if suffix == "bmp":
        return patched(content, 18, struct.pack("<ii", width, height))
    if suffix == "webp":
        return patched(content, 24, struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])
    return tiff({256: width, 257: height})


# Odd files


def _modes(seed: int) -> Files:
    """Whatever modes the formats hold, small and of a single pixel."""
    modes = {
        "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "tif": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "LAB", "I;16", "I;16B", "I", "F"),
        "jpg": ("L", "RGB", "CMYK"),
        "webp": ("RGB", "RGBA"),
        "bmp": ("1", "L", "P", "RGB", "RGBA"),
        "gif": ("1", "L", "P"),
    }
    wide = {"I;16": (257, "<u2"), "I;16B": (257, ">u2"), "I": (8 << 20, "<i4"), "F": (0.004, "<f4")}
    gray = np.asarray(photo(seed).convert("L")).astype(np.float64)
    for suffix, names in modes.items():
        for mode in names:
            if mode in wide:
                picture = Image.fromarray((gray * wide[mode][0]).astype(wide[mode][1]))
            elif mode == "LAB":
                picture = Image.frombytes("LAB", photo(seed).size, photo(seed).tobytes())
            else:
                picture = photo(seed).convert(mode)
            name = mode.replace(";", "")
            yield f"mode_{name}.{suffix}", encoded(picture, suffix)
            yield f"one_pixel_{name}.{suffix}", encoded(picture.crop((3, 3, 4, 4)), suffix)


def _metadata(seed: int) -> Files:
    """EXIF and colour profiles that are huge, garbage, or lead in circles; every orientation and some that are none."""
    base, cmyk = photo(seed), photo(seed).convert("CMYK")
    for orientation in (0, *range(1, 9), 9, 65535):
        for suffix in ("jpg", "png", "webp", "tif"):
            yield f"orientation_{orientation}.{suffix}", encoded(base, suffix, exif=exif(orientation))
    head = b"Exif\0\0MM\0\x2a\0\0\0\x08"
    for name, content in {
        "huge": head + bytes(65000),
        "garbage": head[:10] + b"\xff\xff\xff\xff garbage",
        "empty": head[:6],
        "of_many_tags": head + b"\xff\xff" + bytes(range(256)) * 40,
        "loop": head + b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08",
    }.items():
        for suffix in ("jpg", "png", "webp"):
            yield f"exif_{name}.{suffix}", encoded(base, suffix, exif=content)
    for name, content in {
        "sound": profile(),
        "in_parts": profile() + bytes(150_000),
        "garbage": b"garbage" * 99,
        "short": profile()[:200],
        "of_lab": profile("LAB"),
        "of_long_tag": patched(profile(), 136, b"\xff" * 8),
    }.items():
        for suffix in ("jpg", "png", "webp", "tif"):
            yield f"icc_{name}.{suffix}", encoded(base, suffix, icc_profile=content)
        yield f"icc_{name}_cmyk.jpg", encoded(cmyk, "jpg", icc_profile=content)
    yield "xmp.jpg", encoded(base, "jpg", xmp=b"<x:xmpmeta" * 99)
    yield "comment.jpg", encoded(base, "jpg", comment=bytes(range(256)) * 9)


def _jpegs(seed: int) -> Files:
    base = photo(seed)
    for name, options in {
        "progressive": {"progressive": True},
        "subsampled": {"subsampling": "4:2:0"},
        "restarts": {"restart_marker_rows": 1},
        "best": {"quality": 100, "subsampling": 0},
        "worst": {"quality": 1},
        "rgb_stored": {"keep_rgb": True},
    }.items():
        yield f"{name}.jpg", encoded(base, "jpg", **options)
    plain, adobe = encoded(base, "jpg"), encoded(base.convert("CMYK"), "jpg")
    yield "ycck.jpg", patched(adobe, adobe.index(b"Adobe") + 11, b"\2")
    yield "cmyk_without_adobe.jpg", adobe.replace(b"Adobe", b"Other")
    yield "garbage_behind.jpg", plain + bytes(range(256)) * 20
    yield "two_in_one.jpg", plain + plain
    yield "garbage_between_segments.jpg", plain[:2] + b"\xff" * 40 + plain[2:]


def _pngs(seed: int) -> Files:
    base = photo(seed)
    rows = b"".join(b"\0" + bytes(range(x, x + 26)) for x in range(18))
    whole = zlib.compress(rows)
    yield "many_idat.png", png(26, 18, *(chunk(b"IDAT", whole[i : i + 1]) for i in range(len(whole))))
    yield "empty_idat.png", png(26, 18, chunk(b"IDAT", b""), chunk(b"IDAT", whole), chunk(b"IDAT", b""))
    yield "unknown_chunks.png", png(26, 18, chunk(b"abCd", bytes(999)), chunk(b"IDAT", whole), chunk(b"zzZz", b""))
    yield "garbage_behind.png", png(26, 18, chunk(b"IDAT", whole)) + bytes(range(256))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    pixels = np.arange(26 * 18, dtype=np.uint8).reshape(18, 26)
    adam7 = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx])
    yield "interlaced.png", png(26, 18, chunk(b"IDAT", zlib.compress(adam7)), interlaced=True)
    for depth in (1, 2, 4, 8, 16):
        line = b"\0" + bytes(range(2 * depth))
        for name, extra in {"": [], "_transparent": [chunk(b"tRNS", b"\0\1")]}.items():
            content = [*extra, chunk(b"IDAT", zlib.compress(line * 5))]
            yield f"gray_{depth}_bits{name}.png", png(16, 5, *content, depth=depth)
    wide = b"".join(b"\0" + np.arange(x, x + 32, dtype=">u2").tobytes() for x in range(4))
    yield "16_bit_rgba.png", png(8, 4, chunk(b"IDAT", zlib.compress(wide)), depth=16, colour=6)
    palette = chunk(b"PLTE", bytes(range(48)))
    indices = chunk(b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4))
    yield "palette_clear.png", png(4, 4, palette, chunk(b"tRNS", bytes(range(0, 250, 25))), indices, colour=3)
    yield "palette_short.png", png(4, 4, chunk(b"PLTE", b"\xff\0\0"), indices, colour=3)
    yield "tiny_profile.png", png(26, 18, chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no")), chunk(b"IDAT", whole))
    yield "profile_not_packed.png", png(26, 18, chunk(b"iCCP", b"x\0\0no zlib"), chunk(b"IDAT", whole))
    second = photo(seed + 1)
    yield "animated.png", encoded(base, "png", save_all=True, append_images=[second])
    yield "animated_default_image.png", encoded(base, "png", save_all=True, append_images=[second], default_image=True)


def _tiffs(seed: int) -> Files:
    base = photo(seed)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma"):
        with suppress(OSError):  # this build of libtiff does not have it
            yield f"{compression}.tif", encoded(base, "tif", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"{compression}.tif", encoded(base.convert("1"), "tif", compression=compression)
    yield "pages.tif", encoded(base, "tif", save_all=True, append_images=[photo(seed + 1)])
    yield "big.tif", encoded(base, "tif", big_tiff=True)
    yield "big_endian.tif", tiff({}, order=">")
    yield "white_is_zero.tif", tiff({262: 0})
    yield "unknown_tags.tif", tiff({60000: 1, 65000: 2**32 - 1})
    yield "strips.tif", tiff({278: 2**32 - 1})
    odd = np.linspace(-2, 3, 18 * 26, dtype=np.float32).reshape(18, 26)
    yield "float_beyond.tif", encoded(Image.fromarray(odd), "tif")
    yield "float_large.tif", encoded(Image.fromarray(odd * np.float32(1e38)), "tif")
    odd[::2, ::3], odd[1::2, ::4], odd[::5, 1::3] = np.nan, np.inf, -np.inf
    yield "float_not_finite.tif", encoded(Image.fromarray(odd), "tif")
    yield "float_nan.tif", encoded(Image.fromarray(np.full_like(odd, np.nan)), "tif")
    yield "float_infinite.tif", encoded(Image.fromarray(np.full_like(odd, np.inf)), "tif")
    yield "float_tiny.tif", encoded(Image.fromarray(np.full_like(odd, 1e-45)), "tif")
    yield "int_negative.tif", encoded(Image.fromarray(np.full((18, 26), -(2**31), dtype=np.int32)), "tif")
    yield "int_large.tif", encoded(Image.fromarray(np.full((18, 26), 2**31 - 1, dtype=np.int32)), "tif")


def _others(seed: int) -> Files:
    base, second = photo(seed), photo(seed + 1)
    clear = base.copy()
    clear.putalpha(base.getchannel("R"))
    yield "lossless.webp", encoded(clear, "webp", lossless=True)
    yield "all_clear.webp", encoded(Image.new("RGBA", (26, 18)), "webp")
    yield "animated.webp", encoded(base, "webp", save_all=True, append_images=[second])
    yield "animated_clear.webp", encoded(clear, "webp", save_all=True, append_images=[second])
    yield "animated.gif", encoded(base, "gif", save_all=True, append_images=[second, base])
    yield "clear.gif", encoded(base.convert("P"), "gif", transparency=3)
    yield "interlaced.gif", encoded(base, "gif", interlace=1)
    yield "small_frame.gif", gif((9, 7), (3, 3, 2, 2))
    yield "frame_beyond.gif", gif((3, 2), (2, 1, 2, 2))
    yield "upside_down.bmp", bmp(4, -3, 24, 0, bytes(range(36)))
    yield "16_bits.bmp", bmp(4, 3, 16, 0, bytes(range(24)))
    yield "4_bits.bmp", bmp(8, 3, 4, 0, bytes(range(12)), 16)
    yield "run_lengths.bmp", bmp(4, 2, 8, 1, b"\4\1\0\0\4\2\0\1", 4)
    yield "run_lengths_jump.bmp", bmp(4, 4, 8, 1, b"\2\1\0\2\2\0" + b"\4\1\0\0" * 3 + b"\0\1", 4)


def _long() -> Files:
    """One pixel high or wide and as long as the format allows."""
    longest = {"png": 65535, "tif": 65535, "bmp": 65535, "gif": 65535, "jpg": 65500, "webp": 16383}
    for suffix, length in longest.items():
        line = np.resize(np.arange(251, dtype=np.uint8), (1, length))
        yield f"wide.{suffix}", encoded(Image.fromarray(line), suffix)
        yield f"high.{suffix}", encoded(Image.fromarray(line.T.copy()), suffix)


def _names(bases: dict[str, bytes]) -> Files:
    """Suffixes that are not the format's, and names that are hard to print, to pass on, or to write."""
    suffixes = list(bases)
    for suffix, other in zip(suffixes, suffixes[1:] + suffixes[:1], strict=True):
        yield f"in_truth_{suffix}.{other}", bases[suffix]
    plain = png(5, 4)
    for name in (
        "Übermaß 写真 🖼.png",
        "cafe\u0301.png",
        "right\u202eto_left.png",
        "two\nlines.png",
        "tab\tand\x1b[31mcolour.png",
        "-o.png",
        "--output=x.png",
        "[1].png",
        "star*.png",
        "'quoted\" $(name) %s {x}.png",
        " blanks .png",
        "dots...png",
        "UPPER.PNG",
        "x" * 200 + ".png",
        "too_long_for_a_result_" + "x" * 229 + ".png",
        os.fsdecode(b"bytes_\xff\xfe\x80.png"),
    ):
        yield name, plain + name.encode("utf-8", "surrogateescape")  # every file its own content
