"""What only a CUDA device can show: `pytest -m gpu`. Everywhere else these tests are skipped."""

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import runs
from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.nn.losses import sample_positions
from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d
from arbitrary_nst.nn.octaves import count_octaves
from arbitrary_nst.nn.statistics import gram_matrix, mean_std
from arbitrary_nst.runtime.devices import channels_last, chosen_device, fast_bfloat16, free_memory, peak_memory
from arbitrary_nst.stylization import runner as runner_module
from arbitrary_nst.stylization.stylizer import Stylizer
from arbitrary_nst.training import fit
from arbitrary_nst.training.networks import TrainingModule
from arbitrary_nst.training.objectives import OctavesObjective, loss_network

DEVICE = torch.device("cuda")
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """float32 in all its bits: products of ten bits (TF32) are what a speed test wants."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def stylizers(model):
    """On the processor and on the device, in float32."""
    return Stylizer(copy.deepcopy(model), CPU, "float32"), Stylizer(copy.deepcopy(model), DEVICE, "float32")


@contextmanager
def never_waiting(device):
    """On the device, whatever makes the host wait for it is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def largest(ours, theirs):
    return (ours.cpu() - theirs.cpu()).abs().max().item()


def test_the_device_is_chosen_and_says_what_memory_it_has():
    assert chosen_device().type == DEVICE.type
    before = free_memory(DEVICE)
    held = torch.empty(2**28, dtype=torch.uint8, device=DEVICE)
    after, peak = free_memory(DEVICE), peak_memory(DEVICE)
    assert before is not None and after is not None and peak is not None  # noqa: PT018
    assert before - after >= 0.9 * held.nbytes
    assert peak >= held.nbytes / 1e6


def test_a_painting_has_the_processors_code(light_model):
    processor, there = stylizers(light_model)
    painting = torch.rand(2, 3, 300, 280)
    code = there.encode_style(painting)
    assert code.device.type == DEVICE.type
    assert largest(code, processor.encode_style(painting)) <= 1e-3


@pytest.mark.parametrize("size", [(96, 130), (384, 384), (530, 641)])
def test_a_picture_is_the_processors_in_float32(light_model, size):
    processor, there = stylizers(light_model)
    photo, code = torch.rand(1, 3, *size), processor.encode_style(torch.rand(1, 3, 384, 384))
    assert largest(there(photo, code), processor(photo, code)) <= 1e-3


@pytest.mark.parametrize(("dtype", "mean"), [(torch.bfloat16, 0.5), (torch.float16, 0.2)])
def test_a_picture_is_nearly_the_processors_in_half_precision(dtype, mean):
    """With the weights that ship: those of a random network amplify what is rounded."""
    if dtype == torch.bfloat16 and not fast_bfloat16(DEVICE):
        pytest.skip("no native bfloat16")
    processor, there = stylizers(load_model("light"))
    there.dtype = dtype
    photo, painting = (F.interpolate(torch.rand(1, 3, 12, 12), (384, 384), mode="bilinear") for _ in range(2))
    code = processor.encode_style(painting)
    painted = there(photo, code)
    assert painted.dtype == torch.float32
    assert 255 * (painted - processor(photo, code)).abs().mean() <= mean


def test_a_batch_is_its_photos_each(light_model):
    _, there = stylizers(light_model)
    photos, codes = torch.rand(3, 3, 128, 160), there.encode_style(torch.rand(3, 3, 200, 200))
    each = torch.cat([there(photos[[index]], codes[[index]]) for index in range(3)])
    assert largest(there(photos, codes), each) <= 1e-4


def test_memory_formats_paint_the_same(light_model):
    model = copy.deepcopy(light_model).to(DEVICE)
    photo = torch.rand(1, 3, 128, 160, device=DEVICE)
    with torch.no_grad():
        code = model.encode_style(photo)
        contiguous = model.to(memory_format=torch.contiguous_format)(photo, code)
        last = model.to(memory_format=torch.channels_last)(channels_last(photo, DEVICE), code)
    assert largest(contiguous, last) <= 1e-4


def test_a_compiled_network_paints_the_same(light_model):
    model = copy.deepcopy(light_model).to(DEVICE)
    photo = torch.rand(1, 3, 128, 160, device=DEVICE)
    with torch.no_grad():
        code = model.encode_style(photo)
        eager = model(photo, code)
        model.transformer.compile(dynamic=False)
        assert largest(model(photo, code), eager) <= 1e-3


def test_a_recorded_graph_paints_what_lies_in_its_place(light_model):
    model = copy.deepcopy(light_model).to(DEVICE)
    first, second = torch.rand(2, 1, 3, 128, 160, device=DEVICE).unbind()
    place = first.clone()
    with torch.no_grad():
        code = model.encode_style(first)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            model(place, code)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            painted = model(place, code)
        place.copy_(second)
        graph.replay()
        assert largest(painted, model(second, code)) <= 1e-4


