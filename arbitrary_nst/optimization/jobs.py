"""The command that optimizes a picture: files in, picture and record out, alone or as a grid of experiments."""

import itertools
import json
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tyro
from tqdm import tqdm

from arbitrary_nst.errors import ImageError, UsageError
from arbitrary_nst.image import DEFAULT_MAX_PIXELS, load_image, load_picture, resize, save_image
from arbitrary_nst.image.color import PreserveColor
from arbitrary_nst.image.figures import contact_sheet, line_plot
from arbitrary_nst.image.masks import check_regions, load_regions
from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.optimization import presets
from arbitrary_nst.optimization.loop import Image, Iterate, OptimizationDiverged, feature_network, optimize
from arbitrary_nst.optimization.presets import OptimizationConfig, parse_layers
from arbitrary_nst.runtime.devices import keep_freed_memory, out_of_memory
from arbitrary_nst.runtime.files import (
    WRITTEN_SUFFIXES,
    check_writable,
    find_images,
    fitting_name,
    printable_path,
    refuse_overwriting,
)
from arbitrary_nst.runtime.processes import SIGNALS, exit_code, handled
from arbitrary_nst.tracking import Tracker, WandbMode

PRESETS: dict[str, dict[str, Any]] = {
    name: {"optimization": optimization} for name, optimization in presets.PRESETS.items()
}
"""What `--preset` stands for, as arguments of `OptimizeConfig`."""

OPTIONS = "optimize.json"
"""The options of an optimization, in its run folder."""

DEFAULT_PRESET, DEFAULT_SIZE = "kolkin2022", 512


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """Optimize one picture for a photo and paintings: slow, and the reference for all the rest.

    With --preset gatys2016 and others that compare whole pictures, the photo's features are inverted without --style,
    and a texture is synthesized without --content.
    """

    content: Path | None = None
    """The photo, one file."""
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
    init_image: Path | None = None
    """A picture to begin from instead of --init."""
    mask: tuple[Path, ...] = ()
    """Regions: a picture for the photo, then one for each painting, of any sizes, in plain colours (black, white, red,
    green, blue, cyan, magenta, yellow). Each region of the photo takes its style from the paintings' region of the same
    colour. For presets that compare places, such as kolkin2022."""
    preserve_color: PreserveColor = "none"
    """Keep the photo's colours: by its chrominance (luminance), or by recolouring the paintings (covariance)."""
    optimization: tyro.conf.OmitArgPrefixes[OptimizationConfig] = field(
        default_factory=lambda: presets.PRESETS[DEFAULT_PRESET]
    )
    grid: tuple[str, ...] = ()
    """Experiments, such as learning_rate=0.01,0.1,1 content_layers=relu2_2,relu4_2: options of the preset and values to
    try, all combinations. A set of layers is written relu1_1:0.5+relu2_1:2 (weights may be left out)."""
    seed: int = 0
    """Of the noise, or of the network's first weights."""
    run_dir: Path | None = None
    """Also keep a record there: config.json, optimize.csv, losses.png, samples/ with snapshots and the picture, Weights
    & Biases. With --grid each experiment has a folder of its own in it."""
    snapshot_every: int | None = None
    """Steps between pictures kept in the run folder; 0: none. Otherwise a tenth of all steps."""
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
            raise UsageError(f"--preset {self.preset}: choose one of {', '.join(PRESETS)}")
        if len(self.size) > 2 or any(side < 1 for side in self.size):
            raise UsageError(f"--size {self.size}: must be one number of pixels, or two, width and height")
        if not 0 < self.style_scale <= 10:
            raise UsageError(f"--style-scale {self.style_scale}: must be above 0 and at most 10")
        for name, least in (("snapshot_every", 0), ("log_every", 1), ("max_pixels", 0)):
            if (getattr(self, name) or 0) < least:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.snapshot_every and self.run_dir is None:
            raise UsageError("--snapshot-every: name a --run-dir to keep the pictures in")
        if isinstance(self.output, Path) and self.output.suffix.lower() not in WRITTEN_SUFFIXES:
            raise UsageError(f"--output {self.output}: must name a picture, such as out.png")


