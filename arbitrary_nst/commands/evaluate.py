"""The command that compares: pictures are made first, all of them, and scored afterwards.

So time and memory are those of making them. What is done is written down as it is done (`results.jsonl`): a run that
was interrupted goes on where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from arbitrary_nst.errors import UsageError
from arbitrary_nst.evaluation import local_metrics, metrics
from arbitrary_nst.evaluation.local_metrics import View
from arbitrary_nst.evaluation.methods import Method, parse_methods
from arbitrary_nst.evaluation.metrics import ImageStatistics, Unavailable
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Image, Pair, ResultLog, Row, read_pairs
from arbitrary_nst.evaluation.report import report, report_verdicts
from arbitrary_nst.evaluation.sheets import key_file, summarize_verdicts, write_sheets
from arbitrary_nst.image import load_image, resize
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.runtime.devices import chosen_device
from arbitrary_nst.runtime.files import (
    Failures,
    Results,
    atomic_write,
    check_output_folder,
    check_writable,
    find_places,
    refuse_overwriting,
    result_names,
    unique_names,
)
from arbitrary_nst.stylization.options import Precision
from arbitrary_nst.stylization.style_files import style_names

PICTURES, SETTINGS, RESULT_LOG = "pictures", "settings.json", "results.jsonl"
"""Names in the output folder: of the pictures' folder, of what they have in common, of what is done."""

RESULTS = (SETTINGS, RESULT_LOG, "table.md", "table.csv", "results.json", "sheet.png", "worst.png", "plot.png")
VERDICTS = ("verdicts.md", "verdicts.json")
"""Names of the files that are written there."""

SMALLEST_SIDE = 32
"""Pixels: smaller ones have no LPIPS."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Make the same pairs with several methods, and compare pictures, time and memory."""

    output: Path
    """Folder for pictures/, table.md, table.csv, results.json, sheet.png, worst.png and plot.png; a run that was
    interrupted is gone on with, and methods can be added. With --verdicts: for verdicts.md and verdicts.json."""
    methods: tuple[str, ...] = ()
    """Each [NAME=]SOURCE. SOURCE is a model that ships, a .safetensors file, the folder of a training run or OWNER/NAME
    on the Hugging Face hub, or several of them, joined by commas, that know fixed styles; a folder of pictures named
    CONTENT_stylized_STYLE made elsewhere; or PRESET@N,N,...: an
    optimization after these numbers of iterations."""
    content: tuple[Path, ...] = ()
    """Photos: files, folders (searched recursively) or globs."""
    style: tuple[Path, ...] = ()
    """Paintings, likewise. Every photo is made in every style."""
    pairs: Path | None = None
    """Instead of both: a .csv or .tsv file of two columns, content and style, with paths relative to it."""
    size: int | None = 256
    """Side in pixels of the squares that all pictures are brought to: resized by the short side, cut in the centre.
    None: they stay whole, every result being as large as its photo."""
    octaves: tuple[int, ...] = (256, 512)
    """Short sides in pixels to which pictures are shrunk for the columns style, structure, busy, judge_style and
    judge_structure, the means over them; smaller pictures are not enlarged. None given: without these columns."""
    limit: int | None = None
    """Only the first pairs, so many."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    """Of one-pass models, as in stylize; optimizations are in bfloat16 only where it says so, else in float32."""
    seed: int = 0
    """Of what optimizations begin as, and of the order of letters on --sheets."""
    sheets: Path | None = None
    """Folder for a blind comparison: a sheet for each pair, with the pictures under letters in random order, and
    judge.html, by which a person judges them in a browser. SHEETS_key.json, beside it, says whose letter is whose."""
    verdicts: tuple[Path, ...] = ()
    """What judges said of --sheets, a JSON file each: it is counted, and nothing else is done."""

    def __post_init__(self) -> None:
        if self.verdicts:
            if self.sheets is None:
                raise UsageError("--verdicts: name the folder that was judged with --sheets")
            return
        if not self.methods:
            raise UsageError("--methods: name at least one")
        if self.pairs is None and not (self.content and self.style):
            raise UsageError("--content and --style: both are needed, or --pairs instead")
        if self.pairs is not None and (self.content or self.style):
            raise UsageError("--pairs names contents and styles: leave out --content and --style")
        if self.size is not None and self.size < SMALLEST_SIDE:
            raise UsageError(f"--size {self.size}: must be at least {SMALLEST_SIDE} pixels")
        if any(octave < SMALLEST_SIDE for octave in self.octaves):
            raise UsageError(f"--octaves {min(self.octaves)}: must be at least {SMALLEST_SIDE} pixels")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}: must be at least 1 pair")

    @property
    def results(self) -> Results:
        """What is written, which is neither content, style nor a peer's picture of the next run."""
        written = dict.fromkeys([self.output, *(self.output / name for name in (PICTURES, *RESULTS))], "")
        return written if self.sheets is None else written | {self.sheets: "sheet_*.png"}


