"""The command that optimizes a picture: files in, picture and record out, alone or as a grid of experiments."""

import itertools
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tqdm import tqdm

from arbitrary_nst import recipes
from arbitrary_nst.color import PreserveColor
from arbitrary_nst.devices import keep_freed_memory
from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.figures import contact_sheet, line_plot
from arbitrary_nst.gatys import Image, Iterate, OptimizationDiverged, feature_network, optimize
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_image, load_picture, resize, save_image
from arbitrary_nst.paths import SUFFIXES, find_images
from arbitrary_nst.recipes import Recipe, parse_layers
from arbitrary_nst.tracking import Tracker, WandbMode

PRESETS: dict[str, dict[str, Any]] = {name: {"recipe": recipe} for name, recipe in recipes.PRESETS.items()}
"""What `--preset` stands for, as arguments of `OptimizeConfig`."""

DEFAULT_PRESET, DEFAULT_SIZE = "gatys2016", 512


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """Optimize one picture for a photo and paintings (Gatys et al. 2016): slow, and the reference for all the rest.

    Without --style the photo's features are inverted, without --content a texture is synthesized.
    """

    content: Path | None = None
    """The photo."""
    style: tuple[Path, ...] = ()
    """Paintings: files, folders or globs; several are blended."""
    output: Path
    """The picture; with --grid the contact sheet, beside a folder of its pictures."""
    preset: str = DEFAULT_PRESET
    """A published set-up to start from; options given beside it change it."""
    style_weights: tuple[float, ...] = ()
    """Of the paintings, one for each; otherwise all count the same."""
    style_scale: float = 1.0
    """Short side of the paintings in units of the picture's: smaller gives finer strokes."""
    size: tuple[int, ...] = ()
    """Short side of the picture in pixels, or its width and height. Otherwise the photo's size, but a short side of 512
    at most; 512 for a texture."""
    start_image: Path | None = None
    """A picture to begin from instead of the recipe's start."""
    preserve_color: PreserveColor = "none"
    """Keep the photo's colours: by its chrominance (luminance), or by recolouring the paintings (covariance)."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = field(default_factory=lambda: recipes.PRESETS[DEFAULT_PRESET])
    grid: tuple[str, ...] = ()
    """Experiments, such as learning_rate=0.01,0.1,1 content_layers=relu2_2,relu4_2: options of the recipe and values to
    try, all combinations. A set of layers is written relu1_1:0.5+relu2_1:2 (weights may be left out)."""
    seed: int = 0
    """Of the noise, or of the network's first weights."""
    run_dir: Path | None = None
    """Also keep a record there: optimize.csv, losses.png, snapshots, Weights & Biases."""
    snapshot_every: int = 0
    """Steps between pictures kept in the run folder; 0: none."""
    log_every: int = 10
    """Steps between rows of the record."""
    wandb: WandbMode = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the feature network; bfloat16 is faster where the device multiplies it natively."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Refuse files with more pixels than this; 0 lifts the limit."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: choose one of {', '.join(PRESETS)}")
        if len(self.size) > 2 or any(side < 1 for side in self.size):
            raise ValueError(f"--size {self.size}: must be one number of pixels, or two, width and height")
        if not 0 < self.style_scale <= 10:
            raise ValueError(f"--style-scale {self.style_scale}: must be above 0 and at most 10")
        for name, least in (("snapshot_every", 0), ("log_every", 1), ("max_pixels", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.snapshot_every and self.run_dir is None:
            raise ValueError("--snapshot-every: name a --run-dir to keep the pictures in")
        if isinstance(self.output, Path) and self.output.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--output {self.output}: must name a picture, such as out.png")


@dataclass(frozen=True)
class Material:
    """The pictures of a job, at full size."""

    content: Image | None
    alpha: Any
    styles: list[Image]
    start: Image | None
    extent: tuple[int, int]


def optimize_files(config: OptimizeConfig) -> int:
    """Optimize one picture, or a grid of them, and return the exit code; 130 where it was interrupted.

    Raises ImageError where a file cannot be read, ValueError where options contradict each other, and what
    `gatys.optimize` raises.
    """
    keep_freed_memory()
    experiments = expand(config.grid, config.recipe)
    material = load_material(config)
    if config.grid:
        return run_grid(config, experiments, material)
    features = feature_network(config.recipe)
    last = None
    try:
        for iterate in watched(run(config, config.recipe, material, features), config):
            last = iterate
    except KeyboardInterrupt:
        if last is None:
            raise
        save(last, config.output, material)
        print(f"interrupted; {config.output} is the picture of step {last.step} of {last.steps}")
        return 130
    assert last is not None
    save(last, config.output, material)
    print(f"{config.output}: {last.steps} steps, " + ", ".join(f"{k} {v:.4g}" for k, v in last.losses.items()))
    return 0


def load_material(config: OptimizeConfig) -> Material:
    """The files of a job as pictures, and the extent of the result."""
    limit = config.max_pixels or None
    photo = None if config.content is None else load_picture(find_images([config.content])[0], limit)
    styles = [load_image(path, limit) for path in find_images(config.style)] if config.style else []
    start = None if config.start_image is None else load_image(config.start_image, limit)
    content = None if photo is None else photo.rgb
    extent = extent_of(config.size, None if content is None else (content.shape[2], content.shape[3]))
    alpha = None if photo is None or photo.alpha is None else resize(photo.alpha, extent)
    return Material(content, alpha, styles, start, extent)


def extent_of(size: Sequence[int], photo: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the result: as asked, or as the photo, or a default square."""
    if len(size) == 2:
        return size[1], size[0]
    if photo is None:
        side = size[0] if size else DEFAULT_SIZE
        return side, side
    scale = (size[0] if size else min(DEFAULT_SIZE, *photo)) / min(photo)
    return max(1, round(photo[0] * scale)), max(1, round(photo[1] * scale))


def run(config: OptimizeConfig, recipe: Recipe, material: Material, features: VGGFeatures) -> Iterator[Iterate]:
    """One optimization with the configuration's pictures."""
    return optimize(
        material.content,
        material.styles,
        recipe,
        style_weights=config.style_weights or None,
        style_scale=config.style_scale,
        size=material.extent,
        start=material.start,
        preserve_color=config.preserve_color,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        features=features,
    )


def watched(iterates: Iterator[Iterate], config: OptimizeConfig) -> Iterator[Iterate]:
    """The iterates as they come, with a progress bar and, in the run folder, a record."""
    tracker = None
    if config.run_dir is not None:
        tracker = Tracker(config.run_dir, asdict(config), config.wandb)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with tqdm(unit="step", dynamic_ncols=True) as bar:
            for iterate in iterates:
                bar.total = iterate.steps
                bar.update()
                if iterate.step % config.log_every == 0 or iterate.step in (1, iterate.steps):
                    losses = iterate.losses
                    bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()})
                    if tracker is not None:
                        tracker.scalars(iterate.step, losses | {"loss": sum(losses.values())}, "optimize")
                        for name, value in losses.items():
                            steps, values = curves.setdefault(name, ([], []))
                            steps.append(iterate.step)
                            values.append(value)
                if tracker is not None and config.snapshot_every and iterate.step % config.snapshot_every == 0:
                    tracker.image(iterate.step, "snapshots", iterate.image[0])
                yield iterate
    finally:
        if tracker is not None and config.run_dir is not None:
            line_plot(config.run_dir / "losses.png", curves, x_label="step", y_label="weighted loss", logarithmic=True)
            tracker.close()


def save(iterate: Iterate, path: Path, material: Material) -> None:
    """Write the picture of an iterate, with the photo's transparency at its size."""
    image = iterate.image
    alpha = None if material.alpha is None else resize(material.alpha, (image.shape[2], image.shape[3]))
    save_image(image, path, alpha)


# Grids


def expand(grid: Sequence[str], recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Every combination of the grid's values, with a label.

    Raises ValueError, naming the option, where a name or a value is not the recipe's.
    """
    axes = []
    for axis in grid:
        name, _, values = axis.partition("=")
        if name not in {option.name for option in fields(Recipe)} or not values:
            options = ", ".join(option.name for option in fields(Recipe))
            raise ValueError(f"--grid {axis}: must be OPTION=VALUE,VALUE,... with an option among {options}")
        axes.append([(f"{name}={value}", {name: parse_option(name, value)}) for value in values.split(",")])
    experiments = []
    for combination in itertools.product(*axes):
        label = ", ".join(text for text, _ in combination)
        experiments.append((label, replace(recipe, **{k: v for _, option in combination for k, v in option.items()})))
    return experiments


def parse_option(name: str, text: str) -> Any:
    """A value of a recipe's option, by the option's type.

    Raises ValueError where the text is not one.
    """
    kind = get_type_hints(Recipe)[name]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if get_origin(kind) is Literal:
            return next(value for value in get_args(kind) if str(value) == text)
        if get_origin(kind) is dict:
            return parse_layers(text.split("+"))
        if get_origin(kind) is tuple:
            return tuple(get_args(kind)[0](part) for part in text.split("+"))
        return kind(text)
    except (ValueError, KeyError, StopIteration) as error:
        raise ValueError(f"--grid {name}={text}: '{text}' is not a value of {name}") from error


def run_grid(config: OptimizeConfig, experiments: Sequence[tuple[str, Recipe]], material: Material) -> int:
    """Every experiment's picture in a folder, and one labelled sheet of all, the last option varying across.

    One that diverges leaves its cell empty; the exit code is then 1. The sheet grows as pictures are made.
    """
    width = len(config.grid[-1].partition("=")[2].split(","))
    folder, failed = config.output.with_suffix(""), 0
    cells: list[Any] = [None] * len(experiments)
    features: dict[tuple, VGGFeatures] = {}
    for index, (label, recipe) in enumerate(tqdm(experiments, desc="experiments", unit="picture")):
        key = (*recipe.content_layers, *recipe.style_layers, recipe.network, recipe.pooling, recipe.unit_activation,
               recipe.padding, recipe.content_weight > 0)  # fmt: skip
        if key not in features:
            features[key] = feature_network(recipe)
        try:
            (last,) = deque(run(config, recipe, material, features[key]), maxlen=1)
        except OptimizationDiverged as error:
            failed += 1
            tqdm.write(f"failed: {label}: {error}", file=sys.stderr)
            continue
        cells[index] = last.image[0]
        save(last, folder / f"{label.replace(', ', '_').replace(':', '-')}.png", material)
        rows = [cells[first : first + width] for first in range(0, len(cells), width)]
        labels = [text for text, _ in experiments]
        columns = [text.rpartition(", ")[2] for text in labels[:width]]
        row_names = [text.rpartition(", ")[0] for text in labels[::width]]
        save_image(contact_sheet(rows, columns, row_names if len(config.grid) > 1 else ()), config.output)
    print(f"{len(experiments) - failed} pictures in {folder}, the sheet is {config.output}")
    return 1 if failed else 0
