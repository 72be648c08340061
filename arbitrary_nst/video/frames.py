"""Parts of a video in any container: frames with their times, and the properties of all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from arbitrary_nst.errors import requires

UNSPECIFIED = 2
"""What FFmpeg calls colours that a file says nothing of; 0 for their range."""

MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""What libswscale calls FFmpeg's colour spaces, of those that it can convert."""


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
    """Colour encoding of a video, in FFmpeg's numbers; ours are written likewise."""

    range: int = 0
    space: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a source, known before its frames come."""

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
    """Source of frames."""

    path: Path
    info: VideoInfo
    damaged: int
    """Frames that could not be decoded and were left out, in `frames` so far."""

    def frames(self) -> Iterator[Frame]:
        """All frames from the first. Raises ImageError where there is none."""
        ...


def pyav() -> Any:
    """The module of PyAV. Raises MissingPackageError where it is not installed."""
    with requires("reading and writing video files", "video", " (Python 3.11 or newer)"):
        import av
    return av


def open_container(path: Path, mode: str = "r", **options: Any) -> Any:
    """A file by PyAV, for reading or writing.

    An absolute name is no address, whatever colons are in it.
    """
    return pyav().open(str(path.absolute()), mode, **options)
