"""The command for style files: save those of paintings, list, mix and show them."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm
from tyro.conf import Positional, subcommand

from arbitrary_nst.figures import contact_sheet
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_image, save_image
from arbitrary_nst.models.files import model_identity
from arbitrary_nst.paths import SUFFIXES, Failures, find_images, unique_names
from arbitrary_nst.styles import (
    GALLERY,
    STYLE_SUFFIX,
    SavedStyle,
    find_styles,
    gallery,
    is_saved,
    load_style,
    made_now,
    painting_provenance,
    read_style,
    save_style,
)
from arbitrary_nst.stylizer import STYLE_SIZE, Stylizer, blend_codes

Device = Literal["auto", "cpu", "cuda", "mps"]

SHEET_COLUMNS, SWATCH_SIZE = 5, 256


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """Save paintings as style files."""

    paintings: Positional[tuple[Path, ...]]
    """Files, folders (searched recursively) or globs."""
    output: Path
    """A folder, for files named as their paintings; or one .style file, for one painting."""
    style_size: int = STYLE_SIZE
    """Paintings are looked at with this short side at most, in pixels."""
    style_scale: float = 1.0
    """Size of the strokes, 0.25 to 4: paintings are looked at so many times as large."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py."""
    device: Device = "auto"
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_MAX_PIXELS
    """Refuse files with more pixels than this; 0 lifts the limit."""

    def __post_init__(self) -> None:
        if self.style_size < 1:
            raise ValueError(f"--style-size {self.style_size}: must be at least 1 pixel")
        if not 0.25 <= self.style_scale <= 4:
            raise ValueError(f"--style-scale {self.style_scale}: must be between 0.25 (finer strokes) and 4 (larger)")


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """List the gallery, or style files."""

    styles: Positional[tuple[Path, ...]] = ()
    """Style files, folders (searched recursively) or globs; nothing lists the gallery."""


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Mix styles into a new one."""

    styles: Positional[tuple[Path, ...]]
    """Style files or gallery:NAME, two or more."""
    weights: tuple[float, ...] = ()
    """One for each; otherwise all count the same."""
    output: Path
    """The .style file to write."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show styles on a test picture, in one sheet."""

    styles: Positional[tuple[Path, ...]] = (Path(GALLERY + "*"),)
    """Style files, gallery:NAME or paintings; by default all of the gallery."""
    output: Path
    """The picture to write."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.output.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--output {self.output}: must name a picture, such as swatches.png")


StyleConfig = (
    Annotated[SaveConfig, subcommand("save")]
    | Annotated[ListConfig, subcommand("list")]
    | Annotated[MixConfig, subcommand("mix")]
    | Annotated[ShowConfig, subcommand("show")]
)


def manage_styles(config: SaveConfig | ListConfig | MixConfig | ShowConfig) -> int:
    """Carry out one of the subcommands and return the exit code: 0 if everything could be done, else 1.

    Raises ImageError and StyleFileError where there is no such thing, ValueError where options contradict each other.
    """
    if isinstance(config, SaveConfig):
        return save_styles(config)
    if isinstance(config, ListConfig):
        return list_styles(config)
    return mix_styles(config) if isinstance(config, MixConfig) else show_styles(config)


def save_styles(config: SaveConfig) -> int:
    """A style file for every painting."""
    paintings = find_images(config.paintings)
    single = config.output.suffix.lower() == STYLE_SUFFIX
    if single and len(paintings) > 1:
        raise ValueError(f"--output {config.output}: is one file, but there are {len(paintings)} paintings")
    identity, failures = model_identity(config.model), Failures()
    stylizer = Stylizer.from_pretrained(config.model, config.device)
    for path, name in tqdm(unique_names(paintings).items(), unit="painting", disable=None):
        target = config.output if single else config.output / f"{name}{STYLE_SUFFIX}"
        try:
            painting = load_image(path, config.max_pixels or None)
            code = stylizer.encode_style(painting, config.style_size, config.style_scale)
            told = painting_provenance(path, tuple(painting.shape[2:]), config.style_size, config.style_scale)
            save_style(SavedStyle(target.stem, code, identity, told), target)
        except Exception as error:  # one bad file never ends a batch
            failures.add(path, error)
    print(f"{len(paintings) - failures.count} styles written to {config.output}")
    failures.repeat()
    return 1 if failures.count else 0


def list_styles(config: ListConfig) -> int:
    """A line for every style of the gallery, or for every style file."""
    if not config.styles:
        print(*_columns([(GALLERY + name, *_credits(style.provenance)) for name, style in gallery().items()]), sep="\n")
        return 0
    rows, failures = [], Failures()
    for path in find_images(config.styles, (STYLE_SUFFIX,)):
        try:
            style = read_style(path)
            told = style.provenance
            rows.append((str(path), style.name, _origin(told), str(style.model), str(told.get("date", ""))))
        except Exception as error:  # one bad file never ends a list
            failures.add(path, error)
    print(*_columns(rows), sep="\n")
    return 1 if failures.count else 0


def mix_styles(config: MixConfig) -> int:
    """A style file of the weighted mean of styles."""
    if len(config.styles) < 2:
        raise ValueError("style mix: name two styles or more")
    styles = []
    for path in find_styles(config.styles).values():
        if not is_saved(path):
            raise ValueError(f"{path}: is no style file; `style save` makes one of a painting")
        styles.append(read_style(path))
    stranger = next((style for style in styles if style.model != styles[0].model), None)
    if stranger is not None:
        raise ValueError(
            f"{stranger.name}: was made with the model {stranger.model}, but {styles[0].name} with {styles[0].model}"
        )
    weights = config.weights or (1.0,) * len(styles)
    code = blend_codes([style.code for style in styles], weights)
    recipe = [
        {"name": style.name, "weight": weight, "provenance": dict(style.provenance)}
        for style, weight in zip(styles, weights, strict=True)
    ]
    told = {"recipe": recipe, **made_now()}
    save_style(SavedStyle(config.output.stem, code, styles[0].model, told), config.output)
    print(f"{config.output}: {_origin(told)}")
    return 0


def show_styles(config: ShowConfig) -> int:
    """A sheet of the test picture in every style."""
    failures, photo = Failures(), synthetic_photo(SWATCH_SIZE)
    stylizer = Stylizer.from_pretrained(config.model, config.device)
    swatches = [("the photo", photo[0])]
    for name, path in tqdm(find_styles(config.styles).items(), unit="style", disable=None):
        try:
            if is_saved(path):
                style = load_style(path, config.model)
                code, label = style.code, ", ".join([name, *_credits(style.provenance)[1:]])
            else:
                code, label = stylizer.encode_style(load_image(path)), name
            swatches.append((label, stylizer(photo, code)[0]))
        except Exception as error:  # one bad file never ends a batch
            failures.add(path, error)
    save_image(_sheet(swatches), config.output)
    print(f"{config.output}: {len(swatches) - 1} styles")
    failures.repeat()
    return 1 if failures.count else 0


def synthetic_photo(size: int) -> Float[Tensor, "1 3 H W"]:
    """What a photo is made of, without a photo: sky, sun, hills, water, a ball and its shadow, a field, a wall."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")

    def colour(*rgb: float) -> Tensor:
        return torch.tensor(rgb).view(3, 1, 1)

    def within(distance: Tensor) -> Tensor:
        """1 where a distance is negative, with an edge of a pixel."""
        return (0.5 - distance * size).clamp(0, 1)

    sun = ((x - 0.7).square() + (y - 0.24).square()).sqrt()
    picture = colour(0.25, 0.48, 0.82) + (y / 0.5).clamp(max=1) * colour(0.65, 0.3, -0.15)
    picture = picture + (-sun / 0.15).exp() * colour(0.35, 0.3, 0.1)
    picture = picture.lerp(colour(1, 0.97, 0.8).expand(3, size, size), within(sun - 0.06))
    for index, (height, shade) in enumerate([(0.42, 0.75), (0.48, 0.5), (0.53, 0.3)]):
        hill = height - 0.05 * (5 * x + 2 * index).sin() - 0.02 * (17 * x + 3 * index).sin()
        picture = picture.lerp(shade * colour(0.55, 0.7, 0.75).expand(3, size, size), within(hill - y))
    ripples = 0.06 * (160 * (y - 0.56) / (0.2 + y) + 6 * (9 * x).sin()).sin()
    picture = picture.lerp(colour(0.2, 0.42, 0.55) + ripples + 0.25 * (-(x - 0.7).abs() / 0.08).exp(), within(0.56 - y))
    furrows = 0.12 * (70 * (x - 0.5) / (y - 0.4).clamp(min=0.05)).sin()
    picture = picture.lerp(colour(0.45, 0.5, 0.18) + furrows * colour(1, 0.8, 0.4), within(0.72 + 0.05 * x - y))
    bricks = ((y * 24).frac() < 0.12) | (((x * 10) + ((y * 24).floor() % 2) / 2).frac() < 0.06)
    wall = (0.62 - y).maximum(0.03 - x).maximum(x - 0.24).maximum(y - 0.86)
    picture = picture.lerp(colour(0.62, 0.3, 0.22) + 0.25 * bricks.float(), within(wall))
    shadow = ((x - 0.66).div(0.2).square() + (y - 0.9).div(0.04).square() - 1) * 0.05
    picture = picture * (1 - 0.5 * within(shadow))
    across, down = (x - 0.6) / 0.15, (y - 0.77) / 0.15
    light = (1 - across.square() - down.square()).clamp(min=0).sqrt() * 0.7 + 0.4 * (across - down).clamp(-1, 1) * 0.6
    ball = colour(0.85, 0.2, 0.15) * (0.35 + light) + 0.6 * (light - 0.75).clamp(min=0)
    picture = picture.lerp(ball, within((across.square() + down.square()).sqrt() * 0.15 - 0.15))
    grain = 0.02 * torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    return (picture + grain).clamp(0, 1)[None]


