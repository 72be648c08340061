"""The command for style files: save those of paintings, list, mix and show them."""

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

from arbitrary_nst.errors import UsageError, option
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_image, save_image
from arbitrary_nst.image.figures import contact_sheet
from arbitrary_nst.image.synthetic import synthetic_photo
from arbitrary_nst.models.serialization import model_identity
from arbitrary_nst.runtime.files import (
    WRITTEN_SUFFIXES,
    Failures,
    check_output_folder,
    check_writable,
    counted,
    find_images,
    fitting_name,
    printable,
    refuse_overwriting,
    unique_names,
)
from arbitrary_nst.stylization.options import STYLE_SIZE
from arbitrary_nst.stylization.style_files import (
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
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

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
    """A model that ships with the package, a .safetensors file or the folder of a training run, or OWNER/NAME on the
    Hugging Face hub."""
    device: Device = "auto"
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = DEFAULT_MAX_PIXELS
    """Refuse files with more pixels than this; 0 lifts the limit."""

    def __post_init__(self) -> None:
        if self.style_size < 1:
            raise UsageError(f"--style-size {self.style_size}: must be at least 1 pixel")
        if not 0.25 <= self.style_scale <= 4:
            raise UsageError(f"--style-scale {self.style_scale}: must be between 0.25 (finer strokes) and 4 (larger)")


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
    """A model that ships with the package, a .safetensors file or the folder of a training run, or OWNER/NAME on the
    Hugging Face hub."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.output.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UsageError(f"--output {self.output}: must name a picture, such as swatches.png")


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
        raise UsageError(f"--output {config.output}: is one file, but there are {len(paintings)} paintings")
    names = {path: fitting_name(name, STYLE_SUFFIX) for path, name in unique_names(paintings).items()}
    targets = {path: config.output if single else config.output / names[path] for path in paintings}
    refuse_overwriting(paintings, targets.values())
    if single:
        check_writable(config.output)
    else:
        check_output_folder(config.output)
    identity, failures = model_identity(config.model), Failures()
    stylizer = Stylizer.from_pretrained(config.model, config.device)
    for path, target in tqdm(targets.items(), unit="painting", disable=None):
        try:
            painting = load_image(path, config.max_pixels or None)
            code = stylizer.encode_style(painting, config.style_size, config.style_scale)
            provenance = painting_provenance(path, tuple(painting.shape[2:]), config.style_size, config.style_scale)
            save_style(SavedStyle(target.stem, code, identity, provenance), target)
        except Exception as error:  # one bad file never ends a batch
            failures.add(path, error)
    print(f"{counted(len(paintings) - failures.count, 'style')} written to {config.output}")
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
            provenance = style.provenance
            rows.append((str(path), style.name, _origin(provenance), str(style.model), str(provenance.get("date", ""))))
        except Exception as error:  # one bad file never ends a list
            failures.add(path, error)
    print(*_columns(rows), sep="\n")
    return 1 if failures.count else 0


def mix_styles(config: MixConfig) -> int:
    """A style file of the weighted mean of styles."""
    styles, found = [], [path for _, path in find_styles(config.styles, {config.output: ""})]
    if len(found) < 2:
        raise UsageError("style mix: name two styles or more")
    refuse_overwriting(found, [config.output])
    check_writable(config.output)
    for path in found:
        if not is_saved(path):
            raise UsageError(f"{path}: is no style file; `style save` makes one of a painting")
        styles.append(read_style(path))
    stranger = next((style for style in styles if style.model != styles[0].model), None)
    if stranger is not None:
        raise UsageError(
            f"{stranger.name}: was made with the model {stranger.model}, but {styles[0].name} with {styles[0].model}"
        )
    weights = config.weights or (1.0,) * len(styles)
    with option("weights"):
        code = blend_codes([style.code for style in styles], weights)
    recipe = [
        {"name": style.name, "weight": weight, "provenance": dict(style.provenance)}
        for style, weight in zip(styles, weights, strict=True)
    ]
    provenance = {"recipe": recipe, **made_now()}
    save_style(SavedStyle(config.output.stem, code, styles[0].model, provenance), config.output)
    print(printable(f"{config.output}: {_origin(provenance)}"))
    return 0


def show_styles(config: ShowConfig) -> int:
    """A sheet of the test picture in every style."""
    failures, photo = Failures(), synthetic_photo(SWATCH_SIZE)
    found = dict(find_styles(config.styles, {config.output: ""}))
    refuse_overwriting(found.values(), [config.output])
    check_writable(config.output)
    stylizer = Stylizer.from_pretrained(config.model, config.device)
    swatches = [("the photo", photo[0])]
    for name, path in tqdm(found.items(), unit="style", disable=None):
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
    print(f"{config.output}: {counted(len(swatches) - 1, 'style')}")
    failures.repeat()
    return 1 if failures.count else 0


def _sheet(swatches: Sequence[tuple[str, Float[Tensor, "3 _ _"]]]) -> Float[Tensor, "3 H W"]:
    """Rows of a contact sheet, so that every picture has a label above it."""
    rows = [swatches[start : start + SHEET_COLUMNS] for start in range(0, len(swatches), SHEET_COLUMNS)]
    blank = [("", None)] * ((SHEET_COLUMNS - len(rows[-1])) * (len(rows) > 1))
    sheets = [
        contact_sheet([[picture for _, picture in row]], [label for label, _ in row], cell_size=SWATCH_SIZE)
        for row in [*rows[:-1], [*rows[-1], *blank]]
    ]
    return torch.cat(sheets, 1)


def _credits(provenance: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(provenance.get("title", "")), str(provenance.get("artist", "")), str(provenance.get("year", ""))


def _origin(provenance: Mapping[str, Any]) -> str:
    """The source of a style: its painting, or the styles it was mixed of."""
    if "recipe" in provenance:
        return " + ".join(f"{part['weight']:g} {part['name']}" for part in provenance["recipe"])
    return str(provenance.get("file", ""))


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, printable whatever the files hold."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
