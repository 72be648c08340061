"""The command: a video in, the same video painted out.

Reading, motion, painting, smoothing and writing go on at the same time, each with other frames.
"""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from arbitrary_nst import __version__
from arbitrary_nst.batch import StylizeConfig
from arbitrary_nst.color import PreserveColor
from arbitrary_nst.devices import keep_freed_memory
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, fitted_size, resize_pixels
from arbitrary_nst.models.files import model_file, model_identity, model_options
from arbitrary_nst.paths import ImageError
from arbitrary_nst.processes import Terminated, terminable
from arbitrary_nst.styles import gallery, gallery_name
from arbitrary_nst.stylizer import STYLE_SIZE, Precision
from arbitrary_nst.video.camera import Camera, can_show, show
from arbitrary_nst.video.checkpoint import Progress, Work
from arbitrary_nst.video.footage import Frame, Source
from arbitrary_nst.video.motion import opencv
from arbitrary_nst.video.painting import Painter
from arbitrary_nst.video.pipeline import Clock
from arbitrary_nst.video.reading import VideoFile, open_source
from arbitrary_nst.video.rendering import Renderer
from arbitrary_nst.video.report import write_report
from arbitrary_nst.video.schedule import Key, parse_key
from arbitrary_nst.video.writing import (
    AnimationSink,
    Encoding,
    PictureSink,
    Sink,
    VideoSink,
    check_output,
    is_pictures,
    is_video,
)

SEGMENT = 120
"""Frames after which the work so far outlasts an interruption."""

LARGEST_SMOOTH = 0.95


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Put a video into the style of a painting."""

    content: Annotated[Path | None, tyro.conf.Positional] = None
    """A video, an animated GIF or WebP, or pictures: a folder, a glob, or a pattern such as frame_%04d.png."""
    style: tuple[str, ...] = ()
    """A painting, a style file (.style), gallery:NAME, or a name that the model knows; several of them blended by
    --style-weights, or one after the other: a.jpg@0 b.jpg@10 turns from one into the other in ten seconds."""
    output: Path | None = None
    """A video (.mp4 .m4v .mov .mkv .webm), an animation (.gif .webp), a folder for PNG files, or a pattern such as
    out/%04d.jpg."""
    alpha: float = 1.0
    """Strength of the style, 0 to 1."""
    style_weights: tuple[float, ...] = ()
    """Blend the styles into one with these weights, one for each."""
    smooth: float = 0.6
    """How much of a frame's strokes comes from the frame before, moved along the motion: 0, each frame for itself, to
    0.95, the least flicker."""
    preserve_color: PreserveColor = "none"
    """Keep the video's colours: by its chrominance (luminance), or by recolouring the paintings to each frame
    (covariance), which is slow."""
    content_size: int | None = None
    """Short side of the result in pixels; otherwise it is as large as the video."""
    style_size: int = STYLE_SIZE
    """Paintings are looked at with this short side at most, in pixels: a smaller one gives finer strokes."""
    style_scale: float = 1.0
    """Size of the strokes, 0.25 to 4."""
    codec: str | None = None
    """FFmpeg's name of an encoder; otherwise libx264, in .webm libvpx-vp9. (ffv1 in .mkv loses nothing.)"""
    crf: int | None = None
    """Constant rate factor of the encoder, lower is better and larger; otherwise one at which little is lost."""
    quality: int = 90
    """Of jpg and webp, 1 to 100."""
    audio: Literal["copy", "off"] = "copy"
    """Sound is copied as it is, or left out."""
    fps: float = 25.0
    """Frames a second where pictures are read."""
    report: Path | None = None
    """A .csv file for the warping error of each frame, with and without smoothing; its plot is put beside it."""
    camera: int | None = None
    """Paint what this camera sees, 0 for the first, into a window, or into --output until Ctrl-C."""
    batch_size: int | None = None
    """Frames that go through the network together; otherwise 8 on CUDA, else 1."""
    tile: Literal["auto", "off"] | int = "auto"
    """Paint large frames in tiles of this side, in pixels; auto: where memory asks for it."""
    model: str = "light"
    """A model that ships with the package, a .safetensors file written by train.py, or a folder written by export."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    """auto: bfloat16 where the device multiplies it natively, else float32."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_MAX_PIXELS
    """Refuse pictures with more pixels than this; 0 lifts the limit."""

    def __post_init__(self) -> None:
        if (self.content is None) == (self.camera is None):
            raise ValueError("name one video, or one --camera")
        if self.output is None and self.camera is None:
            raise ValueError("--output: name the file to be written")
        if not 0 <= self.smooth <= LARGEST_SMOOTH:
            raise ValueError(f"--smooth {self.smooth}: must be from 0 (each frame for itself) to {LARGEST_SMOOTH}")
        if not 0 < self.fps < math.inf:
            raise ValueError(f"--fps {self.fps}: must be more than 0")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: must be at least 1")
        if self.report is not None and (self.report.suffix.lower() != ".csv" or self.camera is not None):
            raise ValueError(f"--report {self.report}: must be a .csv file, and is not for cameras")
        if self.content is not None and self.output is not None and self.content.absolute() == self.output.absolute():
            raise ValueError(f"--output {self.output}: is the video itself; choose another name")
        self.as_stylize()

    def as_stylize(self) -> StylizeConfig:
        """What the options shared with the stylize command are there. Raises ValueError for one out of range."""
        known = {field.name for field in fields(StylizeConfig)}
        shared = {name: value for name, value in vars(self).items() if name in known}
        styles = tuple(Path(name) for name, _ in self.schedule())
        return StylizeConfig(**shared | {"content": (), "style": styles, "output": self.output or Path()})

    def schedule(self) -> list[Key]:
        """The styles with their times, in the order of these."""
        known = model_options(model_file(self.model)).get("styles") or ()

        def exists(text: str) -> bool:
            return text in known or gallery_name(text) in gallery() or Path(text).exists()

        keys = [parse_key(text, exists) for text in self.style]
        return sorted(keys, key=lambda key: key[1] or 0.0)


