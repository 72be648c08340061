"""A run that fails ends: with exit code 1, within seconds, and without leaving a process behind."""

import os
import pty
import select
import shutil
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from arbitrary_nst.commands.train import train
from arbitrary_nst.data import workers
from arbitrary_nst.data.workers import worker_failure
from arbitrary_nst.errors import WorkerError
from arbitrary_nst.training import loop
from arbitrary_nst.training.checkpoints import Checkpoints
from runs import forked, make_pictures, sketch_run, sketches, torchrun

SECONDS = 120
"""In which a run of a few steps must have ended."""


@pytest.fixture
def config(tmp_path, monkeypatch):
    make_pictures(tmp_path)
    sketches(monkeypatch)
    return sketch_run(tmp_path, workers=2, steps=10**6, validate_every=10**6, save_every=2, memory_gb=0.0)


def at_step(monkeypatch, number, act):
    """Do something before a run's step of that number."""
    take = loop.take_step

    def taken(run, *given):
        if run.state.step == number:
            act(run)
        return take(run, *given)

    monkeypatch.setattr(loop, "take_step", taken)


def ended(config):
    """The exit code of a run in a process of its own; None: it did not end."""
    process = forked(lambda: exit_code(config))
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    return code


def exit_code(config):
    """As the interpreter ends: an exception is shown and has code 1, and the processes of this one are awaited."""
    from multiprocessing.util import _exit_function  # type: ignore[attr-defined]

    try:
        code = train(config)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 1
    _exit_function()
    return code


def fail(error):
    def act(run):
        raise error

    return act


def send(number: signal.Signals, process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def end_a_worker(number):
    return lambda run: send(number, active_children()[0])


def stop_the_workers(run):
    """They hang, and do not hear of any end."""
    for child in active_children():
        send(signal.SIGSTOP, child)
    raise RuntimeError("a bug")


TROUBLE = {
    "bug": (fail(RuntimeError("a bug")), "RuntimeError: a bug"),
    "memory": (fail(torch.OutOfMemoryError("CUDA out of memory")), "--batch-size (now 2) or --crop-size (now 32)"),
    "pictures": (lambda run: shutil.rmtree(run.config.content_data[0]), "none of the 11 pictures can be read"),
    "killed": (end_a_worker(signal.SIGKILL), "--memory-gb"),
    "terminated": (end_a_worker(signal.SIGTERM), "--memory-gb"),
    "hanging": (stop_the_workers, "RuntimeError: a bug"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", list(TROUBLE))
def test_a_run_with_workers_ends_whatever_fails(config, monkeypatch, capfd, trouble):
    act, said = TROUBLE[trouble]
    monkeypatch.setattr(workers, "EXIT_TIMEOUT", 0.5)
    monkeypatch.setattr(workers, "ALONE", 0.1)
    at_step(monkeypatch, 3, act)
    assert ended(config) == 1
    shown = capfd.readouterr()
    assert said in shown.out + shown.err
    assert Checkpoints(config.run_dir, 2).files()


@pytest.mark.slow
def test_a_failure_of_one_process_ends_the_others(config, monkeypatch):
    def work(rank):
        if rank == 1:
            at_step(monkeypatch, 3, fail(torch.OutOfMemoryError("CUDA out of memory")))
        return exit_code(replace(config, workers=1))

    began = time.monotonic()
    assert torchrun(work, 2) == [1, 1]
    assert time.monotonic() - began < SECONDS


@pytest.mark.slow
def test_shared_memory_that_runs_out_is_one_line_that_says_what_to_do(config, monkeypatch, capfd):
    def full(tensor):
        raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert ended(config) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert "--shm-size" in line
    assert "--workers" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out "
         "of shared memory. Please try to raise your shared memory limit.", ["--shm-size", "--workers"]),
        ("unable to allocate shared memory(shm) for file </torch_1>: Success (0)", ["--shm-size", "--workers"]),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", ["pid 7", "Killed", "--memory-gb"]),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", ["7, 8", "--workers"]),
        ("Caught RuntimeError in DataLoader worker process 0.\nCPU: not enough memory", ["--memory-gb"]),
    ],
)  # fmt: skip
def test_failures_of_workers_are_told_in_one_line(text, words):
    failure = worker_failure(RuntimeError(text))
    assert isinstance(failure, WorkerError)
    assert len(str(failure).splitlines()) == 1
    assert all(word in str(failure) for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "Caught KeyError in DataLoader worker process 0.\nKeyError: 'a'",
        "out of resource: shared memory, Required: 9",
    ],
)
def test_a_bug_in_a_worker_and_the_shared_memory_of_a_gpu_are_no_failures_of_a_worker(text):
    assert worker_failure(RuntimeError(text)) is None


# SIGHUP


def hung_up(config):
    """The exit code of a run whose terminal goes away after its first checkpoint."""
    pid, terminal = pty.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
                code = train(config)
        finally:
            os._exit(code)
    while not Checkpoints(config.run_dir, 1).files():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_a_terminal_that_goes_away_leaves_a_checkpoint(config):
    assert hung_up(replace(config, workers=0)) == 128 + signal.SIGHUP
    assert Checkpoints(config.run_dir, 1).files()


@pytest.mark.slow
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(config, monkeypatch):
    def run():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_step(monkeypatch, 2, lambda run: os.kill(os.getpid(), signal.SIGHUP))
        return train(replace(config, steps=5))

    process = forked(run)
    process.join(SECONDS)
    assert process.exitcode == 0
    assert Path(config.run_dir, "model.safetensors").exists()
