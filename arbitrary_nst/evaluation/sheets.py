"""Blind comparisons: sheets for judges who do not know whose picture is which, and the summary of their verdicts.

A sheet shows a photo and a painting, and the methods' pictures under letters in random order. The key, which says whose
letter is whose, lies beside the folder of the sheets. A judge ranks the letters of every sheet, best first, by each of
CRITERIA, and marks each picture from 0 to 10:

    {"sheet_00": {"overall": ["B", "A"], "style": [...], "content": [...], "clean": [...], "scores": {"A": 5, "B": 7}}}
"""

import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, permutations
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from arbitrary_nst.errors import UsageError
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Image, Pair
from arbitrary_nst.image import load_image, resize
from arbitrary_nst.runtime.files import atomic_write

CRITERIA = ("overall", "style", "content", "clean")
"""`overall`: which picture would be chosen by somebody who asked for this photo in the style of this painting."""

COLUMN, HEIGHT = 760, 900
"""Width of a sheet's columns and largest height of a picture in it, in pixels."""

CROP = 400
"""Height in pixels of what is shown at 100 %."""

Key = dict[str, Any]


# Sheets


def key_file(folder: Path) -> Path:
    """The key of a folder of sheets, which judges never see."""
    return folder.with_name(f"{folder.name}_key.json")


def write_sheets(
    folder: Path,
    pairs: Sequence[Pair],
    pictures: Mapping[str, Mapping[Pair, Path]],
    settings: EvaluationSettings,
    seed: int,
) -> None:
    """Write a sheet_NN.png for each pair that every method has, judge.html to judge them by, and the key.

    A method without any picture takes no part. Raises UsageError where there are no pairs, too few or too many methods,
    or where the folder has sheets of others.
    """
    pictures = {label: found for label, found in pictures.items() if found}
    if not 2 <= len(pictures) <= len(ascii_uppercase):
        raise UsageError(f"--sheets compares 2 to {len(ascii_uppercase)} methods, not {len(pictures)}")
    common = sorted((pair for pair in pairs if all(pair in found for found in pictures.values())), key=lambda p: p.name)
    if not common:
        raise UsageError("--sheets: there is no pair that every method has a picture of")
    orders, generator = {}, random.Random(seed)
    for number, pair in enumerate(common):
        order = list(pictures)
        generator.shuffle(order)
        orders[f"sheet_{number:02}"] = pair, order
    key = {
        name: {"pair": pair.name, "order": dict(zip(ascii_uppercase, order, strict=False))}
        for name, (pair, order) in orders.items()
    }
    path = key_file(folder)
    if path.exists() and read_json(path, "--sheets") != key:
        raise UsageError(f"--sheets {folder}: {path.name} is the key of other sheets; name another folder")
    for name, (pair, order) in orders.items():
        shown = [load_image(pictures[label][pair]) for label in order]
        sheet = draw_sheet(
            settings.load(pair.content), settings.load(pair.style), [settings.fit(image) for image in shown]
        )
        with atomic_write(folder / f"{name}.png") as partial:
            sheet.save(partial, "PNG")
    form = files("arbitrary_nst.evaluation").joinpath("judge.html").read_text(encoding="utf-8")
    letters = {name: list(entry["order"]) for name, entry in key.items()}
    for target, text in (
        (folder / "judge.html", form.replace("SHEETS", json.dumps(letters), 1)),
        (path, json.dumps(key, indent=1)),
    ):
        with atomic_write(target) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"{len(key)} sheets in {folder}; judges open judge.html there; {path} is the key, keep it from them")


