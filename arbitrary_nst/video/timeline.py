"""Times of the packets of a file, counted from its beginning, whatever its own clock says."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from math import inf
from typing import Any

from arbitrary_nst.video.frames import pyav

LARGEST_GAP = 10
"""Seconds by which the clock of a broadcast may jump ahead before that is taken for another recording, as in FFmpeg."""

LARGEST_STEP_BACK = Fraction(1, 10)
"""Seconds by which it may go back before that is."""


class Timeline:
    """The times of a file's packets from 0 on: all streams are moved alike, so that picture and sound stay together.

    Where recordings were joined byte by byte (only some formats allow that: TS, VOB, Ogg, Matroska), the clock jumps;
    the later one goes on where the one before it ends.

    Args:
        container: PyAV's, just opened. Of a format that can be joined, all packets are read.
        pictures: the video stream.
    """

    def __init__(self, container: Any, pictures: Any) -> None:
        self._joints: list[tuple[dict[int, int], Fraction]] = []  # from which byte of a stream on seconds are added
        self._begin = shift = Fraction(-max(0, container.start_time or 0), 1_000_000)
        broadcast = bool(container.format.flags & pyav().format.Flags.ts_discont.value)
        if broadcast or "matroska" in container.format.name:
            for places, jump in _joints(container, pictures, LARGEST_GAP if broadcast else inf):
                shift += jump
                self._joints.append((places, shift))

    def restored(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The same packets, with times of this line."""
        last: dict[int, int] = {}
        for packet in packets:
            stream, shift = packet.stream_index, self._begin
            place = last[stream] = packet.pos or last.get(stream, 0)
            for places, later in self._joints:
                if place >= places.get(stream, min(places.values())):
                    shift = later
            ticks = round(shift / (packet.time_base or 1))
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            yield packet

    def chapters(self, container: Any) -> list[Any]:
        """The chapters of the file, with times of this line."""
        moved = []
        for chapter in container.chapters():
            ticks = round(self._begin / chapter["time_base"])
            times = {name: max(0, chapter[name] + ticks) for name in ("start", "end")}
            moved.append({**chapter, **times})
        return moved


def _joints(container: Any, pictures: Any, largest_gap: float) -> Iterator[tuple[dict[int, int], Fraction]]:
    """Jumps of the clock, as a byte position for each stream, and the seconds that make up for it."""
    streams = [pictures, *container.streams.audio]
    joints: list[dict[int, tuple[int, Fraction, Fraction]]] = []
    for place, stream, end, begin in sorted(_jumps(container, streams, largest_gap)):
        if not joints or stream in joints[-1]:
            joints.append({})
        joints[-1][stream] = (place, end, begin)
    for jumps in joints:
        end, begin = max(end for _, end, _ in jumps.values()), min(begin for _, _, begin in jumps.values())
        if pictures.index in jumps and (begin < end or len(jumps) == len(streams)):
            yield {stream: place for stream, (place, _, _) in jumps.items()}, end - begin


def _jumps(container: Any, streams: list[Any], largest_gap: float) -> Iterator[tuple[int, int, Fraction, Fraction]]:
    """Byte, stream, the second at which what came before has ended, and the second that follows."""
    places: dict[int, int] = {}
    last: dict[int, tuple[Fraction, Fraction]] = {}
    for packet in until_broken(container.demux(streams)):
        stream = packet.stream_index
        place = places[stream] = packet.pos or places.get(stream, 0)
        if packet.dts is None or packet.pts is None:
            continue
        decoded, shown, duration = (
            ticks * packet.time_base for ticks in (packet.dts, packet.pts, packet.duration or 0)
        )
        before, end = last.get(stream, (decoded, shown))
        if decoded < before - LARGEST_STEP_BACK or decoded > before + largest_gap:
            yield place, stream, end, shown
            end = shown
        last[stream] = decoded, max(end, shown + duration)


def until_broken(packets: Iterable[Any]) -> Iterator[Any]:
    """The packets to the end of a file, or to where it breaks off."""
    with suppress(pyav().error.FFmpegError):
        yield from packets
