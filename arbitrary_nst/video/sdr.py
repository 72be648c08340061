"""HDR and wide colours to those of the package: sRGB, whose primaries are those of BT.709.

Numbers of primaries and transfer functions are FFmpeg's.
"""

import numpy as np
from jaxtyping import Float, UInt16

from arbitrary_nst.image.profiles import PRIMARIES, to_xyz
from arbitrary_nst.video.frames import Colours

BT709, BT2020, DISPLAY_P3 = 1, 9, 12
PQ, HLG = 16, 18

WHITE = 203.0
"""Nits of what is white in SDR (ITU-R BT.2408)."""

PEAK = 1000.0
"""Nits that are still told from white; HLG has no more."""

KNEE = 0.8
"""Light, as a part of white, from which highlights are compressed."""


def sdr_table(colours: Colours) -> UInt16[np.ndarray, "512 512 3"] | None:
    """Table of SDR values for R'G'B' in these colours, 64 levels each, for FFmpeg's haldclut; None if they are SDR."""
    hdr = colours.transfer in (PQ, HLG)
    if not hdr and colours.primaries not in (BT2020, DISPLAY_P3):
        return None
    primaries = colours.primaries if colours.primaries in (BT709, BT2020, DISPLAY_P3) else BT2020
    blue, green, red = np.meshgrid(*[np.linspace(0, 1, 64)] * 3, indexing="ij")
    light = to_light(np.stack([red, green, blue], -1), colours.transfer)
    light = light @ (np.linalg.inv(to_xyz(PRIMARIES[BT709])) @ to_xyz(PRIMARIES[primaries])).T
    return np.rint(65535 * _encoded(_compressed(light) if hdr else light)).astype(np.uint16).reshape(512, 512, 3)


def to_light(encoded: Float[np.ndarray, "*N 3"], transfer: int) -> Float[np.ndarray, "*N 3"]:
    """The light, 1 for white, of R'G'B' in [0, 1]: by PQ (SMPTE ST 2084), HLG (ITU-R BT.2100, 1000 nits) or sRGB."""
    if transfer == PQ:
        power = encoded ** (1 / 78.84375)
        return (
            (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125) * 1e4 / WHITE
        )
    if transfer == HLG:
        high = (np.exp((encoded - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(encoded <= 0.5, encoded**2 / 3, high)
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        return scene * luminance[..., None] ** 0.2 * PEAK / WHITE
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _compressed(light: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
    """Highlights up to `PEAK` to [`KNEE`, 1] along a smooth curve, the ratios of R, G and B kept.

    The curve is "mobius" of FFmpeg's tonemap.
    """
    brightest, peak = light.max(-1, keepdims=True), PEAK / WHITE
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    high = np.maximum(brightest, KNEE)
    curve = (b**2 + 2 * b * KNEE + KNEE**2) / (b - a) * (high + a) / (high + b)
    return light * np.where(brightest > KNEE, np.minimum(curve, 1) / high, 1)


def _encoded(light: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
    """sRGB of light, what is out of its range clipped."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
