"""The command: a video in, the same video painted out.

Reading, motion, painting, smoothing and writing go on at the same time, each with other frames.
"""

import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from arbitrary_nst import __version__
from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import fitted_size, resize_pixels
from arbitrary_nst.models.serialization import model_file, model_identity, model_options
from arbitrary_nst.runtime.devices import keep_freed_memory
from arbitrary_nst.runtime.files import ImageError, Results, printable_path, refuse_overwriting
from arbitrary_nst.runtime.processes import Terminated, exit_code
from arbitrary_nst.stylization.jobs import choose_styles, prepared_style
from arbitrary_nst.stylization.options import SharedConfig
from arbitrary_nst.stylization.style_files import gallery, gallery_name
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes
from arbitrary_nst.video.camera import Camera, can_show, show
from arbitrary_nst.video.frames import Frame, Source
from arbitrary_nst.video.keyframes import Key, check_times, parse_key
from arbitrary_nst.video.motion import opencv
from arbitrary_nst.video.painting import FrameStylizer
from arbitrary_nst.video.pipeline import StageTimer
from arbitrary_nst.video.progress import Progress, Work
from arbitrary_nst.video.reading import ImageFiles, VideoFile, open_source
from arbitrary_nst.video.rendering import Renderer
from arbitrary_nst.video.report import write_report
from arbitrary_nst.video.writing import (
    AnimationSink,
    Encoding,
    PictureSink,
    Sink,
    VideoSink,
    check_output,
    check_place,
    folder_of,
    is_pictures,
    is_video,
    replaced,
)

SEGMENT = 120
"""Frames after which the work so far outlasts a crash."""

LARGEST_SMOOTH = 0.95


