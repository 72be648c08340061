"""Frames to video files, pictures and animations, in segments: what is finished outlasts an interruption.

A segment of a video holds encoded packets, each begun with a fresh encoder; all of them, in their order and with the
packets of the source's sound, are the file. So it makes no difference where the work was interrupted.
"""

import heapq
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from arbitrary_nst.image import save_pixels
from arbitrary_nst.paths import ImageError, detail, naming, written_whole
from arbitrary_nst.video.footage import Footage, Frame, pyav
from arbitrary_nst.video.reading import ANIMATIONS, COUNTER

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""What FFmpeg calls the files that we write, by suffix."""

DEFAULT_CODEC = {".webm": "libvpx-vp9"}
"""Where it is not libx264."""

DEFAULT_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libaom-av1": 24, "libsvtav1": 24}
"""Constant rate factors at which one has to look for a difference, of the codecs that have one."""

_SWS_SPACE = {1: 1, 4: 4, 7: 7, 9: 9}
"""What libswscale converts to, by FFmpeg's colour space, where it is not the 5 of BT.601."""


@runtime_checkable
class Sink(Protocol):
    """Where results go."""

    def add(self, frame: Frame) -> None:
        """The next frame: pixels as they are to be seen, upright, with the times of the source."""
        ...

    def cut(self) -> None:
        """End a segment: all frames so far outlast an interruption from now on."""
        ...

    def finish(self) -> None:
        """Put the whole result in its place."""
        ...


# Video files


@dataclass(frozen=True)
class Encoding:
    """How frames become packets.

    Args:
        codec: FFmpeg's name of an encoder.
        crf: its constant rate factor, lower is better; None: ours, where the codec has one.
        size: height and width of upright frames.
    """

    codec: str
    crf: int | None
    footage: Footage
    size: tuple[int, int]

    @property
    def options(self) -> dict[str, str]:
        crf = DEFAULT_CRF.get(self.codec) if self.crf is None else self.crf
        return {} if crf is None else {"crf": str(crf)}

    @property
    def pixel_format(self) -> str:
        """Colours at half the resolution, which every player knows, where the codec takes sides of this length."""
        if self.codec in ("libx264", "libx265") and (self.size[0] % 2 or self.size[1] % 2):
            return "yuv444p"
        known = {each.name for each in pyav().Codec(self.codec, "w").video_formats or ()}
        return next((name for name in ("yuv420p", "yuv422p", "yuv422p10le", "yuv444p") if name in known), "yuv420p")

    def configure(self, context: Any) -> None:
        """Set up an encoder that is not open yet."""
        stored = self.size if self.footage.quarter_turns % 2 == 0 else self.size[::-1]
        context.height, context.width = stored
        context.pix_fmt = self.pixel_format
        context.time_base = self.footage.time_base
        context.framerate = self.footage.rate
        if self.footage.aspect is not None:
            context.sample_aspect_ratio = self.footage.aspect
        context.bit_rate = 0
        colours = self.footage.colours
        context.color_range, context.colorspace = colours.range, colours.space
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer

    def frame(self, frame: Frame) -> Any:
        """A frame as the encoder takes it."""
        colours, step = self.footage.colours, self.footage.time_base
        pixels = np.ascontiguousarray(np.rot90(over_white(frame), -self.footage.quarter_turns))
        picture = pyav().VideoFrame.from_ndarray(pixels, format="rgb24")
        space = _SWS_SPACE.get(colours.space, 5)
        picture = picture.reformat(
            format=self.pixel_format, dst_colorspace=space, dst_color_range=colours.range or None
        )
        picture.colorspace, picture.color_range = colours.space, colours.range
        picture.color_primaries, picture.color_trc = colours.primaries, colours.transfer
        picture.time_base, picture.pts = step, round(frame.time / step)
        picture.duration = max(1, round(frame.duration / step))
        return picture


