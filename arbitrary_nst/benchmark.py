"""Speed: the shipped model in each precision, and other people's models, alternating in one run.

Every candidate is called once a round, round after round, so that a machine whose speed drifts drifts for all of them;
the median of the rounds is reported. Paintings are encoded beforehand: the time is that of painting one picture.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from arbitrary_nst.devices import chosen_device
from arbitrary_nst.paths import written_whole
from arbitrary_nst.provenance import versions
from arbitrary_nst.stylizer import Stylizer

Candidate = Callable[[], Any]
"""Paints one picture."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Time the stylizing of one picture: our model, and peers beside it."""

    sizes: tuple[int, ...] = (256, 384, 512, 1024)
    """Sides of the squares, in pixels."""
    rounds: int = 15
    """Timed calls of each candidate; two calls before them are not counted."""
    model: str = "light"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = 2
    """Processor threads for every candidate."""
    tflite: tuple[Path, ...] = ()
    """Peers: TFLite transfer networks of a photo (1, S, S, 3) and a style code. They run at their own size only and
    need the package ai-edge-litert."""
    output: Path | None = None
    """Also write everything as JSON to this file."""

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"--sizes {' '.join(map(str, self.sizes))}: must be at least one side of at least 1 pixel")
        for name in ("rounds", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: must be at least 1")


def benchmark(config: BenchmarkConfig) -> int:
    """Measure, print a Markdown table, and return the exit code."""
    torch.set_num_threads(config.threads)
    table: dict[str, dict[int, float]] = {}
    for size in tqdm(config.sizes, desc="sizes", unit="size", leave=False):
        for name, milliseconds in alternate(candidates(config, size), config.rounds).items():
            table.setdefault(name, {})[size] = milliseconds
    conditions = {"threads": config.threads} | versions(chosen_device(config.device))
    print(markdown(table, config.sizes))
    print(f"\nmedian milliseconds a picture of {config.rounds} rounds; {json.dumps(conditions)}")
    if config.output is not None:
        record = {"machine": conditions, "rounds": config.rounds, "milliseconds": table}
        with written_whole(config.output) as partial:
            partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0


def candidates(config: BenchmarkConfig, size: int) -> dict[str, Candidate]:
    """What is measured at a size, by name."""
    photo = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    painters: dict[str, Candidate] = {}
    for precision in ("float32", "bfloat16"):
        stylizer = Stylizer.from_pretrained(config.model, config.device, precision)
        code = stylizer.encode_style(photo)
        painters[f"{config.model} {precision}"] = lambda stylizer=stylizer, code=code: stylizer(photo, code)
    for path in config.tflite:
        painter = tflite_painter(path, size, config.threads)
        if painter is not None:
            painters[path.stem] = painter
    return painters


def tflite_painter(path: Path, size: int, threads: int) -> Candidate | None:
    """A TFLite network as a candidate, or None where it does not take pictures of that size."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    generator = np.random.default_rng(0)
    for tensor in interpreter.get_input_details():
        shape = tuple(int(side) for side in tensor["shape"])
        if shape[-1] == 3 and shape[1:3] != (size, size):
            return None
        interpreter.set_tensor(tensor["index"], generator.random(shape, dtype=np.float32))
    output = interpreter.get_output_details()[0]["index"]

    def paint() -> np.ndarray:
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return paint


def alternate(painters: dict[str, Candidate], rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median milliseconds of each candidate, called in turn."""
    times: dict[str, list[float]] = {name: [] for name in painters}
    for _ in range(warmup + rounds):
        for name, paint in painters.items():
            start = time.perf_counter()
            paint()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values[warmup:]) for name, values in times.items()}


def markdown(table: dict[str, dict[int, float]], sizes: Sequence[int]) -> str:
    """Candidates down, sizes across; a dash where one does not run."""
    lines = ["| ms | " + " | ".join(map(str, sizes)) + " |", "|---" * (1 + len(sizes)) + "|"]
    for name, row in table.items():
        cells = (f"{row[size]:.1f}" if size in row else "-" for size in sizes)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
