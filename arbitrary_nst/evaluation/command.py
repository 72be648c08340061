"""The command that compares: pictures are made first, all of them, and scored afterwards.

So time and memory are those of making them. What is done is written down as it is done (`results.jsonl`): a run that
was interrupted goes on where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from arbitrary_nst import metrics
from arbitrary_nst.devices import chosen_device
from arbitrary_nst.evaluation.methods import parse_methods
from arbitrary_nst.evaluation.pairs import Journal, Pair, Studio, read_pairs, square
from arbitrary_nst.evaluation.report import report
from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.image import load_image
from arbitrary_nst.metrics import Traits, Unavailable
from arbitrary_nst.paths import Failures, find_images, unique_names, written_whole
from arbitrary_nst.stylizer import Precision

SMALLEST_SIDE = 32
"""Pixels: smaller ones have no LPIPS."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Make the same pairs with several methods, and compare pictures, time and memory."""

    output: Path
    """Folder for pictures/, table.md, table.csv, results.json, sheet.png, worst.png and plot.png; a run that was
    interrupted is gone on with, and methods can be added."""
    methods: tuple[str, ...]
    """Each [NAME=]SOURCE. SOURCE is a model that ships or a .safetensors file, or several of them, joined by commas,
    that know fixed styles; a folder of pictures named CONTENT_stylized_STYLE made elsewhere; or PRESET@N,N,...: an
    optimization after these numbers of iterations."""
    content: tuple[Path, ...] = ()
    """Photos: files, folders (searched recursively) or globs."""
    style: tuple[Path, ...] = ()
    """Paintings, likewise. Every photo is made in every style."""
    pairs: Path | None = None
    """Instead of both: a .csv or .tsv file of two columns, content and style, with paths relative to it."""
    size: int = 256
    """Side in pixels of the squares that all pictures are brought to: resized by the short side, cut in the centre."""
    limit: int | None = None
    """Only the first pairs, so many."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    """Of one-pass models, as in stylize; optimizations are in bfloat16 only where it says so, else in float32."""
    seed: int = 0
    """Of what optimizations begin as."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("--methods: name at least one")
        if self.pairs is None and not (self.content and self.style):
            raise ValueError("--content and --style: both are needed, or --pairs instead")
        if self.pairs is not None and (self.content or self.style):
            raise ValueError("--pairs names contents and styles: leave out --content and --style")
        if self.size < SMALLEST_SIDE:
            raise ValueError(f"--size {self.size}: must be at least {SMALLEST_SIDE} pixels")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit {self.limit}: must be at least 1 pair")


def evaluate(config: EvaluateConfig, features: VGGFeatures | None = None) -> int:
    """Make, score, report, and return the exit code: 0 if everything could be done, else 1.

    Args:
        features: what pictures are scored in, where it is not `metrics.feature_network`.

    Raises ImageError or WeightsNotFoundError where nothing can be done, ValueError where options are wrong.
    """
    methods, pairs = parse_methods(config.methods), find_pairs(config)
    device = chosen_device(config.device)
    studio = Studio(config.size, device, config.precision, config.seed)
    check_settings(config.output / "settings.json", settings_of(studio, pairs))
    features = (features or metrics.feature_network()).to(device)  # missing weights are told before any work
    journal, failures = Journal(config.output / "results.jsonl"), Failures()
    pictures: dict[str, dict[Pair, Path]] = {}
    for method in methods:
        pictures |= method.make(pairs, studio, config.output / "pictures", journal, failures)
    reasons = score(pictures, pairs, studio, features, journal, failures)
    report(config.output, methods, pairs, pictures, studio, journal, reasons, failures.count)
    return 1 if failures.count else 0


def find_pairs(config: EvaluateConfig) -> list[Pair]:
    """The pairs to make. Raises ImageError or ValueError where there are none, or a file of pairs is wrong."""
    if config.pairs is not None:
        listed = read_pairs(config.pairs)
    else:
        styles = find_images(config.style)
        listed = [(content, style) for content in find_images(config.content) for style in styles]
    listed = list(dict.fromkeys(listed))[: config.limit]
    contents = unique_names(list(dict.fromkeys(content for content, _ in listed)))
    styles = unique_names(list(dict.fromkeys(style for _, style in listed)))
    return [Pair(content, style, contents[content], styles[style]) for content, style in listed]


def settings_of(studio: Studio, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What all pictures and times of a folder have in common."""
    return {
        "size": studio.size,
        "seed": studio.seed,
        "precision": studio.precision,
        "optimization_precision": studio.optimization_precision,
        "device": studio.device.type,
        "pairs": [[str(path.resolve()) for path in (pair.content, pair.style)] for pair in pairs],
    }


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings down, or refuse with ValueError those that differ from the folder's earlier ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        earlier = settings
    except (OSError, ValueError) as error:
        raise ValueError(f"--output {path.parent}: its settings.json cannot be read ({error}); name another") from error
    for name, value in settings.items():
        if earlier.get(name) != value:
            words = "other pairs" if name == "pairs" else f"{name} {earlier.get(name)}, not {value}"
            raise ValueError(f"--output {path.parent}: holds an evaluation of {words}; name another folder")
    with written_whole(path) as partial:
        partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def score(
    pictures: Mapping[str, dict[Pair, Path]],
    pairs: Sequence[Pair],
    studio: Studio,
    features: VGGFeatures,
    journal: Journal,
    failures: Failures,
) -> dict[str, str]:
    """Score what has no scores yet; a picture that cannot be is taken out of `pictures`.

    Returns why columns are missing.
    """
    distance = metrics.perceptual_distance(studio.device)

    @lru_cache(maxsize=256)
    def look(path: Path) -> Traits:
        return metrics.traits(features, studio.load(path).to(studio.device))

    jobs = [(label, pair) for pair in pairs for label in pictures if pair in pictures[label]]
    for label, pair in tqdm(jobs, desc="scores", unit="picture", disable=None):
        path, row = pictures[label][pair], journal.get(label, pair) or {}
        try:
            modified = path.stat().st_mtime_ns
            if row.get("scored") == modified and ("lpips" in row or isinstance(distance, Unavailable)):
                continue
            image = load_image(path)
            output, content = square(image, studio.size).to(studio.device), look(pair.content)
            values = metrics.scores(metrics.traits(features, output), content, look(pair.style))
            if not isinstance(distance, Unavailable):
                values["lpips"] = distance(output, content.image)
            resized = image.shape[2:] != output.shape[2:]
            journal.add(label, pair, row | values | {"scored": modified, "resized": resized})
        except Exception as error:  # one bad picture never ends a run
            failures.add(path, error)
            del pictures[label][pair]
    return {"lpips": distance.reason} if isinstance(distance, Unavailable) else {}
