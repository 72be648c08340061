"""Stylizing files: every content with every style, each painting encoded once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tqdm import tqdm

from arbitrary_nst.image import DEFAULT_MAX_PIXELS, Picture, load_image, load_picture, resize, save_image
from arbitrary_nst.models.files import model_file, model_options
from arbitrary_nst.paths import SUFFIXES, Failures, find_images, unique_names
from arbitrary_nst.stylizer import NO_STRENGTH, STYLE_SIZE, Precision, Stylizer, blend_codes


@dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Put photos into the style of paintings."""

    content: tuple[Path, ...]
    """Photos: files, folders (searched recursively) or globs."""
    style: tuple[Path, ...] = ()
    """Paintings, likewise; for a model that knows only its own styles their names, or nothing for all of them. Every
    photo is made in every style, unless --style-weights blends them into one."""
    output: Path
    """A folder, for pictures named CONTENT_stylized_STYLE.png; or one file, for one photo in one style."""
    alpha: float = 1.0
    """Strength of the style, 0 to 1."""
    style_weights: tuple[float, ...] = ()
    """Blend the styles into one with these weights, one for each."""
    content_size: int | None = None
    """Short side of the result in pixels; otherwise it is exactly as large as the photo."""
    style_size: int = STYLE_SIZE
    """Paintings are looked at with this short side at most, in pixels: a smaller one gives finer strokes."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py."""
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
        if self.max_pixels < 0:
            raise ValueError(f"--max-pixels {self.max_pixels}: must be positive, or 0 for no limit")


@dataclass(frozen=True)
class Style:
    """A style's name, as it goes into file names, and its code."""

    name: str
    code: torch.Tensor


def stylize_files(config: StylizeConfig) -> int:
    """Stylize, and return the exit code: 0 if everything could be done, else 1.

    Raises ImageError where a path leads nowhere, ValueError where options contradict each other.
    """
    contents, chosen = find_images(config.content), _choose_styles(config)
    if config.style_weights:
        blend_codes([torch.zeros(1, 1)] * len(chosen), config.style_weights)  # refuse bad weights before work
    single = config.output.suffix.lower() in SUFFIXES and not config.output.is_dir()
    results = len(contents) * (1 if config.style_weights else len(chosen))
    if single and results != 1:
        raise ValueError(f"--output {config.output}: is one file, but there are {results} results; name a folder")

    failures, limit = Failures(), config.max_pixels or None
    stylizer = Stylizer.from_pretrained(config.model, config.device, config.precision)
    styles = list(_encode_styles(stylizer, chosen, config, failures))
    names = unique_names(contents)
    written = 0
    with tqdm(total=len(contents) * len(styles), unit="picture", disable=None) as progress:
        for path in contents:
            try:
                photo = _load_content(path, config.content_size, limit)
            except Exception as error:  # one bad file never ends a batch
                failures.add(path, error)
                progress.update(len(styles))
                continue
            for style in styles:
                target = config.output if single else config.output / f"{names[path]}_stylized_{style.name}.png"
                try:
                    save_image(stylizer(photo.rgb, style.code, config.alpha), target, photo.alpha)
                    written += 1
                except Exception as error:
                    failures.add(path, error)
                progress.update()
    print(f"{written} pictures written to {config.output}" + f", {failures.count} failures" * bool(failures.count))
    return 1 if failures.count else 0


def _choose_styles(config: StylizeConfig) -> dict[str, Path | None]:
    """The names of the styles to apply, each with its painting, or with None where it is one of the model's own.

    Raises ImageError where a path leads nowhere, ValueError where there is none or a name is not known.
    """
    known = model_options(model_file(config.model)).get("styles")
    if known is None:
        if not config.style:
            raise ValueError("--style: name at least one painting")
        return {name: path for path, name in unique_names(find_images(config.style)).items()}
    if config.alpha < 1:
        raise ValueError(f"--alpha {config.alpha}: {NO_STRENGTH}")
    names = [str(name) for name in config.style] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--style {unknown[0]}: this model knows only its own styles: {', '.join(known)}; name those")
    return dict.fromkeys(names)


def _load_content(path: Path, size: int | None, max_pixels: int | None) -> Picture:
    picture = load_picture(path, max_pixels)
    if size is None:
        return picture
    alpha = None if picture.alpha is None else resize(picture.alpha, size)
    return Picture(resize(picture.rgb, size), alpha)


def _encode_styles(
    stylizer: Stylizer, chosen: Mapping[str, Path | None], config: StylizeConfig, failures: Failures
) -> Iterator[Style]:
    """The styles to apply: one for each that was chosen, or the one that they blend into.

    A blend that lacks a painting would be another style: then there is none.
    """
    styles = []
    for name, path in chosen.items():
        if path is None:
            styles.append(Style(name, stylizer.style_code(name)))
            continue
        try:
            painting = load_image(path, config.max_pixels or None)
            styles.append(Style(name, stylizer.encode_style(painting, config.style_size)))
        except Exception as error:  # one bad file never ends a batch
            failures.add(path, error)
    if not config.style_weights:
        yield from styles
    elif len(styles) == len(chosen):
        code = blend_codes([style.code for style in styles], config.style_weights)
        yield Style("+".join(style.name for style in styles), code)
