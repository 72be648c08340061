"""How a method makes its pictures: where they come from, and what each costs in time and memory.

Images are float RGB in [0, 1], (1, 3, S, S).
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from arbitrary_nst import gatys
from arbitrary_nst.devices import peak_memory, reset_peak_memory
from arbitrary_nst.evaluation.pairs import Image, Journal, Pair, Row, Studio
from arbitrary_nst.image import save_image
from arbitrary_nst.models.files import model_file
from arbitrary_nst.paths import Failures, find_images
from arbitrary_nst.recipes import PRESETS
from arbitrary_nst.stylizer import Stylizer

Painter = Callable[[Pair, Image, Image, Collection[str]], Iterator[tuple[str, Image]]]
"""Paints a pair, its photo and painting given, and yields what the labels name; nothing for a style it cannot."""


@dataclass(frozen=True)
class Painting:
    """A method that makes its pictures here."""

    name: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its rows in the table."""
        return (self.name,)

    def identity(self) -> str:
        """What its pictures depend on: others of the same name are made anew."""
        raise NotImplementedError

    def painter(self, studio: Studio) -> Painter:
        """Load what is needed, and call it once, so that no pair pays for it."""
        raise NotImplementedError

    def make(
        self, pairs: Sequence[Pair], studio: Studio, folder: Path, journal: Journal, failures: Failures
    ) -> dict[str, dict[Pair, Path]]:
        """Make what is not there yet; return all pictures that are there then, by label."""
        files = {label: {pair: folder / label / f"{pair.name}.png" for pair in pairs} for label in self.labels}
        done: dict[str, dict[Pair, Path]] = {label: {} for label in self.labels}
        try:
            identity = self.identity()
            for label, targets in files.items():
                rows = {pair: journal.get(label, pair) or {} for pair in pairs}
                done[label] = {p: t for p, t in targets.items() if rows[p].get("identity") == identity and t.is_file()}
            missing = {pair: [label for label in self.labels if pair not in done[label]] for pair in pairs}
            paint = self.painter(studio) if any(missing.values()) else None
        except Exception as error:  # one bad method never ends a run
            failures.add(Path(self.name), error)
            return done
        if paint is not None:
            for pair, labels in tqdm(missing.items(), desc=self.name, unit="pair", disable=None):
                try:
                    for label, image, cost in timed(paint, pair, labels, studio):
                        save_image(image, files[label][pair])
                        journal.add(label, pair, {"identity": identity} | cost)
                        done[label][pair] = files[label][pair]
                except Exception as error:  # one bad picture neither
                    failures.add(Path(self.name) / pair.name, error)
        return done


def timed(paint: Painter, pair: Pair, labels: Collection[str], studio: Studio) -> Iterator[tuple[str, Image, Row]]:
    """What a painter yields, with the seconds and the peak memory until then; loading and saving are not counted."""
    if not labels:
        return
    content, style = studio.load(pair.content), studio.load(pair.style)
    measured = reset_peak_memory(studio.device)
    seconds, start = 0.0, time.perf_counter()
    for label, image in paint(pair, content, style, labels):
        seconds += time.perf_counter() - start
        yield label, image, {"seconds": seconds, "memory_mb": peak_memory(studio.device) if measured else None}
        start = time.perf_counter()


@dataclass(frozen=True)
class OnePass(Painting):
    """One style model, or several, of which each pair goes to the one that knows its style."""

    sources: tuple[str, ...]

    def identity(self) -> str:
        return _digest(*(model_file(source).read_bytes() for source in self.sources))

    def painter(self, studio: Studio) -> Painter:
        stylizers = [Stylizer.from_pretrained(source, studio.device, studio.precision) for source in self.sources]

        def paint(pair: Pair, content: Image, style: Image, labels: Collection[str]) -> Iterator[tuple[str, Image]]:
            for stylizer in stylizers:
                if not stylizer.style_names:
                    yield self.name, stylizer(content, stylizer.encode_style(style))
                    return
                if pair.style_name in stylizer.style_names:
                    yield self.name, stylizer(content, stylizer.style_code(pair.style_name))
                    return

        blank = torch.full((1, 3, studio.size, studio.size), 0.5)
        for stylizer in stylizers:
            own = stylizer.style_names
            stylizer(blank, stylizer.style_code(own[0]) if own else stylizer.encode_style(blank))
        return paint


