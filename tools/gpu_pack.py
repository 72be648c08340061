"""Pack what travels to a borrowed GPU into one tar file of a given size: code, pictures, weights, wheels.

    python tools/gpu_pack.py --content-data photos --style-data paintings --output gpu.tar [--limit-mb 60]
    [--weights model.safetensors] [--wheels FOLDER] [--no-code]

There, `tar xf gpu.tar && python gpu/tools/gpu_check.py --minutes 9 --output out` does the rest. Pictures are encoded
anew, as well as the size allows. The given weights take the place of the shipped ones. With `--no-code`, for a machine
that has the checkout, the file holds only the data: `python tools/gpu_check.py --data gpu/data`.
"""

import io
import json
import random
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image
from tqdm import tqdm

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import load_pixels
from arbitrary_nst.models.serialization import load_model, model_card, model_file, save_model
from arbitrary_nst.runtime.files import Failures, ImageError, find_images, unique_names
from arbitrary_nst.runtime.provenance import commit

ROOT = Path(__file__).resolve().parents[1]
TOP = "gpu"
TESTS = ("tests/conftest.py", "tests/test_gpu.py", "tests/runs.py")
CODE = ("arbitrary_nst/**/*", "tools/*.py", *TESTS, "pyproject.toml")
SHIPPED = "arbitrary_nst/assets/pretrained/light.safetensors"
UNNEEDED = ("arbitrary_nst/assets/pretrained/tf_efficientnet_lite0_features.safetensors",)
"""A backbone that only a new model begins from."""

QUALITIES = range(90, 29, -5)
SAMPLE = 24
"""Pictures that are encoded to see which quality fits."""

SLACK = 0.97
"""Of the room for pictures, what the sample may foretell."""

BLOCK = 512
"""Bytes of a header in a tar file, and what its files are padded to."""


@dataclass(frozen=True)
class Pack:
    """Pack what travels to a borrowed GPU."""

    content_data: tuple[Path, ...]
    """Photos: files, folders, globs."""
    style_data: tuple[Path, ...]
    """Paintings, likewise."""
    output: Path = Path("gpu.tar")
    limit_mb: float = 60.0
    """Largest size of the file in megabytes (10^6 bytes)."""
    short_side: int = 512
    """Pixels that pictures are shrunk to."""
    weights: Path | None = None
    """The model to go on from; None: the shipped one."""
    wheels: Path | None = None
    """Folder of wheels of packages that the other machine may lack."""
    code: bool = True


def encoded(pixels: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    pixels.save(content, "WEBP", quality=quality, method=4)
    return content.getvalue()


def opened(path: Path, short_side: int) -> Image.Image:
    return Image.fromarray(load_pixels(path, short_side).permute(1, 2, 0).numpy())


def fitting_quality(paths: Sequence[Path], short_side: int, room: float) -> int:
    """The best quality at which so many pictures fit, as a sample of them foretells. Raises UsageError without one."""
    drawn = random.Random(0).sample(list(paths), min(SAMPLE, len(paths)))
    pictures = [opened(path, short_side) for path in drawn]
    for quality in QUALITIES:
        mean = sum(len(encoded(picture, quality)) + 1.5 * BLOCK for picture in pictures) / len(pictures)
        if mean * len(paths) <= SLACK * room:
            return quality
    raise UsageError(f"{len(paths)} pictures do not fit into {room / 1e6:.1f} MB: raise --limit-mb, lower --short-side")


def fixed_files(config: Pack) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all but the pictures."""
    if config.code:
        paths = sorted({path for pattern in CODE for path in ROOT.glob(pattern)})
        for path in paths:
            name = path.relative_to(ROOT).as_posix()
            left_out = name in UNNEEDED or (config.weights and name == SHIPPED) or "__pycache__" in path.parts
            if path.is_file() and not left_out:
                yield name, path.read_bytes()
    if config.weights:
        with tempfile.TemporaryDirectory() as folder:
            half, (name, card) = Path(folder) / "half.safetensors", model_card(model_file(config.weights))
            save_model(load_model(config.weights), name, half, card, half=True)
            yield SHIPPED if config.code else "data/start.safetensors", half.read_bytes()
    facts = {"commit": commit(), "weights": str(config.weights or "light"), "short_side": config.short_side}
    yield "data/packed.json", json.dumps(facts).encode()
    for path in sorted(config.wheels.glob("*.whl")) if config.wheels else ():
        yield f"data/wheels/{path.name}", path.read_bytes()


def pack(config: Pack) -> int:
    """Write the file. Returns the quality that pictures have."""
    collections = {"content": config.content_data, "style": config.style_data}
    names = {kind: unique_names(find_images(paths)) for kind, paths in collections.items()}
    fixed = list(fixed_files(config))
    taken = sum(len(content) + 2 * BLOCK for _, content in fixed) + 20 * BLOCK
    everything = [path for kind in names.values() for path in kind]
    quality = fitting_quality(everything, config.short_side, config.limit_mb * 1e6 - taken)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    failures = Failures()
    with tarfile.open(config.output, "w") as archive:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for name, content in fixed:
            add(name, content)
        for kind, paths in names.items():
            for path, name in tqdm(paths.items(), desc=kind, unit="picture", leave=False, disable=None):
                try:
                    add(f"data/{kind}/{name}.webp", encoded(opened(path, config.short_side), quality))
                except ImageError as error:
                    failures.add(path, error)
    failures.repeat()
    size = config.output.stat().st_size
    print(f"{config.output}: {size / 1e6:.1f} MB, {len(everything)} pictures at quality {quality}")
    if size > config.limit_mb * 1e6:
        raise UsageError(f"{config.output} is larger than {config.limit_mb} MB: lower --short-side")
    return quality


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        pack(tyro.cli(Pack, args=arguments))
    except (UsageError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
