"""The tools for a borrowed GPU, with small numbers on the processor."""

import dataclasses
import itertools
import json
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpu_check
import gpu_fast
import gpu_pack
import gpu_train
from arbitrary_nst.data import Augmentation, PairDataset
from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.nn.octaves import count_octaves
from arbitrary_nst.stylization.stylizer import Stylizer
from arbitrary_nst.training import TrainConfig
from runs import make_pictures

CPU = torch.device("cpu")


@pytest.fixture
def noise(tmp_path):
    """Folders of pictures that hardly compress."""
    for kind in ("content", "style"):
        for index in range(4):
            save_image(torch.rand(1, 3, 120, 150), tmp_path / kind / f"{index}.png")
    return tmp_path


def pack(folder, *options):
    data = ["--content-data", str(folder / "content"), "--style-data", str(folder / "style")]
    return gpu_pack.main([*data, "--output", str(folder / "gpu.tar"), "--short-side", "96", *map(str, options)])


def names(path):
    with tarfile.open(path) as archive:
        return {member.name: member.size for member in archive}


def test_all_that_is_needed_is_packed_within_the_limit(noise, model_file):
    (noise / "wheels").mkdir()
    (noise / "wheels" / "small-1.0-py3-none-any.whl").write_bytes(b"wheel")
    assert pack(noise, "--limit-mb", "40", "--weights", model_file, "--wheels", noise / "wheels") == 0
    assert (noise / "gpu.tar").stat().st_size <= 40e6
    held = names(noise / "gpu.tar")
    for name in (
        "tools/gpu_check.py",
        "tests/test_gpu.py",
        "arbitrary_nst/assets/pretrained/vgg16_features.safetensors",
    ):
        assert held[f"gpu/{name}"]
    assert "gpu/data/wheels/small-1.0-py3-none-any.whl" in held
    assert sum(name.endswith(".webp") for name in held) == 8
    assert "gpu/data/packed.json" in held
    subprocess.run(["tar", "xf", "gpu.tar"], cwd=noise, check=True)
    assert min(load_image(noise / "gpu/data/content/0.webp").shape[2:]) == 96
    weights = noise / "gpu/arbitrary_nst/assets/pretrained/light.safetensors"
    assert weights.stat().st_size < 0.6 * model_file.stat().st_size
    ours, theirs = (load_model(path).state_dict() for path in (weights, model_file))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_smaller_limit_lowers_the_quality_until_nothing_fits(noise):
    sizes = []
    for limit in (1.0, 0.08):
        assert pack(noise, "--no-code", "--limit-mb", limit) == 0
        sizes.append((noise / "gpu.tar").stat().st_size)
        assert sizes[-1] <= 1e6 * limit
    assert sizes[1] < sizes[0]
    assert {Path(name).suffix for name in names(noise / "gpu.tar")} == {".webp", ".json"}
    assert pack(noise, "--no-code", "--limit-mb", "0.03") == 1
    with pytest.raises(UsageError):
        gpu_pack.fitting_quality(list((noise / "content").iterdir()), 96, 1000)


def test_the_stages_share_the_time():
    ends = gpu_check.deadlines(9, ["train", "correct", "fast"], now=1000.0)
    end = 1000 + 9 * 60 - gpu_check.FINISH
    assert ends["train"] + gpu_check.GRACE["train"] == pytest.approx(end - gpu_check.REST)
    assert ends["train"] < ends["correct"] < ends["fast"] < end
    assert gpu_check.deadlines(9, ["fast"], 1000.0)["fast"] == ends["fast"]
    assert gpu_check.deadlines(9, ["train"], 1000.0)["train"] == end - gpu_check.GRACE["train"]
    assert 0 < gpu_check.deadlines(1, ["train", "correct", "fast"], 0.0)["train"] < 30


def test_a_stage_is_ended_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_check.GRACE, "fast", 0.1)
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    ended = gpu_check.run_stage("fast", command, time.time(), tmp_path / "log", {})
    assert ended["seconds"] < 10
    assert "killed" in ended["exit"]