def test_octaves_of_pixels_are_those_of_the_processor(light_model):
    processor, there = stylizers(light_model)
    pixels = torch.randint(256, (3, 1830, 1900), dtype=torch.uint8)
    assert count_octaves(*pixels.shape[1:]) == 3
    code = processor.encode_style(torch.rand(1, 3, 384, 384))
    ours, theirs = (by.paint_pixels(pixels, code).int() for by in (there, processor))
    assert largest(ours, theirs) <= 1


def test_tiles_are_the_whole(light_model):
    _, there = stylizers(light_model)
    photo, code = torch.rand(1, 3, 600, 700), there.encode_style(torch.rand(1, 3, 256, 256))
    assert largest(there(photo, code, tile=256), there(photo, code, tile=None)) <= 2e-3


def test_out_of_memory_begins_again_in_tiles(light_model, monkeypatch, caplog):
    """The room for one attempt is taken away from the device itself."""
    _, there = stylizers(light_model)
    photo, code = torch.rand(1, 3, 2000, 2000), there.encode_style(torch.rand(1, 3, 256, 256))
    wanted = there(photo, code)
    monkeypatch.setattr(runner_module, "free_memory", lambda device: 2**40)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved(DEVICE)
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((used + 192 * 2**20) / total)
    try:
        painted = there(photo, code)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "begun again in tiles" in caplog.text
    assert largest(painted, wanted) <= 2e-3


def test_statistics_and_their_gradients_are_the_processors():
    features = torch.randn(2, 24, 30, 34)
    results = []
    for device in (CPU, DEVICE):
        ours = channels_last(features, device).detach().requires_grad_()
        mean, std = mean_std(ours)
        loss = mean.square().sum() + std.sum() + gram_matrix(ours).square().sum()
        loss.backward()
        results.append((mean, std, ours.grad))
    for theirs, ours in zip(*results, strict=True):
        assert ours.device.type == DEVICE.type
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


def test_a_conditional_norm_has_the_processors_gradient():
    norm, x, affine = ConditionalInstanceNorm2d(16), torch.randn(2, 16, 20, 22), torch.randn(2, 2, 16)
    results = []
    for device in (CPU, DEVICE):
        ours = channels_last(x, device).detach().requires_grad_()
        gamma, beta = (values.to(device).detach().requires_grad_() for values in affine)
        painted = norm(ours, gamma, beta)
        painted.pow(3).sum().backward()
        results.append((painted, ours.grad, gamma.grad, beta.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3)


def test_a_training_step_waits_for_no_copy_and_has_the_processors_losses(light_model):
    """Positions are drawn at random on each device: as many as there are, so that all are taken."""
    objective = OctavesObjective(content_positions=10**6, style_positions=10**6)
    content, style = torch.rand(2, 1, 3, 128, 128).unbind()
    losses = []
    for device in (CPU, DEVICE):
        module = TrainingModule(copy.deepcopy(light_model), loss_network(objective), objective).to(device)
        batch = content.to(device), style.to(device), torch.zeros(1, dtype=torch.int64, device=device)
        module(*batch)
        torch.manual_seed(3)  # the corners of the crops are drawn on the host
        with never_waiting(device):
            found = module(*batch)
        losses.append({name: loss.item() for name, loss in found.items()})
    assert losses[1] == pytest.approx(losses[0], rel=2e-2, abs=1e-4)


def test_positions_are_drawn_where_the_features_are():
    index = sample_positions(torch.zeros(1, 2, 9, 9, device=DEVICE), 50)
    assert index.device.type == DEVICE.type
    assert len(set(index.tolist())) == 50


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_trains(tmp_path, monkeypatch, precision):
    runs.sketches(monkeypatch, dropout=0.0)
    runs.make_pictures(tmp_path)
    config = runs.sketch_run(tmp_path, device=DEVICE.type, precision=precision, resident=True)
    assert fit(config).is_file()
    taken = runs.rows(tmp_path / "run" / "train.csv")
    assert taken[-1]["step"] == "10"
    assert int(taken[-1]["skipped"]) <= 3
    assert float(taken[-1]["peak_memory_mb"]) > 0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    runs.sketches(monkeypatch)
    runs.make_pictures(tmp_path)
    config = runs.sketch_run(tmp_path, device=DEVICE.type, save_every=5)
    fit(config)
    last = tmp_path / "run" / "checkpoint-0000010.pt"
    wanted = torch.load(last, map_location="cpu", weights_only=True)["model"]
    last.unlink()
    fit(replace(config, resume=True))
    found = torch.load(last, map_location="cpu", weights_only=True)["model"]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