@dataclass(frozen=True)
class Optimized(Painting):
    """A preset of the optimization, looked at after several numbers of iterations of one run."""

    preset: str
    counts: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.name}@{count}" for count in self.counts)

    @property
    def recipe(self) -> gatys.Recipe:
        return replace(PRESETS[self.preset], steps=(max(self.counts),), scales=(1.0,))

    def identity(self) -> str:
        return _digest(repr(replace(self.recipe, steps=(1,))).encode())

    def painter(self, studio: Studio) -> Painter:
        network = gatys.feature_network(self.recipe)

        def optimize(content: Image, style: Image, steps: int) -> Iterator[gatys.Iterate]:
            recipe = replace(self.recipe, steps=(steps,))
            return gatys.optimize(
                content,
                [style],
                recipe,
                device=studio.device,
                precision=studio.optimization_precision,
                seed=studio.seed,
                features=network,
            )

        def paint(pair: Pair, content: Image, style: Image, labels: Collection[str]) -> Iterator[tuple[str, Image]]:
            wanted = {count: f"{self.name}@{count}" for count in self.counts if f"{self.name}@{count}" in labels}
            for iterate in optimize(content, style, max(wanted)):
                if iterate.step in wanted:
                    yield wanted[iterate.step], iterate.image

        noise = torch.rand(1, 3, studio.size, studio.size, generator=torch.Generator().manual_seed(0))
        for _ in optimize(noise, noise.flip(3), 1):
            pass
        return paint


@dataclass(frozen=True)
class Folder:
    """Pictures made elsewhere."""

    name: str
    path: Path

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.name,)

    def make(
        self, pairs: Sequence[Pair], studio: Studio, folder: Path, journal: Journal, failures: Failures
    ) -> dict[str, dict[Pair, Path]]:
        """Find the pictures; a pair without one is a failure."""
        try:
            found = {path.stem: path for path in find_images([self.path])}
        except Exception as error:
            failures.add(self.path, error)
            found = {}
        for pair in pairs if found else ():
            if pair.name not in found:
                failures.add(self.path, FileNotFoundError(f"there is no picture {self.path / pair.name}.*"))
        return {self.name: {pair: found[pair.name] for pair in pairs if pair.name in found}}


Method = OnePass | Optimized | Folder


def parse_methods(texts: Iterable[str]) -> list[Method]:
    """Methods of the form [NAME=]SOURCE. Raises ValueError for an unknown preset or a name that is taken."""
    methods, taken = [], set()
    for text in texts:
        method = _parse_method(text)
        for label in method.labels:
            if not label.strip(". ") or set(label) & set('/\\:*?"<>|') or label.lower() in taken:
                raise ValueError(f"--methods {text}: '{label}' is taken, or cannot name a folder; write NAME={text}")
            taken.add(label.lower())
        methods.append(method)
    return methods


def _parse_method(text: str) -> Method:
    name, equals, source = text.partition("=")
    if not equals or set(name) & set("/\\"):
        name, source = "", text
    if not source:
        raise ValueError(f"--methods {text}: names no model, folder or preset")
    if Path(source).is_dir():
        return Folder(name or Path(source).resolve().name, Path(source))
    preset, at, counts = source.partition("@")
    if not at or Path(source).exists() or preset.endswith(".safetensors") or set(preset) & set("/\\"):
        sources = (source,) if Path(source).exists() else tuple(filter(None, source.split(",")))
        return OnePass(name or "+".join(Path(part).stem for part in sources), sources)
    if preset not in PRESETS:
        raise ValueError(f"--methods {text}: there is no preset '{preset}'; choose among {', '.join(PRESETS)}")
    if not re.fullmatch("0*[1-9][0-9]*(,0*[1-9][0-9]*)*", counts):
        raise ValueError(f"--methods {text}: iterations must be positive numbers, as in {preset}@50,100")
    return Optimized(name or preset, preset, tuple(sorted({int(count) for count in counts.split(",")})))


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]
