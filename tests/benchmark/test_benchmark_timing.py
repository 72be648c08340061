"""Turns, trials, and processes of their own."""

import math
import os
import time
from dataclasses import dataclass

import pytest
import torch

from arbitrary_nst.benchmark import timing
from arbitrary_nst.benchmark.candidates import LeftOut, Task
from arbitrary_nst.benchmark.timing import alternate, in_fresh_process, trial

CPU = torch.device("cpu")


class Stub:
    """What every candidate has."""

    name, side, precision = "stub", None, None
    tasks: tuple[Task, ...] = ("stylize",)

    def obstacle(self, task, size):
        return None


@dataclass(frozen=True)
class Clockwork(Stub):
    """A candidate whose loading and calls take known times of a clock that only it moves."""

    clock: list
    seconds: tuple = (5.0, 2.0, 1.0)

    def prepare(self, task, size):
        durations = iter(self.seconds)
        self.clock[0] += next(durations)

        def call():
            self.clock[0] += next(durations)

        return call


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_candidates_take_turns_and_calls_of_the_warmup_are_not_counted(clock):
    calls = []

    def candidate(name, seconds):
        durations = iter(seconds)

        def paint():
            calls.append(name)
            clock[0] += next(durations)

        return paint

    times = alternate({"a": candidate("a", [9, 1, 5, 3]), "b": candidate("b", [9, 2, 2, 8])}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert times == {"a": [1000, 5000, 3000], "b": [2000, 2000, 8000]}


def test_the_first_result_of_a_trial_includes_loading(clock):
    threads = torch.get_num_threads()
    tried = trial(Clockwork(clock), "stylize", 8, CPU, threads, allowed=None)
    assert (tried.first, tried.again) == (7, 1)
    assert tried.memory is None or tried.memory > 1


@dataclass(frozen=True)
class Hungry(Stub):
    """A candidate that needs so many bytes."""

    size: int

    def prepare(self, task, size):
        return lambda: torch.ones(self.size, dtype=torch.uint8)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux bounds the memory of a process")
def test_a_candidate_may_take_only_so_much_memory():
    arguments = ("stylize", 8, CPU, 1)
    with pytest.raises(LeftOut, match="needs more than 3000 MB of memory"):
        in_fresh_process(trial, Hungry(2**32), *arguments, 3 * 10**9, seconds=300)


@pytest.mark.slow
def test_what_is_raised_in_a_fresh_process_is_told():
    with pytest.raises(RuntimeError, match="ValueError: "):
        in_fresh_process(math.sqrt, -1.0, seconds=300)


@pytest.mark.slow
def test_a_process_that_dies_is_told():
    with pytest.raises(RuntimeError, match=r"its process died \(exit code 3\)"):
        in_fresh_process(os._exit, 3, seconds=300)


@pytest.mark.slow
def test_a_process_that_takes_too_long_is_ended():
    start = time.monotonic()
    with pytest.raises(LeftOut, match=r"takes more than 0\.1 seconds"):
        in_fresh_process(time.sleep, 1000, seconds=0.1)
    assert time.monotonic() - start < 500
