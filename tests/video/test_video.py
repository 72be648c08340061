"""A video keeps what is not its picture: every frame and its time, sound, rotation, shape of pixels, colours."""

import gc
import os
import weakref
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")
from arbitrary_nst.commands import main
from clips import av, frames_of, sound_of, times_of, write_clip


@pytest.fixture
def painting(pictures):
    return pictures / "style" / "dots.png"


@pytest.fixture
def video(tmp_path, painting, model_file):
    """The command; returns its exit code."""

    def run(content, *options, style=(painting,), output=tmp_path / "out.mp4"):
        paths = [str(content), "--style", *map(str, style), "--output", str(output)]
        return main(["video", *paths, "--model", str(model_file), "--device", "cpu", *map(str, options)])

    return run


# What is kept


@pytest.mark.slow
def test_every_frame_its_time_and_the_sound_are_kept(video, tmp_path, capsys):
    clip = write_clip(tmp_path / "in.mp4", frames=7)
    assert video(clip) == 0
    result = tmp_path / "out.mp4"
    assert times_of(result) == times_of(clip) == [Fraction(index, 24) for index in range(7)]
    assert sound_of(result) == sound_of(clip)
    assert len(sound_of(clip)) > 7
    assert [frame.shape for frame in frames_of(result)] == [(32, 48, 3)] * 7
    assert np.abs(frames_of(result)[3].astype(int) - frames_of(clip)[3]).mean() > 10
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert "7 frames" in capsys.readouterr().out
    with av.open(str(result)) as container:
        assert container.metadata["title"] == "a bar"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_variable_times_are_kept(video, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.commands.video.SEGMENT", 3)
    clip = write_clip(tmp_path / f"in{suffix}", frames=8, ticks=[0, 512, 600, 2000, 5000, 5100, 9000, 12288])
    assert video(clip, output=tmp_path / f"out{suffix}") == 0
    assert times_of(tmp_path / f"out{suffix}") == times_of(clip)
    assert sound_of(tmp_path / f"out{suffix}") == sound_of(clip)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_kept_and_frames_are_painted_upright(video, tmp_path, rotation, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "arbitrary_nst.video.painting.FrameStylizer.__call__",
        lambda self, frames: [seen.append(frame.rgb) or frame.rgb.astype(np.float32) for frame in frames],
    )
    clip = write_clip(tmp_path / "in.mp4", rotation=rotation)
    assert video(clip, "--smooth", 0, "--crf", 1) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.rotation % 360 == rotation % 360
    assert seen[0].shape == ((32, 48, 3) if rotation == 180 else (48, 32, 3))
    stored = frames_of(clip)[0]
    np.testing.assert_array_equal(seen[0], np.rot90(stored, rotation // 90))  # counterclockwise, as FFmpeg has it
    assert np.abs(frames_of(tmp_path / "out.mp4")[0].astype(int) - stored).mean() < 4  # and turned back


def test_shape_of_pixels_and_range_of_colours_are_kept(video, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "arbitrary_nst.video.painting.FrameStylizer.__call__", lambda self, fs: [f.rgb.astype(np.float32) for f in fs]
    )
    for full in (False, True):
        clip = write_clip(tmp_path / "in.mp4", aspect=Fraction(4, 3), full_range=full)
        assert video(clip, "--smooth", 0, "--crf", 1) == 0
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
            assert container.streams.video[0].codec_context.color_range == (2 if full else 0)  # 0: as usual
        difference = frames_of(tmp_path / "out.mp4")[0].astype(int) - frames_of(clip)[0]
        assert np.abs(difference).mean() < 3


def test_odd_sides_are_kept(video, tmp_path, capsys):
    clip = write_clip(tmp_path / "in.mkv", size=(33, 47), codec="ffv1")
    assert video(clip) == 0
    assert frames_of(tmp_path / "out.mp4")[0].shape == (33, 47, 3)
    assert "47 x 33 is odd" in capsys.readouterr().out


def test_another_size_is_even(video, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", size=(32, 54))
    assert video(clip, "--content-size", 27) == 0
    assert frames_of(tmp_path / "out.mp4")[0].shape == (26, 46, 3)


def test_sound_can_be_left_out(video, tmp_path):
    assert video(write_clip(tmp_path / "in.mp4"), "--audio", "off") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_webm_is_vp9(video, tmp_path):
    assert video(write_clip(tmp_path / "in.mp4", sound=False), output=tmp_path / "out.webm") == 0
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
    assert len(frames_of(tmp_path / "out.webm")) == 6


@pytest.mark.slow
def test_batches_give_what_single_frames_give(video, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", sound=False)
    results = []
    for size in (1, 4):
        options = ["--codec", "ffv1", "--precision", "float32", "--batch-size", size]
        assert video(clip, *options, output=tmp_path / f"{size}.mkv") == 0
        results.append(np.stack(frames_of(tmp_path / f"{size}.mkv")).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 3


@pytest.mark.slow
def test_only_a_few_frames_are_in_memory(video, tmp_path, monkeypatch):
    """However long the video: what is read ahead, one segment's packets, and the frame before."""
    made, most = [], []

    def paint(self, frames):
        made.extend(weakref.ref(frame.rgb) for frame in frames)
        gc.collect()
        most.append(sum(reference() is not None for reference in made))
        return [frame.rgb.astype(np.float32) for frame in frames]

    monkeypatch.setattr("arbitrary_nst.video.painting.FrameStylizer.__call__", paint)
    monkeypatch.setattr("arbitrary_nst.commands.video.SEGMENT", 10)
    assert video(write_clip(tmp_path / "in.mp4", frames=60)) == 0
    assert len(most) == 60
    assert max(most) <= 12


# Damage and errors


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_damaged_frames_are_left_out_counted_and_shown(video, tmp_path, capsys, monkeypatch, threads):
    clip = write_clip(tmp_path / "in.mp4", frames=20, sound=False)
    content = bytearray(clip.read_bytes())
    begin = content.index(b"mdat") + 800
    content[begin : begin + 300] = np.random.default_rng(0).bytes(300)
    clip.write_bytes(content)
    decoded = len(frames_of_what_can_be_decoded(clip))
    assert 0 < decoded < 20
    monkeypatch.setattr("arbitrary_nst.video.reading.THREADS", threads)
    assert video(clip) == 1
    assert len(frames_of(tmp_path / "out.mp4")) == decoded
    assert f"{20 - decoded} damaged frames left out" in capsys.readouterr().err


def frames_of_what_can_be_decoded(path):
    """By one thread: several lose good frames beside a bad one."""
    frames = []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for packet in container.demux(video=0):
            try:
                frames += [frame for frame in packet.decode() if not frame.is_corrupt]
            except av.error.InvalidDataError:
                continue
    return frames


def test_a_file_that_breaks_off_gives_what_it_has(video, tmp_path):
    clip = write_clip(tmp_path / "in.mkv", frames=20)
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 3])
    assert video(clip) in (0, 1)
    assert 5 < len(frames_of(tmp_path / "out.mp4")) < 20


def text(path):
    path.write_text("hello")
    return path


def only_sound(path):
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 44100
        container.mux([*audio.encode(frame), *audio.encode(None)])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (text, "not a video, or a damaged one"),
        (only_sound, "has no video stream"),
        (lambda path: path.with_name("none.mp4"), "no such file"),
        (lambda path: path.parent / "frame_%04d.png", "no image matches"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(video, tmp_path, capsys, make, words):
    assert video(make(tmp_path / "in.mp4")) == 1
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--smooth", "1"], "--smooth 1.0: must be from 0"),
        (["--alpha", "2"], "--alpha 2.0: must be between 0"),
        (["--codec", "nonesuch"], "no such encoder"),
        (["--codec", "aac"], "is not for video"),
        (["--codec", "ffv1", "--crf", "3"], "ffv1 has none"),
        (["--report", "table.txt"], "must be a .csv file"),
        (["--fps", "0"], "--fps 0.0: must be more than 0"),
        (["--camera", "0"], "name one video, or one --camera"),
    ],
)
def test_options_that_make_no_sense_are_refused(video, tmp_path, capsys, options, words):
    assert video(write_clip(tmp_path / "in.mp4"), *options) == 2
    assert words in capsys.readouterr().err


def test_what_a_file_cannot_hold_is_refused_before_the_work(video, tmp_path, capsys):
    assert video(write_clip(tmp_path / "in.mp4"), output=tmp_path / "out.webm") == 1  # aac
    assert "--audio off" in capsys.readouterr().err
    assert video(write_clip(tmp_path / "in.mp4"), output=tmp_path / "out.doc") == 2
    assert "unknown suffix '.doc'" in capsys.readouterr().err


def test_the_video_itself_is_not_written_over(video, tmp_path, capsys):
    clip = write_clip(tmp_path / "out.mp4")
    assert video(clip) == 2
    assert "out.mp4" in capsys.readouterr().err
    (tmp_path / "link.mp4").hardlink_to(clip)
    assert video(clip, output=tmp_path / "link.mp4") == 2
    assert "link.mp4" in capsys.readouterr().err
    assert video(clip, "--report", clip.with_suffix(".csv"), output=tmp_path / "other.mp4") == 0


@pytest.mark.skipif(os.name == "nt", reason="no colons in names")
def test_a_colon_in_a_name_is_no_protocol(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "12:30.mp4")
    for name in ("12:30.mp4", "./12:30.mp4"):
        assert video(name, output="a:b/pipe:1.mp4") == 0
        assert len(frames_of(tmp_path / "a:b" / "pipe:1.mp4")) == 6


def test_long_names_have_short_folders_beside_them(video, tmp_path):
    clip = write_clip(tmp_path / "in.mp4")
    output = tmp_path / f"{'é' * 125}.mp4"  # 254 bytes
    assert video(clip, output=output) == 0
    assert output.is_file()


@pytest.mark.parametrize("option", ["content", "--style", "--output", "--report"])
def test_names_too_long_for_the_disk_are_refused_in_a_line(video, tmp_path, capsys, option):
    clip, name = write_clip(tmp_path / "in.mp4"), tmp_path / ("x" * 260)
    if option == "content":
        code = video(name.with_suffix(".mp4"))
    elif option == "--style":
        code = video(clip, style=[name.with_suffix(".png")])
    elif option == "--output":
        code = video(clip, output=name.with_suffix(".mp4"))
    else:
        code = video(clip, "--report", name.with_suffix(".csv"))
    assert code in (1, 2)
    error = capsys.readouterr().err
    assert "x" * 260 in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("output", ["file/out.mp4", "file/out.gif", "file/frames", "file/%04d.png"])
def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(video, tmp_path, capsys, monkeypatch, output):
    monkeypatch.setattr("arbitrary_nst.video.painting.FrameStylizer.__call__", lambda *_: pytest.fail("painted"))
    (tmp_path / "file").write_text("no folder")
    clip = write_clip(tmp_path / "in.mp4")
    for options, name in (([], output), (["--report", tmp_path / "file" / "r.csv"], "r.csv")):
        assert video(clip, *options, output=tmp_path / (output if name == output else "out.mp4")) in (1, 2)
        error = capsys.readouterr().err
        assert name in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("output", ["out.mp4", "out.gif", "frames"])
def test_a_full_disk_at_the_start_is_told_in_a_line(video, tmp_path, capsys, monkeypatch, output):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("arbitrary_nst.video.progress.atomic_write", full)
    assert video(write_clip(tmp_path / "in.mp4"), output=tmp_path / output) == 1
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert len(error.splitlines()) == 1


def test_a_camera_that_is_not_there_is_named(painting, model_file, capsys, tmp_path):
    options = ["--style", str(painting), "--model", str(model_file), "--output", str(tmp_path / "out.mp4")]
    assert main(["video", "--camera", "77", *options]) == 1
    assert "--camera 77: there is no such camera" in capsys.readouterr().err
