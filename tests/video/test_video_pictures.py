"""Pictures and animations as videos: in and out, with their times, loops and transparency."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")
from PIL import Image, ImageSequence

from arbitrary_nst.commands import main
from arbitrary_nst.image import load_picture
from arbitrary_nst.video.frames import Frame, VideoInfo
from clips import frames_of, moving_picture, times_of, write_clip


@pytest.fixture
def video(tmp_path, pictures, model_file):
    def run(content, output, *options):
        paths = [str(content), "--style", str(pictures / "style" / "dots.png"), "--output", str(tmp_path / output)]
        return main(["video", *paths, "--model", str(model_file), "--device", "cpu", *map(str, options)])

    return run


@pytest.fixture
def folder(tmp_path):
    """frame_8.png to frame_12.png."""
    (tmp_path / "frames").mkdir()
    for index in range(8, 13):
        Image.fromarray(moving_picture(index, 32, 48)).save(tmp_path / "frames" / f"frame_{index}.png")
    return tmp_path / "frames"


def write_animation(path, durations=(40, 100, 60), loop: int | None = 3, transparent=False):
    frames = [Image.fromarray(moving_picture(3 * index, 32, 48)) for index in range(len(durations))]
    if transparent:
        for frame in frames:
            frame.putalpha(Image.fromarray(np.array([[0] * 20 + [255] * 28] * 32, np.uint8)))
    options: dict[str, Any] = {"duration": list(durations), "disposal": 2, "lossless": path.suffix == ".webp"}
    options |= {} if loop is None else {"loop": loop}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def told_of(path):
    """Durations and loop of an animation."""
    with Image.open(path) as picture:
        durations = []
        for page in ImageSequence.Iterator(picture):
            page.load()
            durations.append(page.info["duration"])
        return durations, picture.info.get("loop")


@pytest.mark.parametrize("kind", ["folder", "glob", "pattern"])
def test_pictures_become_a_video_in_natural_order(video, folder, tmp_path, kind):
    content = {"folder": folder, "glob": folder / "frame_*.png", "pattern": folder / "frame_%d.png"}[kind]
    assert video(content, "out.mp4", "--fps", 10) == 0
    assert [float(time) for time in times_of(tmp_path / "out.mp4")] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_pictures_become_pictures_of_the_same_names(video, folder, tmp_path):
    assert video(folder, "painted") == 0
    assert sorted(path.name for path in (tmp_path / "painted").iterdir()) == sorted(p.name for p in folder.iterdir())


def test_pictures_of_one_stem_are_all_kept(video, tmp_path):
    for name in ("1/0001.png", "1/0001.jpg", "2/0001.png"):
        (tmp_path / "seq" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(moving_picture(0, 32, 48)).save(tmp_path / "seq" / name)
    assert video(tmp_path / "seq", "painted") == 0
    names = {path.name for path in (tmp_path / "painted").iterdir()}
    assert len(names) == 3
    (tmp_path / "seq" / "0").mkdir()
    Image.fromarray(moving_picture(0, 32, 48)).save(tmp_path / "seq" / "0" / "0001.png")
    assert video(tmp_path / "seq", "again") == 0
    again = {path.name for path in (tmp_path / "again").iterdir()}
    assert len(again) == 4
    assert names < again


def test_pictures_of_one_long_stem_fit_the_disk(video, tmp_path):
    for folder in ("1", "2"):
        (tmp_path / "seq" / folder).mkdir(parents=True)
        Image.fromarray(moving_picture(0, 32, 48)).save(tmp_path / "seq" / folder / f"{'x' * 251}.png")
    assert video(tmp_path / "seq", "painted") == 0
    assert len(list((tmp_path / "painted").iterdir())) == 2


@pytest.mark.parametrize("output", ["frames", "frames/frame_%d.png", "frames/../frames", "link"])
def test_pictures_are_not_written_over_their_source(video, folder, tmp_path, capsys, output):
    if output == "link":
        (tmp_path / "link").symlink_to(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert video(folder, output) == 2
    assert "frame_" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("output", ["frames/painted", "frames/painted/%04d.png"])
def test_results_in_the_folder_of_the_frames_are_no_frames(video, folder, tmp_path, output):
    for _ in range(2):
        assert video(folder, output) == 0
        assert len(list((tmp_path / "frames" / "painted").iterdir())) == 5


def test_an_animation_in_the_folder_of_its_frames_is_no_frame(video, folder, tmp_path):
    for _ in range(2):
        assert video(folder, "frames/new.gif") == 0
        assert len(list(ImageSequence.Iterator(Image.open(tmp_path / "frames" / "new.gif")))) == 5


def test_a_painting_is_not_written_over(video, pictures, tmp_path, capsys):
    (tmp_path / "dots.gif").hardlink_to(pictures / "style" / "dots.png")
    assert video(write_clip(tmp_path / "in.mp4"), "dots.gif") == 2
    assert "dots.gif" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["50%discount.mp4", "my%20dog.mov", "100%d.mkv", "50%discount.gif", "my%20dog.webp"])
def test_a_percent_sign_alone_makes_no_pattern(video, tmp_path, name):
    assert video(write_clip(tmp_path / "in.mp4", frames=3), name) == 0
    assert (tmp_path / name).is_file()
    assert video(tmp_path / name, "again.mp4") == 0
    assert len(frames_of(tmp_path / "again.mp4")) == 3


def test_an_animation_of_many_frames_needs_few_files_at_a_time(tmp_path, monkeypatch):
    from arbitrary_nst.video import writing

    opened, usual = [], Image.open
    monkeypatch.setattr(writing.Image, "open", lambda path: opened.append(usual(path)) or opened[-1])
    write_animation(tmp_path / "in.webp")
    sink = writing.AnimationSink(
        tmp_path / "out.gif", tmp_path, VideoInfo((32, 48), Fraction(10), Fraction(1, 1000)), 90
    )
    for index, opaque in enumerate([True, False, False]):
        alpha = None if opaque else np.array([[0] * 20 + [255] * 28] * 32, np.uint8)
        sink.add(Frame(moving_picture(index, 32, 48), Fraction(index, 10), Fraction(1, 10), alpha))
    sink.cut()
    sink.finish()
    assert len(opened) == 3
    assert all(picture.fp is None for picture in opened)
    with Image.open(tmp_path / "out.gif") as picture:
        picture.seek(1)
        assert (np.array(picture.convert("RGBA"))[:, :20, 3] == 0).all()


def test_a_video_becomes_numbered_pictures(video, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", frames=3)
    assert video(clip, "out/shot_%03d.jpg") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"shot_00{i}.jpg" for i in (1, 2, 3)]
    assert Image.open(tmp_path / "out" / "shot_001.jpg").size == (48, 32)


def test_a_picture_that_cannot_be_read_is_left_out_and_counted(video, folder, tmp_path, capsys):
    (folder / "frame_9.png").write_bytes(b"broken")
    assert video(folder, "out.mp4") == 1
    assert len(frames_of(tmp_path / "out.mp4")) == 4
    assert "1 damaged frames left out" in capsys.readouterr().err


def test_pictures_of_other_sizes_are_no_video_but_can_be_painted(video, folder, tmp_path, capsys):
    Image.fromarray(moving_picture(0, 40, 40)).save(folder / "frame_11.png")
    assert video(folder, "out.mp4") == 1
    assert "frame_11 has 40 x 40 pixels, the first one 48 x 32" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
    assert video(folder, "painted") == 0
    assert Image.open(tmp_path / "painted" / "frame_11.png").size == (40, 40)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("source", ["gif", "webp"])
def test_durations_and_loop_of_an_animation_are_kept(video, tmp_path, source, suffix):
    animation = write_animation(tmp_path / f"in.{source}")
    assert told_of(animation) == ([40, 100, 60], 3)
    assert video(animation, f"out.{suffix}") == 0
    assert told_of(tmp_path / f"out.{suffix}") == ([40, 100, 60], 3)


def test_an_animation_that_plays_once_plays_once(video, tmp_path):
    animation = write_animation(tmp_path / "in.gif", loop=None)
    assert video(animation, "out.gif") == 0
    assert video(animation, "out.webp") == 0
    assert told_of(tmp_path / "out.gif")[1] is None
    assert told_of(tmp_path / "out.webp")[1] == 1


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_transparency_is_kept(video, tmp_path, suffix):
    animation = write_animation(tmp_path / f"in.{suffix}", transparent=True)
    assert video(animation, f"out.{suffix}") == 0
    with Image.open(tmp_path / f"out.{suffix}") as picture:
        for page in ImageSequence.Iterator(picture):
            alpha = np.array(page.convert("RGBA"))[..., 3]
            assert (alpha[:, :20] == 0).all()
            assert (alpha[:, 20:] == 255).all()
    assert video(animation, "frames") == 0
    assert load_picture(tmp_path / "frames" / "000001.png").alpha is not None


def test_in_a_video_transparency_lies_on_white(video, tmp_path):
    animation = write_animation(tmp_path / "in.webp", transparent=True)
    assert video(animation, "out.mkv", "--codec", "ffv1") == 0
    assert [float(time) for time in times_of(tmp_path / "out.mkv")] == [0, 0.04, 0.14]
    assert frames_of(tmp_path / "out.mkv")[0][:, :16].min() >= 250


# Cameras


class FakeCamera:
    def __init__(self, number):
        self.left = 4

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return self.left >= 0, moving_picture(self.left, 32, 48)

    def get(self, _):
        return 30.0

    def release(self):
        self.left = 0


def film(monkeypatch, pictures, model_file, *options):
    monkeypatch.setattr("cv2.VideoCapture", FakeCamera)
    style = ["--style", str(pictures / "style" / "dots.png"), "--model", str(model_file), "--device", "cpu"]
    return main(["video", "--camera", "0", *style, *options])


def test_a_camera_is_written_to_a_file(monkeypatch, pictures, model_file, tmp_path):
    assert film(monkeypatch, pictures, model_file, "--output", str(tmp_path / "out.mp4")) == 0
    times = times_of(tmp_path / "out.mp4")
    assert len(times) == 3  # the first of four has told the size
    assert times == sorted(set(times))


def test_a_camera_without_windows_asks_for_an_output(monkeypatch, pictures, model_file, capsys):
    monkeypatch.setattr("arbitrary_nst.commands.video.can_show", lambda: False)
    assert film(monkeypatch, pictures, model_file) == 1
    assert "this OpenCV has no windows; name a file with --output" in capsys.readouterr().err


def test_a_camera_is_shown_until_q(monkeypatch, pictures, model_file):
    shown = []
    monkeypatch.setattr("arbitrary_nst.commands.video.can_show", lambda: True)
    monkeypatch.setattr("cv2.imshow", lambda title, picture: shown.append(picture.shape), raising=False)
    monkeypatch.setattr("cv2.waitKey", lambda _: ord("q") if len(shown) == 2 else -1, raising=False)
    assert film(monkeypatch, pictures, model_file) == 0
    assert shown == [(32, 48, 3)] * 2
