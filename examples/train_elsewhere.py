"""Train on a machine that has Python and the libraries, or their wheels: all goes there and comes back as tar pieces.

Here, make the pieces (code, pictures shrunk, networks, options of `train` from a JSON file):

    python examples/train_elsewhere.py pack --content-data coco --style-data wikiart --config options.json --output out

There, with the pieces in a folder, one command, which may be repeated to go on:

    cat out.tar.* | tar x && python elsewhere/train_elsewhere.py train --minutes 30

Here again, with the pieces that it left, `cat result.tar.* | tar x` gives the folder of the run; `pack --go-on FOLDER`
takes it to the next machine. Nothing is downloaded on the other machine, and nothing needs a network between the two.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
TOP = "elsewhere"
ARCHIVES = (".tar", ".tgz", ".zip", ".gz")


@dataclass(frozen=True)
class Pack:
    """Make the pieces that go to the other machine."""

    content_data: tuple[Path, ...]
    """Photos: files, folders, globs, or shards, which are taken as they are."""
    style_data: tuple[Path, ...]
    """Paintings, likewise."""
    output: Path
    """Name of the pieces: OUTPUT.tar.000, OUTPUT.tar.001, ..."""
    config: Path | None = None
    """Options of `train` as JSON, such as the config.json of a run."""
    go_on: Path | None = None
    """The folder of a run to go on with: its newest checkpoint and its record go too."""
    wheels: Path | None = None
    """Folder of wheels of what the other machine lacks; they are installed beside the code."""
    piece_mb: float = 60.0
    """Largest piece in megabytes (10^6 bytes)."""
    quality: int = 92
    """Of the JPEG files that pictures become."""


class Pieces(io.RawIOBase):
    """A file to write that is cut into files of at most so many bytes: NAME.tar.000, NAME.tar.001, ..."""

    def __init__(self, name: Path, size: int) -> None:
        self.name, self.size, self.files, self._left = name, size, [], 0
        name.parent.mkdir(parents=True, exist_ok=True)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            if not self._left:
                self.files.append(self.name.with_name(f"{self.name.name}.tar.{len(self.files):03}"))
                self.files[-1].unlink(missing_ok=True)
                self._left = self.size
            part, rest = rest[: self._left], rest[self._left :]
            with self.files[-1].open("ab") as file:
                file.write(part)
            self._left -= len(part)
        return len(data)


def pack(config: Pack) -> int:
    """Write the pieces and say what to do with them."""
    from arbitrary_nst.commands import read_options
    from arbitrary_nst.training import TrainConfig
    from arbitrary_nst.training.config import NOT_KEPT

    source = config.config or (config.go_on / "config.json" if config.go_on else None)
    options = read_options(TrainConfig, source) if source else {}
    given = {
        "content_data": tuple(map(str, config.content_data)),
        "style_data": tuple(map(str, config.style_data)),
        "run_dir": config.go_on or Path("run"),
    }
    train = TrainConfig(**{"wandb": "off", **options, **given})
    pieces = Pieces(config.output, int(config.piece_mb * 1e6))
    with tarfile.open(fileobj=pieces, mode="w|") as archive:
        code = ROOT.parent
        for path in [code / "train.py", Path(__file__), *sorted((code / "arbitrary_nst").rglob("*"))]:
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.name if path == Path(__file__) else str(path.relative_to(code))
                archive.add(path, f"{TOP}/{name}")
        for kind, paths in (("content", config.content_data), ("style", config.style_data)):
            for name, content in pictures(paths, train.picture_size, config.quality):
                add(archive, f"data/{kind}/{name}", content)
        for name, content in networks(train, config.go_on is None):
            add(archive, name, content)
        for path in record(config.go_on) if config.go_on else ():
            archive.add(path, f"{TOP}/run/{path.relative_to(config.go_on)}")  # type: ignore[arg-type]
        for path in sorted(config.wheels.glob("*.whl")) if config.wheels else ():
            archive.add(path, f"{TOP}/wheels/{path.name}")
        there = replace(
            train,
            content_data=("data/content",),
            style_data=("data/style",),
            run_dir=Path("run"),
            init=None if config.go_on else Path("init.safetensors"),
            device="auto",
            precision="auto",
        )
        kept = {name: value for name, value in asdict(there).items() if name not in NOT_KEPT}
        add(archive, "config.json", json.dumps(kept, default=str, indent=2).encode())
    print(f"{len(pieces.files)} pieces: {pieces.files[0]} ... There: cat {config.output.name}.tar.* | tar x && "
          f"python {TOP}/train_elsewhere.py train --minutes 30")  # fmt: skip
    return 0


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file of the bundle."""
    member = tarfile.TarInfo(f"{TOP}/{name}")
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def pictures(paths: tuple[Path, ...], short_side: int, quality: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes: archives as they are, pictures as JPEG files that are no larger than training needs them."""
    from PIL import Image
    from tqdm import tqdm

    from arbitrary_nst.image import load_pixels
    from arbitrary_nst.runtime.files import Failures, ImageError, find_images, unique_names

    archives = [path for path in paths if path.suffix in ARCHIVES and path.is_file()]
    for path in archives:
        yield path.name, path.read_bytes()
    others, failures = [path for path in paths if path not in archives], Failures()
    names = unique_names(find_images(others)) if others else {}
    for path, name in tqdm(names.items(), unit="picture", leave=False):
        try:
            pixels = load_pixels(path, short_side)
        except ImageError as error:
            failures.add(path, error)
            continue
        content = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, "JPEG", quality=quality)
        yield f"{name}.jpg", content.getvalue()
    failures.repeat()


def networks(config: Any, new: bool) -> Iterator[tuple[str, bytes]]:
    """A feature network that does not ship, as the torch hub keeps it, and, for a new run, the model as it begins."""
    import tempfile

    import torch

    from arbitrary_nst.models.serialization import save_model
    from arbitrary_nst.nn.features import BUILDERS
    from arbitrary_nst.runtime.files import find_images, unique_names
    from arbitrary_nst.runtime.weights import shipped_features, torch_hub_state
    from arbitrary_nst.training.config import build_objective
    from arbitrary_nst.training.networks import given_model, starting_model
    from arbitrary_nst.training.objectives import loss_network

    objective = build_objective(config)
    wanted = {f"features.{name}" for name in loss_network(objective, pretrained=False).network.state_dict()}
    if not wanted <= shipped_features(objective.vgg.network).keys():
        url, content = BUILDERS[objective.vgg.network][1].url, io.BytesIO()
        state = {name: value for name, value in torch_hub_state(url).items() if name.startswith("features.")}
        torch.save(state, content)
        yield f"torch/hub/checkpoints/{url.rsplit('/', 1)[-1]}", content.getvalue()
    if new:
        torch.manual_seed(config.seed)
        images = [path for path in map(Path, config.style_data) if path.suffix not in ARCHIVES]
        names = list(unique_names(find_images(images)).values()) if images else []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "init.safetensors"
            save_model(starting_model(config, given_model(config), names), config.model, path)
            yield path.name, path.read_bytes()


def record(run: Path) -> list[Path]:
    """The files of a run that are worth taking along: of its checkpoints the newest only, nothing of W&B."""
    checkpoints = sorted(run.glob("checkpoint-*.pt"))
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and "wandb" not in path.parts]
    return [path for path in files if path not in checkpoints[:-1]]


def train(minutes: float, processes: int, output: Path, piece_mb: float) -> int:
    """Train in the folder of this script, then write the pieces that go back. Returns the exit code of the training."""
    environment, run = os.environ | {"TORCH_HOME": str(ROOT / "torch")}, ROOT / "run"
    wheels, site = sorted((ROOT / "wheels").glob("*.whl")), ROOT / "site"
    if wheels and not site.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
        subprocess.run([*install, *map(str, wheels)], check=True)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(site)])
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["train.py", "--config", "config.json"]
    checkpoints = sorted(run.glob("checkpoint-*.pt"))
    if checkpoints:
        import torch

        minutes += torch.load(checkpoints[-1], map_location="cpu", weights_only=True)["seconds"] / 60
        command += ["--resume"]
    run.mkdir(exist_ok=True)
    with (run / "log.txt").open("ab") as log:
        command += ["--minutes", str(minutes)]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
    pieces = Pieces(output, int(piece_mb * 1e6))
    with tarfile.open(fileobj=pieces, mode="w|") as archive:
        for path in record(run):
            archive.add(path, f"run/{path.relative_to(run)}")
    print(f"exit code {code}, {run / 'log.txt'} says why; back go {', '.join(map(str, pieces.files))}")
    return code


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["pack"]:
        import tyro

        return pack(tyro.cli(Pack, args=arguments[1:], prog="train_elsewhere.py pack"))
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["pack", "train"])
    parser.add_argument("--minutes", type=float, default=30.0, help="of training; a last validation comes on top")
    parser.add_argument("--processes", type=int, default=1, help="one a GPU")
    parser.add_argument("--output", type=Path, default=Path("result"), help="name of the pieces that go back")
    parser.add_argument("--piece-mb", type=float, default=60.0)
    given = parser.parse_args(arguments)  # no library is needed for that: they may still be wheels
    return train(given.minutes, given.processes, given.output, given.piece_mb)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
