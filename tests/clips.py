"""Tiny videos for the tests, and what is in a file."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed")

TICK = Fraction(1, 12288)


def moving_picture(index: int, height: int, width: int) -> np.ndarray:
    """A bright bar that moves 2 pixels to the right a frame, over a ramp."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 2] = np.linspace(0, 200, height)[:, None]
    picture[:, (2 * index) % width : (2 * index) % width + 8] = (250, 180, 20)
    return picture


def write_clip(path: Path, frames: int = 6, size=(32, 48), ticks=None, sound: bool = True, **options) -> Path:
    """A video of `moving_picture`, of `size` (height, width), with a sine wave for sound.

    `ticks`: of 1/12288 second, when frames appear. `options`: rotation, aspect, full_range, pixel_format, codec.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(options.get("codec", "libx264"), rate=24)
        video.height, video.width = size
        video.pix_fmt = options.get("pixel_format", "yuv420p")
        video.codec_context.time_base = TICK
        video.codec_context.sample_aspect_ratio = options.get("aspect", Fraction(1))
        full = options.get("full_range", False)
        video.codec_context.color_range = 2 if full else 1
        if "rotation" in options:
            video.set_display_rotation(options["rotation"])
        container.metadata["title"] = "a bar"
        audio = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(moving_picture(index, *size), format="rgb24")
            picture = picture.reformat(format=video.pix_fmt, dst_color_range=2 if full else 1)
            picture.pts, picture.time_base = (512 * index if ticks is None else ticks[index]), TICK
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None:
            wave = (9000 * np.sin(0.05 * np.arange(1024 * 2 * frames))).astype(np.int16)
            for begin in range(0, len(wave), 1024):
                sound_frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="s16", layout="mono")
                sound_frame.sample_rate, sound_frame.pts = 44100, begin
                container.mux(audio.encode(sound_frame))
            container.mux(audio.encode(None))
    return path


def remuxed(clip: Path, path: Path, shift: float = 0.0, **options: str) -> Path:
    """The same packets in another file, all of them `shift` seconds later. `options`: of FFmpeg's muxer."""
    options = {"avoid_negative_ts": "disabled", **options}
    with av.open(str(clip)) as source, av.open(str(path), "w", options=options) as container:
        streams = [container.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.size:
                ticks = round(shift / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """Decoded frames as they are stored."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times_of(path: Path) -> list[Fraction]:
    """When the frames appear, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple]:
    """Encoded packets of sound with their times."""
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]