def stylize_video(config: VideoConfig) -> int:
    """Stylize, and return the exit code: 0 everything done, 1 frames were left out, 130 or 143 after an interruption.

    Raises ImageError where a file cannot be read or written, StyleFileError for styles, ValueError where options
    contradict each other.
    """
    codec = None if config.output is None else check_output(config.output, config.codec, config.crf)
    if config.smooth or config.report:
        opencv()
    keep_freed_memory()
    if config.camera is not None:
        return _film(config, config.camera, codec)
    assert config.content is not None
    assert config.output is not None
    source = open_source(config.content, Fraction(config.fps).limit_denominator(1001), config.max_pixels or None)
    painter, clock = Painter(config.schedule(), config.as_stylize()), Clock()
    work = Work(config.output, _job(config))
    progress = work.load()
    begin, kept = time.perf_counter(), progress.frames
    try:
        with terminable():
            sink = _sink(config, source, codec, work, progress.frames)
            progress = _render(config, source, painter, sink, work, progress, clock)
    except KeyboardInterrupt as stop:
        done = work.load().frames
        print(f"interrupted: {done} frames are kept; the same command goes on from there", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    finally:
        if not work.load().frames:
            work.remove()
    work.remove()
    speed = (progress.frames - kept) / (time.perf_counter() - begin)
    print(f"{config.output}: {progress.frames} frames, {speed:.1f} a second ({clock})")
    if config.report is not None:
        print(f"{config.report}: {write_report(progress.errors, config.report)}")
    if source.damaged:
        print(f"{config.content}: {source.damaged} damaged frames left out", file=sys.stderr)
    return 1 if source.damaged else 0


def _render(
    config: VideoConfig, source: Source, painter: Painter, sink: Sink, work: Work, progress: Progress, clock: Clock
) -> Progress:
    """All frames that are not done yet, from the source to the sink; what is finished is noted as it goes."""
    frames = (_resized(frame, config) for frame in islice(source.frames(), progress.frames, None))
    renderer = _renderer(config, painter, clock)
    done, before, errors = progress.frames, progress.before, list(progress.errors)
    bar = tqdm(total=source.footage.frames, initial=done, unit="frame", disable=None)
    with bar, closing(renderer(frames, before)) as results:
        for result in results:
            with clock("write"):
                sink.add(result.frame)
            done, before = done + 1, result.before
            errors += [list(result.errors)] if result.errors else []
            bar.update()
            if done % SEGMENT == 0:
                with clock("write"):
                    sink.cut()
                    work.save(Progress(done, before, errors))
        with clock("write"):
            sink.cut()
            sink.finish()
    return Progress(done, before, errors)


def _renderer(config: VideoConfig, painter: Painter, clock: Clock, depth: int = 2) -> Renderer:
    batch_size = config.batch_size or painter.batch_size
    return Renderer(painter, config.smooth, batch_size, config.report is not None, clock, depth)


def _film(config: VideoConfig, number: int, codec: str | None) -> int:
    """What a camera sees, painted, until Ctrl-C or, in a window, q."""
    if config.output is None and not can_show():
        raise ImageError(
            "--camera: this OpenCV has no windows; name a file with --output, or pip install opencv-python in place of "
            "opencv-python-headless"
        )
    source, clock = Camera(number), Clock()
    painter = Painter(config.schedule(), config.as_stylize())
    renderer = _renderer(replace(config, batch_size=1), painter, clock, depth=1)
    frames = (_resized(frame, config) for frame in source.frames())
    with closing(renderer(frames)) as results:
        if config.output is None:
            show(result.frame for result in results)
            return 0
        work, count = Work(config.output, {}), 0
        sink = _sink(config, source, codec, work, 0)
        try:
            with terminable():
                for result in results:
                    sink.add(result.frame)
                    count += 1
        except KeyboardInterrupt:
            print("the camera is let go", file=sys.stderr)
        sink.cut()
        sink.finish()
        work.remove()
    print(f"{config.output}: {count} frames ({clock})")
    return 0


# From options to what they stand for


def _sink(config: VideoConfig, source: Source, codec: str | None, work: Work, done: int) -> Sink:
    path = config.output
    assert path is not None
    if codec is not None:
        size = _size(source.footage.size, config)
        encoding = Encoding(codec, config.crf, source.footage, size)
        if encoding.pixel_format == "yuv444p" and codec in ("libx264", "libx265"):
            print(f"{path}: {size[1]} x {size[0]} is odd, so colours are kept at full resolution (yuv444p)")
        copied = source.path if isinstance(source, VideoFile) else None
        return VideoSink(path, work.folder, encoding, copied, config.audio == "copy")
    if is_pictures(path):
        return PictureSink(path, config.quality, done)
    return AnimationSink(path, work.folder, source.footage, config.quality, done)


def _size(size: Sequence[int], config: VideoConfig) -> tuple[int, int]:
    """Height and width of what is made of frames of a size: in a video even ones, where one may choose."""
    height, width = size
    if config.content_size is None:
        return height, width
    height, width = fitted_size(height, width, config.content_size)
    return (height // 2 * 2 or 2, width // 2 * 2 or 2) if config.output and is_video(config.output) else (height, width)


def _resized(frame: Frame, config: VideoConfig) -> Frame:
    height, width = _size(frame.rgb.shape[:2], config)
    if (height, width) == frame.rgb.shape[:2]:
        return frame

    def to_size(values: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)
        return resize_pixels(pixels, (height, width)).permute(1, 2, 0).contiguous().numpy()

    alpha = None if frame.alpha is None else to_size(frame.alpha[..., None])[..., 0]
    return replace(frame, rgb=to_size(frame.rgb), alpha=alpha)


def _job(config: VideoConfig) -> dict[str, Any]:
    """All that a result depends on: options, and which files they stood for."""
    assert config.content is not None
    styles = [Path(name) for name, _ in config.schedule()]
    files = [path for path in (config.content, *styles) if path.exists()]
    below = [child for path in files if path.is_dir() for child in sorted(path.iterdir())]
    stamps = {str(path.absolute()): [path.stat().st_size, path.stat().st_mtime_ns] for path in [*files, *below]}
    model = Path(config.model)
    identity = str(model_identity(config.model)) if not model.is_dir() else str(model.absolute())
    return {"version": __version__, "options": vars(config), "files": stamps, "model": identity, "segment": SEGMENT}
