"""What every part of a comparison knows: pairs of a photo and a painting, how they are loaded, and the journal.

Images are float RGB in [0, 1], (1, 3, S, S).
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.image import load_image, resize
from arbitrary_nst.paths import written_whole
from arbitrary_nst.stylizer import Precision

Image = Float[Tensor, "1 3 _ _"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A photo and a painting, and the names by which they are called in files and tables."""

    content: Path
    style: Path
    content_name: str
    style_name: str

    @property
    def name(self) -> str:
        return f"{self.content_name}_stylized_{self.style_name}"


def read_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Contents and styles of a file with commas or, as .tsv, tabs; a first line "content,style" is left out.

    Raises ValueError, naming the line, where it does not hold two paths of files.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--pairs {path}: cannot be read ({error})") from error
    pairs = []
    for number, cells in enumerate(csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","), 1):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (number == 1 and [cell.lower() for cell in cells] == ["content", "style"]):
            continue
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"--pairs {path}, line {number}: needs two columns, content and style, not {cells}")
        files = path.parent / cells[0], path.parent / cells[1]
        for file in files:
            if not file.is_file():
                raise ValueError(f"--pairs {path}, line {number}: there is no file {file}")
        pairs.append(files)
    if not pairs:
        raise ValueError(f"--pairs {path}: names no pair")
    return pairs


def square(image: Image, size: int) -> Image:
    """The image resized by its short side to `size` pixels and cut in the centre."""
    image = resize(image, size)
    top, left = ((side - size) // 2 for side in image.shape[2:])
    return image[:, :, top : top + size, left : left + size]


@dataclass(frozen=True)
class Studio:
    """What is the same for every method."""

    size: int
    device: torch.device
    precision: Precision
    seed: int

    @property
    def optimization_precision(self) -> Literal["float32", "bfloat16"]:
        """What `gatys.optimize` computes in: bfloat16 where it was asked for by name."""
        return "bfloat16" if self.precision == "bfloat16" else "float32"

    def load(self, path: Path) -> Image:
        return square(load_image(path), self.size)


class Journal:
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
            with written_whole(path) as partial:
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