def evaluate(config: EvaluateConfig, features: VGGFeatures | None = None) -> int:
    """Make, score, report, or count verdicts; return the exit code: 0 if everything could be done, else 1.

    Args:
        features: what pictures are scored in, where it is not `evaluation.metrics.feature_network`.

    Raises ImageError or WeightsNotFoundError where nothing can be done, ValueError where options are wrong.
    """
    check_output_folder(config.output)
    if config.sheets is not None and config.verdicts:
        refuse_overwriting(config.verdicts, [config.output / name for name in VERDICTS])
        report_verdicts(config.output, summarize_verdicts(config.sheets, config.verdicts))
        return 0
    if config.sheets is not None:
        check_output_folder(config.sheets, "sheets")
        check_writable(key_file(config.sheets))
    methods, pairs = parse_methods(config.methods, config.results), find_pairs(config)
    refuse_overwriting(read_files(config, methods, pairs), written_files(config, methods, pairs))
    device = chosen_device(config.device)
    settings = EvaluationSettings(config.size, device, config.precision, config.seed)
    check_settings(config.output / SETTINGS, settings_of(settings, pairs))
    features = (features or metrics.feature_network()).to(device)  # missing weights are told before any work
    log, failures = ResultLog(config.output / RESULT_LOG), Failures()
    pictures: dict[str, dict[Pair, Path]] = {}
    for method in methods:
        pictures |= method.make(pairs, settings, config.output / PICTURES, log, failures)
    reasons = score(pictures, pairs, settings, features, log, failures, config.octaves)
    report(config.output, methods, pairs, pictures, settings, log, reasons, failures.count)
    if config.sheets is not None:
        write_sheets(config.sheets, pairs, pictures, settings, config.seed)
    return 1 if failures.count else 0


def find_pairs(config: EvaluateConfig) -> list[Pair]:
    """The pairs to make. Raises ImageError or ValueError where there are none, or a file of pairs is wrong."""
    if config.pairs is not None:
        listed = list(dict.fromkeys(read_pairs(config.pairs)))
        photos, paintings = ({path: Path(path.name) for path in column} for column in zip(*listed, strict=True))
    else:
        photos, paintings = (find_places(paths, results=config.results) for paths in (config.content, config.style))
        listed = list(product(photos, paintings))
    results = result_names(photos), style_names(paintings)
    listed = listed[: config.limit]
    contents = unique_names(list(dict.fromkeys(content for content, _ in listed)))
    styles = unique_names(list(dict.fromkeys(style for _, style in listed)))
    return [
        Pair(content, style, contents[content], styles[style], (results[0][content], results[1][style]))
        for content, style in listed
    ]


def read_files(config: EvaluateConfig, methods: Sequence[Method], pairs: Sequence[Pair]) -> list[Path]:
    """Photos, paintings, the file of their pairs, and pictures made elsewhere."""
    files = [path for pair in pairs for path in (pair.content, pair.style)]
    return [*files, *filter(None, [config.pairs]), *(file for method in methods for file in method.read())]


