"""Frames to video files, pictures and animations, in segments: what is finished outlasts an interruption.

A segment of a video holds encoded packets, each begun with a fresh encoder; all of them, in their order and with the
packets of the source's sound, are the file. So the work can be interrupted anywhere.
"""

import heapq
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from arbitrary_nst.errors import OutputError, UsageError
from arbitrary_nst.image import save_pixels
from arbitrary_nst.runtime.files import (
    atomic_write,
    check_output_folder,
    check_writable,
    detail,
    fitting_name,
    printable_path,
    reraise_with_path,
)
from arbitrary_nst.video.frames import MATRICES, Frame, VideoInfo, open_container, pyav
from arbitrary_nst.video.reading import ANIMATIONS, COUNTER, VideoFile, is_pattern, numbered
from arbitrary_nst.video.timeline import until_broken

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""What FFmpeg calls the files that we write, by suffix."""

DEFAULT_CODEC = {".webm": "libvpx-vp9"}
"""Where it is not libx264."""

DEFAULT_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libaom-av1": 24, "libsvtav1": 24}
"""Constant rate factors at which one has to look for a difference, of the codecs that have one."""


class Sink:
    """Destination of results."""

    def add(self, frame: Frame) -> None:
        """The next frame: pixels as they are to be seen, upright, with the times of the source."""
        raise NotImplementedError

    def cut(self) -> None:
        """End a segment: all frames so far outlast an interruption from now on."""

    def finish(self) -> None:
        """Put the whole result in its place."""


# Video files


@dataclass(frozen=True)
class Encoding:
    """Encoding of frames.

    Args:
        codec: FFmpeg's name of an encoder.
        crf: its constant rate factor, lower is better; None: ours, where the codec has one.
        size: height and width of upright frames.
    """

    codec: str
    crf: int | None
    info: VideoInfo
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
        stored = self.size if self.info.quarter_turns % 2 == 0 else self.size[::-1]
        context.height, context.width = stored
        context.pix_fmt = self.pixel_format
        context.time_base = self.info.time_base
        context.framerate = self.info.rate
        if self.info.aspect is not None:
            context.sample_aspect_ratio = self.info.aspect
        context.bit_rate = 0
        colours = self.info.colours
        context.color_range, context.colorspace = colours.range, colours.space
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer

    def frame(self, frame: Frame) -> Any:
        """A frame as the encoder takes it."""
        colours, step = self.info.colours, self.info.time_base
        pixels = np.ascontiguousarray(np.rot90(over_white(frame), -self.info.quarter_turns))
        picture = pyav().VideoFrame.from_ndarray(pixels, format="rgb24")
        space = MATRICES.get(colours.space, MATRICES[5])
        picture = picture.reformat(
            format=self.pixel_format, dst_colorspace=space, dst_color_range=colours.range or None
        )
        picture.colorspace, picture.color_range = colours.space, colours.range
        picture.color_primaries, picture.color_trc = colours.primaries, colours.transfer
        picture.time_base, picture.pts = step, round(frame.time / step)
        picture.duration = max(1, round(frame.duration / step))
        return picture


class VideoSink(Sink):
    """A video file with the sound, subtitles, chapters and metadata of the source.

    Args:
        work: a folder for segments.
        source: the file to copy these from; None: there is none.

    Raises OutputError where such a file cannot be written, before any work is done.
    """

    def __init__(
        self, path: Path, work: Path, encoding: Encoding, source: VideoFile | None, audio: bool = True
    ) -> None:
        self.path, self._work, self._encoding = path, work, encoding
        self._source, self._audio = source, audio
        self._packets: list[Any] = []
        self._durations: dict[int, int] = {}
        self._context = None
        self._format = CONTAINERS[path.suffix.lower()]
        with reraise_with_path(path, self._failure, OutputError):
            self._copies = [] if source is None else self._held(source)
            self._mux(work / "rehearsal", ())
        (work / "rehearsal").unlink()

    def add(self, frame: Frame) -> None:
        with reraise_with_path(self.path, self._failure, OutputError):
            if frame.rgb.shape[:2] != self._encoding.size:
                (height, width), (first_height, first_width) = frame.rgb.shape[:2], self._encoding.size
                raise OutputError(
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
        with reraise_with_path(self.path, self._failure, OutputError):
            packets = [*self._packets, *self._context.encode(None)]
            rows = [(p.pts, p.dts, self._durations.get(p.pts, 1), p.is_keyframe, p.size) for p in packets]
            content = np.frombuffer(b"".join(map(bytes, packets)), np.uint8)
            with atomic_write(self._work / f"{packets[0].pts:016d}.segment") as partial, partial.open("wb") as file:
                np.savez(file, rows=np.array(rows, np.int64), content=content)
        self._context, self._packets, self._durations = None, [], {}

    def finish(self) -> None:
        with reraise_with_path(self.path, self._failure, OutputError), atomic_write(self.path) as partial:
            self._mux(partial, sorted(self._work.glob("*.segment")))

    def _encoder(self) -> Any:
        context = pyav().CodecContext.create(self._encoding.codec, "w")
        self._encoding.configure(context)
        context.options = self._encoding.options
        context.flags |= pyav().codec.context.Flags.global_header
        return context

    def _packets_of(self, segments: Sequence[Path], stream: Any) -> Iterator[Any]:
        """The packets of segments; decoding times, which begin anew with each encoder, go on."""
        last = None
        for path in segments:
            with np.load(path) as segment:
                rows, content = segment["rows"].tolist(), segment["content"]
            begin = 0
            for pts, dts, duration, key, size in rows:
                packet = pyav().Packet(content[begin : begin + size].tobytes())
                begin += size
                last = dts if last is None else max(dts, last + 1)
                packet.pts, packet.dts, packet.duration = pts, last, duration
                packet.is_keyframe, packet.time_base = bool(key), self._encoding.info.time_base
                packet.stream = stream
                yield packet

    def _mux(self, path: Path, segments: Sequence[Path]) -> None:
        """Write a file of the packets of these segments and of the source's."""
        encoding = self._encoding
        options = {"movflags": "faststart"} if self._format in ("mp4", "mov") else {}
        with ExitStack() as stack:
            output = stack.enter_context(open_container(path, "w", format=self._format, options=options))
            video = output.add_stream(encoding.codec, rate=encoding.info.rate, options=encoding.options)
            encoding.configure(video.codec_context)
            video.time_base = encoding.info.time_base
            if encoding.info.matrix:
                video.set_display_matrix(encoding.info.matrix)
            others: Iterator[Any] = iter(())
            if self._source is not None:
                container = stack.enter_context(self._source.opened())
                output.metadata.update(_of_content(container.metadata))
                if container.chapters():
                    output.set_chapters(self._source.timeline.chapters(container))
                if self._copies:
                    streams = [container.streams[index] for index in self._copies]
                    copies = {stream.index: output.add_stream_from_template(stream) for stream in streams}
                    for stream in streams:
                        copies[stream.index].metadata.update(_of_content(stream.metadata))
                    read = until_broken(container.demux(streams))
                    others = _copied(self._source.timeline.restored(read), copies)
            output.start_encoding()
            ours = self._packets_of(segments, video)
            in_time = heapq.merge(ours, others, key=lambda packet: packet.dts * packet.time_base)
            for packet in in_time:  # neither waits in memory for the other
                output.mux_one(packet)

    def _held(self, source: VideoFile) -> list[int]:
        """The sound and subtitles that such a file can hold, by index; of others a line on stderr.

        Raises OutputError where it holds no sound of a source that has some.
        """
        with source.opened() as container:
            sound = list(container.streams.audio) if self._audio else []
            streams = [*sound, *container.streams.subtitles]
            held = [stream for stream in streams if _can_hold(self._format, stream)]
            unheard = [stream for stream in sound if stream.codec_context is not None]
            if unheard and not set(sound) & set(held):
                raise OutputError(
                    f"cannot hold the sound, {unheard[0].codec_context.name}; choose a .mkv file, or --audio off"
                )
            for stream in streams:
                if stream not in held:
                    name = "of an unknown codec" if stream.codec_context is None else stream.codec_context.name
                    print(
                        f"{printable_path(self.path)}: left out: {stream.type} stream {stream.index}, {name}",
                        file=sys.stderr,
                    )
            return [stream.index for stream in held]

    def _failure(self, error: Exception) -> str:
        return (
            f"cannot be written with {self._encoding.codec} ({detail(error)}); choose another --codec, a .mkv file, or "
            "--audio off"
        )


