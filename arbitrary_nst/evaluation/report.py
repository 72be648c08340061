"""Report of a comparison: the table and its legend, the contact sheet, the plot, the record."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch

from arbitrary_nst.evaluation import metrics
from arbitrary_nst.evaluation.methods import Method, OptimizationMethod
from arbitrary_nst.evaluation.metrics import Unavailable
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Pair, ResultLog, Row
from arbitrary_nst.evaluation.sheets import VerdictSummary, wilson_interval
from arbitrary_nst.image import save_image
from arbitrary_nst.image.figures import contact_sheet, line_plot
from arbitrary_nst.runtime.files import atomic_write
from arbitrary_nst.runtime.provenance import versions

COLUMNS = {
    "style": 3,
    "structure": 3,
    "busy": 2,
    "judge_style": 3,
    "judge_structure": 3,
    "objective": 3,
    "style_gap": 4,
    "gram_gap": 4,
    "content_drift": 3,
    "ssim": 3,
    "lpips": 3,
    "fid": 1,
    "artfid": 1,
    "seconds": 3,
    "memory_mb": 0,
}
"""Of the table, with their decimals."""

SHEET_ROWS = 32
"""Pairs that the contact sheet shows, the first ones."""

WORST_ROWS = 8
"""Pairs that the sheet of worst cases shows."""


def report(
    folder: Path,
    methods: Sequence[Method],
    pairs: Sequence[Pair],
    pictures: Mapping[str, dict[Pair, Path]],
    settings: EvaluationSettings,
    log: ResultLog,
    reasons: dict[str, str],
    failures: int,
) -> None:
    """Write table.md, table.csv, results.json, sheet.png, worst.png and plot.png, and print the table."""
    rows = {label: {pair.name: log.get(label, pair) or {} for pair in files} for label, files in pictures.items()}
    means = {label: means_of(list(found.values())) for label, found in rows.items()}
    sets, more_reasons = distances_of_sets(pictures, settings, means)
    means = {label: means[label] | sets[label] for label in means}
    equal = comparisons(methods, rows)
    resized = {label: sum(bool(row["resized"]) for row in found.values()) for label, found in rows.items()}
    notes = [f"{name}: not available: {reason}" for name, reason in (reasons | more_reasons).items()]
    common = f"{settings.size} pixels" if settings.size else "the size of their photos"
    notes += [f"{label}: {count} pictures were brought to {common}" for label, count in resized.items() if count]
    notes.append(
        "seconds are the median picture's, with the encoding of the painting or the targets of the optimization, "
        "without loading models and files; memory is that of the whole process, on a GPU what torch allocated there"
    )
    counts = {label: (len(found), len(pairs)) for label, found in rows.items()}
    text = "\n".join([markdown(means, counts), "", *(f"- {line}" for line in equal + notes)])
    with atomic_write(folder / "table.md") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    with atomic_write(folder / "table.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", "pairs", *COLUMNS])
        writer.writeheader()
        writer.writerows({"method": label, "pairs": counts[label][0]} | values for label, values in means.items())
    record = {
        "means": means,
        "comparisons": equal,
        "notes": notes,
        "failures": failures,
        "size": settings.size,
        "seed": settings.seed,
        "precision": settings.precision,
        "optimization_precision": settings.optimization_precision,
        "versions": versions(settings.device),
        "pairs": [[pair.content_name, pair.style_name] for pair in pairs],
        "rows": [row for found in rows.values() for row in found.values()],
    }
    with atomic_write(folder / "results.json") as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    draw_sheets(folder, pairs, pictures, settings, rows)
    draw_plot(folder, methods, means)
    print(text)


def report_verdicts(folder: Path, counted: VerdictSummary) -> None:
    """Write verdicts.md and verdicts.json, and print the former."""
    record = asdict(counted) | {
        "preferred": [
            {"method": winner, "to": loser, "times": times, "of": of, "interval": wilson_interval(times, of)}
            for (winner, loser), (times, of) in counted.preferred.items()
        ]
    }
    for name, text in (("verdicts.md", counted.markdown() + "\n"), ("verdicts.json", json.dumps(record, indent=1))):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    print(counted.markdown())


def markdown(means: Mapping[str, Mapping[str, float]], counts: Mapping[str, tuple[int, int]]) -> str:
    """Methods down, columns across: "n/a" where no method has a number, a dash where this one has none."""
    lines = [
        "| method | pairs | " + " | ".join(COLUMNS).replace("_mb", " (MB)") + " |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    measured = {name for values in means.values() for name in values}
    for label, values in means.items():
        done, total = counts[label]
        cells = [label, f"{total}" if done == total else f"{done} of {total}"]
        for name, decimals in COLUMNS.items():
            empty = "-" if name in measured else "n/a"
            cells.append(f"{values[name]:.{decimals}f}" if name in values else empty)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_sheets(
    folder: Path,
    pairs: Sequence[Pair],
    pictures: Mapping[str, dict[Pair, Path]],
    settings: EvaluationSettings,
    rows: Mapping[str, Mapping[str, Row]],
) -> None:
    """sheet.png: the first pairs down, methods across. worst.png: those of the first method's highest objectives."""

    def draw(name: str, shown: Mapping[str, Pair]) -> None:
        cells = []
        for pair in shown.values():
            files = [pair.content, pair.style, *(pictures[label].get(pair) for label in pictures)]
            cells.append([None if file is None else settings.load(file)[0] for file in files])
        if cells:
            sheet = contact_sheet(cells, ["content", "style", *pictures], list(shown), min(settings.side, 192))
            save_image(sheet, folder / name)

    made = [pair for pair in pairs if any(pair in files for files in pictures.values())]
    draw("sheet.png", {f"{pair.content_name}, {pair.style_name}": pair for pair in made[:SHEET_ROWS]})
    scored = next(iter(rows.values()), {})
    worst = {pair: scored[pair.name]["objective"] for pair in made if "objective" in scored.get(pair.name, {})}
    worst = sorted(worst.items(), key=lambda item: -item[1])[:WORST_ROWS]
    draw("worst.png", {f"{value:.2f}: {pair.content_name}, {pair.style_name}": pair for pair, value in worst})


