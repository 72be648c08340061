"""What a video is made of, whatever holds it: frames with their times, and what is true of all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from arbitrary_nst.paths import ImageError

UNSPECIFIED = 2
"""What FFmpeg calls colours that a file says nothing of; 0 for their range."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame in 8-bit sRGB, upright."""

    rgb: UInt8[np.ndarray, "H W 3"]
    time: Fraction
    """Seconds at which it appears."""
    duration: Fraction
    """Seconds for which it is shown."""
    alpha: UInt8[np.ndarray, "H W"] | None = None
    name: str = ""
    """Of its file, without the suffix, where it has one of its own."""


@dataclass(frozen=True)
class Colours:
    """How a video encodes colours, in FFmpeg's numbers; ours are written likewise."""

    range: int = 0
    space: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class Footage:
    """What is known of a source before its frames come."""

    size: tuple[int, int]
    """Height and width of upright frames."""
    rate: Fraction
    """Frames a second, on average where they vary."""
    time_base: Fraction
    """Seconds of which times are multiples."""
    frames: int | None = None
    """How many there should be; None: nobody says."""
    aspect: Fraction | None = None
    """Width by height of a pixel as it is stored."""
    colours: Colours = field(default_factory=Colours)
    matrix: tuple[int, ...] = ()
    """FFmpeg's display matrix, which turns what is stored upright; none where it is upright."""
    quarter_turns: int = 0
    """By which `matrix` turns, counterclockwise."""
    loop: int | None = None
    """How often an animation is played, 0 for ever; None: once, or no animation."""


@runtime_checkable
class Source(Protocol):
    """Where frames come from."""

    path: Path
    footage: Footage
    damaged: int
    """Frames that could not be decoded and were left out, in `frames` so far."""

    def frames(self) -> Iterator[Frame]:
        """All frames from the first. Raises ImageError where there is none."""
        ...


def pyav() -> Any:
    """PyAV. Raises ImageError with what to install where it is missing."""
    try:
        import av
    except ImportError as error:
        raise ImageError("video files need PyAV: pip install 'arbitrary_nst[video]' (Python 3.11 or newer)") from error
    return av
