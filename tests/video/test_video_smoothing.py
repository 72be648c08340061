"""Motion, smoothing, styles over time, and stages that work at the same time."""

import csv
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
from arbitrary_nst.commands import main  # noqa: E402
from arbitrary_nst.evaluation.metrics import warping_error  # noqa: E402
from arbitrary_nst.video.keyframes import check_times, code_at, parse_key  # noqa: E402
from arbitrary_nst.video.motion import estimate_motion, warp  # noqa: E402
from arbitrary_nst.video.pipeline import batched, prefetch  # noqa: E402
from arbitrary_nst.video.smoothing import temporal_blend  # noqa: E402
from clips import frames_of, write_clip  # noqa: E402

SIDE, STEP = 96, 3


def texture(seed: int = 0, side: int = SIDE + 60) -> np.ndarray:
    """Smooth random colours."""
    noise = np.random.default_rng(seed).random((side, side, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    return ((blurred - blurred.min()) / (blurred.max() - blurred.min()) * 255).astype(np.uint8)


def panned(picture: np.ndarray, index: int) -> np.ndarray:
    return np.ascontiguousarray(picture[10 : 10 + SIDE, STEP * index : STEP * index + SIDE])


INSIDE = (slice(12, -12), slice(12, -12))


# Motion


def test_the_motion_of_a_pan_is_found_and_trusted():
    motion = estimate_motion(panned(texture(), 0), panned(texture(), 1))
    flow = motion.flow[INSIDE]
    assert np.abs(np.median(flow[..., 0]) - STEP) < 0.3
    assert np.abs(np.median(flow[..., 1])) < 0.3
    assert motion.trust[INSIDE].mean() > 0.8
    assert motion.consistent[INSIDE].mean() > 0.8


def test_after_a_cut_nothing_is_trusted():
    motion = estimate_motion(panned(texture(0), 0), panned(texture(1), 0))
    assert motion.trust.mean() < 0.1


def test_what_comes_into_view_is_not_trusted():
    before = panned(texture(), 0)
    frame = before.copy()
    frame[30:60, 30:60] = 255 - frame[30:60, 30:60]
    motion = estimate_motion(before, frame)
    assert motion.trust[34:56, 34:56].mean() < 0.2
    assert motion.trust[70:, 70:].mean() > 0.9


def test_small_frames_have_motion_too():
    motion = estimate_motion(texture(side=9)[:7], texture(side=9)[:7])
    assert motion.flow.shape == (7, 9, 2)


def test_large_frames_are_shrunk_and_their_motion_enlarged(monkeypatch):
    monkeypatch.setattr("arbitrary_nst.video.motion.FLOW_PIXELS", SIDE * SIDE // 4)
    motion = estimate_motion(panned(texture(), 0), panned(texture(), 1))
    assert np.abs(np.median(motion.flow[INSIDE][..., 0]) - STEP) < 0.5


def test_warping_takes_pixels_from_where_they_were():
    picture = np.arange(80, dtype=np.float32).reshape(8, 10)
    flow = np.zeros((8, 10, 2), np.float32)
    flow[..., 0] = 2
    np.testing.assert_allclose(warp(picture, flow)[:, :7], picture[:, 2:9], atol=1e-3)


# Smoothing


@pytest.fixture(scope="module")
def flickering():
    """A pan whose painting has strokes of its own in every frame."""
    content = [panned(texture(), index) for index in range(8)]
    rng = np.random.default_rng(1)
    strokes = [cv2.GaussianBlur(rng.normal(0, 80, (SIDE, SIDE, 3)).astype(np.float32), (0, 0), 1) for _ in content]
    painted = [(frame * 0.5 + 60 + stroke).clip(0, 255) for frame, stroke in zip(content, strokes, strict=True)]
    motions = [estimate_motion(*pair) for pair in pairwise(content)]
    return painted, motions


def smoothed(painted, motions, smooth):
    results = [painted[0]]
    for picture, motion in zip(painted[1:], motions, strict=True):
        results.append(temporal_blend(picture, results[-1], motion, smooth))
    return results


def error_of(frames, motions):
    def image(values):
        return torch.from_numpy(values / 255).permute(2, 0, 1)[None].float()

    errors = [
        warping_error(image(now), image(warp(before, motion.flow)), torch.from_numpy(motion.consistent)[None, None])
        for before, now, motion in zip(frames, frames[1:], motions, strict=False)
    ]
    return torch.stack(errors).mean().item()


def test_smoothing_lowers_the_warping_error_and_keeps_the_contrast(flickering):
    painted, motions = flickering
    results = smoothed(painted, motions, 0.6)
    assert error_of(results, motions) < 0.5 * error_of(painted, motions)
    assert results[-1][INSIDE].std() > 0.9 * painted[-1][INSIDE].std()
    averaged = painted[0]
    for picture, motion in zip(painted[1:], motions, strict=True):
        averaged = picture + 0.6 * (warp(averaged, motion.flow) - picture)
    assert averaged[INSIDE].std() < 0.85 * painted[-1][INSIDE].std()  # a mere mean is paler


def test_the_more_smoothing_the_steadier(flickering):
    painted, motions = flickering
    errors = [error_of(smoothed(painted, motions, smooth), motions) for smooth in (0.2, 0.5, 0.8)]
    assert errors == sorted(errors, reverse=True)


def test_without_smoothing_a_frame_is_what_was_painted(flickering):
    painted, motions = flickering
    np.testing.assert_allclose(temporal_blend(painted[1], painted[0], motions[0], 0.0), painted[1], atol=1e-2)


def test_what_is_not_trusted_leaves_no_ghost(flickering):
    painted, _ = flickering
    motion = estimate_motion(panned(texture(0), 0), panned(texture(1), 0))
    nothing = np.zeros_like(painted[0])
    result = temporal_blend(painted[1], nothing, motion, 0.9)
    assert np.abs(result - painted[1])[motion.trust < 0.01].max() < 12  # contrast near trusted places


# The command


def test_the_report_has_the_error_of_each_frame_both_ways(tmp_path, pictures, model_file, capsys):
    clip = write_clip(tmp_path / "in.mkv", frames=6, size=(64, 96), sound=False, codec="ffv1")
    options = ["--model", str(model_file), "--device", "cpu", "--report", str(tmp_path / "report.csv")]
    style = ["--style", str(pictures / "style" / "dots.png")]
    assert main(["video", str(clip), *style, "--output", str(tmp_path / "out.mp4"), *options]) == 0
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert len(rows) == 5
    plain, smooth = ([float(row[name]) for row in rows] for name in ("frame_by_frame", "smoothed"))
    assert np.median(smooth) < 0.5 * np.median(plain)
    assert (tmp_path / "report.png").stat().st_size > 1000
    assert "warping error" in capsys.readouterr().out


def test_one_style_turns_into_another(tmp_path, pictures, model_file):
    clip = write_clip(tmp_path / "in.mp4", frames=7, sound=False)
    dots, waves = (pictures / "style" / f"{name}.png" for name in ("dots", "waves"))
    odd_name = dots.rename(dots.with_name("dots@home.png"))
    common = ["--model", str(model_file), "--device", "cpu", "--smooth", "0", "--precision", "float32"]

    def frames(name, *styles):
        output = tmp_path / f"{name}.mkv"
        paths = ["video", str(clip), "--style", *styles, "--output", str(output), "--codec", "ffv1"]
        assert main([*paths, *common]) == 0
        return np.stack(frames_of(output)).astype(int)

    first, last = frames("first", str(odd_name)), frames("last", str(waves))
    between = frames("between", f"{waves}@0.25", f"{odd_name}@0")
    np.testing.assert_array_equal(between[0], first[0])
    np.testing.assert_array_equal(between[6], last[6])
    whole = np.abs(last[3] - first[3]).mean()
    assert np.abs(between[3] - first[3]).mean() > 0.1 * whole
    assert np.abs(between[3] - last[3]).mean() > 0.1 * whole


def test_styles_of_one_name_follow_one_another(tmp_path, pictures, model_file):
    """From one into another of the same name, and back into the first."""
    clip = write_clip(tmp_path / "in.mp4", frames=7, sound=False)
    (pictures / "other").mkdir()
    first, second = pictures / "style" / "dots.png", pictures / "other" / "dots.png"
    (pictures / "style" / "waves.png").rename(second)
    common = ["--model", str(model_file), "--device", "cpu", "--smooth", "0", "--precision", "float32"]

    def frames(name, *styles):
        output = tmp_path / f"{name}.mkv"
        paths = ["video", str(clip), "--style", *styles, "--output", str(output), "--codec", "ffv1"]
        assert main([*paths, *common]) == 0
        return np.stack(frames_of(output)).astype(int)

    expected = frames("first", str(first)), frames("second", str(second))
    turning = frames("turning", f"{first}@0", f"{second}@0.125", f"{first}@0.25")
    for frame, style in ((0, 0), (3, 1), (6, 0)):
        own, other = (np.abs(turning[frame] - expected[each][frame]).mean() for each in (style, 1 - style))
        assert own < 0.1 * other


@pytest.mark.parametrize(
    ("styles", "options", "words"),
    [
        (["dots.png", "waves.png"], [], "give --style-weights to blend them, or times"),
        (["dots.png@0", "waves.png"], [], "waves.png: the others have a time"),
        (["dots.png@3", "waves.png@3"], [], "two styles at 3 seconds"),
        (["dots.png@-1"], [], "a time must be 0 or more"),
        (["dots.png@0", "waves.png@1"], ["--style-weights", "1", "2"], "follow one another"),
    ],
)
def test_styles_that_contradict_each_other_are_refused(tmp_path, pictures, model_file, capsys, styles, options, words):
    clip = write_clip(tmp_path / "in.mp4", sound=False)
    paths = [str(pictures / "style" / name) for name in styles]
    common = ["--model", str(model_file), "--device", "cpu", "--output", str(tmp_path / "out.mp4")]
    assert main(["video", str(clip), "--style", *paths, *common, *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg", ("a.jpg", None)),
        ("a.jpg@2.5", ("a.jpg", 2.5)),
        ("me@home.jpg", ("me@home.jpg", None)),
        ("me@home.jpg@3", ("me@home.jpg", 3.0)),
        ("there@1", ("there@1", None)),
        ("there@1@2", ("there@1", 2.0)),
        ("gallery:scream@4", ("gallery:scream", 4.0)),
    ],
)
def test_a_time_is_what_follows_the_last_at_sign_of_no_file(text, expected):
    assert parse_key(text, {"there@1", "me@home.jpg"}.__contains__) == expected


def test_codes_are_interpolated_between_keys_and_constant_outside():
    codes = [torch.tensor([[float(value)]]) for value in (0, 10, 30)]
    values = [code_at(second, [1, 2, 4], codes).item() for second in (0, 1, 1.5, 2, 3, 4, 9)]
    assert values == pytest.approx([0, 0, 5, 10, 20, 30, 30])
    check_times([("a", None), ("b", None)])


# Stages


def test_items_come_in_order_and_no_further_ahead_than_asked():
    made = []

    def items():
        for index in range(50):
            made.append(index)
            yield index

    stream = prefetch(items(), 2)
    assert next(stream) == 0
    assert [next(stream) for _ in range(9)] == list(range(1, 10))
    stream.close()
    assert len(made) <= 14


def test_an_error_in_a_thread_is_raised_where_the_item_is_asked_for():
    def items():
        yield 1
        raise ValueError("broken")

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_closing_ends_the_threads():
    before = threading.active_count()
    stream = prefetch(prefetch(iter(range(10**9)), 1), 1)
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() <= before + 1  # the inner one ends with its generator


def test_batches_have_all_items_in_order():
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
