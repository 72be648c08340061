"""What the tests of training share: small pictures, a run of seconds, and the rows that it writes."""

import csv
import os
import socket
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  # so that forked processes need not import it
import torch
from torch import Tensor, nn

from arbitrary_nst.evaluation import metrics
from arbitrary_nst.evaluation.metrics import feature_network
from arbitrary_nst.image import save_image
from arbitrary_nst.models import MODELS
from arbitrary_nst.training import TrainConfig, loop, run
from arbitrary_nst.training.objectives import OBJECTIVES, RelativeObjective, loss_network


def make_pictures(folder: Path) -> None:
    """Twelve small photos and twelve paintings: smooth ones and striped ones."""
    generator = torch.Generator().manual_seed(0)
    for kind, repeat in (("content", 16), ("style", 2)):
        for index in range(12):
            small = torch.rand(1, 3, 80 // repeat, 80 // repeat, generator=generator)
            save_image(torch.nn.functional.interpolate(small, size=(80, 80)), folder / kind / f"{index}.png")


def without_downloads(monkeypatch) -> None:
    """Random features and backbones in place of pretrained ones."""
    monkeypatch.setattr(run, "loss_network", partial(loss_network, pretrained=False))
    monkeypatch.setattr(run, "feature_network", partial(feature_network, pretrained=False))
    for name in ("light", "adain"):
        build = MODELS[name]
        monkeypatch.setitem(MODELS, name, lambda pretrained=True, build=build: build(pretrained=False))


def tiny_run(folder: Path, **changes: Any) -> TrainConfig:
    """A run of seconds on the pictures of `folder`."""
    options: dict[str, Any] = {
        "content_data": (str(folder / "content"),),
        "style_data": (str(folder / "style"),),
        "run_dir": folder / "run",
        "steps": 4,
        "batch_size": 2,
        "crop_size": 32,
        "picture_size": 80,
        "warmup_steps": 1,
        "log_every": 1,
        "save_every": 2,
        "validate_every": 4,
        "validation_pairs": 2,
        "device": "cpu",
        "precision": "float32",
        "workers": 0,
        "wandb": "off",
    }
    return TrainConfig(**options | changes)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Sketch(nn.Module):
    """A style model of a few hundred numbers, in no time, with dropout: what is random in it must be resumed too."""

    code_size = 8

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.look, self.paint = (nn.Conv2d(3, 8, 3, padding=1) for _ in range(2))
        self.dropout, self.to_rgb = nn.Dropout(dropout), nn.Conv2d(8, 3, 1)

    def encode_style(self, style: Tensor) -> Tensor:
        return self.look(style).mean((2, 3))

    def forward(self, content: Tensor, code: Tensor) -> Tensor:
        return torch.sigmoid(self.to_rgb(self.dropout(self.paint(content).relu() * code[:, :, None, None])))


def sketches(monkeypatch, dropout: float = 0.1) -> None:
    """Make "sketch" a model, and the relative objective and the metrics look at the first layer only."""
    without_downloads(monkeypatch)
    monkeypatch.setitem(MODELS, "sketch", lambda pretrained=True: Sketch(dropout))
    first = partial(RelativeObjective, content_layer="relu1_1", style_layers=("relu1_1",))
    monkeypatch.setitem(OBJECTIVES, "relative", first)
    monkeypatch.setattr(metrics, "LAYERS", ("relu1_1",))
    monkeypatch.setattr(loop, "plot_record", lambda run_dir: None)


def sketch_run(folder: Path, **changes: Any) -> TrainConfig:
    """A run of ten steps with these."""
    return tiny_run(folder, model="sketch", **{"steps": 10, "validate_every": 5, "log_every": 3} | changes)


def forked(work: Callable[[], Any], environment: dict[str, str] | None = None) -> BaseProcess:
    """A process that does some work with everything that this one has imported and patched, and exits with its result.

    It computes with one thread: those of this process do not exist there.
    """

    def child() -> None:
        torch.set_num_threads(1)
        os.environ.update(environment or {})
        os._exit(int(work() or 0))

    resource_tracker.ensure_running()  # one for all of them
    process = get_context("fork").Process(target=child)
    process.start()
    return process


def torchrun(work: Callable[[int], Any], count: int) -> list[int | None]:
    """Do some work, given the rank, in processes that find what torchrun would tell them; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    processes = [
        forked(partial(work, rank), shared | sizes | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]
