"""Stylizing files: every content with every style, each painting encoded once.

While one photo is painted the next is decoded and the results before are written, in threads of their own.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import (
    fitted_size,
    load_image,
    load_pixel_picture,
    resize,
    resize_pixels,
    save_pixels,
)
from arbitrary_nst.image.masks import load_mask, weighted_masks
from arbitrary_nst.models.serialization import is_exported, model_file, model_options
from arbitrary_nst.runtime.devices import chosen_precision, keep_freed_memory
from arbitrary_nst.runtime.files import (
    WRITTEN_SUFFIXES,
    Failures,
    ImageError,
    Results,
    check_output_folder,
    check_writable,
    counted,
    find_images,
    find_places,
    looks_like_a_file,
    printable_path,
    refuse_overwriting,
    result_file,
    result_names,
)
from arbitrary_nst.runtime.processes import exit_code, own_device, own_share, wait_for_other_processes
from arbitrary_nst.stylization.options import PaintOptions, SharedConfig, StyleOptions
from arbitrary_nst.stylization.style_files import find_styles, is_saved, load_style
from arbitrary_nst.stylization.stylizer import NO_STRENGTH, Stylizer, blend_codes
from arbitrary_nst.stylization.tiling import Progress, no_progress

OVERLAP_PIXELS = 2**25
"""Photos up to so many pixels are decoded and written while others are painted; a larger one has the memory alone."""

WRITERS = 2
"""Threads that write results, and how many of these wait at most."""


@dataclass(frozen=True, kw_only=True)
class StylizeConfig(SharedConfig):
    """Put photos into the style of paintings."""

    content: tuple[Path, ...]
    """Photos: files, folders (searched recursively) or globs."""
    style: tuple[Path, ...] = ()
    """Paintings, likewise, style files (.style) among them, or gallery:NAME; for a model that knows only its own styles
    their names, or nothing for all of them. Every photo is made in every style, unless --style-weights or --mask make
    one of them."""
    output: Path
    """A folder, for pictures named CONTENT_stylized_STYLE.FORMAT, in the photos' subfolders: b.jpg is called b in them,
    b.png b-png. Or one file, for one photo in one style."""
    mask: tuple[Path, ...] = ()
    """Where the styles go, one gray picture of any size for each: white is all of the style, black none. All styles
    make one picture then, blended by --style-weights where masks overlap; what none covers is left as it is."""
    octaves: int | None = None
    """How many octaves are painted, from coarse to fine; 1 paints at full size at once, with strokes of a fixed size in
    pixels. None: as many as begin with a short side of 512 pixels, so that strokes grow with the photo."""
    refine: int = 0
    """Then optimize the result (Kolkin et al. 2022), so many steps a scale from coarse to fine: more of the painting,
    but minutes on a processor, and gigabytes of memory a megapixel."""
    format: Literal["png", "jpg", "webp", "tiff"] = "png"
    """Of pictures in a folder; one file has the format of its suffix."""
    strip: bool = False
    """Write no metadata. Otherwise the photo's EXIF is kept, but for its orientation, its thumbnail and the maker's
    notes, and an sRGB profile is written."""
    skip_existing: bool = False
    """Leave results alone whose file exists, and make only the others."""
    backend: Literal["auto", "torch", "onnx"] = "auto"
    """What runs the model; auto: onnxruntime for a folder written by export, else torch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.octaves is not None and self.octaves < 1:
            raise UsageError(f"--octaves {self.octaves}: must be at least 1")
        if self.refine < 0:
            raise UsageError(f"--refine {self.refine}: must be at least 0")
        if self.refine and (self.alpha < 1 or self.mask):
            raise UsageError(
                f"--refine {self.refine}: paints all of the picture at full strength; leave out --alpha, --mask"
            )
        if self.backend != "auto" and (self.backend == "onnx") != is_exported(self.model):
            wanted = "written by `python -m arbitrary_nst export`" if self.backend == "onnx" else "a .safetensors file"
            raise UsageError(f"--backend {self.backend}: --model must be {wanted}, not {self.model}")

    @property
    def results(self) -> Results:
        """What is written, which is neither content nor style of the next run."""
        return {self.output: "*_stylized_*"}

    @property
    def paint_options(self) -> PaintOptions:
        """How photos are stylized."""
        return replace(super().paint_options, octaves=self.octaves)


