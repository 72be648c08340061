"""Stylizing files: every content with every style, each painting encoded once.

While one photo is painted the next is decoded and the results before are written, in threads of their own.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from arbitrary_nst.color import PreserveColor
from arbitrary_nst.devices import keep_freed_memory
from arbitrary_nst.image import (
    DEFAULT_MAX_PIXELS,
    fitted_size,
    load_exif,
    load_image,
    load_pixel_picture,
    resize,
    resize_pixels,
    save_pixels,
)
from arbitrary_nst.masks import load_mask, weighted_masks
from arbitrary_nst.models.files import model_file, model_options
from arbitrary_nst.paths import SUFFIXES, Failures, ImageError, find_images, shown, unique_names
from arbitrary_nst.processes import Terminated, own_device, own_share, terminable, wait_for_other_processes
from arbitrary_nst.styles import find_styles, is_saved, load_style
from arbitrary_nst.stylizer import NO_STRENGTH, SMALLEST_TILE, STYLE_SIZE, Precision, Stylizer, blend_codes

OVERLAP_PIXELS = 2**25
"""Photos up to so many pixels are decoded and written while others are painted; a larger one has the memory alone."""

WRITERS = 2
"""Threads that write results, and how many of these wait at most."""


@dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Put photos into the style of paintings."""

    content: tuple[Path, ...]
    """Photos: files, folders (searched recursively) or globs."""
    style: tuple[Path, ...] = ()
    """Paintings, likewise, style files (.style) among them, or gallery:NAME; for a model that knows only its own styles
    their names, or nothing for all of them. Every photo is made in every style, unless --style-weights or --mask make
    one of them."""
    output: Path
    """A folder, for pictures named CONTENT_stylized_STYLE.FORMAT; or one file, for one photo in one style."""
    alpha: float = 1.0
    """Strength of the style, 0 to 1."""
    style_weights: tuple[float, ...] = ()
    """Blend the styles into one with these weights, one for each."""
    mask: tuple[Path, ...] = ()
    """Where the styles go, one gray picture of any size for each: white is all of the style, black none. All styles
    make one picture then, blended by --style-weights where masks overlap; what none covers keeps the photo's own
    look."""
    preserve_color: PreserveColor = "none"
    """Keep the photo's colours: by its chrominance (luminance), or by recolouring the paintings (covariance)."""
    content_size: int | None = None
    """Short side of the result in pixels; otherwise it is exactly as large as the photo."""
    style_size: int = STYLE_SIZE
    """Paintings are looked at with this short side at most, in pixels: a smaller one gives finer strokes."""
    style_scale: float = 1.0
    """Size of the strokes, 0.25 to 4, whatever the size of the photo: paintings are looked at so many times as large as
    --style-size says, enlarged if need be. (A style file holds what was seen when it was saved.)"""
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    """Of pictures in a folder; one file has the format of its suffix."""
    quality: int = 95
    """Of jpg and webp, 1 to 100."""
    strip: bool = False
    """Write no metadata. Otherwise the photo's EXIF is kept, but for its orientation, its thumbnail and the maker's
    notes, and an sRGB profile is written."""
    skip_existing: bool = False
    """Leave results alone whose file exists, and make only the others."""
    tile: Literal["auto", "off"] | int = "auto"
    """Paint large pictures in tiles of this side, in pixels; auto: where memory asks for it."""
    model: str = "light"
    """A model that ships with the package, a .safetensors file written by train.py, or a folder written by export."""
    backend: Literal["auto", "torch", "onnx"] = "auto"
    """What runs the model; auto: onnxruntime for a folder written by export, else torch."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    """auto: bfloat16 where the device multiplies it natively, else float32."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_MAX_PIXELS
    """Refuse files with more pixels than this (they may be decompression bombs); 0 lifts the limit."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"--alpha {self.alpha}: must be between 0 (the photo's own look) and 1 (the style)")
        for name in ("content_size", "style_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1 pixel")
        if not 0.25 <= self.style_scale <= 4:
            raise ValueError(f"--style-scale {self.style_scale}: must be between 0.25 (finer strokes) and 4 (larger)")
        if isinstance(self.tile, int) and self.tile < SMALLEST_TILE:
            raise ValueError(f"--tile {self.tile}: must be auto, off, or at least {SMALLEST_TILE} pixels")
        if self.backend != "auto" and (self.backend == "onnx") != Path(self.model).is_dir():
            wanted = "a folder written by `python -m arbitrary_nst export`" if self.backend == "onnx" else "no folder"
            raise ValueError(f"--backend {self.backend}: --model must be {wanted}, not {self.model}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"--quality {self.quality}: must be from 1 to 100")
        if self.max_pixels < 0:
            raise ValueError(f"--max-pixels {self.max_pixels}: must be positive, or 0 for no limit")

    def paint_options(self) -> dict[str, Any]:
        """What `Stylizer` is told of how to paint, beside the style."""
        return {
            "alpha": self.alpha,
            "preserve_color": "luminance" if self.preserve_color == "luminance" else "none",  # covariance: see code_for
            "tile": None if self.tile == "off" else self.tile,
        }


@dataclass(frozen=True)
class Style:
    """A style's name and its code; for colours like the photo's the painting, which every photo needs encoded anew."""

    name: str
    code: Float[Tensor, "1 D"] | None = None
    painting: Float[Tensor, "1 3 H W"] | None = None


@dataclass(frozen=True)
class Look:
    """What results of one name are painted with: a style, or several that weights blend or masks divide."""

    name: str
    styles: Sequence[Style]
    masks: Float[Tensor, "N 1 h w"] | None = None


@dataclass(frozen=True)
class Job:
    """A photo and, by the name of the look, the files that it is to be painted into."""

    photo: Path
    targets: Mapping[str, Path]


@dataclass(frozen=True)
class Photo:
    """A decoded photo, and the EXIF for its results; None writes no metadata."""

    path: Path
    pixels: UInt8[Tensor, "3 H W"]
    alpha: UInt8[Tensor, "1 H W"] | None
    exif: bytes | None


@dataclass
class Tally:
    """What became of the results asked for."""

    written: int = 0
    skipped: int = 0
    failures: Failures = field(default_factory=Failures)

    def __str__(self) -> str:
        skipped, failed = f", {self.skipped} skipped" * (self.skipped > 0), self.failures.count
        return f"{self.written} pictures written{skipped}" + f", {failed} failures" * (failed > 0)


def stylize_files(config: StylizeConfig) -> int:
    """Stylize, and return the exit code: 0 everything done, 1 not everything, 130 or 143 after SIGINT or SIGTERM.

    Raises ImageError where a path leads nowhere, StyleFileError where the gallery has no such style, ValueError where
    options contradict each other.
    """
    contents, chosen = find_images(config.content), choose_styles(config)
    masks = find_images(config.mask) if config.mask else []
    if masks and len(masks) != len(chosen):
        raise ValueError(f"--mask: {len(chosen)} styles need as many masks, not {len(masks)}")
    if config.style_weights:  # refuse bad ones before work
        try:
            blend_codes([torch.zeros(1, 1)] * len(chosen), config.style_weights)
        except ValueError as error:
            raise ValueError(f"--style-weights: {error}") from error
    looks = {"+".join(chosen): list(chosen)} if config.style_weights or masks else {name: [name] for name in chosen}
    single = config.output.suffix.lower() in SUFFIXES and not os.path.isdir(config.output)
    if single and len(contents) * len(looks) != 1:
        results = len(contents) * len(looks)
        raise ValueError(f"--output {config.output}: is one file, but there are {results} results; name a folder")

    jobs, tally = [], Tally()
    for photo, stem in own_share(unique_names(contents)):
        files = {look: config.output / f"{stem}_stylized_{look}.{config.format}" for look in looks}
        targets = dict.fromkeys(looks, config.output) if single else files
        missing = {look: file for look, file in targets.items() if not (config.skip_existing and os.path.exists(file))}
        tally.skipped += len(targets) - len(missing)
        jobs += [Job(photo, missing)] if missing else []
    keep_freed_memory()
    try:
        with terminable():
            if jobs:
                _stylize(jobs, looks, chosen, masks, config, tally)
    except KeyboardInterrupt as stop:
        asked = sum(len(job.targets) for job in jobs)
        print(f"interrupted: {tally}, of {asked}", file=sys.stderr)
        tally.failures.repeat()
        return 143 if isinstance(stop, Terminated) else 130
    print(f"{shown(config.output)}: {tally}")
    tally.failures.repeat()
    wait_for_other_processes()
    return 1 if tally.failures.count else 0


def choose_styles(config: StylizeConfig) -> dict[str, Path | None]:
    """The names of the styles to apply, each with its painting or style file, or None for one of the model's own.

    Raises ImageError or StyleFileError where there is no such thing, ValueError where there is none or a name is not
    known.
    """
    known = model_options(model_file(config.model)).get("styles")
    if known is None:
        if not config.style:
            raise ValueError("--style: name at least one painting")
        found = find_styles(config.style)
        saved = [path for path in found.values() if is_saved(path)]
        if saved and config.preserve_color == "covariance":
            raise ValueError(f"--preserve-color covariance: recolours paintings, and {saved[0]} is only a code")
        if len(saved) == len(found) and config.style_scale != 1:
            raise ValueError(f"--style-scale {config.style_scale}: needs paintings, and {saved[0]} is only a code")
        return dict(found)
    if config.alpha < 1:
        raise ValueError(f"--alpha {config.alpha}: {NO_STRENGTH}")
    if config.preserve_color == "covariance":
        raise ValueError("--preserve-color covariance: recolours paintings, and this model knows only its own styles")
    names = [str(name) for name in config.style] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--style {unknown[0]}: this model knows only its own styles: {', '.join(known)}; name those")
    return dict.fromkeys(names)


# The work


def _stylize(
    jobs: Sequence[Job],
    looks: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Path | None],
    masks: Sequence[Path],
    config: StylizeConfig,
    tally: Tally,
) -> None:
    """Paint the jobs in their order and keep the tally. Looks that cannot be made are left out of them."""
    stylizer = Stylizer.from_pretrained(config.model, own_device(config.device), config.precision)
    wanted = {look: looks[look] for look in looks if any(look in job.targets for job in jobs)}
    ready = {look.name: look for look in _looks(stylizer, wanted, chosen, masks, config, tally.failures)}
    jobs = [Job(job.photo, {n: file for n, file in job.targets.items() if n in ready}) for job in jobs] if ready else []
    with (
        ThreadPoolExecutor(1) as reader,
        tqdm(total=sum(len(job.targets) for job in jobs), unit="picture", disable=None) as progress,
        _Writer(tally, progress) as writer,
    ):
        ahead: Future[Photo] | None = None
        for index, job in enumerate(jobs):
            try:
                photo = (ahead or reader.submit(load_photo, job.photo, config)).result()
            except Exception as error:  # one bad file never ends a batch
                writer.failed(job.photo, error, len(job.targets))
                ahead = None
                continue
            small, last = photo.pixels[0].numel() <= OVERLAP_PIXELS, index + 1 == len(jobs)
            ahead = reader.submit(load_photo, jobs[index + 1].photo, config) if small and not last else None
            for name, target in job.targets.items():
                try:
                    pixels = paint(stylizer, photo, ready[name], config)
                except Exception as error:
                    writer.failed(photo.path, error)
                else:
                    save = partial(save_pixels, pixels, target, photo.alpha, config.quality, photo.exif)
                    writer.add(photo.path, save)
                    del pixels, save  # so that their memory is free once they are written
                writer.wait(WRITERS if small else 0)
            del photo


def load_photo(path: Path, config: StylizeConfig) -> Photo:
    picture = load_pixel_picture(path, config.max_pixels or None)
    pixels, alpha, size = picture.rgb, picture.alpha, config.content_size
    if size is not None:
        height, width = fitted_size(pixels.shape[1], pixels.shape[2], size)
        if config.max_pixels and height * width > config.max_pixels:
            raise ImageError(
                f"{shown(path)}: --content-size {size} would make it {width} x {height}, more pixels than the limit of "
                f"{config.max_pixels}; choose a smaller size, or raise --max-pixels"
            )
        pixels = resize_pixels(pixels, size)
        alpha = None if alpha is None else resize_pixels(alpha, size)
    return Photo(path, pixels, alpha, None if config.strip else load_exif(path))


def paint(stylizer: Stylizer, photo: Photo, look: Look, config: StylizeConfig) -> UInt8[Tensor, "3 H W"]:
    """The photo in that look, of the same size. Raises what `Stylizer.paint_pixels` and `blend_codes` raise."""
    codes = [code_for(stylizer, style, photo, config) for style in look.styles]
    if look.masks is not None:
        code = torch.cat(codes)
    else:
        code = blend_codes(codes, config.style_weights) if config.style_weights else codes[0]
    return stylizer.paint_pixels(photo.pixels, code, masks=look.masks, **config.paint_options())


def code_for(stylizer: Stylizer, style: Style, photo: Photo, config: StylizeConfig) -> Float[Tensor, "1 D"]:
    if style.painting is None:
        assert style.code is not None
        return style.code
    return stylizer.encode_style(style.painting, config.style_size, config.style_scale, like=photo.pixels)


class _Writer:
    """Writes results in threads of its own and keeps the tally; failures are told in the order of the results.

    As a context it waits for what is being written, also where it is left by an exception.
    """

    def __init__(self, tally: Tally, progress: tqdm) -> None:
        self._tally, self._progress = tally, progress
        self._pool, self._lock = ThreadPoolExecutor(WRITERS), threading.Lock()
        self._pending: deque[tuple[Path, Future[None]]] = deque()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()
        self._pool.shutdown()

    def add(self, photo: Path, save: Callable[[], None]) -> None:
        self._pending.append((photo, self._pool.submit(self._write, save)))

    def _write(self, save: Callable[[], None]) -> None:
        save()
        with self._lock:  # counted here, so that what an interruption finds written is counted too
            self._tally.written += 1

    def failed(self, photo: Path, error: Exception, results: int = 1) -> None:
        self._tally.failures.add(photo, error)
        self._progress.update(results)

    def wait(self, left: int = 0) -> None:
        """Until no more than so many results wait to be written."""
        while len(self._pending) > left:
            photo, future = self._pending[0]
            error = future.exception()  # an interruption here leaves it in the list
            self._pending.popleft()
            if isinstance(error, Exception):
                self.failed(photo, error)
            else:
                self._progress.update()


def _looks(
    stylizer: Stylizer,
    wanted: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Path | None],
    masks: Sequence[Path],
    config: StylizeConfig,
    failures: Failures,
) -> Iterator[Look]:
    """What can be painted: a look that lacks one of its styles or masks would be another one, and is left out."""
    styles, stack = {}, []
    for name in dict.fromkeys(name for names in wanted.values() for name in names):
        try:
            styles[name] = prepared_style(stylizer, name, chosen[name], config)
        except Exception as error:  # one bad file never ends a batch
            failures.add(chosen[name] or Path(name), error)
    for path in masks:
        try:
            stack.append(load_mask(path, config.max_pixels or None))
        except Exception as error:
            failures.add(path, error)
    if len(stack) < len(masks):
        return
    shares = weighted_masks(stack, config.style_weights or [1.0] * len(stack)) if stack else None
    for look, names in wanted.items():
        if all(name in styles for name in names):
            yield Look(look, [styles[name] for name in names], shares)


def prepared_style(stylizer: Stylizer, name: str, path: Path | None, config: StylizeConfig) -> Style:
    if path is None:
        return Style(name, stylizer.style_code(name))
    if is_saved(path):
        return Style(name, load_style(path, config.model).code)
    painting = load_image(path, config.max_pixels or None)
    if config.preserve_color == "covariance":
        return Style(name, painting=resize(painting, min(config.style_size, *painting.shape[2:])))
    return Style(name, stylizer.encode_style(painting, config.style_size, config.style_scale))
