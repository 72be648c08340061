"""Video files, folders of pictures and animations to frames."""

import glob
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_pixel_picture
from arbitrary_nst.paths import SUFFIXES, ImageError, detail, find_images, naming
from arbitrary_nst.video.footage import Colours, Footage, Frame, Source, pyav

ANIMATIONS = (".gif", ".webp")

COUNTER = re.compile(r"%0?\d*d")
"""The number in a pattern of file names, as in frame_%04d.png."""

THREADS = 0
"""Of decoding a video; 0: one a core."""


def open_source(path: Path, rate: Fraction, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Source:
    """Whatever a path names: a video, an animation, or pictures (a folder, a glob, a pattern such as %04d.png).

    Args:
        rate: of pictures, frames a second.

    Raises ImageError where there is nothing to be read.
    """
    several = path.is_dir() or (not path.exists() and (COUNTER.search(path.name) or glob.has_magic(str(path))))
    if not several and path.suffix.lower() in ANIMATIONS:
        return Animation(path, max_pixels)
    if several or path.suffix.lower() in SUFFIXES:
        return Pictures(path, rate, max_pixels)
    return VideoFile(path)


class VideoFile:
    """The first video stream of a file, by PyAV."""

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = path, 0
        with naming(path, _reading_failure), self._opened() as container:
            stream = _video_stream(container)
            with closing(self._decoded()) as decoded:
                first = next(decoded, None)
            if first is None:
                raise ImageError("none of its frames can be decoded; get another copy of it")
            turn = first.rotation
            matrix = first.side_data.get("DISPLAYMATRIX") if "DISPLAYMATRIX" in _kinds(first) else None
            size = (first.height, first.width)
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            frames = stream.frames or round(float(_seconds(container, stream) * rate))
            self.footage = Footage(
                size=size[::-1] if turn % 180 == 90 else size,
                rate=rate,
                time_base=Fraction(stream.time_base or 1 / rate),
                frames=frames or None,
                aspect=stream.sample_aspect_ratio or None,
                colours=Colours(first.color_range, first.colorspace, first.color_primaries, first.color_trc),
                matrix=() if matrix is None else tuple(np.frombuffer(bytes(matrix), np.int32).tolist()),
                quarter_turns=turn // 90 % 4 if turn % 90 == 0 else 0,
            )
        self.damaged = 0

    def frames(self) -> Iterator[Frame]:
        self.damaged = 0
        usual, step = 1 / self.footage.rate, self.footage.time_base
        upright, turned = self.footage.size, self.footage.quarter_turns % 2
        height, width = upright[::-1] if turned else upright
        with naming(self.path, _reading_failure), closing(self._decoded()) as decoded:
            last = None
            for frame in decoded:
                time = (Fraction(0) if last is None else last + usual) if frame.pts is None else frame.pts * step
                last = time if last is None else max(time, last + step)  # a player would not go back either
                rgb = frame.to_ndarray(format="rgb24", height=height, width=width)  # which may change on the way
                rgb = np.ascontiguousarray(np.rot90(rgb, self.footage.quarter_turns))
                yield Frame(rgb, last, frame.duration * step if frame.duration else usual)

    def _opened(self) -> Any:
        if self.path.is_dir() or not self.path.exists():
            raise ImageError("no such file; check the path")
        return pyav().open(str(self.path))

    def _decoded(self) -> Generator[Any, None, None]:
        """Frames as PyAV gives them; what cannot be decoded is counted and left out.

        Several threads lose good frames beside a bad one. Where there is one, a single thread decodes once more.
        """
        given = 0
        try:
            for frame in self._decoded_by_threads():
                yield frame
                given += 1
        except pyav().error.FFmpegError:
            yield from islice(self._decoded_in_spite_of_damage(), given, None)

    def _decoded_by_threads(self) -> Iterator[Any]:
        with self._opened() as container:
            stream = _video_stream(container)
            stream.thread_type, stream.codec_context.thread_count = "AUTO", THREADS
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise pyav().error.InvalidDataError(0, "a corrupt frame", str(self.path))
                yield frame

    def _decoded_in_spite_of_damage(self) -> Iterator[Any]:
        broken = pyav().error.FFmpegError
        failures = sent = given = 0
        with self._opened() as container:
            stream = _video_stream(container)
            stream.codec_context.thread_count = 1
            packets, ended = container.demux(stream), False
            while not ended:
                try:
                    packet = next(packets, None)
                except broken:  # the file breaks off
                    failures += 1
                    packet = None
                ended = packet is None or packet.size == 0
                sent += packet is not None and packet.size > 0 and not packet.is_discard
                try:
                    frames = stream.decode(packet)
                except broken:
                    failures += 1
                    frames = []
                for frame in frames:
                    if not frame.is_corrupt:
                        given += 1
                        yield frame
        self.damaged = max(failures, sent - given)  # decoders drop some without a word


class Pictures:
    """Numbered or named pictures as frames, in natural order."""

    def __init__(self, path: Path, rate: Fraction, max_pixels: int | None) -> None:
        self.path, self.damaged = path, 0
        self._max_pixels = max_pixels
        counter = COUNTER.search(path.name)
        if counter and not path.exists():
            begin, end = path.name[: counter.start()], path.name[counter.end() :]
            found = find_images([path.with_name(glob.escape(begin) + "*" + glob.escape(end))])
            numbered = re.compile(re.escape(begin) + r"\d+" + re.escape(end))
            self.files = [file for file in found if numbered.fullmatch(file.name)]
        else:
            self.files = find_images([path])
        if not self.files:
            raise ImageError(f"{path}: no image matches this pattern; check it")
        with naming(path, _reading_failure):
            first = next(self.frames_of(rate), None)
            if first is None:
                raise ImageError("none of its pictures can be read; check the files")
        self.footage = Footage(first.rgb.shape[:2], rate, 1 / rate, len(self.files))

    def frames(self) -> Iterator[Frame]:
        return self.frames_of(self.footage.rate)

    def frames_of(self, rate: Fraction) -> Iterator[Frame]:
        """The frames at a rate; a picture that cannot be read is counted and left out, and its time too."""
        self.damaged = 0
        for index, file in enumerate(self.files):
            try:
                picture = load_pixel_picture(file, self._max_pixels)
            except ImageError:
                self.damaged += 1
                continue
            time = (index - self.damaged) / rate
            alpha = None if picture.alpha is None else picture.alpha[0].numpy()
            yield Frame(picture.rgb.permute(1, 2, 0).numpy(), time, 1 / rate, alpha, file.stem)


class Animation:
    """An animated GIF or WebP; or one picture of these kinds, which is an animation of one frame."""

    def __init__(self, path: Path, max_pixels: int | None) -> None:
        self.path, self.damaged = path, 0
        if not path.is_file():
            raise ImageError(f"{path}: no such file; check the path")
        with naming(path, _reading_failure), Image.open(path) as picture:
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
        self.footage = Footage(size, rate, Fraction(1, 1000), count, loop=loop)

    def frames(self) -> Iterator[Frame]:
        self.damaged, time = 0, Fraction(0)
        with naming(self.path, _reading_failure), Image.open(self.path) as picture:
            pages = iter(ImageSequence.Iterator(picture))
            while True:
                try:
                    page = next(pages, None)
                    if page is None:
                        return
                    values = np.array(page.convert("RGBA"))
                except (OSError, SyntaxError, ValueError):  # the file breaks off
                    self.damaged += 1
                    return
                duration = Fraction(round(page.info.get("duration") or 100), 1000)  # as browsers have it
                alpha = None if values[..., 3].min() == 255 else values[..., 3].copy()
                yield Frame(values[..., :3].copy(), time, duration, alpha)
                time += duration


# Details of PyAV


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if not stream.disposition & pyav().stream.Disposition.attached_pic:  # the cover of an album
            return stream
    raise ImageError("has no video stream; name a file with pictures in it")


def _kinds(frame: Any) -> set[str]:
    return {data.type.name for data in frame.side_data}


def _seconds(container: Any, stream: Any) -> Fraction:
    if stream.duration:
        return stream.duration * stream.time_base
    return Fraction(container.duration or 0, 1_000_000)


def _reading_failure(error: Exception) -> str:
    return f"not a video, or a damaged one ({detail(error)}); check the file, or get another copy"