@dataclass(frozen=True)
class Style:
    """A style's name and its code; for colours like the photo's the painting, which every photo needs encoded anew."""

    name: str
    options: StyleOptions
    code: Float[Tensor, "1 D"] | None = None
    painting: Float[Tensor, "1 3 H W"] | None = None
    original: Float[Tensor, "1 3 _ _"] | None = None
    """The painting, where results are refined."""


@dataclass(frozen=True)
class Look:
    """Styles of the results of one name: one style, or several that weights blend or masks divide."""

    name: str
    styles: Sequence[Style]
    weights: Sequence[float] = ()
    masks: Float[Tensor, "N 1 h w"] | None = None


@dataclass(frozen=True)
class Job:
    """A photo and, by the name of the look, the files that it is to be painted into."""

    photo: Path
    targets: Mapping[str, Path]


@dataclass
class Photo:
    """A decoded photo, and the EXIF for its results; None writes no metadata."""

    path: Path
    pixels: UInt8[Tensor, "3 H W"]
    alpha: UInt8[Tensor, "1 H W"] | None
    exif: bytes | None
    code: Float[Tensor, "1 D"] | None = None
    """Its own, computed at the first result of less than full strength."""


@dataclass
class Summary:
    """Counts of written, skipped and failed results."""

    written: int = 0
    skipped: int = 0
    failures: Failures = field(default_factory=Failures)

    def __str__(self) -> str:
        skipped, failed = f", {self.skipped} skipped" * (self.skipped > 0), self.failures.count
        return f"{counted(self.written, 'picture')} written{skipped}" + f", {counted(failed, 'failure')}" * (failed > 0)


def stylize_files(config: StylizeConfig) -> int:
    """Stylize, and return the exit code: 0 everything done, 1 not everything, 128 + N after signal N.

    Raises ImageError where a path leads nowhere, StyleFileError where the gallery has no such style, ValueError where
    options contradict each other.
    """
    contents = result_names(find_places(config.content, results=config.results))
    chosen = choose_styles(config.style, config.model, config.style_options, config.alpha, config.results)
    for path in [path for _, path in chosen if path is None or is_saved(path)] if config.refine else ():
        lack = "this model knows only its own styles" if path is None else f"{path} is only a code"
        raise UsageError(f"--refine {config.refine}: needs paintings, and {lack}")
    masks = find_images(config.mask, repeated=True, results=config.results)
    if masks and len(masks) != len(chosen):
        raise UsageError(f"--mask: {len(chosen)} styles need as many masks, not {len(masks)}")
    if config.style_weights:  # refuse bad ones before work
        try:
            blend_codes([torch.zeros(1, 1)] * len(chosen), config.style_weights)
        except ValueError as error:
            raise UsageError(f"--style-weights: {error}") from error
    names = [name for name, _ in chosen]
    looks = {"+".join(names): names} if config.style_weights or masks else {name: [name] for name in names}
    single = config.output.suffix.lower() in WRITTEN_SUFFIXES and not os.path.isdir(config.output)
    if not single and looks_like_a_file(config.output):
        known = " ".join(WRITTEN_SUFFIXES)
        raise UsageError(
            f"--output {printable_path(config.output)}: pictures are written as {known}; or make a folder of this name"
        )
    if single and len(contents) * len(looks) != 1:
        results = len(contents) * len(looks)
        raise UsageError(f"--output {config.output}: is one file, but there are {results} results; name a folder")

    targets = {
        photo: {
            look: config.output if single else config.output / result_file(name, look, f".{config.format}")
            for look in looks
        }
        for photo, name in contents.items()
    }
    missing = {
        photo: {look: file for look, file in files.items() if not (config.skip_existing and os.path.exists(file))}
        for photo, files in targets.items()
    }
    read = [*contents, *(path for _, path in chosen if path is not None), *masks]
    files = [file for files in missing.values() for file in files.values()]
    refuse_overwriting(read, files)
    if not single:
        check_output_folder(config.output)
    for file in {file.parent: file for file in files}.values():
        check_writable(file)

    jobs, summary = [], Summary()
    for photo, _ in own_share(contents):
        summary.skipped += len(targets[photo]) - len(missing[photo])
        jobs += [Job(photo, missing[photo])] if missing[photo] else []
    keep_freed_memory()
    try:
        if jobs:
            _stylize(jobs, looks, dict(chosen), masks, config, summary)
    except KeyboardInterrupt as stop:
        asked = sum(len(job.targets) for job in jobs)
        with suppress(OSError):  # after SIGHUP there is no terminal
            print(f"interrupted: {summary}, of {asked}", file=sys.stderr)
            summary.failures.repeat()
        return exit_code(stop)
    print(f"{printable_path(config.output)}: {summary}")
    summary.failures.repeat()
    wait_for_other_processes()
    return 1 if summary.failures.count else 0