@dataclass(frozen=True)
class Inputs:
    """The files of a job that are searched for."""

    photo: Path | None
    paintings: Sequence[Path]


@dataclass(frozen=True)
class Material:
    """The pictures of a job, at full size."""

    content: Image | None
    alpha: Any
    styles: list[Image]
    init_image: Image | None
    extent: tuple[int, int]
    regions: Sequence[Any] = ()


def optimize_files(config: OptimizeConfig) -> int:
    """Optimize one picture, or a grid of them, and return the exit code; 128 + N where signal N stopped it.

    Whether results can be written and networks can be had is found before a picture is read.

    Raises ImageError where a file cannot be read, OutputError where one cannot be written, UsageError where options
    contradict each other or a result would replace what is read, and what `optimization.loop.optimize` raises.
    """
    keep_freed_memory()
    experiments = expand(config.grid, config.optimization)
    pictures = [_picture(config, label) for label, _ in experiments if config.grid]
    for file in (config.output, *pictures):
        check_writable(file)
    if config.run_dir is not None:
        for folder in (config.run_dir, *(config.run_dir / picture.stem for picture in pictures)):
            check_writable(folder / OPTIONS)
    named = None
    with suppress(ImageError):  # is told by `load_material`
        named = find_inputs(config)
        read = [*named.paintings, *config.mask, *filter(None, (named.photo, config.init_image))]
        refuse_overwriting(read, [config.output, *pictures])
    features = {_network(optimization): feature_network(optimization) for _, optimization in experiments}
    material = load_material(config, named)
    if config.grid:
        return run_grid(config, experiments, material, features)
    last, code = experiment(config, material, features[_network(config.optimization)], config.output)
    if last is None:
        with suppress(OSError):  # after SIGHUP there is no terminal
            print("interrupted before the first step", file=sys.stderr)
        return code
    losses = ", ".join(f"{name} {value:.4g}" for name, value in last.losses.items())
    with suppress(OSError):
        print(f"{config.output}: step {last.step} of {last.steps}, {losses}", flush=True)
    return code


def experiment(
    config: OptimizeConfig, material: Material, features: VGGFeatures, output: Path
) -> tuple[Iterate | None, int]:
    """One optimization: its picture, as far as it came, a progress bar and, in the run folder, a record.

    Returns the last iterate, None where there was none, and the exit code: 0 done, 1 out of memory, or 128 + N where
    signal N stopped it.
    """
    last, code, record = None, 0, Record(config)
    try:
        try:
            for last in run(config, config.optimization, material, features):
                record.add(last)
        except KeyboardInterrupt as stop:
            code = exit_code(stop)
        except Exception as error:
            if last is None or not out_of_memory(error):
                raise
            print(f"out of memory after step {last.step}: lower --size", file=sys.stderr)
            code = 1
        if last is not None:
            with handled(SIGNALS, lambda *_: None):  # another signal does not keep the picture from being written
                save(last, output, material)
    finally:
        record.close(last)
    return last, code


def find_inputs(config: OptimizeConfig) -> Inputs:
    """The photo and the paintings. Raises UsageError where the content is several photos, ImageError for none."""
    written = [config.output, *([config.output.with_suffix("")] if config.grid else ())]
    written += [] if config.run_dir is None else [config.run_dir, config.run_dir / "samples"]
    results = dict.fromkeys(written, "")
    photos = [] if config.content is None else find_images([config.content], results=results)
    if config.content is not None and len(photos) > 1:
        raise UsageError(
            f"--content {printable_path(config.content)}: names {len(photos)} photos, and one is optimized at a time; "
            "name one of them"
        )
    return Inputs(photos[0] if photos else None, find_images(config.style, repeated=True, results=results))