def draw_plot(folder: Path, methods: Sequence[Method], means: Mapping[str, Mapping[str, float]]) -> None:
    """plot.png: the objective over iterations."""
    curves, levels = {}, {}
    for method in methods:
        points = [(label, means[label]["objective"]) for label in method.labels if "objective" in means[label]]
        if isinstance(method, OptimizationMethod):
            x = [int(label.rpartition("@")[2]) for label, _ in points]
            curves[method.name] = (x, [value for _, value in points])
        else:
            levels |= dict(points)
    line_plot(folder / "plot.png", curves, levels, "iterations", "objective", logarithmic=True)


# Numbers


def distances_of_sets(
    pictures: Mapping[str, dict[Pair, Path]], settings: EvaluationSettings, means: Mapping[str, dict[str, float]]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """FID and ArtFID of every label, between its pictures and the paintings of their pairs, one for each picture.

    Returns them, and why columns are missing.
    """
    values: dict[str, dict[str, float]] = {label: {} for label in pictures}
    reasons: dict[str, str] = {}
    device = torch.device("cpu") if settings.device.type == "mps" else settings.device  # no float64 there
    for column, network in (("fid", metrics.inception(device)), ("artfid", metrics.art_inception(device))):
        for label, files in pictures.items():
            if isinstance(network, Unavailable):
                result = network
            elif column == "artfid" and "lpips" not in means[label]:
                result = Unavailable("it needs LPIPS")
            else:
                outputs, styles = map(settings.load, files.values()), (settings.load(pair.style) for pair in files)
                result = metrics.frechet_distance(network, outputs, styles)
            if isinstance(result, Unavailable):
                reasons[column] = result.reason
            else:
                values[label][column] = result if column == "fid" else metrics.artfid(means[label]["lpips"], result)
    return values, reasons


def means_of(rows: Sequence[Row]) -> dict[str, float]:
    """The mean of every column, over the rows that have it; of seconds the median, for the sake of interruptions."""
    rows = [row | {"style": None} | row.get("local", {}) for row in rows]  # a row's own style names its painting
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in COLUMNS}
    return {
        name: statistics.median(numbers) if name == "seconds" else math.fsum(numbers) / len(numbers)
        for name, numbers in values.items()
        if numbers
    }


def equivalent_iterations(curve: Sequence[tuple[int, float]], value: float) -> float | Literal["better", "worse"]:
    """After how many iterations a falling curve first has the value.

    Between two measured points the logarithm of the value is taken to be linear in the iterations, as a straight line
    in a plot with a logarithmic vertical axis. "better" is below every point, "worse" above the first.
    """
    if value > curve[0][1]:
        return "worse"
    if value == curve[0][1]:
        return float(curve[0][0])
    for (start, high), (end, low) in pairwise(curve):
        if low <= value < high:
            floor = high * 1e-12  # a picture that is its photo and its painting scores 0
            return start + (end - start) * math.log(high / max(value, floor)) / math.log(high / max(low, floor))
    return "better"


def comparisons(methods: Sequence[Method], rows: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """For every method but the optimizations, how many iterations of each its objective is worth, on common pairs."""
    lines = []
    for reference in (method for method in methods if isinstance(method, OptimizationMethod)):
        for method in (method for method in methods if not isinstance(method, OptimizationMethod)):
            common = set(rows[method.name]).intersection(*(rows[label] for label in reference.labels))
            if not common:
                continue

            def mean(label: str, common: set[str] = common) -> float:
                return means_of([rows[label][name] for name in sorted(common)])["objective"]

            points = zip(reference.counts, map(mean, reference.labels), strict=True)
            found = equivalent_iterations(list(points), mean(method.name))
            words = {
                "better": f"is better than {reference.name} at {max(reference.counts)} iterations, the most measured",
                "worse": f"is worse than {reference.name} at {min(reference.counts)} iterations, the fewest measured",
            }
            equal = f"equals {reference.name} at about {found:.0f} iterations" if isinstance(found, float) else ""
            lines.append(f"{method.name} {equal or words[str(found)]}, on {len(common)} pairs")
    return lines
