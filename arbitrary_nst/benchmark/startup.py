"""The first picture: how long the stylize command takes, from nothing to a file, beside importing its libraries."""

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from arbitrary_nst.benchmark.candidates import picture
from arbitrary_nst.benchmark.timing import alternate
from arbitrary_nst.image import save_image

PACKAGE = Path(__file__).resolve().parents[2]

SIDE = 256
"""Pixels of the photo and of the painting."""

IMPORTS = "import torch, torchvision"


def startup(model: str, device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in fresh processes, in turn, after one round that is not counted.

    Raises RuntimeError where one of them fails.
    """
    with tempfile.TemporaryDirectory(prefix="arbitrary_nst-") as scratch:
        photo, painting = Path(scratch) / "photo.png", Path(scratch) / "painting.png"
        save_image(picture(SIDE, seed=0), photo)
        save_image(picture(SIDE, seed=1), painting)
        options = ["--content", photo, "--style", painting, "--output", Path(scratch) / "result.png"]
        choice = ["--model", model, "--device", device]
        commands: dict[str, list[str | Path]] = {
            IMPORTS: [sys.executable, "-c", IMPORTS],
            "stylize": [sys.executable, "-m", "arbitrary_nst", "stylize", *options, *choice],
        }
        paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

        def run(name: str) -> None:
            done = subprocess.run(commands[name], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")

        milliseconds = alternate({name: partial(run, name) for name in commands}, rounds, warmup=1)
    return {name: [value / 1000 for value in values] for name, values in milliseconds.items()}


def markdown(seconds: dict[str, list[float]]) -> str:
    """Medians, and how many times the imports each takes."""
    base = statistics.median(seconds[IMPORTS])
    rows = [
        f"| `{name}` | {statistics.median(values):.2f} | {statistics.median(values) / base:.2f} |"
        for name, values in seconds.items()
    ]
    return "\n".join(["| | median seconds | times |", "|---|---|---|", *rows])