def choose_styles(
    styles: Sequence[Path], model: str, options: StyleOptions, alpha: float, results: Results | None = None
) -> list[tuple[str, Path | None]]:
    """The names of the styles to apply, each with its painting or style file, or None for one of the model's own.

    They stand in the order in which they are named, and as often.

    Args:
        results: as in `find_styles`.

    Raises ImageError or StyleFileError where there is no such thing, ValueError where there is none or a name is not
    known.
    """
    known = model_options(model_file(model)).get("styles")
    if known is None:
        if not styles:
            raise UsageError("--style: name at least one painting")
        found = find_styles(styles, results)
        saved = [path for _, path in found if is_saved(path)]
        if saved and options.recolor:
            raise UsageError(f"--preserve-color covariance: recolours paintings, and {saved[0]} is only a code")
        if len(saved) == len(found) and options.scale != 1:
            raise UsageError(f"--style-scale {options.scale}: needs paintings, and {saved[0]} is only a code")
        return [*found]
    if alpha < 1:
        raise UsageError(f"--alpha {alpha}: {NO_STRENGTH}")
    if options.recolor:
        raise UsageError("--preserve-color covariance: recolours paintings, and this model knows only its own styles")
    names = [str(name) for name in styles] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--style {unknown[0]}: this model knows only its own styles: {', '.join(known)}; name those")
    return [(name, None) for name in names]


# The work


def _stylize(
    jobs: Sequence[Job],
    looks: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Path | None],
    masks: Sequence[Path],
    config: StylizeConfig,
    summary: Summary,
) -> None:
    """Paint the jobs in their order and keep the summary. Looks that cannot be made are left out of them."""
    stylizer = Stylizer.from_pretrained(config.model, own_device(config.device), config.precision)
    wanted = {look: looks[look] for look in looks if any(look in job.targets for job in jobs)}
    ready = {look.name: look for look in _looks(stylizer, wanted, chosen, masks, config, summary.failures)}
    jobs = [Job(job.photo, {n: file for n, file in job.targets.items() if n in ready}) for job in jobs] if ready else []
    with (
        ThreadPoolExecutor(1) as reader,
        tqdm(total=sum(len(job.targets) for job in jobs), unit="picture", unit_scale=True, disable=None) as bar,
        _Writer(summary) as writer,
    ):
        finished = 0

        def tell(share: float) -> None:
            bar.update(finished + share - bar.n)

        load = partial(load_photo, size=config.content_size, limit=config.limit, strip=config.strip)
        ahead: Future[Photo] | None = None
        for index, job in enumerate(jobs):
            try:
                photo = (ahead or reader.submit(load, job.photo)).result()
            except Exception as error:  # one bad file never ends a batch
                summary.failures.add(job.photo, error)
                finished += len(job.targets)
                tell(0)
                ahead = None
                continue
            small, last = photo.pixels[0].numel() <= OVERLAP_PIXELS, index + 1 == len(jobs)
            ahead = reader.submit(load, jobs[index + 1].photo) if small and not last else None
            for name, target in job.targets.items():
                try:
                    pixels = stylize_photo(stylizer, photo, ready[name], config.paint_options, tell)
                    if config.refine:
                        pixels = refined(pixels, photo, ready[name], config, stylizer.device)
                except Exception as error:
                    summary.failures.add(photo.path, error)
                else:
                    save = partial(save_pixels, pixels, target, photo.alpha, config.quality, photo.exif)
                    writer.add(photo.path, save)
                    del pixels, save  # so that their memory is free once they are written
                finished += 1
                tell(0)
                writer.wait(WRITERS if small else 0)
            del photo


def load_photo(path: Path, size: int | None, limit: int | None, strip: bool = False) -> Photo:
    """Read a photo, resized to a short side of `size` pixels. Raises ImageError, also for more than `limit` pixels."""
    picture = load_pixel_picture(path, limit)
    pixels, alpha = picture.rgb, picture.alpha
    if size is not None:
        height, width = fitted_size(pixels.shape[1], pixels.shape[2], size)
        if limit is not None and height * width > limit:
            raise ImageError(
                f"{printable_path(path)}: --content-size {size} would make it {width} x {height}, more pixels than the "
                f"limit of {limit}; choose a smaller size, or raise --max-pixels"
            )
        pixels = resize_pixels(pixels, size)
        alpha = None if alpha is None else resize_pixels(alpha, size)
    return Photo(path, pixels, alpha, None if strip else picture.exif)


