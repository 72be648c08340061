"""Measurements as Markdown tables, as a record for JSON, and as a plot."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arbitrary_nst.benchmark.candidates import Task
from arbitrary_nst.image.figures import line_plot

TITLES: dict[Task, str] = {"encode": "Encoding a painting", "stylize": "Painting a photo, its style encoded"}


@dataclass(frozen=True)
class Measurement:
    """One candidate at one task and size.

    Args:
        milliseconds: of every counted call.
        median: of these.
        first: seconds to the first result in a fresh process, compilation included.
        memory: peak of that process, in megabytes.
        of_matrix_limit: floating-point operations a second, as a share of those of a large matrix product in the same
            precision; None where they are not counted.
        of_copy_limit: bytes that PyTorch's operations move one by one, a second, as a share of those of a large copy.
    """

    task: Task
    size: int
    name: str
    milliseconds: list[float]
    median: float
    first: float
    memory: float | None
    of_matrix_limit: float | None
    of_copy_limit: float | None


@dataclass(frozen=True)
class Omission:
    """A candidate that was not measured, and why."""

    task: Task | None
    size: int | None
    name: str
    reason: str


COLUMNS = (
    ("median milliseconds", "median", 1.0, "{:.1f}"),
    ("seconds to the first result", "first", 1.0, "{:.1f}"),
    ("peak memory, MB", "memory", 1.0, "{:.0f}"),
    ("% of the matrix-product limit", "of_matrix_limit", 100.0, "{:.1f}"),
    ("% of the copy limit", "of_copy_limit", 100.0, "{:.0f}"),
)
"""Title of a table, the field it shows, its factor and its format."""


def markdown(measurements: Sequence[Measurement], omissions: Sequence[Omission]) -> str:
    """Every quantity of every task as a table, then what was left out and why."""
    blocks = []
    for task, title in TITLES.items():
        chosen = [m for m in measurements if m.task == task]
        for label, field, factor, form in COLUMNS:
            values = {(m.name, m.size): getattr(m, field) for m in chosen}
            cells = {key: form.format(factor * value) for key, value in values.items() if value is not None}
            if cells:
                blocks.append(f"{title}: {label}\n\n{grid(cells)}")
    if omissions:
        blocks.append("Left out:\n\n" + "\n".join(_lines(omissions)))
    return "\n\n".join(blocks)


def grid(cells: dict[tuple[str, int], str]) -> str:
    """Candidates down, sizes across; a dash where there is no cell."""
    names, sizes = list(dict.fromkeys(name for name, _ in cells)), sorted({size for _, size in cells})
    lines = ["| | " + " | ".join(map(str, sizes)) + " |", "|---" * (1 + len(sizes)) + "|"]
    lines += [f"| {name} | " + " | ".join(cells.get((name, size), "-") for size in sizes) + " |" for name in names]
    return "\n".join(lines)


def _lines(omissions: Sequence[Omission]) -> list[str]:
    """One line for each candidate, task and reason, with its sizes."""
    sizes: dict[tuple[str, str, str], list[str]] = {}
    for omission in omissions:
        key = (omission.name, omission.task or "", omission.reason)
        sizes.setdefault(key, []).extend([] if omission.size is None else [str(omission.size)])
    return [f"- {' '.join(filter(None, [name, task, *at]))}: {reason}" for (name, task, reason), at in sizes.items()]


def record(
    measurements: Sequence[Measurement], omissions: Sequence[Omission], conditions: dict[str, Any]
) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "conditions": conditions,
        "measurements": [asdict(measurement) for measurement in measurements],
        "left_out": [asdict(omission) for omission in omissions],
    }


def plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Median milliseconds of painting against the size, a curve for each candidate."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for measurement in sorted(measurements, key=lambda m: m.size):
        if measurement.task == "stylize":
            sizes, milliseconds = curves.setdefault(measurement.name, ([], []))
            sizes.append(measurement.size)
            milliseconds.append(measurement.median)
    line_plot(path, curves, x_label="side in pixels", y_label="milliseconds", logarithmic=True)
