"""Methods of a comparison: the sources of their pictures, and the time and memory that each picture takes.

Images are float RGB in [0, 1], (1, 3, S, S) or whole.
"""

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm

from arbitrary_nst.errors import UsageError
from arbitrary_nst.evaluation.pairs import EvaluationSettings, Image, Pair, ResultLog, Row
from arbitrary_nst.image import save_image
from arbitrary_nst.models.serialization import RUN_MODEL, model_file
from arbitrary_nst.optimization import loop
from arbitrary_nst.optimization.presets import PRESETS
from arbitrary_nst.runtime.devices import peak_memory, reset_peak_memory
from arbitrary_nst.runtime.files import Failures, ImageError, Results, find_places, fitting_name
from arbitrary_nst.stylization.stylizer import Stylizer

StylizePair = Callable[[Pair, Image, Image, Collection[str]], Iterator[tuple[str, Image]]]
"""Paints a pair, its photo and painting given, and yields what the labels name; nothing for a style it cannot."""


@dataclass(frozen=True)
class ComputedMethod:
    """A method that makes its pictures here."""

    name: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its rows in the table."""
        return (self.name,)

    def identity(self) -> str:
        """Everything that its pictures depend on: pictures of another identity are made again."""
        raise NotImplementedError

    def prepare(self, settings: EvaluationSettings) -> StylizePair:
        """Load what is needed, and call it once, so that no pair pays for it."""
        raise NotImplementedError

    def read(self) -> list[Path]:
        """The files that are read, beside the pairs."""
        return []

    def files(self, pairs: Sequence[Pair], folder: Path) -> dict[str, dict[Pair, Path]]:
        """Where its pictures go, by label."""
        names = {pair: fitting_name(pair.name, ".png") for pair in pairs}
        return {label: {pair: folder / label / name for pair, name in names.items()} for label in self.labels}

    def make(
        self, pairs: Sequence[Pair], settings: EvaluationSettings, folder: Path, log: ResultLog, failures: Failures
    ) -> dict[str, dict[Pair, Path]]:
        """Make what is not there yet; return all pictures that are there then, by label."""
        files = self.files(pairs, folder)
        done: dict[str, dict[Pair, Path]] = {label: {} for label in self.labels}
        try:
            identity = self.identity()
            for label, targets in files.items():
                rows = {pair: log.get(label, pair) or {} for pair in pairs}
                done[label] = {p: t for p, t in targets.items() if rows[p].get("identity") == identity and t.is_file()}
            missing = {pair: [label for label in self.labels if pair not in done[label]] for pair in pairs}
            paint = self.prepare(settings) if any(missing.values()) else None
        except Exception as error:  # one bad method never ends a run
            failures.add(Path(self.name), error)
            return done
        if paint is not None:
            for pair, labels in tqdm(missing.items(), desc=self.name, unit="pair", disable=None):
                try:
                    for label, image, cost in timed(paint, pair, labels, settings):
                        save_image(image, files[label][pair])
                        log.add(label, pair, {"identity": identity} | cost)
                        done[label][pair] = files[label][pair]
                except Exception as error:  # one bad picture neither
                    failures.add(Path(self.name) / pair.name, error)
        return done


def timed(
    paint: StylizePair, pair: Pair, labels: Collection[str], settings: EvaluationSettings
) -> Iterator[tuple[str, Image, Row]]:
    """Yield a method's pictures with the seconds and the peak memory until then, without loading and saving."""
    if not labels:
        return
    content, style = settings.load(pair.content), settings.load(pair.style)
    measured = reset_peak_memory(settings.device)
    seconds, start = 0.0, time.perf_counter()
    for label, image in paint(pair, content, style, labels):
        seconds += time.perf_counter() - start
        yield label, image, {"seconds": seconds, "memory_mb": peak_memory(settings.device) if measured else None}
        start = time.perf_counter()


@dataclass(frozen=True)
class ModelMethod(ComputedMethod):
    """One style model, or several, of which each pair goes to the one that knows its style."""

    sources: tuple[str, ...]

    def identity(self) -> str:
        return _digest(*(model_file(source).read_bytes() for source in self.sources))

    def prepare(self, settings: EvaluationSettings) -> StylizePair:
        stylizers = [Stylizer.from_pretrained(source, settings.device, settings.precision) for source in self.sources]

        def paint(pair: Pair, content: Image, style: Image, labels: Collection[str]) -> Iterator[tuple[str, Image]]:
            for stylizer in stylizers:
                if not stylizer.style_names:
                    yield self.name, stylizer(content, stylizer.encode_style(style))
                    return
                if pair.style_name in stylizer.style_names:
                    yield self.name, stylizer(content, stylizer.style_code(pair.style_name))
                    return

        blank = torch.full((1, 3, settings.side, settings.side), 0.5)
        for stylizer in stylizers:
            own = stylizer.style_names
            stylizer(blank, stylizer.style_code(own[0]) if own else stylizer.encode_style(blank))
        return paint