def _sheet(swatches: Sequence[tuple[str, Float[Tensor, "3 _ _"]]]) -> Float[Tensor, "3 H W"]:
    """Rows of a contact sheet, so that every picture has a label above it."""
    rows = [swatches[start : start + SHEET_COLUMNS] for start in range(0, len(swatches), SHEET_COLUMNS)]
    blank = [("", None)] * ((SHEET_COLUMNS - len(rows[-1])) * (len(rows) > 1))
    sheets = [
        contact_sheet([[picture for _, picture in row]], [_bare(label) for label, _ in row], cell_size=SWATCH_SIZE)
        for row in [*rows[:-1], [*rows[-1], *blank]]
    ]
    return torch.cat(sheets, 1)


def _bare(label: str) -> str:
    """Without accents, which the font of the sheet lacks."""
    return "".join(c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))


def _credits(told: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(told.get("title", "")), str(told.get("artist", "")), str(told.get("year", ""))


def _origin(told: Mapping[str, Any]) -> str:
    """Where a style comes from: its painting, or what it was mixed of."""
    if "recipe" in told:
        return " + ".join(f"{part['weight']:g} {part['name']}" for part in told["recipe"])
    return str(told.get("file", ""))


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, printable whatever the files hold."""
    shown = [[cell if cell.isprintable() else ascii(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
