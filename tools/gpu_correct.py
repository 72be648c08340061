"""Whether a GPU paints what the processor paints: a stage of `gpu_check.py`, and a program of its own.

    python tools/gpu_correct.py --output out [--weights light] [--until TIME]

Every case has the largest difference of the two pictures, their mean difference in units of 1/255, and whether they
agree: in float32 to 1e-3 everywhere, in bfloat16 to half a unit on average. The tests that need a GPU (`pytest -m gpu`)
run last, as far as the time goes. All is written to `correct.json`.
"""

import json
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from arbitrary_nst.models.serialization import load_model
from arbitrary_nst.runtime.devices import chosen_device, fast_bfloat16
from arbitrary_nst.stylization.options import Precision, Tile
from arbitrary_nst.stylization.stylizer import Stylizer

FLOAT32, BFLOAT16 = 1e-3, 0.5
"""The largest difference in float32, and the mean one in bfloat16 in units of 1/255."""

TESTS = Path(__file__).resolve().parents[1] / "tests" / "test_gpu.py"


def picture(height: int, width: int, seed: int) -> Tensor:
    """Soft blots with fine noise."""
    generator = torch.Generator().manual_seed(seed)
    blots = F.interpolate(torch.rand(1, 3, 12, 12, generator=generator), (height, width), mode="bilinear")
    return (0.9 * blots + 0.1 * torch.rand(1, 3, height, width, generator=generator)).clamp(0, 1)


def difference(ours: Tensor, theirs: Tensor, low: bool) -> dict[str, Any]:
    """How two pictures or codes differ, and whether that is little enough."""
    apart = (ours.cpu() - theirs).abs()
    largest, mean = apart.max().item(), 255 * apart.mean().item()
    return {"largest": largest, "mean_255": mean, "passed": mean <= BFLOAT16 if low else largest <= FLOAT32}


def cases(weights: str, device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names and comparisons."""

    def stylizer(where: torch.device, precision: Precision) -> Stylizer:
        return Stylizer(load_model(weights), where, precision)

    processor, there = stylizer(torch.device("cpu"), "float32"), stylizer(device, "float32")
    painting = picture(768, 800, 1)
    code = processor.encode_style(painting)

    def painted(by: Stylizer, size: tuple[int, int], low: bool = False, tile: Tile = "auto") -> dict[str, Any]:
        photo = picture(*size, 0)
        return difference(by(photo, code, tile=tile), processor(photo, code), low)

    yield "encode_style float32", lambda: difference(there.encode_style(painting), code, low=False)
    yield "384x384 float32", lambda: painted(there, (384, 384))
    yield "600x811 float32", lambda: painted(there, (600, 811))
    yield "600x811 in tiles float32", lambda: painted(there, (600, 811), tile=256)
    if fast_bfloat16(device):
        fast = stylizer(device, "bfloat16")
        yield "384x384 bfloat16", lambda: painted(fast, (384, 384), low=True)
        yield "600x811 bfloat16", lambda: painted(fast, (600, 811), low=True)


def tests(seconds: float) -> dict[str, Any]:
    """What the tests that need a GPU say."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rfE", "--tb=line", "--disable-warnings"]
    command += ["-p", "no:cacheprovider", str(TESTS)]
    try:
        run = subprocess.run(command, cwd=TESTS.parents[1], capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired as error:
        return {"passed": False, "said": f"took more than {error.timeout:.0f} seconds"}
    lines = (run.stdout + run.stderr).strip().splitlines()
    print(*lines, sep="\n", flush=True)
    return {"passed": run.returncode == 0, "said": " | ".join(lines[-4:])[-600:]}


def check(weights: str, device: torch.device, until: float, output: Path) -> list[dict[str, Any]]:
    """All comparisons, then the tests; each is written as soon as it is known."""
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # ten bits of a product are not float32

    def known(name: str, call: Callable[[], dict[str, Any]]) -> None:
        try:
            row = {"case": name} | call()
        except Exception as error:
            row = {"case": name, "passed": False, "said": f"{type(error).__name__}: {error}"[:300]}
        rows.append(row)
        print(json.dumps(row), flush=True)
        (output / "correct.json").write_text(json.dumps(rows, indent=1))

    for name, call in cases(weights, device):
        known(name, call)
    if TESTS.exists():
        known("pytest -m gpu", lambda: tests(until - time.time()))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--until", type=float, default=time.time() + 600, help="seconds since 1970")
    parser.add_argument("--weights", default="light")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    rows = check(given.weights, chosen_device(given.device), given.until, given.output)
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
