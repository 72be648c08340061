"""Time and memory: one trial of a candidate in a process of its own, then many turns beside all others."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from arbitrary_nst.benchmark.candidates import Call, Candidate, LeftOut, Task
from arbitrary_nst.runtime.devices import free_memory, keep_freed_memory, out_of_memory, peak_memory, reset_peak_memory
from arbitrary_nst.runtime.files import detail

MEMORY_SHARE = 0.8
"""Of the free memory, how much candidates may take together."""

WARMUP = 2
"""Calls of each candidate that are not counted."""

EXIT_TIMEOUT = 5.0
"""Seconds in which a process that has given its answer may end by itself."""


@dataclass(frozen=True)
class Trial:
    """Measurements of a candidate on its own.

    Args:
        first: seconds from nothing loaded to the first result; packages that all candidates share are imported before.
        again: seconds of a second call.
        memory: peak of the process in megabytes (10^6 bytes), packages included; on a GPU what PyTorch allocated
            there; None where it cannot be measured.
        own: what of that came on top of the shared packages.
    """

    first: float
    again: float
    memory: float | None
    own: float | None


def trial(
    candidate: Candidate, task: Task, size: int, device: torch.device, threads: int, allowed: int | None
) -> Trial:
    """Load a candidate and call it twice. For a process of its own.

    Args:
        allowed: bytes of memory that the process may have, where the system can enforce it.

    Raises LeftOut, also where that is not enough, and what the candidate raises.
    """
    torch.set_num_threads(threads)
    if allowed is not None and device.type == "cpu" and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (allowed, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    measured = reset_peak_memory(device)
    shared = peak_memory(device) if measured else None
    moments = [time.perf_counter()]
    try:
        call = candidate.prepare(task, size)
        for _ in range(2):
            call()
            moments.append(time.perf_counter())
    except Exception as error:
        if allowed is not None and (out_of_memory(error) or "bad_alloc" in str(error)):
            raise LeftOut(f"needs more than {allowed / 1e6:.0f} MB of memory") from error
        raise
    memory = peak_memory(device) if measured else None
    own = None if memory is None or shared is None else memory - shared
    return Trial(moments[1] - moments[0], moments[2] - moments[1], memory, own)


def in_fresh_process(function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
    """Call a function of some module in a new interpreter and return its result.

    Raises:
        LeftOut: it did, or it took longer than `seconds`.
        RuntimeError: it raised anything else, or its process died.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise LeftOut(f"takes more than {seconds:g} seconds")
        kind, answer = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"its process died (exit code {child.exitcode})") from None
    else:
        child.join(EXIT_TIMEOUT)
    finally:
        child.kill()
        child.join()
        receiver.close()
    if kind is not None:
        raise kind(answer)
    return answer


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    keep_freed_memory()
    try:
        answer = None, function(*arguments)
    except LeftOut as reason:
        answer = LeftOut, str(reason)
    except Exception as error:
        answer = RuntimeError, detail(error)
    with suppress(BrokenPipeError):  # nobody waits any more
        sender.send(answer)


def memory_allowed(device: torch.device) -> int | None:
    """Bytes that candidates may take together now; None where nobody says."""
    free = free_memory(device)
    return None if free is None else int(MEMORY_SHARE * free)


def alternate(calls: Mapping[str, Call], rounds: int, warmup: int = WARMUP) -> dict[str, list[float]]:
    """Milliseconds of every counted call of each candidate; they are called in turn, once a round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: values[warmup:] for name, values in times.items()}
