"""Video files, folders of pictures and animations to frames."""

import glob
import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_pixel_picture
from arbitrary_nst.runtime.files import (
    SUFFIXES,
    ImageError,
    Results,
    detail,
    find_images,
    reraise_with_path,
    unique_names,
)
from arbitrary_nst.video.filtering import deinterlaced, with_table
from arbitrary_nst.video.frames import MATRICES, UNSPECIFIED, Colours, Frame, Source, VideoInfo, open_container, pyav
from arbitrary_nst.video.sdr import BT709, sdr_table
from arbitrary_nst.video.timeline import Timeline

ANIMATIONS = (".gif", ".webp")

COUNTER = re.compile(r"%0?\d*d")
"""The number in a pattern of file names, as in frame_%04d.png."""

THREADS = 0
"""Of decoding a video; 0: one a core."""


def open_source(
    path: Path, rate: Fraction, max_pixels: int | None = DEFAULT_MAX_PIXELS, results: Results | None = None
) -> Source:
    """Open a video, an animation, or pictures (a folder, a glob, a pattern such as %04d.png).

    Args:
        rate: of pictures, frames a second.
        results: as in `runtime.files.find_images`.

    Raises ImageError where there is nothing to be read.
    """
    several = os.path.isdir(path) or (not os.path.exists(path) and (is_pattern(path) or glob.has_magic(str(path))))
    if not several and path.suffix.lower() in ANIMATIONS:
        return Animation(path, max_pixels)
    if several or path.suffix.lower() in SUFFIXES:
        return ImageFiles(path, rate, max_pixels, results)
    return VideoFile(path)


def is_pattern(path: Path) -> bool:
    """Return True for a name of numbered pictures, such as `frame_%04d.png`, but not `50%discount.mp4`."""
    found = COUNTER.search(path.stem)
    if found is None or path.suffix.lower() not in SUFFIXES:
        return False
    return path.suffix.lower() not in ANIMATIONS or not path.name[found.end()].isalpha()