class VideoSink:
    """A video file with the sound, subtitles, chapters and metadata of the source.

    Args:
        work: a folder for segments.
        source: the file to copy these from; None: there is none.

    Raises ImageError where such a file cannot be written, before any work is done.
    """

    def __init__(self, path: Path, work: Path, encoding: Encoding, source: Path | None, audio: bool = True) -> None:
        self.path, self._work, self._encoding = path, work, encoding
        self._source, self._audio = source, audio
        self._packets: list[Any] = []
        self._durations: dict[int, int] = {}
        self._context = None
        with naming(path, self._failure):
            self._mux(work / "rehearsal", iter(()))
        (work / "rehearsal").unlink()

    def add(self, frame: Frame) -> None:
        with naming(self.path, self._failure):
            if frame.rgb.shape[:2] != self._encoding.size:
                (height, width), (first_height, first_width) = frame.rgb.shape[:2], self._encoding.size
                raise ImageError(
                    f"{frame.name or 'a frame'} has {width} x {height} pixels, the first one {first_width} x "
                    f"{first_height}; in a video all must be of one size"
                )
            if self._context is None:
                self._context = self._encoder()
            picture = self._encoding.frame(frame)
            self._durations[picture.pts] = picture.duration
            self._packets += self._context.encode(picture)

    def cut(self) -> None:
        if self._context is None:
            return
        with naming(self.path, self._failure):
            packets = [*self._packets, *self._context.encode(None)]
            rows = [(p.pts, p.dts, self._durations.get(p.pts, 1), p.is_keyframe, p.size) for p in packets]
            content = np.frombuffer(b"".join(map(bytes, packets)), np.uint8)
            with written_whole(self._work / f"{packets[0].pts:016d}.segment") as partial, partial.open("wb") as file:
                np.savez(file, rows=np.array(rows, np.int64), content=content)
        self._context, self._packets, self._durations = None, [], {}

    def finish(self) -> None:
        with naming(self.path, self._failure), written_whole(self.path) as partial:
            self._mux(partial, self._finished())

    def _encoder(self) -> Any:
        context = pyav().CodecContext.create(self._encoding.codec, "w")
        self._encoding.configure(context)
        context.options = self._encoding.options
        context.flags |= pyav().codec.context.Flags.global_header
        return context

    def _finished(self) -> Iterator[Any]:
        """The packets of all segments; decoding times, which begin anew with each encoder, go on."""
        last = None
        for path in sorted(self._work.glob("*.segment")):
            with np.load(path) as segment:
                rows, content = segment["rows"].tolist(), segment["content"]
            begin = 0
            for pts, dts, duration, key, size in rows:
                packet = pyav().Packet(content[begin : begin + size].tobytes())
                begin += size
                last = dts if last is None else max(dts, last + 1)
                packet.pts, packet.dts, packet.duration = pts, last, duration
                packet.is_keyframe, packet.time_base = bool(key), self._encoding.footage.time_base
                yield packet

    def _mux(self, path: Path, packets: Iterator[Any]) -> None:
        """Write a file of these packets and the source's."""
        av, encoding = pyav(), self._encoding
        suffix = self.path.suffix.lower()
        options = {"movflags": "faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}
        with ExitStack() as stack:
            output = stack.enter_context(av.open(str(path), "w", format=CONTAINERS[suffix], options=options))
            video = output.add_stream(encoding.codec, rate=encoding.footage.rate, options=encoding.options)
            encoding.configure(video.codec_context)
            video.time_base = encoding.footage.time_base
            if encoding.footage.matrix:
                video.set_display_matrix(encoding.footage.matrix)
            others: Iterator[Any] = iter(())
            if self._source is not None:
                container = stack.enter_context(av.open(str(self._source)))
                output.metadata.update(_of_content(container.metadata))
                if container.chapters():
                    output.set_chapters(container.chapters())
                others = _copied(container, self._copies(container, output))
            output.start_encoding()
            ours = _streamed(packets, video)
            for packet in heapq.merge(ours, others, key=_decoding_time):  # so that neither waits in memory
                output.mux_one(packet)

    def _copies(self, container: Any, output: Any) -> dict[int, Any]:
        """Streams that are copied, by index; subtitles only where the file can hold them."""
        streams = list(container.streams.audio) if self._audio else []
        streams += [s for s in container.streams.subtitles if s.codec_context.name in output.supported_codecs]
        copies = {}
        for stream in streams:
            copies[stream.index] = output.add_stream_from_template(stream)
            copies[stream.index].metadata.update(_of_content(stream.metadata))
        return copies

    def _failure(self, error: Exception) -> str:
        return (
            f"cannot be written with {self._encoding.codec} ({detail(error)}); choose another --codec, a .mkv file, or "
            "--audio off"
        )


def _streamed(packets: Iterator[Any], stream: Any) -> Iterator[Any]:
    for packet in packets:
        packet.stream = stream
        yield packet


def _copied(container: Any, copies: dict[int, Any]) -> Iterator[Any]:
    """The packets of streams that are copied, as they are, to the end or to where the file breaks off."""
    if not copies:
        return
    packets = container.demux([container.streams[index] for index in copies])
    while True:
        try:
            packet = next(packets, None)
        except pyav().error.FFmpegError:
            return
        if packet is None:
            return
        if packet.size and packet.pts is not None:
            packet.stream = copies[packet.stream_index]
            yield packet


def _decoding_time(packet: Any) -> Fraction:
    return (packet.pts if packet.dts is None else packet.dts) * packet.time_base


def _of_content(metadata: dict[str, str]) -> dict[str, str]:
    """What metadata say of the content, and not of the file or of who wrote it."""
    of_file = {"encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id", "handler_name", "duration"}
    return {key: value for key, value in metadata.items() if key.lower() not in of_file}


# Pictures


class PictureSink:
    """One picture a frame, in a folder or with numbers by a pattern; each is whole as soon as it is there."""

    def __init__(self, path: Path, quality: int, done: int = 0) -> None:
        self.path, self._quality, self._number = path, quality, done

    def add(self, frame: Frame) -> None:
        self._number += 1
        if COUNTER.search(self.path.name):
            file = self.path.with_name(COUNTER.sub(lambda counter: counter.group() % self._number, self.path.name))
        else:
            file = self.path / f"{frame.name or f'{self._number:06d}'}.png"
        _save(frame, file, self._quality)

    def cut(self) -> None:
        pass

    def finish(self) -> None:
        pass


class AnimationSink:
    """An animated GIF or WebP, which Pillow writes from memory: its frames wait in the work folder until then."""

    def __init__(self, path: Path, work: Path, footage: Footage, quality: int, done: int = 0) -> None:
        self.path, self._work, self._footage, self._quality = path, work, footage, quality
        self._number, self._durations = done, []

    def add(self, frame: Frame) -> None:
        self._number += 1
        begin, end = (round(1000 * moment) for moment in (frame.time, frame.time + frame.duration))
        self._durations.append(end - begin)
        _save(frame, self._work / f"{self._number:06d}.png", self._quality)

    def cut(self) -> None:
        with written_whole(self._work / f"{self._number:06d}.durations") as partial:
            partial.write_text(json.dumps(self._durations))
        self._durations = []

    def finish(self) -> None:
        durations = [ms for path in sorted(self._work.glob("*.durations")) for ms in json.loads(path.read_text())]
        first, *others = (Image.open(path) for path in sorted(self._work.glob("*.png"))[: len(durations)])
        options: dict[str, Any] = {"save_all": True, "append_images": others, "duration": durations}
        if self.path.suffix.lower() == ".webp":
            options |= {"quality": self._quality, "loop": 1 if self._footage.loop is None else self._footage.loop}
        else:
            options |= {"optimize": False, "disposal": 2 if first.mode == "RGBA" else 0}
            options |= {} if self._footage.loop is None else {"loop": self._footage.loop}
        with (
            naming(self.path, lambda error: f"cannot be written ({detail(error)})"),
            written_whole(self.path) as partial,
        ):
            first.save(partial, self.path.suffix[1:].upper(), **options)


def over_white(frame: Frame) -> np.ndarray:
    """The colours of a frame on white, as in a format that holds no transparency."""
    if frame.alpha is None:
        return frame.rgb
    opacity = frame.alpha[..., None].astype(np.uint16)
    return ((frame.rgb * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _save(frame: Frame, path: Path, quality: int) -> None:
    rgb = torch.from_numpy(frame.rgb).permute(2, 0, 1)
    save_pixels(rgb, path, None if frame.alpha is None else torch.from_numpy(frame.alpha)[None], quality)


def is_video(path: Path) -> bool:
    """Whether an output is a video file."""
    return not is_pictures(path) and path.suffix.lower() in CONTAINERS


def is_pictures(path: Path) -> bool:
    """Whether an output is a folder of pictures or a pattern for them."""
    return bool(COUNTER.search(path.name)) or path.is_dir() or not path.suffix


def check_output(path: Path, codec: str | None, crf: int | None) -> str | None:
    """The codec for a video file; None for pictures and animations. Raises ValueError where there is no such thing."""
    suffix = path.suffix.lower()
    if is_pictures(path) or suffix in ANIMATIONS:
        if codec is not None or crf is not None:
            raise ValueError(f"--codec and --crf: are for video files, and {path} is none")
        return None
    if suffix not in CONTAINERS:
        known = " ".join([*CONTAINERS, *ANIMATIONS])
        raise ValueError(
            f"--output {path}: unknown suffix '{suffix}'; use one of {known}, a folder, or a name with %04d"
        )
    codec = codec or DEFAULT_CODEC.get(suffix, "libx264")
    if crf is not None and codec not in DEFAULT_CRF:
        raise ValueError(f"--crf {crf}: {codec} has none; it is for {', '.join(DEFAULT_CRF)}")
    try:
        kind = pyav().Codec(codec, "w").type
    except ValueError as error:  # what PyAV's UnknownCodecError is
        raise ValueError(f"--codec {codec}: this FFmpeg has no such encoder; libx264 is one") from error
    if kind != "video":
        raise ValueError(f"--codec {codec}: is not for video; libx264 is")
    return codec