@dataclass(frozen=True)
class OptimizationMethod(ComputedMethod):
    """A preset of the optimization, looked at after several numbers of iterations of one run.

    One that goes from coarse to fine takes one number, of iterations a scale, and is looked at when it is done.
    """

    preset: str
    counts: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.name}@{count}" for count in self.counts)

    @property
    def config(self) -> loop.OptimizationConfig:
        return replace(PRESETS[self.preset], steps=(max(self.counts),), scales=(1.0,))

    def identity(self) -> str:
        return _digest(repr(replace(self.config, steps=(1,))).encode())

    def prepare(self, settings: EvaluationSettings) -> StylizePair:
        network = loop.feature_network(self.config)

        def optimize(content: Image, style: Image, steps: int) -> Iterator[loop.Iterate]:
            config = replace(self.config, steps=(steps,))
            return loop.optimize(
                content,
                [style],
                config,
                device=settings.device,
                precision=settings.optimization_precision,
                seed=settings.seed,
                features=network,
            )

        def paint(pair: Pair, content: Image, style: Image, labels: Collection[str]) -> Iterator[tuple[str, Image]]:
            wanted = {count: f"{self.name}@{count}" for count in self.counts if f"{self.name}@{count}" in labels}
            for iterate in optimize(content, style, max(wanted)):
                if self.config.coarsest and iterate.step == iterate.steps:
                    yield wanted[max(wanted)], iterate.image
                elif iterate.step in wanted and not self.config.coarsest:
                    yield wanted[iterate.step], iterate.image

        noise = torch.rand(1, 3, settings.side, settings.side, generator=torch.Generator().manual_seed(0))
        for _ in optimize(noise, noise.flip(3), 1):
            pass
        return paint


@dataclass(frozen=True)
class FolderMethod:
    """Pictures made elsewhere."""

    name: str
    path: Path
    results: Results = field(default_factory=dict, hash=False)
    """What the comparison itself writes."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.name,)

    @cached_property
    def found(self) -> dict[Path, Path]:
        """The pictures, and their places below the folder. Raises ImageError where there are none."""
        return find_places([self.path], results=self.results)

    def read(self) -> list[Path]:
        """The files that are read, as far as there are any."""
        with suppress(ImageError):
            return [*self.found]
        return []

    def files(self, pairs: Sequence[Pair], folder: Path) -> dict[str, dict[Pair, Path]]:
        """Where its pictures go: nowhere, they are there."""
        return {}

    def make(
        self, pairs: Sequence[Pair], settings: EvaluationSettings, folder: Path, log: ResultLog, failures: Failures
    ) -> dict[str, dict[Pair, Path]]:
        """Find the pictures; a pair without one is a failure."""
        try:
            found = self.found
        except Exception as error:
            failures.add(self.path, error)
            return {self.name: {}}
        placed, stems, pictures = {place: path for path, place in found.items()}, defaultdict(list), {}
        for path in found:
            stems[path.stem].append(path)
        for pair in pairs:
            names = (pair.name, *(file.stem for file in pair.results))
            exact = [placed[file] for file in pair.results if file in placed]
            alike = [stems[name][0] for name in names if len(stems[name]) == 1]
            picture = next(iter([*exact, *alike]), None)
            if picture is None:
                failures.add(self.path, FileNotFoundError(f"there is no picture {self.path / pair.name}.*"))
            else:
                pictures[pair] = picture
        return {self.name: pictures}


Method = ModelMethod | OptimizationMethod | FolderMethod


def parse_methods(texts: Iterable[str], results: Results | None = None) -> list[Method]:
    """Methods of the form [NAME=]SOURCE. Raises ValueError for an unknown preset or a name that is taken.

    Args:
        results: what the comparison writes; it is not taken for pictures that were made elsewhere.
    """
    methods, taken = [], set()
    for text in texts:
        method = _parse_method(text, results or {})
        for label in method.labels:
            if not label.strip(". ") or set(label) & set('/\\:*?"<>|') or label.lower() in taken:
                raise UsageError(f"--methods {text}: '{label}' is taken, or cannot name a folder; write NAME={text}")
            taken.add(label.lower())
        methods.append(method)
    return methods


def _parse_method(text: str, results: Results) -> Method:
    name, equals, source = text.partition("=")
    if not equals or set(name) & set("/\\"):
        name, source = "", text
    if not source:
        raise UsageError(f"--methods {text}: names no model, folder or preset")
    if Path(source).is_dir() and not (Path(source) / RUN_MODEL).is_file():
        return FolderMethod(name or Path(source).resolve().name, Path(source), results)
    preset, at, counts = source.partition("@")
    if not at or Path(source).exists() or preset.endswith(".safetensors") or set(preset) & set("/\\"):
        sources = (source,) if Path(source).exists() else tuple(filter(None, source.split(",")))
        return ModelMethod(name or "+".join(Path(part).stem for part in sources), sources)
    if preset not in PRESETS:
        raise UsageError(f"--methods {text}: there is no preset '{preset}'; choose among {', '.join(PRESETS)}")
    if not re.fullmatch("0*[1-9][0-9]*(,0*[1-9][0-9]*)*", counts):
        raise UsageError(f"--methods {text}: iterations must be positive numbers, as in {preset}@50,100")
    if "," in counts and PRESETS[preset].coarsest:
        raise UsageError(f"--methods {text}: goes from coarse to fine; name one number of iterations a scale at a time")
    return OptimizationMethod(name or preset, preset, tuple(sorted({int(count) for count in counts.split(",")})))


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]