class VideoFile:
    """The first video stream of a file, by PyAV."""

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = path, 0
        with reraise_with_path(path, _reading_failure), self.opened() as container:
            stream = _video_stream(container)
            self.timeline = Timeline(container, stream)
            with closing(self._decoded()) as decoded:
                first = next(decoded, None)
            if first is None:
                raise ImageError("none of its frames can be decoded; get another copy of it")
            turn = first.rotation
            matrix = next((bytes(data) for data in first.side_data if data.type.name == "DISPLAYMATRIX"), b"")
            size = (first.height, first.width)
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            ticks, unit = stream.duration, stream.time_base
            seconds = ticks * unit if ticks else Fraction(container.duration or 0, 1_000_000)
            frames = stream.frames or round(float(seconds * rate))
            colours = Colours(first.color_range, first.colorspace, first.color_primaries, first.color_trc)
            self._table = sdr_table(colours)
            self.info = VideoInfo(
                size=size[::-1] if turn % 180 == 90 else size,
                rate=rate,
                time_base=Fraction(unit or 1 / rate),
                frames=frames or None,
                aspect=stream.sample_aspect_ratio or None,
                colours=_written(colours) if self._table is None else Colours(colours.range, BT709, BT709, BT709),
                matrix=tuple(np.frombuffer(matrix, np.int32).tolist()),
                quarter_turns=turn // 90 % 4 if turn % 90 == 0 else 0,
            )
        self.damaged = 0

    def frames(self) -> Iterator[Frame]:
        self.damaged = 0
        usual, step = 1 / self.info.rate, self.info.time_base
        with reraise_with_path(self.path, _reading_failure), closing(self._decoded()) as decoded:
            last = None
            for frame in self._in_rgb(deinterlaced(decoded)):
                ticks = frame.time_base or step
                time = (Fraction(0) if last is None else last + usual) if frame.pts is None else frame.pts * ticks
                last = time if last is None else max(time, last + step)  # a player would not go back either
                kind = "rgba" if _has_alpha(frame) else "rgb24"
                pixels = np.rot90(frame.to_ndarray(format=kind), self.info.quarter_turns)
                rgb, alpha = np.ascontiguousarray(pixels[..., :3]), pixels[..., 3:]
                opaque = alpha.size == 0 or alpha.min() == 255
                duration = frame.duration * ticks if frame.duration else usual
                yield Frame(rgb, last, duration, None if opaque else alpha[..., 0].copy())

    def _in_rgb(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Frames of one size, whatever a file changes on the way, in our colours."""
        upright, turned = self.info.size, self.info.quarter_turns % 2
        height, width = upright[::-1] if turned else upright
        depth = ("rgb24", "rgba") if self._table is None else ("rgb48le", "rgba64le")
        sized = (frame.reformat(width, height, depth[_has_alpha(frame)]) for frame in frames)
        return sized if self._table is None else with_table(sized, self._table)

    def opened(self) -> Any:
        """The file as PyAV's container. Raises ImageError where there is none."""
        if not os.path.exists(self.path) or self.path.is_dir():
            raise ImageError("no such file; check the path")
        return open_container(self.path)

    def _decoded(self) -> Generator[Any, None, None]:
        """Frames as PyAV gives them; what cannot be decoded is counted and left out.

        Several threads lose good frames beside a bad one. Where there is one, a single thread decodes once more.
        """
        given = 0
        try:
            for frame in self._decode("AUTO", THREADS, forgiven=()):
                yield frame
                given += 1
        except pyav().error.FFmpegError:
            yield from islice(self._decode("SLICE", 1, forgiven=pyav().error.FFmpegError), given, None)

    def _decode(self, threading: str, threads: int, forgiven: Any) -> Iterator[Any]:
        """Frames as PyAV gives them; what is damaged is left out and counted, or, if not forgiven, raised."""
        failures = sent = given = 0
        with self.opened() as container:
            stream = _video_stream(container)
            decoder = _decoder(stream)
            decoder.thread_type, decoder.thread_count = threading, threads
            packets, ended = self.timeline.restored(container.demux(stream)), False
            while not ended:
                try:
                    packet = next(packets, None)
                except forgiven:  # the file breaks off
                    failures += 1
                    packet = None
                ended = packet is None or (packet.size == 0 and packet.dts is None)
                sent += packet is not None and packet.size > 0 and not packet.is_discard
                try:
                    frames = decoder.decode(packet)
                except forgiven:
                    failures += 1
                    frames = []
                for frame in frames:
                    if not frame.is_corrupt:
                        given += 1
                        yield frame
                    elif not forgiven:
                        raise pyav().error.InvalidDataError(0, "a corrupt frame", str(self.path))
        if forgiven:
            self.damaged = max(failures, sent - given)  # decoders drop some without a word


class ImageFiles:
    """Numbered or named pictures as frames, in natural order."""

    def __init__(self, path: Path, rate: Fraction, max_pixels: int | None, results: Results | None) -> None:
        self.path, self.damaged = path, 0
        self._max_pixels = max_pixels
        if is_pattern(path) and not os.path.exists(path):
            found = find_images([path.with_name(COUNTER.sub("*", glob.escape(path.name)))], results=results)
            files = [file for file in found if numbered(path.name).fullmatch(file.name)]
        else:
            files = find_images([path], results=results)
        if not files:
            raise ImageError(f"{path}: no image matches this pattern; check it")
        self.names = unique_names(files)
        self._rate = rate
        with reraise_with_path(path, _reading_failure):
            first = next(self.frames(), None)
            if first is None:
                raise ImageError("none of its pictures can be read; check the files")
        self.info = VideoInfo(first.rgb.shape[:2], rate, 1 / rate, len(self.names))

    def frames(self) -> Iterator[Frame]:
        """All frames; a picture that cannot be read is counted and left out, and its time too."""
        self.damaged = 0
        for index, (file, name) in enumerate(self.names.items()):
            try:
                picture = load_pixel_picture(file, self._max_pixels)
            except ImageError:
                self.damaged += 1
                continue
            time = (index - self.damaged) / self._rate
            alpha = None if picture.alpha is None else picture.alpha[0].numpy()
            yield Frame(picture.rgb.permute(1, 2, 0).numpy(), time, 1 / self._rate, alpha, name)


class Animation:
    """An animated GIF or WebP; or one picture of these kinds, which is an animation of one frame."""

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        self.path, self.damaged = path, 0
        if not os.path.isfile(path):
            raise ImageError(f"{path}: no such file; check the path")
        with reraise_with_path(path, _reading_failure), Image.open(path) as picture:
            if max_pixels is not None and picture.width * picture.height > max_pixels:
                raise ImageError(
                    f"{picture.width} x {picture.height} pixels; if you trust the file, raise --max-pixels"
                )
            loop = picture.info.get("loop")
            if loop is None and picture.format == "WEBP":
                loop = 0
            size, count = (picture.height, picture.width), getattr(picture, "n_frames", 1)
        total = sum((frame.duration for frame in self.frames()), Fraction(0))
        rate = Fraction(count) / total if total else Fraction(10)
        self.info = VideoInfo(size, rate, Fraction(1, 1000), count, loop=loop)

    def frames(self) -> Iterator[Frame]:
        self.damaged, time = 0, Fraction(0)
        with reraise_with_path(self.path, _reading_failure), Image.open(self.path) as picture:
            try:
                for page in ImageSequence.Iterator(picture):
                    values = np.array(page.convert("RGBA"))
                    duration = Fraction(round(page.info.get("duration") or 100), 1000)  # as browsers have it
                    alpha = None if values[..., 3].min() == 255 else values[..., 3].copy()
                    yield Frame(values[..., :3].copy(), time, duration, alpha)
                    time += duration
            except (OSError, SyntaxError, ValueError):  # the file breaks off
                self.damaged += 1


def numbered(name: str) -> re.Pattern[str]:
    """The names of files that a pattern stands for."""
    return re.compile(COUNTER.sub(lambda _: r"\d+", re.escape(name)))


# Details of PyAV


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if not stream.disposition & pyav().stream.Disposition.attached_pic:  # the cover of an album
            return stream
    raise ImageError("has no video stream; name a file with pictures in it")


def _decoder(stream: Any) -> Any:
    """The decoder of a stream: FFmpeg's own ones leave out the transparency of VP8 and VP9."""
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if library is None or stream.metadata.get("alpha_mode") != "1":
        return stream.codec_context
    return pyav().CodecContext.create(library, "r")


def _has_alpha(frame: Any) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def _written(colours: Colours) -> Colours:
    """Colours as they are, but in a matrix that can be written: RGB has none."""
    known = colours.space in (UNSPECIFIED, *MATRICES)
    return colours if known else replace(colours, range=1, space=BT709)


def _reading_failure(error: Exception) -> str:
    return f"not a video, or a damaged one ({detail(error)}); check the file, or get another copy"
