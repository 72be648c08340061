"""Footage as cameras, phones, broadcasters and editors make it: clocks, colours, fields, transparency, odd streams."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")
from PIL import Image

from arbitrary_nst.commands import main
from arbitrary_nst.image import load_picture
from arbitrary_nst.video.frames import Colours
from arbitrary_nst.video.reading import open_source
from arbitrary_nst.video.sdr import HLG, PQ, to_light
from clips import av, frames_of, moving_picture, remuxed, sound_of, times_of, write_clip


@pytest.fixture
def video(tmp_path, pictures, model_file, monkeypatch):
    """The command, with a network that leaves frames as they are; returns its exit code."""
    monkeypatch.setattr(
        "arbitrary_nst.video.painting.FrameStylizer.__call__",
        lambda self, frames: [frame.rgb.astype(np.float32) for frame in frames],
    )

    def run(content, output, *options):
        paths = [str(content), "--style", str(pictures / "style" / "dots.png"), "--output", str(tmp_path / output)]
        common = ["--model", str(model_file), "--device", "cpu", "--smooth", "0"]
        return main(["video", *paths, *common, *map(str, options)])

    return run


def read(path):
    return list(open_source(path, Fraction(25)).frames())


# Clocks


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.ts", {}),
        ("in.m2ts", {}),
        ("in.mkv", {}),
        ("in.mp4", {"movflags": "frag_keyframe+empty_moov+frag_discont"}),
        ("in.mov", {}),
    ],
)
def test_a_clock_that_begins_at_an_hour_is_no_hour_of_emptiness(video, tmp_path, name, options):
    clip = write_clip(tmp_path / "clip.mp4", frames=10)
    late = remuxed(clip, tmp_path / name, 3600.0, **options)
    assert times_of(late)[0] >= 3600
    assert video(late, "out.mp4") == 0
    times, sound = times_of(tmp_path / "out.mp4"), sound_of(tmp_path / "out.mp4")
    assert len(times) == 10
    assert float(times[-1] - times[0]) == pytest.approx(9 / 24, abs=1e-3)
    assert 0 <= min(times[0], sound[0][0]) < 0.03
    apart = times_of(late)[0] - sound_of(late)[0][0]
    assert float(times[0] - sound[0][0]) == pytest.approx(float(apart), abs=1e-3)
    assert len(sound) == len(sound_of(late))


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_a_picture_that_stands_for_long_is_no_joint(tmp_path, suffix):
    clip = write_clip(tmp_path / "clip.mp4", frames=13, ticks=[12288 * i for i in (*range(12), 34)])
    frames = read(remuxed(clip, tmp_path / f"in.{suffix}"))
    assert float(frames[-1].time - frames[0].time) == pytest.approx(34, abs=0.01)


def test_joined_program_streams_go_on_too(tmp_path):
    part, joined = tmp_path / "part.vob", tmp_path / "joined.vob"
    with av.open(str(part), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for index in range(20):
            picture = av.VideoFrame.from_ndarray(moving_picture(index, 32, 48), format="rgb24")
            picture.pts = 15000 + index  # ten minutes
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    joined.write_bytes(2 * part.read_bytes())
    times = [float(frame.time) for frame in read(joined)]
    assert times == pytest.approx([index / 25 for index in range(40)], abs=0.09)


@pytest.mark.parametrize("first", [0.0, 40.0, 4000.0, "mkv"])
def test_joined_recordings_go_on_where_the_one_before_ends(video, tmp_path, first):
    clip = write_clip(tmp_path / "clip.mp4", frames=24)
    suffix, starts = ("mkv", (0.0, 0.0)) if first == "mkv" else ("ts", (first, 20.0, 20.0))
    parts = [remuxed(clip, tmp_path / f"{number}.{suffix}", start) for number, start in enumerate(starts)]
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert video(joined, "out.mkv") == 0
    times, sound = times_of(tmp_path / "out.mkv"), sound_of(tmp_path / "out.mkv")
    assert len(times) == len(parts) * 24
    steps = [float(later - earlier) for earlier, later in pairwise(times)]
    assert min(steps) > 0.03
    assert max(steps) < 0.2
    number = len(sound_of(parts[0]))
    assert len(sound) == len(parts) * number
    apart = [float(times[24 * part] - sound[number * part][0]) for part in range(len(parts))]
    assert apart == pytest.approx([apart[0]] * len(parts), abs=0.01)


# Colours


@pytest.mark.parametrize(
    ("transfer", "encoded", "nits"),
    [
        (PQ, 0.508078, 100),
        (PQ, 0.580689, 203),
        (PQ, 0.751827, 1000),
        (HLG, 0.75, 203.2),
        (HLG, 0.5, 50.7),
        (HLG, 1.0, 1000),
    ],
)
def test_encoded_values_are_light_by_the_standards(transfer, encoded, nits):
    np.testing.assert_allclose(to_light(np.full((1, 3), encoded), transfer), nits / 203, rtol=2e-3)


def write_colours(path, rgb, colours, size=(16, 16)):
    """Frames of one colour, R'G'B' in [0, 1], of 10 bits, without loss."""
    pixels = np.broadcast_to(np.rint(65535 * np.array(rgb)).astype(np.uint16), (*size, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt, context = "yuv444p10le", stream.codec_context
        context.color_range, context.colorspace = 1, colours.space
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb48le")
        picture = picture.reformat(format=stream.pix_fmt, dst_colorspace=colours.space, dst_color_range=1)
        picture.colorspace, picture.color_primaries, picture.color_trc = (
            colours.space,
            colours.primaries,
            colours.transfer,
        )
        for number in range(2):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


HDR10, HLG_PHONE, P3 = Colours(1, 9, 9, PQ), Colours(1, 9, 9, HLG), Colours(1, 1, 12, 1)


@pytest.mark.parametrize(
    ("rgb", "colours", "expected"),
    [
        ((0, 0, 0), HDR10, (0, 0, 0)),
        ((0.508078,) * 3, HDR10, (186, 186, 186)),  # 100 of 203 nits
        ((0.580689,) * 3, HDR10, (243, 243, 243)),  # white, as highlights are compressed
        ((0.751827,) * 3, HDR10, (255, 255, 255)),
        ((0.5,) * 3, HLG_PHONE, (137, 137, 137)),
        ((0.75,) * 3, HLG_PHONE, (243, 243, 243)),
        ((1,) * 3, HLG_PHONE, (255, 255, 255)),
        ((0.457843, 0.271127, 0.183541), HDR10, (186, 0, 0)),  # red of BT.709 at 100 nits: 62.7, 6.9 and 1.6 nits
        ((0.5,) * 3, P3, (128, 128, 128)),
        ((0.9175, 0.2003, 0.1387), P3, (255, 0, 0)),
    ],
)
def test_hdr_and_wide_colours_are_read_as_srgb(tmp_path, rgb, colours, expected):
    source = open_source(write_colours(tmp_path / "in.mkv", rgb, colours), Fraction(25))
    frames = list(source.frames())
    assert len(frames) == 2
    np.testing.assert_allclose(frames[0].rgb[8, 8], expected, atol=6)
    assert source.info.colours == Colours(1, 1, 1, 1)


def test_what_is_made_of_hdr_is_marked_as_sdr_and_looks_as_read(video, tmp_path):
    hdr = write_colours(tmp_path / "in.mkv", (0.45, 0.4, 0.3), HLG_PHONE)
    assert video(hdr, "out.mp4", "--crf", 1) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
    np.testing.assert_allclose(frames_of(tmp_path / "out.mp4")[0][8, 8], read(hdr)[0].rgb[8, 8], atol=3)


def test_videos_in_rgb_are_written_in_a_matrix_that_players_know(video, tmp_path):
    clip = write_clip(tmp_path / "in.mkv", codec="libx264rgb", pixel_format="rgb24", sound=False)
    assert video(clip, "out.mp4", "--crf", 1) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).colorspace != 0
    difference = frames_of(tmp_path / "out.mp4")[0].astype(int) - frames_of(clip)[0]
    assert np.abs(difference).mean() < 4


# Fields


def write_interlaced(path, interlaced=True):
    """A bar that moves 4 pixels a field."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.options = {"crf": "1", **({"x264-params": "bff=1"} if interlaced else {})}
        for index in range(8):
            picture = moving_picture(4 * index + 2, 64, 96)
            picture[1::2] = moving_picture(4 * index, 64, 96)[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def combs(frame):
    """How far lines differ from those above and below."""
    values = frame.rgb.astype(int)
    return np.abs(2 * values[1:-1] - values[:-2] - values[2:]).mean()


def test_fields_become_whole_frames_at_the_same_times(tmp_path):
    clip = write_interlaced(tmp_path / "in.mkv")
    frames = read(clip)
    assert [frame.time for frame in frames] == times_of(clip)
    combed = read(write_interlaced(tmp_path / "combed.mkv", interlaced=False))
    assert combs(combed[4]) > 20  # what is not marked is left alone
    assert combs(frames[4]) < 0.3 * combs(combed[4])
    assert np.abs(frames[4].rgb[1::2].astype(int) - combed[4].rgb[1::2]).mean() < 2  # the first field


# Transparency

HALF = np.concatenate([np.zeros((32, 24), np.uint8), np.full((32, 24), 255, np.uint8)], axis=1)


def write_transparent(path, codec, pixel_format):
    """Red frames; their left half is clear and, hidden, green."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pixel_format
        pixels = np.zeros((32, 48, 4), np.uint8)
        pixels[..., 3], pixels[HALF > 0, 0], pixels[HALF == 0, 1] = HALF, 255, 255
        for number in range(3):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


TRANSPARENT = [
    ("in.mov", "qtrle", "argb"),
    ("in.mov", "png", "rgba"),
    ("in.mov", "prores_ks", "yuva444p10le"),
    ("in.mkv", "ffv1", "yuva420p"),
    ("in.webm", "libvpx-vp9", "yuva420p"),
]


@pytest.mark.parametrize(("name", "codec", "pixel_format"), TRANSPARENT)
def test_transparency_of_videos_is_read(tmp_path, name, codec, pixel_format):
    frames = read(write_transparent(tmp_path / name, codec, pixel_format))
    assert len(frames) == 3
    for frame in frames:
        assert frame.alpha is not None
        np.testing.assert_allclose(frame.alpha[:, [0, 8, 40]], HALF[:, [0, 8, 40]], atol=2)
        np.testing.assert_allclose(frame.rgb[8, 40], (255, 0, 0), atol=6)


def test_a_palette_can_be_transparent(tmp_path):
    pages = [Image.fromarray(np.where(HALF, 1 + number, 0).astype(np.uint8), "P") for number in range(2)]
    for page in pages:
        page.putpalette([0, 255, 0, 255, 0, 0, 0, 0, 255])
    options = {"save_all": True, "append_images": pages[1:], "transparency": 0, "blend": 0, "disposal": 0}
    pages[0].save(tmp_path / "in.apng", "PNG", **options)
    first = read(tmp_path / "in.apng")[0]
    np.testing.assert_array_equal(first.alpha, HALF)
    np.testing.assert_array_equal(first.rgb[8, 40], (255, 0, 0))


def test_hidden_colours_stay_hidden(video, tmp_path):
    clip = write_transparent(tmp_path / "in.mov", "qtrle", "argb")
    assert video(clip, "out.mp4") == 0
    assert frames_of(tmp_path / "out.mp4")[1][:, :16].min() > 245
    assert video(clip, "frames") == 0
    alpha = load_picture(tmp_path / "frames" / "000002.png").alpha
    assert alpha is not None
    assert (alpha[0, 0].numpy() * 255 == HALF).all()
    for suffix in ("gif", "webp"):
        assert video(clip, f"out.{suffix}") == 0
        with Image.open(tmp_path / f"out.{suffix}") as picture:
            assert (np.array(picture.convert("RGBA"))[..., 3] == HALF).all()


# Streams that cannot be copied


def with_second_sound(path):
    """A clip with two tracks of sound, the second of a codec that nobody knows."""
    clip = write_clip(path.with_name("clip.mov"))
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        video, audio = source.streams.video[0], source.streams.audio[0]
        pictures, *sounds = [container.add_stream_from_template(stream) for stream in (video, audio, audio)]
        for packet in source.demux():
            if packet.size:
                content, times = bytes(packet), (packet.pts, packet.dts, packet.time_base)
                for stream in [pictures] if packet.stream_index == video.index else sounds:
                    copy = av.Packet(content)
                    copy.pts, copy.dts, copy.time_base = times
                    copy.stream, copy.is_keyframe = stream, packet.is_keyframe
                    container.mux(copy)
    content = path.read_bytes()
    place = content.rindex(b"stsd")
    path.write_bytes(content[:place] + content[place:].replace(b"mp4a", b"apac").replace(b"esds", b"free"))
    return path


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv"])
def test_sound_of_an_unknown_codec_is_left_out_and_the_rest_copied(video, tmp_path, capsys, suffix):
    clip = with_second_sound(tmp_path / "in.mov")
    assert video(clip, f"out.{suffix}") == 0
    assert "stream 2" in capsys.readouterr().err
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
    assert [packet for _, packet in sound_of(tmp_path / f"out.{suffix}")] == [packet for _, packet in sound_of(clip)]


@pytest.mark.parametrize(("codec", "number"), [(b"S_TEXT/UTF8", 1), (b"S_TEXT/UTFX", 0)])
def test_subtitles_of_an_unknown_codec_are_left_out(video, tmp_path, capsys, codec, number):
    clip = tmp_path / "in.mkv"
    with av.open(str(write_clip(tmp_path / "clip.mp4"))) as source, av.open(str(clip), "w") as container:
        streams = [container.add_stream_from_template(stream) for stream in source.streams]
        words = container.add_mux_stream("subrip")
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
        line = av.Packet(b"hello")
        line.pts = line.dts = 0
        line.duration, line.time_base, line.stream = 100, Fraction(1, 1000), words
        container.mux(line)
    clip.write_bytes(clip.read_bytes().replace(b"S_TEXT/UTF8", codec))
    assert video(clip, "out.mkv") == 0
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert len(container.streams.subtitles) == number
        assert len(container.streams.audio) == 1
    assert ("subtitle stream 2" in capsys.readouterr().err) == (number == 0)