def written_files(config: EvaluateConfig, methods: Sequence[Method], pairs: Sequence[Pair]) -> list[Path]:
    """All results."""
    files = [config.output / name for name in RESULTS]
    for method in methods:
        files += [file for made in method.files(pairs, config.output / PICTURES).values() for file in made.values()]
    if config.sheets is not None:
        sheets = (config.sheets / f"sheet_{number:02}.png" for number in range(len(pairs)))
        files += [key_file(config.sheets), *sheets]
    return files


def settings_of(settings: EvaluationSettings, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Settings that all pictures and times of a folder have in common."""
    return {
        "size": settings.size,
        "seed": settings.seed,
        "precision": settings.precision,
        "optimization_precision": settings.optimization_precision,
        "device": settings.device.type,
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
        raise UsageError(f"--output {path.parent}: its settings.json cannot be read ({error}); name another") from error
    for name, value in settings.items():
        if earlier.get(name) != value:
            words = "other pairs" if name == "pairs" else f"{name} {earlier.get(name)}, not {value}"
            raise UsageError(f"--output {path.parent}: holds an evaluation of {words}; name another folder")
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def score(
    pictures: Mapping[str, dict[Pair, Path]],
    pairs: Sequence[Pair],
    settings: EvaluationSettings,
    features: VGGFeatures,
    log: ResultLog,
    failures: Failures,
    octaves: Sequence[int] = (),
) -> dict[str, str]:
    """Score what has no scores yet; a picture that cannot be is taken out of `pictures`.

    Returns why columns are missing.
    """
    distance = metrics.perceptual_distance(settings.device)
    octaves = sorted({octave for octave in octaves if settings.size is None or octave <= settings.size})
    judge = local_metrics.Judge().to(settings.device) if octaves else None

    def views(image: Image) -> dict[int, View]:
        return {} if judge is None else local_metrics.views(features, judge, image, octaves)

    @lru_cache(maxsize=256 if settings.size else 4)
    def look(path: Path) -> ImageStatistics:
        return metrics.image_statistics(features, settings.load(path).to(settings.device))

    @lru_cache(maxsize=4)  # hundreds of megabytes each, and methods of a pair follow one another
    def view(path: Path) -> dict[int, View]:
        return views(look(path).image)

    jobs = [(label, pair) for pair in pairs for label in pictures if pair in pictures[label]]
    for label, pair in tqdm(jobs, desc="scores", unit="picture", disable=None):
        path, row = pictures[label][pair], log.get(label, pair) or {}
        try:
            marks = {"scored": path.stat().st_mtime_ns, "octaves": octaves}
            if marks.items() <= row.items() and ("lpips" in row or isinstance(distance, Unavailable)):
                continue
            image, content = load_image(path), look(pair.content)
            output = settings.fit(image)
            if output.shape != content.image.shape:
                output = resize(output, (content.image.shape[2], content.image.shape[3]))
            output = output.to(settings.device)
            values: Row = {**metrics.scores(metrics.image_statistics(features, output), content, look(pair.style))}
            values["local"] = local_metrics.local_scores(views(output), view(pair.content), view(pair.style))
            if not isinstance(distance, Unavailable):
                values["lpips"] = distance(output, content.image)
            resized = image.shape[2:] != output.shape[2:]
            log.add(label, pair, row | values | marks | {"resized": resized})
        except Exception as error:  # one bad picture never ends a run
            failures.add(path, error)
            del pictures[label][pair]
    reasons = {"lpips": distance.reason} if isinstance(distance, Unavailable) else {}
    rows = [log.get(label, pair) or {} for label, found in pictures.items() for pair in found]
    if rows and not any(row.get("local") for row in rows):
        reasons["style"] = "no octave is as small as the pictures are; --octaves chooses others"
    return reasons