def draw_sheet(photo: Image, painting: Image, outputs: Sequence[Image]) -> Picture.Image:
    """Photo and painting on top; below, the outputs under letters, each whole and a part of it at 100 %."""
    height, width = photo.shape[2:]
    scale = min(COLUMN / width, HEIGHT / height)
    size = round(width * scale), round(height * scale)
    sheet = Picture.new("RGB", (COLUMN * max(2, len(outputs)), 480 + size[1] + CROP), "white")
    for column, image in enumerate((photo, painting)):
        picture = to_picture(image)
        picture.thumbnail((COLUMN - 10, 410))
        sheet.paste(picture, (column * COLUMN, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(28)
    left = max(0, min(int(0.45 * width), width - COLUMN))
    top = max(0, min(int(0.35 * height), height - CROP))
    for column, image in enumerate(outputs):
        picture = to_picture(resize(image, (height, width)))
        x = column * COLUMN
        draw.text((x + 8, 424), ascii_uppercase[column], "red", font)
        sheet.paste(picture.resize(size, Picture.Resampling.LANCZOS), (x, 460))
        part = picture.crop((left, top, min(width, left + COLUMN - 10), min(height, top + CROP)))
        sheet.paste(part, (x, 470 + size[1]))
    return sheet


def to_picture(image: Image) -> Picture.Image:
    levels = image[0].permute(1, 2, 0).mul(255).round().byte()
    return Picture.fromarray(np.ascontiguousarray(levels.cpu().numpy()))


# Verdicts


@dataclass(frozen=True)
class VerdictSummary:
    """Counted verdicts of judges."""

    ranks: dict[str, dict[str, float]]
    """Mean rank by method and criterion, 1 being the best."""
    marks: dict[str, float]
    """Mean mark by method."""
    firsts: dict[str, int]
    """How often a method was ranked first, overall."""
    preferred: dict[tuple[str, str], tuple[int, int]]
    """(A, B): how often A was ranked before B, overall, and how often both were ranked."""
    agreement: dict[str, float]
    """By criterion: of all two judges, two methods and a sheet that both judged, how often they have the same order.
    Chance is 0.5. Empty where no sheet has two judges."""

    def markdown(self) -> str:
        """Two tables and a line."""
        lines = ["| method | mark | first | " + " | ".join(CRITERIA) + " |", "|---" * (3 + len(CRITERIA)) + "|"]
        for name, ranks in self.ranks.items():
            means = " | ".join(f"{ranks[criterion]:.2f}" for criterion in CRITERIA)
            lines.append(f"| {name} | {self.marks[name]:.2f} | {self.firsts[name]} | {means} |")
        lines += ["", "| preferred, overall | to | times | share | 95 % interval |", "|---|---|---|---|---|"]
        for (winner, loser), (times, of) in self.preferred.items():
            low, high = wilson_interval(times, of)
            lines.append(f"| {winner} | {loser} | {times} of {of} | {times / of:.2f} | {low:.2f} to {high:.2f} |")
        agreement = ", ".join(f"{criterion} {value:.2f}" for criterion, value in self.agreement.items())
        lines += [
            "",
            f"- agreement of two judges on the order of two pictures (chance 0.5): {agreement or 'one judge'}",
        ]
        return "\n".join(lines)


def summarize_verdicts(folder: Path, verdicts: Sequence[Path]) -> VerdictSummary:
    """Count what judges said of the sheets in a folder, each file being one judge's.

    Raises UsageError, naming the file and the sheet, where one cannot be read or is no verdict of these sheets.
    """
    path = key_file(folder)
    key: Key = read_json(path, "--sheets")
    judged = [read_verdict(file, key) for file in verdicts]
    ranks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    marks: dict[str, list[float]] = defaultdict(list)
    for verdict in judged:
        for sheet in verdict.values():
            for criterion in CRITERIA:
                for rank, name in enumerate(sheet[criterion], 1):
                    ranks[name][criterion].append(rank)
            for name, mark in sheet["scores"].items():
                marks[name].append(mark)
    names = sorted(ranks, key=lambda name: (statistics.fmean(ranks[name]["overall"]), name))
    orders = [sheet["overall"] for verdict in judged for sheet in verdict.values()]
    preferred = {}
    for pair in permutations(names, 2):
        before = [order.index(pair[0]) < order.index(pair[1]) for order in orders if set(pair) <= set(order)]
        if before:
            preferred[pair] = sum(before), len(before)
    return VerdictSummary(
        {name: {criterion: statistics.fmean(ranks[name][criterion]) for criterion in CRITERIA} for name in names},
        {name: statistics.fmean(marks[name]) for name in names},
        {name: ranks[name]["overall"].count(1) for name in names},
        preferred,
        agreement(judged),
    )


def read_verdict(path: Path, key: Key) -> dict[str, Any]:
    """A judge's file, with the names of methods in the place of letters."""
    verdict = {}
    for sheet, said in read_json(path, "--verdicts").items():
        where = f"--verdicts {path}, {sheet}"
        if sheet not in key:
            raise UsageError(f"{where}: there is no such sheet; give the --sheets folder that was judged")
        order = key[sheet]["order"]
        try:
            for criterion in CRITERIA:
                if sorted(said[criterion]) != sorted(order):
                    raise ValueError(f"{criterion} must rank each of {', '.join(order)} once")
            marks = {order[letter]: float(mark) for letter, mark in said["scores"].items()}
            if len(marks) != len(order) or not all(0 <= mark <= 10 for mark in marks.values()):
                raise ValueError(f"scores must have a number from 0 to 10 for each of {', '.join(order)}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"{where}: {f'lacks {error}' if isinstance(error, KeyError) else error}") from error
        verdict[sheet] = {c: [order[letter] for letter in said[c]] for c in CRITERIA} | {"scores": marks}
    if not verdict:
        raise UsageError(f"--verdicts {path}: judges no sheet")
    return verdict


def read_json(path: Path, option: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{option} {path}: not a JSON file of sheets ({error})") from error


def agreement(judged: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of pairs of pictures, by criterion, that two judges of the same sheet put in the same order."""
    same = defaultdict(list)
    for one, other in combinations(judged, 2):
        for sheet in one.keys() & other.keys():
            for criterion in CRITERIA:
                first, second = one[sheet][criterion], other[sheet][criterion]
                same[criterion] += [second.index(a) < second.index(b) for a, b in combinations(first, 2)]
    return {criterion: statistics.fmean(values) for criterion, values in same.items()}


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the probability of a success (Wilson 1927), for independent trials."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / trials + spread / trials / 4) / (1 + spread)
    return middle - reach, middle + reach
