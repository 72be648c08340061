"""Several processes, several passes a step, and lower precision: the same run as one process with the joint batch."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arbitrary_nst.commands.train import train
from arbitrary_nst.models import MODELS
from arbitrary_nst.training import fit, loop
from arbitrary_nst.training.checkpoints import Checkpoints
from arbitrary_nst.training.interruption import Interruption
from arbitrary_nst.training.networks import TrainingModule
from arbitrary_nst.training.run import prepare
from runs import forked, make_pictures, rows, sketch_run, sketches, torchrun


@pytest.fixture
def config(tmp_path, monkeypatch):
    make_pictures(tmp_path)
    sketches(monkeypatch, dropout=0.0)
    return sketch_run(tmp_path, batch_size=8)


def first_step(config, path):
    """Take a step and write its gradients, its photos and its weights."""
    run = prepare(config)
    step = next(loop.descend(run, Interruption()))
    gradients = {name: value.grad for name, value in run.model.named_parameters()}
    photos = [content for content, _, _ in step.micro_batches]
    torch.save({"gradients": gradients, "photos": photos, "weights": run.model.state_dict()}, path)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "passes"), [(1, 4), (2, 1), (2, 2), (4, 1)])
def test_processes_and_passes_have_the_gradients_of_the_joint_batch(config, tmp_path, processes, passes):
    forked(lambda: first_step(config, tmp_path / "joint")).join()
    part = replace(config, batch_size=8 // processes // passes, accumulate=passes, run_dir=tmp_path / "part")
    if processes == 1:
        codes = [forked(lambda: first_step(part, tmp_path / "0"))]
        codes[0].join()
    else:
        assert torchrun(lambda rank: first_step(part, tmp_path / str(rank)), processes) == [0] * processes
    joint = torch.load(tmp_path / "joint")
    ours = [torch.load(tmp_path / str(rank)) for rank in range(processes)]
    for result in ours:
        errors = [(result["gradients"][name] - value).norm() for name, value in joint["gradients"].items()]
        sizes = [value.norm() for value in joint["gradients"].values()]
        assert torch.stack(errors).norm() <= 1e-5 * torch.stack(sizes).norm()
        assert all(torch.equal(value, result["weights"][name]) for name, value in ours[0]["weights"].items())
    seen = [result["photos"][index] for index in range(passes) for result in ours]
    assert torch.equal(torch.cat(seen), joint["photos"][0])  # each sample once, and nothing else


@pytest.mark.slow
def test_only_the_first_process_writes(config, tmp_path):
    folders = [tmp_path / f"run-{rank}" for rank in range(2)]
    assert torchrun(lambda rank: train(replace(config, run_dir=folders[rank])), 2) == [0, 0]
    assert (folders[0] / "model.safetensors").is_file()
    assert rows(folders[0] / "train.csv")
    assert not folders[1].exists()


@pytest.mark.parametrize(("rank", "said"), [("0", "the model is run/model.safetensors\n"), ("1", "")])
def test_only_the_first_process_says_where_the_model_is(config, monkeypatch, capsys, rank, said):
    monkeypatch.setattr("arbitrary_nst.commands.train.fit", lambda config: Path("run", "model.safetensors"))
    monkeypatch.setenv("RANK", rank)
    assert train(config) == 0
    assert capsys.readouterr().out == said


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them_at_one_step(config, tmp_path, monkeypatch):
    count = loop.Progress.count

    def work(rank):
        def counted(progress, taken):
            if rank == 1 and progress._run.state.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return count(progress, taken)

        monkeypatch.setattr(loop.Progress, "count", counted)
        return train(config)

    assert torchrun(work, 2) == [128 + signal.SIGTERM] * 2
    assert [file.name for file in Checkpoints(config.run_dir, 1).files()][-1] == "checkpoint-0000004.pt"


def test_float16_scales_its_loss_and_goes_on_from_an_overflow(config, monkeypatch):
    half = replace(config, precision="float16")
    fit(replace(half, steps=4, run_dir=config.run_dir.with_name("whole")))
    state = torch.load(config.run_dir.with_name("whole") / "checkpoint-0000004.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    backward, scales = loop.backward, []

    def overflowing(fabric, module, micro_batches):
        losses = backward(fabric, module, micro_batches)
        scaler = fabric.strategy.precision.scaler
        scales.append(scaler.get_scale())
        if len(scales) == 2:
            next(p for p in module.parameters() if p.requires_grad).grad.fill_(float("inf"))
        return losses

    monkeypatch.setattr(loop, "backward", overflowing)
    fit(replace(half, steps=4))
    assert scales[2] == scales[1] / 2
    assert rows(config.run_dir / "train.csv")[-1]["skipped"] == "1"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_has_nearly_the_losses_of_float32(config, precision):
    losses = []
    for choice in ("float32", precision):
        run = prepare(replace(config, precision=choice, run_dir=config.run_dir.with_name(choice)))
        step = next(loop.descend(run, Interruption()))
        assert all(loss.dtype == torch.float32 for loss in step.losses.values())
        losses.append(step.losses)
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", ["light", "normalization-network", "single-style", "multi-style", "adain"])
def test_every_trained_weight_has_a_gradient(config, tmp_path, name):
    """Else the processes of a run would wait for each other's for ever."""
    run = prepare(replace(config, model=name, batch_size=1, style_data=(str(tmp_path / "style" / "0.png"),)))
    next(loop.descend(run, Interruption()))
    assert not [key for key, value in run.model.named_parameters() if value.requires_grad and value.grad is None]
    assert set(MODELS) >= {name}


@pytest.mark.slow
def test_compiled_networks_take_the_same_step(config, tmp_path, monkeypatch):
    """Traced as for a compiler, and then run as they are: what a compiler makes of them is not ours."""
    monkeypatch.setattr(TrainingModule, "compile", lambda module: torch.nn.Module.compile(module, backend="eager"))
    for compiled in (False, True):
        run = replace(config, compile=compiled, batch_size=2, run_dir=tmp_path / str(compiled))
        first_step(run, tmp_path / f"step-{compiled}")
    plain, traced = (torch.load(tmp_path / f"step-{compiled}")["weights"] for compiled in (False, True))
    for name, weight in plain.items():
        torch.testing.assert_close(traced[name], weight)


def test_networks_that_cannot_be_compiled_are_refused_with_the_reason(config, monkeypatch):
    def fail(*batch):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(TrainingModule, "compile", lambda module: setattr(module, "_compiled_call_impl", fail))
    with pytest.raises(ValueError, match=r"--compile: torch\.compile fails here \(RuntimeError: no compiler here\)"):
        fit(replace(config, compile=True))
