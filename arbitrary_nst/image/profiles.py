"""The colour space of a file's samples as an ICC profile: the file's own, or one made of what else it says of them."""

import re
import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from arbitrary_nst.runtime.files import ImageError

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue, as PNG has them."""

CODE_POINTS = "code_points"
"""Where an opened picture's `info` holds what `coded_colours` found."""

_SRGB: Chromaticities = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_RGB: Chromaticities = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PRIMARIES: dict[int, Chromaticities] = {
    1: _SRGB,
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # DCI P3
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),  # Display P3
}
"""By code point of ITU-T H.273."""
_GAMMA_OF_TRANSFER = {4: 2.2, 5: 2.8, 8: 1.0}  # others are near sRGB's
_HDR_TRANSFERS = (16, 18)  # PQ, HLG
_ADOBE_GAMMA = 563 / 256
_SRGB_GAMMA, _SAME_GAMMA, _SAME_CHROMATICITY = 2.2, 0.05, 0.005  # what counts as sRGB, as libpng has it
_GAMMAS = (0.1, 10)  # beyond lies a mistake

_EXIF_FOLDER, _INTEROPERABILITY_FOLDER, _COLOUR_SPACE, _INDEX = 0x8769, 0xA005, 0xA001, 1
_ADOBE_COLOUR_SPACE, _UNCALIBRATED = 2, 0xFFFF

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def colour_profile(picture: Image.Image) -> bytes | None:
    """An ICC profile of a loaded picture; None where nothing says that it is not sRGB.

    AVIF, HEIC and PNG may name the colours by code points. Without these and a profile of its own a PNG may have gAMA
    and cHRM, and EXIF may say Adobe RGB, as the option files of cameras do.

    Raises ImageError where the code points are those of high dynamic range.
    """
    primaries, transfer = picture.info.get(CODE_POINTS, (None, None))
    if transfer in _HDR_TRANSFERS:
        raise ImageError("a picture of high dynamic range (PQ or HLG); save it as an ordinary picture, in sRGB")
    profile = picture.info.get("icc_profile")
    if profile is not None:
        return profile
    if primaries is not None and (primaries in PRIMARIES or transfer in _GAMMA_OF_TRANSFER):
        gamma = _GAMMA_OF_TRANSFER.get(transfer)
        primaries = primaries if primaries in PRIMARIES else 1
        return None if primaries == 1 and gamma is None else rgb_profile(PRIMARIES[primaries], gamma)
    if "gamma" in picture.info and "srgb" not in picture.info:
        return _png_profile(picture.info["gamma"], picture.info.get("chromaticity"))
    return rgb_profile(_ADOBE_RGB, _ADOBE_GAMMA) if _says_adobe_rgb(picture) else None


def coded_colours(file_format: str, head: bytes) -> tuple[int, int] | None:
    """The code points (ITU-T H.273) of primaries and transfer in the head of an AVIF, HEIC or PNG file, or None."""
    if file_format in ("AVIF", "HEIF"):
        found = re.search(rb"colrnclx(..)(..)", head, re.DOTALL)
    elif file_format == "PNG":
        found = re.search(rb"\0\0\0\x04cICP(.)(.)", head.partition(b"IDAT")[0], re.DOTALL)
    else:
        return None
    return None if found is None else (int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big"))


def _png_profile(encoding: float, chromaticities: Sequence[float] | None) -> bytes | None:
    """Profile from gAMA, the exponent of the encoding, and cHRM."""
    gamma = 1 / encoding if encoding else 0
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        return None
    found: Chromaticities = tuple(chromaticities) if chromaticities else _SRGB  # pyright: ignore[reportAssignmentType]
    same = max(abs(one - other) for one, other in zip(found, _SRGB, strict=True)) < _SAME_CHROMATICITY
    if same and abs(gamma / _SRGB_GAMMA - 1) < _SAME_GAMMA:
        return None
    return rgb_profile(_SRGB if same else found, gamma)


def _says_adobe_rgb(picture: Image.Image) -> bool:
    try:
        exif = picture.getexif()
        space = exif.get_ifd(_EXIF_FOLDER).get(_COLOUR_SPACE)
        if space != _UNCALIBRATED:
            return space == _ADOBE_COLOUR_SPACE
        index = exif.get_ifd(_INTEROPERABILITY_FOLDER).get(_INDEX)
        return str(index.decode() if isinstance(index, bytes) else index).rstrip("\0 ") == "R03"
    except Exception:  # whatever is wrong with EXIF, it is no reason to refuse the pixels
        return False


def rgb_profile(chromaticities: Chromaticities, gamma: float | None) -> bytes | None:
    """A matrix profile, with sRGB's curve where there is no gamma; None where these colours span no space."""
    primaries = to_xyz(chromaticities)
    if np.isnan(primaries).any():
        return None
    response = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ primaries.sum(1)))
    red, green, blue = (np.linalg.inv(_BRADFORD) @ response @ _BRADFORD @ primaries).T
    curve = b"para" + bytes(8) + _fixed(gamma) if gamma is not None else _SRGB_CURVE
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(80),
        b"wtpt": _xyz_tag(_D50),
        **{
            name + b"XYZ": _xyz_tag(colour) for name, colour in zip((b"r", b"g", b"b"), (red, green, blue), strict=True)
        },
        **{name + b"TRC": curve for name in (b"r", b"g", b"b")},
    }
    table, content, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", offset + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(content), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + content


def to_xyz(chromaticities: Chromaticities) -> Float[np.ndarray, "3 3"]:
    """The matrix from linear RGB to XYZ, whose rows add up to white; NaN where these colours span no space."""
    xyz = np.array([_xyz(*chromaticities[i : i + 2]) for i in (0, 2, 4, 6)]).T  # columns: white, red, green, blue
    if not np.isfinite(xyz).all() or abs(np.linalg.det(xyz[:, 1:])) < 1e-6:
        return np.full((3, 3), np.nan)
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


_SRGB_CURVE = b"para" + bytes(4) + b"\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return (x / y, 1.0, (1 - x - y) / y) if y else (np.nan, np.nan, np.nan)


def _xyz_tag(colour: Sequence[float] | np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*colour)