def stylize_photo(
    stylizer: Stylizer, photo: Photo, look: Look, options: PaintOptions, progress: Progress = no_progress
) -> UInt8[Tensor, "3 H W"]:
    """The photo in that look, of the same size. Errors are those of `Stylizer.paint_pixels`."""
    codes = [code_for(stylizer, style, photo.pixels) for style in look.styles]
    if look.masks is not None:
        code = torch.cat(codes)
    else:
        code = blend_codes(codes, look.weights) if look.weights else codes[0]
    if 0 < options.alpha < 1 and photo.code is None:
        photo.code = stylizer.content_code(photo.pixels)
    given = {"masks": look.masks, "content_code": photo.code, "progress": progress}
    return stylizer.paint_pixels(photo.pixels, code, **given, **vars(options))


def refined(
    pixels: UInt8[Tensor, "3 H W"], photo: Photo, look: Look, config: StylizeConfig, device: torch.device
) -> UInt8[Tensor, "3 H W"]:
    """A result optimized further for its paintings, from coarse to fine."""
    from arbitrary_nst.optimization.loop import refine  # what most runs do without

    image = refine(
        photo.pixels[None] / 255,
        pixels[None] / 255,
        [style.original for style in look.styles if style.original is not None],
        config.refine,
        style_weights=look.weights or None,
        style_scale=config.style_scale,
        preserve_color=config.preserve_color,
        device=device,
        precision=chosen_precision("auto", device),
    )
    return (image[0] * 255).round().byte()


def code_for(stylizer: Stylizer, style: Style, pixels: UInt8[Tensor, "3 H W"] | None) -> Float[Tensor, "1 D"]:
    """The code of a style for a photo, which is needed only where the painting is recoloured to it."""
    if style.painting is None:
        assert style.code is not None
        return style.code
    return stylizer.encode_style(style.painting, style.options.size, style.options.scale, like=pixels)


class _Writer:
    """Writes results in threads of its own and keeps the summary; failures are printed in the order of the results.

    As a context it waits for what is being written, also where it is left by an exception.
    """

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
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
            self._summary.written += 1

    def wait(self, left: int = 0) -> None:
        """Until no more than so many results wait to be written."""
        while len(self._pending) > left:
            photo, future = self._pending[0]
            error = future.exception()  # an interruption here leaves it in the list
            self._pending.popleft()
            if isinstance(error, Exception):
                self._summary.failures.add(photo, error)


def _looks(
    stylizer: Stylizer,
    wanted: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Path | None],
    masks: Sequence[Path],
    config: StylizeConfig,
    failures: Failures,
) -> Iterator[Look]:
    """The looks that can be painted; one that lacks a style or a mask would be another one, and is left out."""
    styles, stack = {}, []
    for name in dict.fromkeys(name for names in wanted.values() for name in names):
        try:
            styles[name] = prepared_style(
                *(stylizer, name, chosen[name], config.style_options, config.model, config.limit),
                keep_painting=config.refine > 0,
            )
        except Exception as error:  # one bad file never ends a batch
            failures.add(chosen[name] or Path(name), error)
    for path in masks:
        try:
            stack.append(load_mask(path, config.limit))
        except Exception as error:
            failures.add(path, error)
    if len(stack) < len(masks):
        return
    shares = weighted_masks(stack, config.style_weights or [1.0] * len(stack)) if stack else None
    for look, names in wanted.items():
        if all(name in styles for name in names):
            yield Look(look, [styles[name] for name in names], config.style_weights, shares)


def prepared_style(
    stylizer: Stylizer,
    name: str,
    path: Path | None,
    options: StyleOptions,
    model: str,
    limit: int | None,
    keep_painting: bool = False,
) -> Style:
    """A style that is ready for any photo.

    Args:
        path: a painting or a style file; None for one of the model's own styles.
        model: source of the stylizer's model, to which a style file must belong.
        limit: pixels of the largest painting.
        keep_painting: keep it at its full size.

    Raises ImageError or StyleFileError where the file cannot be read.
    """
    if path is None:
        return Style(name, options, stylizer.style_code(name))
    if is_saved(path):
        return Style(name, options, load_style(path, model).code)
    painting = load_image(path, limit)
    original = painting if keep_painting else None
    if options.recolor:
        small = resize(painting, min(2 * options.size, *painting.shape[2:]))
        return Style(name, options, painting=small, original=original)
    return Style(name, options, stylizer.encode_style(painting, options.size, options.scale), original=original)