def _can_hold(file_format: str, stream: Any) -> bool:
    """Return True if a stream can be copied into such a file: its header is written to memory."""
    if stream.codec_context is None:
        return False
    try:
        with pyav().open(BytesIO(), "w", format=file_format) as output:
            output.add_stream_from_template(stream)
            output.start_encoding()
    except (pyav().error.FFmpegError, ValueError):
        return False
    return True


def _copied(packets: Iterator[Any], copies: dict[int, Any]) -> Iterator[Any]:
    """The packets of streams that are copied, as they are, but that no stream goes back in time."""
    last: dict[int, int] = {}
    for packet in packets:
        if packet.size and packet.pts is not None:
            dts: int = packet.pts if packet.dts is None else packet.dts
            last[packet.stream_index] = packet.dts = max(dts, last.get(packet.stream_index, dts - 1) + 1)
            packet.pts = max(packet.pts, last[packet.stream_index])
            packet.stream = copies[packet.stream_index]
            yield packet


def _of_content(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata about the content, not about the file or its writer."""
    of_file = {"encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id", "handler_name", "duration"}
    return {key: value for key, value in metadata.items() if key.lower() not in of_file}


# Pictures


class PictureSink(Sink):
    """One picture a frame, in a folder or with numbers by a pattern; each is whole as soon as it is there."""

    def __init__(self, path: Path, quality: int, done: int = 0) -> None:
        self.path, self.quality, self.done = path, quality, done

    def add(self, frame: Frame) -> None:
        self.done += 1
        pattern = _pattern(self.path)
        if pattern != self.path and frame.name:
            file = self.path / fitting_name(frame.name, ".png")
        else:
            file = pattern.with_name(COUNTER.sub(lambda counter: counter.group() % self.done, pattern.name))
        _save(frame, file, self.quality)


class AnimationSink(Sink):
    """An animated GIF or WebP, which Pillow writes from memory: its frames wait in the work folder until then."""

    def __init__(self, path: Path, work: Path, info: VideoInfo, quality: int, done: int = 0) -> None:
        self.path, self.work, self.info, self.quality, self.done = path, work, info, quality, done

    def add(self, frame: Frame) -> None:
        self.done += 1
        begin, end = (round(1000 * moment) for moment in (frame.time, frame.time + frame.duration))
        _save(frame, self.work / f"{self.done:06d}-{end - begin}.png", self.quality)

    def finish(self) -> None:
        paths = sorted(self.work.glob("*.png"))[: self.done]
        durations = [int(path.stem.partition("-")[2]) for path in paths]  # in milliseconds
        pages = [Image.open(BytesIO(path.read_bytes())) for path in paths]
        clear = any(page.mode == "RGBA" for page in pages)
        first, *others = [page.convert("RGBA") for page in pages] if clear else pages
        options: dict[str, Any] = {"save_all": True, "append_images": others, "duration": durations}
        if self.path.suffix.lower() == ".webp":
            options |= {"quality": self.quality, "loop": 1 if self.info.loop is None else self.info.loop}
        else:
            options |= {"optimize": False, "disposal": 2 if clear else 0}
            options |= {} if self.info.loop is None else {"loop": self.info.loop}
        with (
            reraise_with_path(self.path, lambda error: f"cannot be written ({detail(error)})", OutputError),
            atomic_write(self.path) as partial,
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


def _pattern(path: Path) -> Path:
    """Names of pictures in a folder where they have no names of their own."""
    return path if is_pattern(path) and not os.path.isdir(path) else path / "%06d.png"


def is_video(path: Path) -> bool:
    """Return True if an output is a video file."""
    return not is_pictures(path) and path.suffix.lower() in CONTAINERS


def is_pictures(path: Path) -> bool:
    """Return True if an output is a folder of pictures or a pattern for them."""
    return os.path.isdir(path) or not path.suffix or is_pattern(path)


def folder_of(path: Path) -> Path | None:
    """The folder in which an output puts pictures; None: it is one file."""
    return _pattern(path).parent if is_pictures(path) else None


def replaced(path: Path, names: Sequence[str] = ()) -> list[Path]:
    """The files whose place an output may take.

    Args:
        names: of frames that have names of their own.
    """
    if not is_pictures(path):
        return [path]
    pattern = _pattern(path)
    if names and pattern != path:
        return [path / fitting_name(name, ".png") for name in names]
    folder = pattern.parent
    there = folder.iterdir() if folder.is_dir() else ()
    return [file for file in there if numbered(pattern.name).fullmatch(file.name)]


def check_place(path: Path) -> None:
    """Refuse a place where nothing can be written, before any work. Nothing is created.

    Raises OutputError, and UsageError where a file is in the place of a folder.
    """
    file = _pattern(path) if is_pictures(path) else path
    if file != path:
        check_output_folder(path)
    check_writable(file)


def check_output(path: Path, codec: str | None, crf: int | None) -> str | None:
    """The codec for a video file; None for pictures and animations. Raises ValueError where there is no such thing."""
    suffix = path.suffix.lower()
    if is_pictures(path) or suffix in ANIMATIONS:
        if codec is not None or crf is not None:
            raise UsageError(f"--codec and --crf: are for video files, and {path} is none")
        return None
    if suffix not in CONTAINERS:
        known = " ".join([*CONTAINERS, *ANIMATIONS])
        raise UsageError(
            f"--output {path}: unknown suffix '{suffix}'; use one of {known}, a folder, or a name with %04d"
        )
    codec = codec or DEFAULT_CODEC.get(suffix, "libx264")
    if crf is not None and codec not in DEFAULT_CRF:
        raise UsageError(f"--crf {crf}: {codec} has none; it is for {', '.join(DEFAULT_CRF)}")
    try:
        kind = pyav().Codec(codec, "w").type
    except ValueError as error:  # what PyAV's UnknownCodecError is
        raise UsageError(f"--codec {codec}: this FFmpeg has no such encoder; libx264 is one") from error
    if kind != "video":
        raise UsageError(f"--codec {codec}: is not for video; libx264 is")
    return codec