def load_material(config: OptimizeConfig, named: Inputs | None = None) -> Material:
    """The files of a job as pictures, and the extent of the result.

    Args:
        named: the files, where they have been found.
    """
    limit, named = config.max_pixels or None, named or find_inputs(config)
    photo = None if named.photo is None else load_picture(named.photo, limit)
    styles = [load_image(path, limit) for path in named.paintings]
    init_image = None if config.init_image is None else load_image(config.init_image, limit)
    content = None if photo is None else photo.rgb
    extent = extent_of(config.size, None if content is None else (content.shape[2], content.shape[3]))
    alpha = None if photo is None or photo.alpha is None else resize(photo.alpha, extent)
    regions = [load_regions(path, limit) for path in config.mask]
    if regions:
        if content is None or len(regions) != 1 + len(styles):
            raise UsageError(f"--mask: name one for the photo and one for each painting: {1 + len(styles)} in all")
        if not config.optimization.local:
            raise UsageError("--mask: needs a --preset that compares places, such as kolkin2022")
        check_regions(regions[0], regions[1:])
    return Material(content, alpha, styles, init_image, extent, regions)


def extent_of(size: Sequence[int], photo: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the result: as asked, or as the photo, or a default square."""
    if len(size) == 2:
        return size[1], size[0]
    if photo is None:
        side = size[0] if size else DEFAULT_SIZE
        return side, side
    scale = (size[0] if size else min(DEFAULT_SIZE, *photo)) / min(photo)
    return max(1, round(photo[0] * scale)), max(1, round(photo[1] * scale))


def run(
    config: OptimizeConfig, optimization: OptimizationConfig, material: Material, features: VGGFeatures
) -> Iterator[Iterate]:
    """One optimization with the configuration's pictures."""
    return optimize(
        material.content,
        material.styles,
        optimization,
        style_weights=config.style_weights or None,
        style_scale=config.style_scale,
        size=material.extent,
        init_image=material.init_image,
        regions=material.regions,
        preserve_color=config.preserve_color,
        device=config.device,
        precision=config.precision,
        seed=config.seed,
        features=features,
    )


class Record:
    """The progress bar of an optimization and, where there is a run folder, options, losses and pictures there."""

    def __init__(self, config: OptimizeConfig) -> None:
        self._folder, self._log_every = config.run_dir, config.log_every
        self._snapshot_every = config.snapshot_every
        self._curves: dict[str, tuple[list[float], list[float]]] = {}
        self._bar, self._tracker = tqdm(unit="step", dynamic_ncols=True), None
        if self._folder is not None:
            options = json.loads(json.dumps(asdict(config), default=str))
            self._tracker = Tracker(self._folder, options, config.wandb)
            path = self._folder / OPTIONS
            self._tracker.keep(lambda: path.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8"))

    def add(self, iterate: Iterate) -> None:
        """One step more."""
        step, every = iterate.step, self._snapshot_every
        self._bar.total = iterate.steps
        self._bar.update()
        if step % self._log_every == 0 or step in (1, iterate.steps):
            losses = iterate.losses
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()})
            if self._tracker is not None:
                self._tracker.scalars(step, losses | {"loss": sum(losses.values())}, "optimize")
                for name, value in losses.items():
                    steps, values = self._curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
        every = max(1, iterate.steps // 10) if every is None else every
        if self._tracker is not None and every and step % every == 0:
            self._tracker.image(step, "snapshots", iterate.image[0])

    def close(self, last: Iterate | None) -> None:
        """Record the last picture, and end."""
        self._bar.close()
        if self._tracker is None or self._folder is None:
            return
        if last is not None:
            self._tracker.image(last.step, "result", last.image[0])
        path, curves = self._folder / "losses.png", self._curves
        if curves:
            self._tracker.keep(
                lambda: line_plot(path, curves, x_label="step", y_label="weighted loss", logarithmic=True)
            )
        self._tracker.close()


def save(iterate: Iterate, path: Path, material: Material) -> None:
    """Write the picture of an iterate, with the photo's transparency at its size."""
    image = iterate.image
    alpha = None if material.alpha is None else resize(material.alpha, (image.shape[2], image.shape[3]))
    save_image(image, path, alpha)


# Grids


def expand(grid: Sequence[str], optimization: OptimizationConfig) -> list[tuple[str, OptimizationConfig]]:
    """Every combination of the grid's values, with a label.

    Raises ValueError, naming the option, where a name or a value is not one of the optimization's.
    """
    axes = []
    for axis in grid:
        name, _, values = axis.partition("=")
        if name not in presets.OPTIONS or not values:
            raise UsageError(
                f"--grid {axis}: must be OPTION=VALUE,VALUE,... with an option among {', '.join(presets.OPTIONS)}"
            )
        axes.append([(f"{name}={value}", {name: parse_option(name, value)}) for value in values.split(",")])
    experiments = []
    for combination in itertools.product(*axes):
        label = ", ".join(text for text, _ in combination)
        options = {name: value for _, option in combination for name, value in option.items()}
        experiments.append((label, presets.changed(optimization, options)))
    return experiments


def parse_option(name: str, text: str) -> Any:
    """A value of an option, by the option's type.

    Raises ValueError where the text is not one.
    """
    kind = presets.OPTIONS[name]
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
        raise UsageError(f"--grid {name}={text}: '{text}' is not a value of {name}") from error


def run_grid(
    config: OptimizeConfig,
    experiments: Sequence[tuple[str, OptimizationConfig]],
    material: Material,
    features: Mapping[Hashable, VGGFeatures],
) -> int:
    """Every experiment's picture in a folder, and one labelled sheet of all, the last option varying across.

    One that diverges leaves its cell empty; the exit code is then 1. The sheet grows as pictures are made. A signal
    ends the grid; the picture of the experiment that it stopped is kept as it is.

    Args:
        features: the networks that the experiments compare pictures in, by what distinguishes them.
    """
    width = len(config.grid[-1].partition("=")[2].split(","))
    folder, failed, done = config.output.with_suffix(""), 0, 0
    cells: list[Any] = [None] * len(experiments)
    for index, (label, optimization) in enumerate(tqdm(experiments, desc="experiments", unit="picture")):
        picture = _picture(config, label)
        run_dir = None if config.run_dir is None else config.run_dir / picture.stem
        try:
            own = replace(config, optimization=optimization, run_dir=run_dir)
            last, code = experiment(own, material, features[_network(optimization)], picture)
        except OptimizationDiverged as error:
            failed += 1
            tqdm.write(f"failed: {label}: {error}", file=sys.stderr)
            continue
        if last is not None:
            cells[index] = last.image[0]
            rows = [cells[first : first + width] for first in range(0, len(cells), width)]
            labels = [text for text, _ in experiments]
            columns = [text.rpartition(", ")[2] for text in labels[:width]]
            row_names = [text.rpartition(", ")[0] for text in labels[::width]]
            save_image(contact_sheet(rows, columns, row_names if len(config.grid) > 1 else ()), config.output)
        if code > 1:
            with suppress(OSError):  # after SIGHUP there is no terminal
                print(f"stopped: {done} of {len(experiments)} pictures are done in {folder}, the next is {label}")
            return code
        failed, done = failed + code, done + (not code)
    print(f"{done} pictures in {folder}, the sheet is {config.output}")
    return 1 if failed else 0


def _picture(config: OptimizeConfig, label: str) -> Path:
    """The file of an experiment's picture."""
    return config.output.with_suffix("") / fitting_name(label.replace(", ", "_").replace(":", "-"), ".png")


def _network(optimization: OptimizationConfig) -> Hashable:
    """The options that determine the feature network."""
    return (*optimization.content_layers, *optimization.style_layers, optimization.vgg, optimization.content_weight > 0)