def test_a_stage_that_fails_costs_only_itself(tmp_path, monkeypatch):
    """Stand-ins for the stages: training dies after it has written its record."""
    monkeypatch.setattr(gpu_check, "TOOLS", tmp_path)
    monkeypatch.setattr(gpu_check, "machine", lambda environment: {"torch": "2"})
    head = "import sys, pathlib; out = pathlib.Path(sys.argv[sys.argv.index('--output') + 1]); out.mkdir()\n"
    train = head + "(out / 'train.json').write_text('{\"tflops\": 2.0}'); (out / 'sheet.jpg').write_text('x'); 1 / 0"
    (tmp_path / "gpu_train.py").write_text(train)
    row = json.dumps([{"case": "matrix product", "tflops": 8.0, "ms": 1.0}])
    (tmp_path / "gpu_fast.py").write_text(head + f"(out / 'fast.json').write_text({row!r})")
    (tmp_path / "gpu_correct.py").write_text(head + "(out / 'correct.json').write_text('[')")
    assert gpu_check.main(["--minutes", "1", "--output", str(tmp_path / "out"), "--data", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {name: stage["exit"] for name, stage in report["stages"].items()} == {"train": 1, "correct": 0, "fast": 0}
    assert report["correct"] is None
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| share of the matrix-product limit | 0.250 |" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.md", "log.txt", "sheet.jpg"}


def test_wheels_of_missing_packages_are_unpacked_and_a_broken_one_costs_only_itself(tmp_path):
    for name in ("borrowed_package", "torch"):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}/__init__.py", "here = True")
    (tmp_path / "another_package-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    folders = gpu_check.unpacked(tmp_path, tmp_path / "site")
    assert str(tmp_path / "site") in folders
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["borrowed_package"]


def test_colours_vary_as_asked_and_greys_stay_grey():
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.4 * torch.rand(6, 3, 8, 8)
    same = gpu_train.colour_matrices(Augmentation(colour_share=0.0), 6, generator)
    torch.testing.assert_close(gpu_train.recolour(images, *same), images)
    hue = Augmentation((1, 1), (1, 1), True, 1.0, (1, 1), (1, 1), (1, 1), 0.1)
    turned = gpu_train.recolour(images, *gpu_train.colour_matrices(hue, 6, generator))
    assert (turned - images).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(turned.mean(1), images.mean(1), rtol=0, atol=0.02)  # up to what leaves the range
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    matrices, contrast = gpu_train.colour_matrices(Augmentation(colour_share=1.0), 6, generator)
    varied = gpu_train.recolour(grey, matrices, contrast)
    torch.testing.assert_close(varied, varied.mean(1, keepdim=True).expand_as(varied))
    bright = torch.diag_embed(torch.full((6, 3), 0.5)), torch.full((6,), 2.0)
    half = 0.5 * images
    mean = torch.einsum("j,bjhw->b", torch.tensor(gpu_train.LUMA), half)[:, None, None, None] / 64
    torch.testing.assert_close(gpu_train.recolour(images, *bright), (2 * half - mean).clamp(0, 1))


def test_batches_are_cut_from_the_pictures_and_depend_on_the_seed_alone():
    pixels = torch.randint(256, (3, 48, 48), dtype=torch.uint8)
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), flip_styles=False, colour_share=0.0)
    batch = next(gpu_train.Crops(PairDataset([pixels], [pixels], 48, 0, plain), 4, 0, CPU))
    photo = pixels / 255
    assert [tuple(part.shape) for part in batch] == [(4, 3, 48, 48), (4, 3, 48, 48), (4,)]
    torch.testing.assert_close(batch[1], photo.expand(4, -1, -1, -1))
    for content in batch[0]:
        assert min((content - photo).abs().max(), (content - photo.flip(2)).abs().max()) < 1e-6
    pairs = PairDataset([pixels], [pixels], 32, 0, Augmentation())
    first, again, other = (next(gpu_train.Crops(pairs, 3, seed, CPU)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert first[1].min() >= 0
    assert first[1].max() <= 1


def test_a_checkpoint_comes_back_from_its_pieces(tmp_path):
    state = {"model": {"weight": torch.randn(4000)}, "count": 7}
    pieces = gpu_train.write_pieces(state, tmp_path, size=1500)
    assert len(pieces) > 10
    assert max(piece.stat().st_size for piece in pieces) == 1500
    back = gpu_train.read_pieces(tmp_path, CPU)
    assert back["count"] == 7
    assert torch.equal(back["model"]["weight"], state["model"]["weight"])
    assert len(gpu_train.write_pieces(state, tmp_path)) == 1
    assert gpu_train.read_pieces(tmp_path, CPU)["count"] == 7
    with pytest.raises(FileNotFoundError, match="--go-on"):
        gpu_train.read_pieces(tmp_path / "nowhere", CPU)


def small_training(folder, model_file):
    make_pictures(folder)
    return TrainConfig(
        content_data=(str(folder / "content"),),
        style_data=(str(folder / "style"),),
        run_dir=folder / "out",
        init=model_file,
        device="cpu",
        crop_size=64,
        picture_size=80,
        validation_pairs=1,
        warmup_steps=1,
        resident=True,
    )


@pytest.mark.slow
def test_training_goes_on_leaves_out_what_is_no_number_and_fits_what_comes_back(tmp_path, model_file):
    config = small_training(tmp_path, model_file)
    record = gpu_train.train(config, time.time() + 1, largest=1, tries=1)
    assert record["batch"] == 1
    assert record["steps"] >= 1
    assert record["flops_per_pair"] > 1e9
    assert [row["step"] for row in record["validation"]] == [0, record["steps"]]
    out = tmp_path / "out"
    before, after = load_model(model_file).state_dict(), gpu_train.read_pieces(out, CPU)["model"]
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 50
    mean = load_model(out / "model.safetensors").state_dict()
    torch.testing.assert_close(mean, after, rtol=1e-2, atol=1e-2)
    assert all(path.stat().st_size < 16 * 2**20 for path in out.iterdir())
    kept = [path.name for pattern in gpu_check.KEPT for path in out.glob(pattern)]
    assert {"model.safetensors", "checkpoint.pt.0", "sheet.jpg"} <= set(kept)
    assert len(kept) + 3 <= 8

    assert record["rows"][-1]["step"] == record["steps"]

    again = dataclasses.replace(config, run_dir=tmp_path / "again", init=out / "model.safetensors")
    longer = gpu_train.train(again, time.time() + 1, largest=1, go_on=out, tries=1)
    assert [row["step"] for row in longer["validation"]] == [record["steps"], record["steps"] + longer["steps"]]
    assert longer["pairs_per_second"] == pytest.approx(longer["steps"] / longer["seconds"])

    learner, _ = gpu_train.build(config, CPU, half=False)
    learner.load_state(gpu_train.read_pieces(out, CPU))
    assert learner.count == record["steps"]
    weights = {name: value.clone() for name, value in learner.module.model.state_dict().items()}
    broken = torch.full((1, 3, 64, 64), float("nan"))
    values = learner.step((broken, broken, torch.zeros(1, dtype=torch.int64)), 1e-3)
    assert values[-1] == 1
    for name, value in learner.module.model.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, weights[name]), name


@pytest.mark.slow
def test_validations_are_within_the_time_and_alike(tmp_path, model_file, monkeypatch):
    """A clock that counts how often it is looked at, and ten units for a validation."""
    clock, judged, drawn = [0.0], [], []

    def look():
        clock[0] += 1
        return clock[0]

    def validate(*_):
        judged.append(clock[0])
        drawn.append(torch.rand(()).item())
        clock[0] += 10
        return {"held_out": {}}

    config = small_training(tmp_path, model_file)
    monkeypatch.setattr(gpu_train, "time", SimpleNamespace(time=look, monotonic=lambda: 0.0, perf_counter=lambda: 0.0))
    monkeypatch.setattr(gpu_train, "validate", validate)
    record = gpu_train.train(config, until=30, largest=1, tries=1)
    assert record["steps"] > 1
    assert judged[-1] + 10 <= 30 + 4  # a step, and what is looked at after it
    assert len(drawn) == 2
    assert len(set(drawn)) == 1


def test_the_rate_rises_and_falls_with_the_time():
    assert gpu_train.rate_at(0.0, 0, 1.0, warmup=10) == pytest.approx(0.1)
    assert gpu_train.rate_at(0.5, 100, 1.0, warmup=10) == pytest.approx(0.5)
    assert gpu_train.rate_at(1.0, 100, 1.0, warmup=10) == 0


def test_what_is_timed_is_the_picture_that_users_get(light_model, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.nn.octaves.FIRST_OCTAVE", 256)
    monkeypatch.setattr("arbitrary_nst.nn.octaves.SMALLEST_LEVEL", 225)
    stylizer = Stylizer(light_model, "cpu", "float32")
    photo, code = torch.rand(1, 3, 530, 520), stylizer.encode_style(torch.rand(1, 3, 64, 64))
    assert count_octaves(530, 520) == 2
    with torch.no_grad():
        painted = gpu_fast.paint(gpu_fast._In(light_model, half=False), photo, code)
    torch.testing.assert_close(painted, stylizer(photo, code), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_measurements_are_written_case_by_case(tmp_path, model_file):
    rows = gpu_fast.measure(str(model_file), CPU, [(32, 40)], time.time() + 60, tmp_path)
    assert json.loads((tmp_path / "fast.json").read_text()) == rows
    cases = {(row["case"], row.get("batch")) for row in rows}
    assert {("copy", None), ("eager", 1), ("eager", 8), ("Stylizer", 1), ("encode_style", 1)} <= cases
    assert all(row["ms"] > 0 for row in rows)
    assert gpu_fast.measure(str(model_file), CPU, [(32, 40)], time.time() - 1, tmp_path)[-1]["case"].startswith("not")
    assert gpu_fast.size_of("2160x3840") == (2160, 3840)


def test_a_rehearsal_paints_small_pictures(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_fast, "measure", lambda weights, device, sizes, *_: asked.append(sizes))
    for options in ([], ["--sizes", "32x40"]):
        gpu_fast.main(["--device", "cpu", "--output", str(tmp_path), "--until", "0", *options])
    assert max(height * width for height, width in asked[0]) < 500_000
    assert asked[1] == [(32, 40)]


def test_batches_are_so_small_that_time_suffices(monkeypatch):
    """A pass of 0.1 seconds a pair, and ten times as long where a size is new, as kernels are chosen then."""
    clock, sizes = [0.0], []

    def backward(pairs):
        clock[0] += 0.1 * pairs * (1 if pairs in sizes else 10)
        sizes.append(pairs)

    optimizer = SimpleNamespace(zero_grad=lambda: None)
    learner: Any = SimpleNamespace(backward=backward, optimizer=optimizer, device=torch.device("cpu"))
    make: Any = itertools.repeat
    monkeypatch.setattr(gpu_train.time, "perf_counter", lambda: clock[0])
    assert gpu_train.fitting_batch(learner, make, 32, 0.45) == 4
    assert sizes == [32, 16, 8, 4, 4]  # the first ones are hopelessly slow
    sizes.clear()
    assert gpu_train.fitting_batch(learner, make, 8, 100) == 8
    assert sizes == [8]
