"""What an interruption leaves, and what the same command makes of it: the result of an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("cv2", reason="OpenCV is not installed")
from arbitrary_nst.commands import main
from arbitrary_nst.image import load_image
from arbitrary_nst.video.painting import FrameStylizer
from arbitrary_nst.video.writing import VideoSink
from clips import frames_of, sound_of, times_of, write_clip

ROOT = Path(__file__).resolve().parents[2]

KILLED = """
import os, sys
from arbitrary_nst.commands import main
from arbitrary_nst.commands import video as command
from arbitrary_nst.video.writing import VideoSink
command.SEGMENT, add, count = 4, VideoSink.add, [0]
def add_or_die(self, frame):
    count[0] += 1
    if count[0] == 7:
        os._exit(9)
    add(self, frame)
VideoSink.add = add_or_die
main(sys.argv[1:])
"""


@pytest.fixture
def arguments(tmp_path, pictures, model_file):
    clip = write_clip(tmp_path / "in.mp4", frames=10)
    style = str(pictures / "style" / "dots.png")
    options = [
        "--style",
        style,
        "--model",
        str(model_file),
        "--device",
        "cpu",
        "--report",
        str(tmp_path / "report.csv"),
    ]
    return ["video", str(clip), *options, "--output"]


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr("arbitrary_nst.commands.video.SEGMENT", 4)


@pytest.fixture
def stopped_at(monkeypatch):
    """Do something when the n-th frame is about to be painted."""

    def stop(number, action):
        paint, count = FrameStylizer.__call__, [0]

        def counted(self, frames):
            count[0] += 1
            if count[0] == number:
                action()
            return paint(self, frames)

        monkeypatch.setattr(FrameStylizer, "__call__", counted)

    return stop


def interrupt():
    raise KeyboardInterrupt


def disk_full():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("output", ["out.mkv", "out.gif", "frames"])
def test_an_interrupted_run_goes_on_to_the_same_result(arguments, tmp_path, stopped_at, monkeypatch, capsys, output):
    arguments = [*(["video", "--codec", "ffv1"] if output == "out.mkv" else ["video"]), *arguments[1:]]
    assert main([*arguments, str(tmp_path / "whole" / output)]) == 0
    report = (tmp_path / "report.csv").read_text()
    with monkeypatch.context():
        stopped_at(7, interrupt)
        assert main([*arguments, str(tmp_path / output)]) == 130
    assert "6 frames are kept" in capsys.readouterr().err
    assert output == "frames" or not (tmp_path / output).exists()
    (tmp_path / "report.csv").unlink()

    painted = []
    paint = FrameStylizer.__call__
    monkeypatch.setattr(FrameStylizer, "__call__", lambda self, frames: painted.append(1) or paint(self, frames))
    assert main([*arguments, str(tmp_path / output)]) == 0
    assert len(painted) == 4
    assert (tmp_path / "report.csv").read_text() == report
    assert not list(tmp_path.glob(".*"))
    if output == "out.mkv":  # Matroska files hold a random number
        assert_same_videos(tmp_path / output, tmp_path / "whole" / output)
    elif output == "frames":
        assert_same_pictures(tmp_path / output, tmp_path / "whole" / output)
    else:
        assert (tmp_path / output).read_bytes() == (tmp_path / "whole" / output).read_bytes()


def assert_same_videos(path, other):
    for ours, theirs in zip(frames_of(path), frames_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert times_of(path) == times_of(other)
    assert sound_of(path) == sound_of(other)


def assert_same_pictures(folder, other):
    names = sorted(path.name for path in other.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (load_image(folder / name) == load_image(other / name)).all()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(arguments, tmp_path):
    arguments = ["video", "--codec", "ffv1", *arguments[1:]]
    assert main([*arguments, str(tmp_path / "whole.mkv")]) == 0
    output = tmp_path / "out.mkv"
    run = subprocess.run([sys.executable, "-c", KILLED, *arguments, str(output)], cwd=ROOT, capture_output=True)
    assert run.returncode == 9, run.stderr
    assert not output.exists()
    assert main([*arguments, str(output)]) == 0
    assert_same_videos(output, tmp_path / "whole.mkv")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_keeps_the_segments(arguments, tmp_path, stopped_at, sent, code):
    stopped_at(8, lambda: os.kill(os.getpid(), sent))
    assert main([*arguments, str(tmp_path / "out.mp4")]) == code
    assert (tmp_path / ".out.mp4.parts" / "progress.npz").exists()


def test_other_options_begin_anew(arguments, tmp_path, stopped_at, monkeypatch):
    arguments, output = ["video", "--codec", "ffv1", *arguments[1:]], str(tmp_path / "out.mkv")
    with monkeypatch.context():
        stopped_at(7, interrupt)
        assert main([*arguments, output]) == 130
    assert main([*arguments, output, "--smooth", "0"]) == 0
    assert main([*arguments, str(tmp_path / "whole.mkv"), "--smooth", "0"]) == 0
    assert_same_videos(tmp_path / "out.mkv", tmp_path / "whole.mkv")


def test_the_model_of_a_run_is_known_by_its_weights(arguments, tmp_path, stopped_at, monkeypatch, model_file):
    run = tmp_path / "run"
    run.mkdir()
    model, output = run / "model.safetensors", tmp_path / "out.mp4"
    model.write_bytes(model_file.read_bytes())
    arguments[arguments.index("--model") + 1] = str(run)
    with monkeypatch.context():
        stopped_at(7, interrupt)
        assert main([*arguments, str(output)]) == 130
    before = json.loads((tmp_path / ".out.mp4.parts" / "job.json").read_text())
    state = load_file(model)
    state["affine.bias"][0] += 1e-3
    save_file(state, model, {"model": "light"})
    with monkeypatch.context():
        stopped_at(7, interrupt)
        assert main([*arguments, str(output)]) == 130
    after = json.loads((tmp_path / ".out.mp4.parts" / "job.json").read_text())
    assert {name for name in before if before[name] != after[name]} == {"model"}


def test_an_interruption_in_the_middle_of_a_frame_keeps_whole_segments(arguments, tmp_path, monkeypatch, capsys):
    add, count = VideoSink.add, [0]

    def add_and_stop(self, frame):
        add(self, frame)
        count[0] += 1
        if count[0] == 7:
            interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(VideoSink, "add", add_and_stop)
        assert main([*arguments, str(tmp_path / "out.mp4")]) == 130
    assert "4 frames are kept" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "out.mp4")]) == 0
    assert len(frames_of(tmp_path / "out.mp4")) == 10


def test_an_interruption_before_the_first_frame_leaves_nothing(arguments, tmp_path, stopped_at):
    stopped_at(1, interrupt)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main([*arguments, str(tmp_path / "out.mp4")]) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_was_there_stays_until_the_end(arguments, tmp_path, stopped_at):
    (tmp_path / "out.mp4").write_text("before")
    stopped_at(6, disk_full)
    assert main([*arguments, str(tmp_path / "out.mp4")]) == 1
    assert (tmp_path / "out.mp4").read_text() == "before"
