"""How many pairs a second each way of keeping pictures gives, and what waiting for them adds to a step of training.

    python benchmarks/data_loading.py [--pictures 200] [--steps 20] [--workers 0 1 2] [--device cpu]

Works on JPEG files of 640 x 480 pixels that it makes in a temporary folder, and on shards that `prepare` makes of them
(short side 512, so nothing is shrunk). A pair is a photo and a painting, cropped to 256 pixels and augmented. The
processor time of a pair, without workers, is what one core must spend on it. The step is one of the default model
(random weights): forward, losses, backward and Adam.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from arbitrary_nst.commands.prepare import PrepareConfig, prepare
from arbitrary_nst.data import ImageDataset, ImageStream, PairDataset, Resumable, batches
from arbitrary_nst.data.sources import find_pictures
from arbitrary_nst.image import save_image
from arbitrary_nst.models import MODELS
from arbitrary_nst.runtime.devices import channels_last, keep_freed_memory
from arbitrary_nst.training.networks import TrainingModule
from arbitrary_nst.training.objectives import OBJECTIVES, loss_network

SIZE, CROP, SHARDS = 512, 256, 8


@dataclass(frozen=True)
class Config:
    """Time ways of keeping pictures."""

    pictures: int = 200
    steps: int = 20
    """Timed batches; a quarter as many before them are not timed."""
    batch_size: int = 8
    workers: tuple[int, ...] = (0, 1, 2)
    device: Literal["cpu", "cuda"] = "cpu"
    training: bool = True
    """Time steps of training as well."""
    threads: int = 1


def main(config: Config) -> None:
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    print(f"{config}; torch {torch.__version__}; {torch.cuda.get_device_name() if config.device == 'cuda' else 'cpu'}")
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name, "folder"), Path(name, "shards")
        make_pictures(folder, config.pictures)
        prepare(PrepareConfig(sources=(folder,), output=shards, shard_size=-(-config.pictures // SHARDS)))
        ways = {
            "folder, decoded each time": lambda: ImageDataset(find_pictures([folder]), SIZE, memory=0),
            "shards, decoded each time": lambda: ImageDataset(find_pictures([shards]), SIZE, memory=0),
            "stream": lambda: ImageStream([f"pipe:cat {path}" for path in sorted(shards.glob("*.tar"))], SIZE),
            "kept in memory": lambda: ImageDataset(find_pictures([folder]), SIZE),
            f"kept on {device}": lambda: ImageDataset(find_pictures([folder]), SIZE, device=device),
        }
        print(f"{'pairs a second, by workers':28}", *(f"{workers:8}" for workers in config.workers), "  processor ms")
        for way, make in ways.items():
            usable = [workers for workers in config.workers if workers == 0 or not way.startswith("kept on")]
            speeds = {workers: speed(make(), workers, config) for workers in usable}
            cells = [f"{speeds[workers][0]:8.1f}" if workers in speeds else " " * 8 for workers in config.workers]
            print(f"{way:28}", *cells, f"{speeds[0][1]:14.2f}" if 0 in speeds else "", flush=True)
        if config.training:
            time_steps(ways, device, config)


def make_pictures(folder: Path, count: int) -> None:
    """Blurred noise with fine grain: files of about 60 kB, as photos of this size are."""
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        shapes = torch.rand(1, 3, 24, 32, generator=generator)
        picture = torch.nn.functional.interpolate(shapes, size=(480, 640), mode="bicubic")
        grain = torch.randn(1, 1, 480, 640, generator=generator)
        save_image((picture + 0.03 * grain).clamp(0, 1), folder / f"{index:04}.jpg", quality=85)


def loaded(pictures: Any, workers: int, config: Config) -> Iterator[Any]:
    """Batches, the first of them waited for."""
    pairs = PairDataset(pictures, pictures, CROP)
    warm = max(1, config.steps // 4)
    loader = iter(batches(pairs, Resumable(0, config.steps + warm, config.batch_size), workers))
    list(islice(loader, warm))
    return loader


def speed(pictures: Any, workers: int, config: Config) -> tuple[float, float]:
    """Pairs a second when nothing else is done, and milliseconds of this process's processor time for one."""
    loader = loaded(pictures, workers, config)
    finish(config.device)
    start, used = time.perf_counter(), time.process_time()
    count = sum(len(content) for content, *_ in loader)
    finish(config.device)
    return count / (time.perf_counter() - start), 1000 * (time.process_time() - used) / count


def time_steps(ways: dict[str, Callable[[], Any]], device: torch.device, config: Config) -> None:
    """Seconds of a step on a batch that is there already, and on batches of each way."""
    objective = OBJECTIVES["relative"]()
    model = MODELS["light"](pretrained=False).train()
    module = TrainingModule(model, loss_network(objective, pretrained=False), objective)
    module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])

    def step(batch: Any) -> None:
        content, style, number = batch
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            losses = module(channels_last(content, device), channels_last(style, device), number.to(device))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    def seconds(stream: Iterator[Any]) -> str:
        step(next(stream))
        finish(device.type)
        start, used, count = time.perf_counter(), time.process_time(), 0
        for batch in stream:
            step(batch)
            count += 1
        finish(device.type)
        spent = time.perf_counter() - start, time.process_time() - used
        return " ".join(f"{value / count:8.3f}" for value in spent)

    ready = next(loaded(ways["kept in memory"](), 0, config))
    print(f"{'seconds of a step':28}     wall processor")
    print(f"{'without data':28} {seconds(islice(cycle([ready]), config.steps))}", flush=True)
    for way, make in ways.items():
        for workers in config.workers:
            if workers == 0 or not way.startswith("kept on"):
                print(f"{way:28} {seconds(loaded(make(), workers, config))}  {workers} workers", flush=True)


def finish(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(tyro.cli(Config))
