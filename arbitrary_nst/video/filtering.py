"""Decoded frames through FFmpeg's filters."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import UInt16

from arbitrary_nst.video.frames import pyav


class Filter:
    """One filter, for frames of the format and size of the first.

    Args:
        more: what its second input is given for all frames.
    """

    def __init__(self, name: str, options: str, first: Any, more: Any = None) -> None:
        self._graph = pyav().filter.Graph()
        node, sink = self._graph.add(name, options), self._graph.add("buffersink")
        self._inputs = []
        for number, frame in enumerate([first] if more is None else [first, more]):
            shape = {"width": frame.width, "height": frame.height, "format": frame.format}
            self._inputs.append(self._graph.add_buffer(**shape, time_base=frame.time_base or Fraction(1, 1000)))
            self._inputs[-1].link_to(node, 0, number)
        node.link_to(sink)
        self._graph.configure()
        self._sink = sink
        if more is not None:
            self._inputs[1].push(more)
            self._inputs[1].push(None)

    def __call__(self, frame: Any) -> Iterator[Any]:
        """Pass a frame, or None at the end; return the frames that are finished."""
        av = pyav()
        self._inputs[0].push(frame)
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                yield self._sink.pull()


def deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """The same frames; of one that is marked as interlaced the first field is kept and completed (bwdif)."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.width, frame.height)):
        bwdif = None
        for frame in alike:
            if bwdif is None and frame.interlaced_frame:
                bwdif = Filter("bwdif", "mode=send_frame:deint=interlaced", frame)
            yield from [frame] if bwdif is None else bwdif(frame)
        if bwdif is not None:
            yield from bwdif(None)


def with_table(frames: Iterable[Any], table: UInt16[np.ndarray, "512 512 3"]) -> Iterator[Any]:
    """Frames of 16-bit R'G'B' in the colours of a table (haldclut)."""
    haldclut = None
    for frame in frames:
        if haldclut is None:
            colours = pyav().VideoFrame.from_ndarray(table, format="rgb48le").reformat(format=frame.format.name)
            colours.pts, colours.time_base = 0, frame.time_base
            haldclut = Filter("haldclut", "interp=tetrahedral", frame, colours)
        yield from haldclut(frame)