@dataclass(frozen=True, kw_only=True)
class VideoConfig(SharedConfig):
    """Put a video into the style of a painting."""

    content: Annotated[Path | None, tyro.conf.Positional] = None
    """A video, an animated GIF or WebP, or pictures: a folder, a glob, or a pattern such as frame_%04d.png."""
    style: tuple[str, ...] = ()
    """A painting, a style file (.style), gallery:NAME, or a name that the model knows; several of them blended by
    --style-weights, or one after the other: a.jpg@0 b.jpg@10 turns from one into the other in ten seconds."""
    output: Path | None = None
    """A video (.mp4 .m4v .mov .mkv .webm), an animation (.gif .webp), a folder for PNG files, or a pattern such as
    out/%04d.jpg."""
    smooth: float = 0.6
    """How much of a frame's strokes comes from the frame before, moved along the motion: 0, each frame for itself, to
    0.95, the least flicker."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.content is None) == (self.camera is None):
            raise UsageError("name one video, or one --camera")
        if self.output is None and self.camera is None:
            raise UsageError("--output: name the file to be written")
        if not 0 <= self.smooth <= LARGEST_SMOOTH:
            raise UsageError(f"--smooth {self.smooth}: must be from 0 (each frame for itself) to {LARGEST_SMOOTH}")
        if not 0 < self.fps < math.inf:
            raise UsageError(f"--fps {self.fps}: must be more than 0")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size}: must be at least 1")
        if self.report is not None and (self.report.suffix.lower() != ".csv" or self.camera is not None):
            raise UsageError(f"--report {self.report}: must be a .csv file, and is not for cameras")
        self.schedule()  # refuses wrong times

    @property
    def results(self) -> Results:
        """What is written, which is neither a frame nor a style of the next run."""
        return {} if self.output is None else {folder_of(self.output) or self.output: ""}

    def schedule(self) -> list[Key]:
        """The styles with their times, in the order of these."""
        known = model_options(model_file(self.model)).get("styles") or ()

        def exists(text: str) -> bool:
            return text in known or gallery_name(text) in gallery() or os.path.exists(text)

        keys = [parse_key(text, exists) for text in self.style]
        return sorted(keys, key=lambda key: key[1] or 0.0)


def stylize_video(config: VideoConfig) -> int:
    """Stylize, and return the exit code: 0 everything done, 1 frames were left out, 128 + N after signal N.

    Raises ImageError where a file cannot be read, OutputError where one cannot be written, StyleFileError for styles,
    ValueError where options contradict each other.
    """
    codec = None if config.output is None else check_output(config.output, config.codec, config.crf)
    if config.smooth or config.report:
        opencv()
    keep_freed_memory()
    if config.camera is not None:
        return _film(config, config.camera, codec)
    assert config.content is not None
    assert config.output is not None
    rate, max_pixels = Fraction(config.fps).limit_denominator(1001), config.limit
    source = open_source(config.content, rate, max_pixels, config.results)
    _check_places(config, source)
    frame_stylizer, timer = _frame_stylizer(config), StageTimer()
    work = Work(config.output, _job(config, source))
    progress = work.load()
    begin, kept = time.perf_counter(), progress.frames
    try:
        sink = _sink(config, source, codec, work, progress.frames)
        progress = _render(config, source, frame_stylizer, sink, work, progress, timer)
    except KeyboardInterrupt as stop:
        done = work.load().frames
        with suppress(OSError):  # after SIGHUP there is no terminal
            print(f"interrupted: {done} frames are kept; the same command goes on from there", file=sys.stderr)
        return exit_code(stop)
    finally:
        if not work.load().frames:
            work.remove()
    work.remove()
    speed = (progress.frames - kept) / (time.perf_counter() - begin)
    print(f"{printable_path(config.output)}: {progress.frames} frames, {speed:.1f} a second ({timer})")
    if config.report is not None:
        print(f"{printable_path(config.report)}: {write_report(progress.errors, config.report)}")
    if source.damaged:
        print(f"{printable_path(config.content)}: {source.damaged} damaged frames left out", file=sys.stderr)
    return 1 if source.damaged else 0


def _render(
    config: VideoConfig,
    source: Source,
    frame_stylizer: FrameStylizer,
    sink: Sink,
    work: Work,
    progress: Progress,
    timer: StageTimer,
) -> Progress:
    """All frames that are not done yet, from the source to the sink; what is finished is noted as it goes."""
    frames = (_resized(frame, config) for frame in islice(source.frames(), progress.frames, None))
    renderer = _renderer(config, frame_stylizer, timer)
    done, previous, errors = progress.frames, progress.previous, list(progress.errors)

    def keep() -> None:
        with timer("write"):
            sink.cut()
            work.save(Progress(done, previous, errors))

    bar = tqdm(total=source.info.frames, initial=done, unit="frame", disable=None)
    whole = True  # and not in the middle of a frame
    with bar, closing(renderer(frames, previous)) as results:
        try:
            for result in results:
                whole = False
                with timer("write"):
                    sink.add(result.frame)
                done, previous = done + 1, result.previous
                errors += [list(result.errors)] if result.errors else []
                bar.update()
                if done % SEGMENT == 0:
                    keep()
                whole = True
        except KeyboardInterrupt:
            if whole and done > progress.frames:
                keep()
            raise
        with timer("write"):
            sink.cut()
            sink.finish()
    return Progress(done, previous, errors)


def _renderer(config: VideoConfig, frame_stylizer: FrameStylizer, timer: StageTimer, depth: int = 2) -> Renderer:
    batch_size = config.batch_size or frame_stylizer.batch_size
    return Renderer(frame_stylizer, config.smooth, batch_size, config.report is not None, timer, depth)


def _film(config: VideoConfig, number: int, codec: str | None) -> int:
    """Stylize the frames of a camera until Ctrl-C or, in a window, q."""
    if config.output is None and not can_show():
        raise ImageError(
            "--camera: this OpenCV has no windows; name a file with --output, or pip install opencv-python in place of "
            "opencv-python-headless"
        )
    source, timer = Camera(number), StageTimer()
    frame_stylizer = _frame_stylizer(config)
    renderer = _renderer(replace(config, batch_size=1), frame_stylizer, timer, depth=1)
    frames = (_resized(frame, config) for frame in source.frames())
    with closing(renderer(frames)) as results:
        if config.output is None:
            show(result.frame for result in results)
            return 0
        work, count, code = Work(config.output, {}), 0, 0
        sink = _sink(config, source, codec, work, 0)
        try:
            for count, result in enumerate(results, 1):
                sink.add(result.frame)
                if count % SEGMENT == 0:
                    sink.cut()
        except KeyboardInterrupt as stop:  # Ctrl-C is the usual end
            code = exit_code(stop) if isinstance(stop, Terminated) else 0
        sink.cut()
        sink.finish()
        work.remove()
    with suppress(OSError):  # after SIGHUP there is no terminal
        print(f"{printable_path(config.output)}: {count} frames ({timer})")
    return code


# From options to what they stand for


def _frame_stylizer(config: VideoConfig) -> FrameStylizer:
    """The network with its styles, each encoded once.

    Raises UsageError where options contradict each other or the model, ImageError or StyleFileError where a style
    cannot be read.
    """
    keys = config.schedule()
    check_times(keys)
    times = [time for _, time in keys if time is not None]
    names, options, chosen = [Path(name) for name, _ in keys], config.style_options, []
    for group in ([name] for name in names) if times else (names,):
        found = choose_styles(group, config.model, options, config.alpha, config.results)
        if times and len(found) != 1:
            raise UsageError(f"--style {group[0]}: stands for {len(found)} styles; a time is for one")
        chosen += found
    if len(chosen) > 1 and not times and not config.style_weights:
        raise UsageError(
            f"--style: {len(chosen)} styles for one video; give --style-weights to blend them, or times, as in "
            f"{chosen[0][0]}@0 {chosen[1][0]}@10"
        )
    if times and config.style_weights:
        raise UsageError("--style-weights: blends styles, and here they follow one another by their times")
    if config.style_weights:
        blend_codes([torch.zeros(1, 1)] * len(chosen), config.style_weights)  # refuse bad weights before work
    stylizer = Stylizer.from_pretrained(config.model, config.device, config.precision)
    styles = {
        (name, path): prepared_style(stylizer, name, path, options, config.model, config.limit)
        for name, path in dict.fromkeys(chosen)
    }
    return FrameStylizer(
        stylizer, [styles[style] for style in chosen], times, config.style_weights, config.paint_options
    )


def _check_places(config: VideoConfig, source: Source) -> None:
    """Raises UsageError where a result would take the place of what is read, OutputError where none can be written."""
    assert config.output is not None
    reports = [] if config.report is None else [config.report, config.report.with_suffix(".png")]
    names = list(source.names.values()) if isinstance(source, ImageFiles) else []
    refuse_overwriting(_files(config, source), [*replaced(config.output, names), *reports])
    for path in (config.output, *reports):
        check_place(path)


def _sink(config: VideoConfig, source: Source, codec: str | None, work: Work, done: int) -> Sink:
    path = config.output
    assert path is not None
    if codec is not None:
        size = _size(source.info.size, config)
        encoding = Encoding(codec, config.crf, source.info, size)
        if encoding.pixel_format == "yuv444p" and codec in ("libx264", "libx265"):
            print(
                f"{printable_path(path)}: {size[1]} x {size[0]} is odd, so colours are kept at full resolution "
                "(yuv444p)"
            )
        copied = source if isinstance(source, VideoFile) else None
        return VideoSink(path, work.folder, encoding, copied, config.audio == "copy")
    if is_pictures(path):
        return PictureSink(path, config.quality, done)
    return AnimationSink(path, work.folder, source.info, config.quality, done)


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


def _job(config: VideoConfig, source: Source) -> dict[str, Any]:
    """All that a result depends on: options, and which files they stood for."""
    stamps = {str(path.absolute()): [path.stat().st_size, path.stat().st_mtime_ns] for path in _files(config, source)}
    model = str(model_identity(config.model))
    return {"version": __version__, "options": vars(config), "files": stamps, "model": model, "segment": SEGMENT}


def _files(config: VideoConfig, source: Source) -> list[Path]:
    """The video or its pictures, and the paintings."""
    styles = [Path(name) for name, _ in config.schedule() if os.path.exists(name)]
    below = [child for path in styles if path.is_dir() for child in sorted(path.iterdir())]
    pictures = source.names if isinstance(source, ImageFiles) else [source.path]
    return [path for path in [*pictures, *styles, *below] if path.is_file()]
