"""Pictures about pictures: labelled contact sheets and line plots.

Shapes: H x W pixels. Images are float RGB in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from arbitrary_nst.runtime.files import atomic_write

GAP = 6
"""Pixels between the pictures of a sheet."""


def contact_sheet(
    cells: Sequence[Sequence[Float[Tensor, "3 _ _"] | None]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    cell_size: int = 192,
) -> Float[Tensor, "3 H W"]:
    """Pictures in a grid, with a label above every column and to the left of every row.

    Args:
        cells: rows of pictures of any sizes, each shrunk or enlarged to fit its cell; None leaves one empty.
        columns, rows: labels, none or one for each; long ones are broken into lines.
        cell_size: side of a cell in pixels.

    Raises ValueError where rows differ in length or labels are missing.
    """
    width = len(cells[0]) if cells else 0
    if not width or any(len(row) != width for row in cells):
        raise ValueError("a contact sheet needs rows of equally many pictures, at least one")
    if len(columns) not in (0, width) or len(rows) not in (0, len(cells)):
        raise ValueError(f"{len(cells)} x {width} pictures need as many labels, not {len(rows)} and {len(columns)}")
    font = _font(max(10, cell_size // 14))
    line = math.ceil(font.getbbox("Ag")[3]) + 2
    column_lines = [_broken(label, font, cell_size) for label in columns]
    row_lines = [_broken(label, font, cell_size * 2 // 3) for label in rows]
    left = max((int(font.getlength(text)) for lines in row_lines for text in lines), default=0) + GAP * bool(rows)
    top = line * max((len(lines) for lines in column_lines), default=0) + GAP * bool(columns)
    step = cell_size + GAP
    sheet = Image.new("RGB", (left + GAP + width * step, top + GAP + len(cells) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for j, lines in enumerate(column_lines):
        draw.multiline_text((left + GAP + j * step, GAP), "\n".join(lines), "black", font, spacing=2)
    for i, lines in enumerate(row_lines):
        draw.multiline_text((GAP, top + GAP + i * step), "\n".join(lines), "black", font, spacing=2)
    for i, row in enumerate(cells):
        for j, image in enumerate(row):
            if image is not None:
                picture = _fitted(image, cell_size)
                margins = [(cell_size - side) // 2 for side in picture.size]
                sheet.paste(picture, (left + GAP + j * step + margins[0], top + GAP + i * step + margins[1]))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float().div(255)


def line_plot(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    levels: Mapping[str, float] | None = None,
    x_label: str = "",
    y_label: str = "",
    logarithmic: bool = False,
) -> None:
    """Curves and horizontal levels over one another, as PNG, SVG or PDF.

    Args:
        curves: x and y values by name.
        levels: constants by name.
        logarithmic: the vertical axis is.
    """
    from matplotlib.figure import Figure  # takes half a second, and few commands plot

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, marker="o" if len(x) < 20 else None, markersize=4, label=name)
    for index, (name, level) in enumerate((levels or {}).items()):
        axes.axhline(level, linestyle="--", linewidth=1.2, color=f"C{len(curves) + index}", label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if logarithmic and any(value > 0 for _, y in curves.values() for value in y):  # else matplotlib warns
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if curves or levels:
        axes.legend(fontsize="small")
    with atomic_write(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)


def _fitted(image: Tensor, size: int) -> Image.Image:
    levels = image.detach().cpu().float().clamp(0, 1).mul(255).round().byte()
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy())
    scale = size / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which ships with matplotlib and has accents, Greek and Cyrillic; Pillow's own font has none."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _broken(label: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The label in lines no wider than `width`, broken after spaces, underscores, commas and slashes where it can."""
    label, lines = " ".join(label.split()), [""]
    for index, character in enumerate(label):
        lines[-1] += character
        rest = label[index + 1 :]
        word = next((rest[:k] for k, c in enumerate(rest, 1) if c in " _,/"), rest)
        breakable = character in " _,/" and font.getlength(lines[-1] + word) > width
        if rest and (breakable or font.getlength(lines[-1] + rest[0]) > width):
            lines.append("")
    return lines
