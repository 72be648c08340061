"""A run that is killed, stopped or out of disk goes on as if nothing had happened."""

import errno
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from random import Random
from types import SimpleNamespace

import pytest
import torch

from arbitrary_nst.commands.train import train
from arbitrary_nst.models.serialization import load_model, model_card
from arbitrary_nst.training import CheckpointError, checkpoints, fit, loop, record
from arbitrary_nst.training.checkpoints import Checkpoints
from runs import forked, make_pictures, rows, sketch_run, sketches

KILLS = 20


@pytest.fixture
def config(tmp_path, monkeypatch):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    return sketch_run(tmp_path)


def state_of(config):
    """Everything in the last checkpoint but the time that the run took."""
    state = torch.load(Checkpoints(config.run_dir, 1).files()[-1], weights_only=True)
    return {name: value for name, value in state.items() if name != "seconds"}


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def stop_at(monkeypatch, step, act):
    """Do something when a run has counted so many steps."""
    count = loop.Progress.count

    def counted(progress, taken):
        skipped = count(progress, taken)
        if progress._run.state.step == step:
            act()
        return skipped

    monkeypatch.setattr(loop.Progress, "count", counted)


def killed_after(calls, config):
    """Train, and be killed at that call of a Python function."""

    def hook(frame, event, argument):
        nonlocal calls
        calls -= event == "call"
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(hook)
    fit(config)


def calls_of(config, path):
    """Train, and write how many Python functions were called."""
    count = 0

    def hook(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(hook)
    fit(config)
    sys.setprofile(None)
    path.write_text(str(count))


@pytest.mark.slow
def test_runs_killed_anywhere_end_with_the_bits_of_an_uninterrupted_one(config, tmp_path):
    process = forked(partial(calls_of, config, tmp_path / "calls"))
    process.join()
    assert process.exitcode == 0
    expected, calls, draw = state_of(config), int((tmp_path / "calls").read_text()), Random(0)
    kills, ended, steps = 0, 0, set()
    interrupted = replace(config, run_dir=tmp_path / "0")
    while kills < KILLS or not ended:
        files = Checkpoints(interrupted.run_dir, 1).files()
        attempt = forked(partial(killed_after, draw.randrange(1, calls), replace(interrupted, resume=bool(files))))
        attempt.join()
        assert attempt.exitcode in (0, -signal.SIGKILL)
        kills += attempt.exitcode != 0
        steps.add(files[-1].stem if files else "")
        if attempt.exitcode == 0:
            assert_same(state_of(interrupted), expected)
            assert rows(interrupted.run_dir / "validation.csv") == rows(config.run_dir / "validation.csv")
            losses = [row["loss"] for row in rows(interrupted.run_dir / "train.csv")]
            assert losses == [row["loss"] for row in rows(config.run_dir / "train.csv")]
            ended += 1
            interrupted = replace(config, run_dir=tmp_path / str(ended))
    assert len(steps) > 3  # they went on from here and there


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_run_leaves_a_checkpoint_of_its_step(config, monkeypatch, capfd):
    whole = load_model(fit(config)).state_dict()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        # the signal comes when step 3 is done, and step 4 is the first that sees it
        stopped = replace(config, run_dir=config.run_dir.with_name(f"stopped-{number}"), workers=1)

        def run(number=number, stopped=stopped):
            os.setpgrp()
            stop_at(monkeypatch, 3, lambda: os.killpg(0, number))
            return train(stopped)

        process = forked(run)
        process.join()
        assert process.exitcode == 128 + number
        assert f"{number.name}: stopped after step 4; --resume goes on" in capfd.readouterr().out
        assert [file.name for file in Checkpoints(stopped.run_dir, 1).files()] == [
            "checkpoint-0000002.pt",
            "checkpoint-0000004.pt",
        ]
        resumed = load_model(fit(replace(stopped, workers=0, resume=True))).state_dict()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_full_disk_leaves_the_last_checkpoint_whole_and_says_so(config, monkeypatch, capsys):
    write, written = checkpoints._write, []

    def full(path, content):
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(checkpoints, "_write", full)
    assert train(config) == 1
    said = capsys.readouterr().err
    assert "checkpoint-0000004.pt: cannot be written (No space left on device); checkpoint-0000002.pt is whole" in said
    assert state_of(config)["step"] == 2
    assert not list(config.run_dir.glob("*.partial"))
    fit(replace(config, resume=True))


@pytest.mark.parametrize("validate_every", [2, 5])
def test_the_checkpoint_is_written_before_the_disk_is_full_of_models(config, monkeypatch, capsys, validate_every):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "save_model", full)
    assert train(replace(config, validate_every=validate_every)) == 1
    assert "checkpoint-0000002.pt is whole" in capsys.readouterr().err
    assert state_of(config)["step"] == 2


def test_the_speed_is_that_of_the_steps_since_the_last_row(config, monkeypatch):
    """Half a second a step of two pairs, a hundred seconds a validation."""
    clock, take = [0.0], loop.take_step

    def taken(*given):
        clock[0] += 0.5
        return take(*given)

    def validated(run, tracker):
        clock[0] += 100
        return 1.0

    monkeypatch.setattr(record, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "take_step", taken)
    monkeypatch.setattr(loop, "validated", validated)
    fit(config)
    assert [row["images_per_second"] for row in rows(config.run_dir / "train.csv")] == ["4"] * 7


def test_a_record_on_a_full_disk_does_not_end_the_run(config, monkeypatch, caplog):
    def full(path, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("arbitrary_nst.tracking._append", full)
    assert fit(config).is_file()
    assert caplog.text.count("No space left on device") == 1


def test_the_newest_checkpoints_and_the_best_model_are_kept(config, monkeypatch):
    objectives = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    monkeypatch.setattr(loop, "validated", lambda run, tracker: next(objectives))
    fit(replace(config, validate_every=2, keep=3))
    names = [file.name for file in Checkpoints(config.run_dir, 3).files()]
    assert names == ["checkpoint-0000006.pt", "checkpoint-0000008.pt", "checkpoint-0000010.pt"]
    assert model_card(config.run_dir / "best.safetensors")[1]["steps"] == 4
    assert state_of(config)["best"] == 1.0


def test_resume_takes_the_newest_checkpoint_that_is_whole(config, caplog):
    whole = load_model(fit(config)).state_dict()
    newest = config.run_dir / "checkpoint-0000010.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed = load_model(fit(replace(config, resume=True))).state_dict()
    assert "checkpoint-0000010.pt is damaged" in caplog.text
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for file in Checkpoints(config.run_dir, 1).files():
        file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        fit(replace(config, resume=True))


def test_an_earlier_run_is_neither_overwritten_nor_invented(config):
    with pytest.raises(ValueError, match="--resume: there is no checkpoint"):
        fit(replace(config, resume=True))
    config.run_dir.mkdir()
    precious = config.run_dir / "checkpoint-0000001.pt"
    precious.write_bytes(b"precious")
    with pytest.raises(ValueError, match="is of an earlier run: add --resume"):
        fit(config)
    assert precious.read_bytes() == b"precious"


def test_the_time_of_a_run_is_limited_and_goes_on_counting_when_it_is_resumed(config):
    fit(replace(config, steps=10**9, minutes=0.02))
    state = state_of(config)
    assert 0 < state["step"] < 10**9
    before = state["step"]
    fit(replace(config, steps=10**9, minutes=0.02, resume=True))
    assert state_of(config)["step"] == before
