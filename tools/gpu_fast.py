"""How fast a model paints on one GPU, until a given time: a stage of `gpu_check.py`, and a program of its own.

    python tools/gpu_fast.py --output out --until $(($(date +%s) + 120)) [--sizes 384x384 2160x3840] [--weights light]

Measured in the order of value, and written to `fast.json` after every case: what the device copies and multiplies at
most; every size eager and as a CUDA graph, photos one at a time and eight together; what users call (`Stylizer`, from
and to the computer's memory); the encoding of a painting; compiled networks. Cases that run out of memory say so.
"""

import copy
import json
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.nn.octaves import Octave, count_octaves, pyramid
from arbitrary_nst.runtime.devices import (
    channels_last,
    chosen_device,
    fast_bfloat16,
    out_of_memory,
    peak_memory,
    reset_peak_memory,
)
from arbitrary_nst.stylization.stylizer import Stylizer

ON_A_GPU = ((384, 384), (1024, 1024), (2160, 3840), (8192, 8192))
REHEARSAL = ((256, 256), (384, 512))
"""Sizes on a GPU, and on a processor, where only the way is tried."""

BATCHES = (1, 8)
BUDGET = 1.5
"""Seconds of repetitions of one case."""

Row = dict[str, Any]


def paint(model: Any, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"]) -> Float[Tensor, "B 3 H W"]:
    """All octaves of photos, without leaving their device."""
    levels = pyramid(content, count_octaves(content.shape[2], content.shape[3]))
    octave, painted = Octave(levels[0]), content
    for level, larger in zip_longest(levels, levels[1:]):
        view = octave.read((0, level.shape[2]), (0, level.shape[3]))
        painted = view.anchored(model(view.content, code, view.guide, view.first).float()).clamp(0, 1)
        if larger is not None:
            octave = Octave(larger, level, painted)
    return painted


def as_graph(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call whose kernels are recorded once and replayed at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def milliseconds(call: Callable[[], Any], device: torch.device, until: float = float("inf")) -> float:
    """The median of repeated calls, each from an idle device to an idle device, after two that are not counted."""

    def once() -> float:
        if device.type != "cuda":
            start = time.perf_counter()
            call()
            return 1000 * (time.perf_counter() - start)
        torch.cuda.synchronize(device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)

    first = once(), once()
    count = max(3, min(200, int(1000 * BUDGET / max(first[1], 0.01))))
    stop = min(time.time() + 2 * BUDGET, until)
    times = []
    for _ in range(count):
        times.append(once())
        if time.time() > stop:
            break
    return statistics.median(times)


def limits(device: torch.device, side: int) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """The fastest copy and matrix product of the device, of random numbers."""
    dtype = torch.bfloat16 if fast_bfloat16(device) else torch.float32

    def copied() -> Row:
        source = torch.randn(side * side * 4, device=device)
        target = torch.empty_like(source)
        ms = milliseconds(lambda: target.copy_(source), device)
        return {"ms": ms, "gb_per_second": 2 * source.nbytes / ms / 1e6}

    def multiplied() -> Row:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        ms = milliseconds(lambda: left @ right, device)
        return {"ms": ms, "tflops": 2 * side**3 / ms / 1e9}

    yield {"case": "copy"}, copied
    yield {"case": f"matrix product {str(dtype).removeprefix('torch.')}"}, multiplied


def cases(weights: str, device: torch.device, sizes: Sequence[tuple[int, int]], until: float) -> Iterator[Any]:
    """Names and measurements, in the order of value."""
    model: Any = load_model(weights).requires_grad_(False).to(device)
    stylizer = Stylizer(copy.deepcopy(model), device)
    painting = torch.rand(1, 3, 384, 384)
    code = stylizer.encode_style(painting)
    half = copy.deepcopy(model)
    half.transformer.to(torch.bfloat16)
    precisions: dict[str, Any] = {"float32": model}
    if fast_bfloat16(device):
        precisions = {"bfloat16": half, "autocast": model} | precisions

    def photos(size: tuple[int, int], batch: int) -> Tensor:
        return channels_last(torch.rand(batch, 3, *size, device=device), device)

    def network(precision: str, size: tuple[int, int], batch: int, how: str) -> Callable[[], Row]:
        def measure() -> Row:
            content, net = photos(size, batch), precisions[precision]
            if how == "compiled":
                net = copy.deepcopy(net)
                net.transformer.compile(dynamic=False)

            def call() -> Tensor:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "autocast"):
                    return paint(_In(net, precision == "bfloat16"), content, code)

            run = as_graph(call) if how == "graph" else call
            began = time.time()
            ms = milliseconds(run, device, until)
            return {"ms": ms, "pictures_per_second": 1000 * batch / ms, "seconds": time.time() - began}

        return measure

    def user(size: tuple[int, int]) -> Row:
        content = torch.rand(1, 3, *size)
        times = [_seconds(lambda: stylizer(content, code))]
        while len(times) < 6 and sum(times) < 2 * BUDGET:
            times.append(_seconds(lambda: stylizer(content, code)))
        return {"ms": 1000 * statistics.median(times[1:] or times), "first_ms": 1000 * times[0]}

    def row(how: str, precision: str, size: tuple[int, int], batch: int) -> Row:
        return {"case": how, "precision": precision, "height": size[0], "width": size[1], "batch": batch}

    best = next(iter(precisions))
    hows = ("eager", "graph") if device.type == "cuda" else ("eager",)
    for batch in BATCHES:
        for size in sizes:
            for how in hows:
                yield row(how, best, size, batch), network(best, size, batch, how)
        if batch == 1:
            for size in sizes:
                yield row("Stylizer", "auto", size, 1), lambda size=size: user(size)
            encode = {"case": "encode_style", "precision": "float32", "height": 384, "width": 384, "batch": 1}
            yield encode, lambda: {"ms": milliseconds(lambda: stylizer.encode_style(painting), device)}
    for precision in list(precisions)[1:]:
        for size in sizes:
            yield row("eager", precision, size, 1), network(precision, size, 1, "eager")
    if device.type == "cuda":
        for size in sizes:
            yield row("compiled", best, size, 1), network(best, size, 1, "compiled")


class _In(nn.Module):
    """A model called with images in the precision of its network, codes as they are."""

    def __init__(self, model: Any, half: bool) -> None:
        super().__init__()
        self.model, self.dtype = model, torch.bfloat16 if half else torch.float32

    def forward(self, content: Tensor, code: Tensor, guide: Tensor, first: bool) -> Tensor:
        return self.model(content.to(self.dtype), code, guide.to(self.dtype), first)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def measure(weights: str, device: torch.device, sizes: Sequence[tuple[int, int]], until: float, output: Path) -> list:
    """All cases that the time suffices for; each is written as soon as it is known."""
    rows: list[Row] = []
    output.mkdir(parents=True, exist_ok=True)
    side = 8192 if device.type == "cuda" else 512
    for group in (lambda: limits(device, side), lambda: cases(weights, device, sizes, until)):
        for row, call in group():
            if time.time() > until:
                rows.append({"case": "not measured: the time was over"})
                return rows
            if row["case"] == "graph" and "failed" in rows[-1]:  # a recording that breaks off spoils what follows
                rows.append(row | {"failed": "as eager"})
                continue
            reset_peak_memory(device)
            try:
                row |= call()
                row["memory_mb"] = peak_memory(device)
            except Exception as error:
                row["failed"] = "out of memory" if out_of_memory(error) else f"{type(error).__name__}: {error}"[:200]
            rows.append(row)
            print(json.dumps(row), flush=True)
            (output / "fast.json").write_text(json.dumps(rows, indent=1))
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return rows


def size_of(text: str) -> tuple[int, int]:
    """Height and width from 2160x3840."""
    height, width = text.split("x")
    return int(height), int(width)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--weights", default="light")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", type=size_of, nargs="+", help="HEIGHTxWIDTH")
    given = parser.parse_args(arguments)
    device = chosen_device(given.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    sizes = given.sizes or (ON_A_GPU if device.type == "cuda" else REHEARSAL)
    measure(given.weights, device, sizes, given.until, given.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
