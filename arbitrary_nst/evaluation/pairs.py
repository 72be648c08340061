"""Pairs of a content and a style image, their loading, and the log of a comparison.

Images are float RGB in [0, 1], (1, 3, S, S) or whole.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import load_image, resize
from arbitrary_nst.runtime.files import WRITTEN_SUFFIXES, atomic_write, result_file
from arbitrary_nst.stylization.options import Precision

Image = Float[Tensor, "1 3 _ _"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A photo and a painting, and the names by which they are called in files and tables."""

    content: Path
    style: Path
    content_name: str
    style_name: str
    result: tuple[str, str] = ("", "")
    """The names of both in results of the stylize command."""

    @property
    def name(self) -> str:
        return f"{self.content_name}_stylized_{self.style_name}"

    @property
    def results(self) -> list[Path]:
        """The files that the stylize command may write, below its output folder."""
        return [result_file(*self.result, suffix) for suffix in WRITTEN_SUFFIXES]


def read_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Contents and styles of a file with commas or, as .tsv, tabs; a first line "content,style" is left out.

    Raises ValueError, naming the line, where it does not hold two paths of files.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--pairs {path}: cannot be read ({error})") from error
    pairs = []
    for number, cells in enumerate(csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","), 1):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (number == 1 and [cell.lower() for cell in cells] == ["content", "style"]):
            continue
        if len(cells) != 2 or not all(cells):
            raise UsageError(f"--pairs {path}, line {number}: needs two columns, content and style, not {cells}")
        files = path.parent / cells[0], path.parent / cells[1]
        for file in files:
            if not file.is_file():
                raise UsageError(f"--pairs {path}, line {number}: there is no file {file}")
        pairs.append(files)
    if not pairs:
        raise UsageError(f"--pairs {path}: names no pair")
    return pairs


def square(image: Image, size: int) -> Image:
    """The image resized by its short side to `size` pixels and cut in the centre."""
    image = resize(image, size)
    top, left = ((side - size) // 2 for side in image.shape[2:])
    return image[:, :, top : top + size, left : left + size]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings that are the same for every method."""

    size: int | None
    """Side of the squares that pictures are brought to, or None: they stay whole."""
    device: torch.device
    precision: Precision
    seed: int

    @property
    def side(self) -> int:
        """Side of a square to try methods with."""
        return self.size or 256

    @property
    def optimization_precision(self) -> Literal["float32", "bfloat16"]:
        """Precision of `optimization.loop.optimize`: bfloat16 only if it was asked for by name."""
        return "bfloat16" if self.precision == "bfloat16" else "float32"

    def fit(self, image: Image) -> Image:
        return image if self.size is None else square(image, self.size)

    def load(self, path: Path) -> Image:
        return self.fit(load_image(path))


class ResultLog:
    """Rows by method and pair, read from a file of JSON lines and appended to it as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], Row] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                self._keep(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed
        if path.exists():
            with atomic_write(path) as partial:
                partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows.values()), encoding="utf-8")

    def _keep(self, row: Row) -> None:
        self.rows[row["method"], row["content"], row["style"]] = row

    def get(self, method: str, pair: Pair) -> Row | None:
        return self.rows.get((method, pair.content_name, pair.style_name))

    def add(self, method: str, pair: Pair, values: Row) -> None:
        """One row; a later one of the same method and pair replaces it."""
        row = {"method": method, "content": pair.content_name, "style": pair.style_name} | values
        self._keep(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
