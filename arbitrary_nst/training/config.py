"""Options of a training run, published set-ups, and the choice of the objective."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.constructors import PrimitiveConstructorSpec

from arbitrary_nst.data import Augmentation
from arbitrary_nst.errors import UsageError
from arbitrary_nst.models import MODELS
from arbitrary_nst.runtime.files import atomic_write
from arbitrary_nst.tracking import WandbMode
from arbitrary_nst.training.objectives import OBJECTIVES, AdaINObjective, Objective, OctavesObjective

CONFIG = "config.json"

NOT_KEPT = ("config", "resume", "allow_pipe")
"""Options that say how a start was made rather than what the run is."""

Precision = Literal["float32", "bfloat16", "float16"]


def parse_weights(words: Sequence[str]) -> dict[str, float]:
    """Weights by name from NAME VALUE NAME VALUE. Raises ValueError where a value is missing or is not a number."""
    if len(words) % 2:
        raise ValueError(f"{words[-1]} has no value")
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}


LossWeights = Annotated[
    dict[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME VALUE [NAME VALUE ...]]",
        instance_from_str=parse_weights,
        is_instance=lambda instance: isinstance(instance, dict),
        str_from_instance=lambda weights: [word for name, value in weights.items() for word in (name, f"{value:g}")],
    ),
]
"""Weights of an objective by name; on the command line `content_weight 2 gram_weight 3`."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a style model on a collection of photos and a collection of paintings."""

    MERGED: ClassVar[tuple[str, ...]] = ("loss_weights",)
    """Options whose entries on the command line stand beside those of a preset or of a file."""

    content_data: tuple[str, ...]
    """Photos: files, folders (searched recursively), globs, zip and tar files of either, or shards from elsewhere
    (https://..., s3://..., pipe:COMMAND), which are streamed."""
    style_data: tuple[str, ...]
    """Paintings, likewise."""
    run_dir: Path
    """Folder of this run: config.json, checkpoints, model.safetensors, best.safetensors, CSV files, samples/."""
    config: Path | None = None
    """The config.json of an earlier run, or a file like it; options given beside it change it."""
    preset: str = ""
    """Start from a published set-up (johnson2016, dumoulin2017, huang2017, ghiasi2017, normalization-network, light);
    options given beside it change it."""
    model: str = "light"
    """light, paper, adain, adain-vgg19, normalization-network, or, for the paintings of --style-data only,
    single-style, multi-style."""
    objective: Literal["auto", "relative", "local", "octaves", "prediction", "johnson", "adain"] = "auto"
    """auto: octaves for light and normalization-network, the paper's own for paper, adain and adain-vgg19, else
    relative. octaves compares positions with positions, in two octaves of every sample, each with crops of half of
    --crop-size; local does so in one octave; the terms of relative are shares of what they compare with."""
    loss_weights: LossWeights = field(default_factory=dict)
    """Weights of the objective to change, such as `content_weight 2 gram_weight 3`; the others stay."""
    init: Path | None = None
    """A model file to start from, with fresh optimizer and schedule. A resumed run has its own."""
    add_styles: bool = False
    """Train only the gammas and betas of the new styles; nothing else of --init changes (multi-style)."""
    resume: bool = False
    """Go on from the newest whole checkpoint of the run's folder, with the options of its config.json; those given
    beside it change them."""
    allow_pipe: bool = False
    """Run the commands ("pipe:...") that a file of options names as data. Allow it only for files that you trust."""

    steps: int = 160_000
    minutes: float | None = None
    """Stop after so long, interruptions left out: the learning rate is at zero by then or after --steps, whichever is
    sooner. The last validation and saving come on top. None: only --steps counts."""
    batch_size: int = 8
    """Pairs in one pass of one process."""
    accumulate: int = 1
    """Passes of a step: their gradients are those of one batch as large as all of them."""
    crop_size: int = 256
    """Side of the crops in pixels."""
    picture_size: int = 512
    """Pictures are kept in memory with this short side, in pixels."""
    memory_gb: float = 8.0
    """Decoded pictures that each process keeps in memory; what does not fit is decoded at every use."""
    resident: bool = False
    """Keep the pictures on the device, and crop and vary them there. They must fit into --memory-gb."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    learning_rate: float = 1e-3
    backbone_rate: float = 0.1
    """Learning rate of a pretrained predictor backbone, in units of `learning_rate`."""
    warmup_steps: int = 200
    """Steps of linear rise; a cosine down to zero follows."""
    gradient_clip: float = 5.0
    """Largest norm of the gradient."""
    patience: int = 10
    """A step is skipped whose gradient is NaN, infinite or exploding; after so many in a row the run stops."""
    max_grad_ratio: float = 100.0
    """Exploding: the gradient's norm is this many times the median of the last hundred."""
    ema_decay: float = 0.999
    """Of the exponential moving average (EMA) of the weights, which is what is validated and saved as the model."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the networks (autocast; float16 with a scaled loss). auto: bfloat16 where the device multiplies it natively,
    else float32."""
    compile: bool = False
    """Compile the networks (torch.compile): minutes at the start, faster steps on a GPU."""
    workers: int = 1
    """Processes that prepare batches."""
    seed: int = 0

    log_every: int = 20
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints that are kept: the newest ones."""
    validate_every: int = 500
    """Steps between validations on held-out pictures, and grids of samples."""
    validation_pairs: int = 48
    """Photos and as many paintings that are held out of training."""
    wandb: WandbMode = "auto"

    def __post_init__(self) -> None:
        if self.preset and self.preset not in PRESETS:
            raise UsageError(f"--preset {self.preset}: choose one of {', '.join(PRESETS)}")
        if self.model not in MODELS:
            raise UsageError(f"--model {self.model}: choose one of {', '.join(MODELS)}")
        if self.crop_size % 8 or self.crop_size < 32:
            raise UsageError(f"--crop-size {self.crop_size}: must be a multiple of 8 and at least 32")
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "save_every",
            "keep",
            "validate_every",
            "validation_pairs",
            "patience",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.minutes is not None and self.minutes <= 0:
            raise UsageError(f"--minutes {self.minutes}: must be above 0")
        if self.max_grad_ratio <= 1:
            raise UsageError(f"--max-grad-ratio {self.max_grad_ratio}: must be above 1, in units of the usual gradient")
        if self.add_styles and (self.model != "multi-style" or not (self.resume or self.init)):
            raise UsageError("--add-styles: needs --model multi-style and, in --init, the file of such a model")


PRESETS: dict[str, dict[str, Any]] = {
    "johnson2016": {
        "model": "single-style",
        "objective": "johnson",
        "batch_size": 4,
        "crop_size": 256,
        "steps": 40_000,
        "learning_rate": 1e-3,
        "augmentation": Augmentation(content_sizes=(1.0, 1.0)),
    },
    "dumoulin2017": {
        "model": "multi-style",
        "objective": "prediction",
        "loss_weights": {"style_weight": 1e-4, "total_variation_weight": 0.0},
        "batch_size": 16,
        "crop_size": 256,
        "steps": 40_000,
        "learning_rate": 1e-3,
        "augmentation": Augmentation(content_sizes=(1.0, 1.0)),
    },
    "huang2017": {
        "model": "adain-vgg19",
        "objective": "adain",
        "batch_size": 8,
        "crop_size": 256,
        "steps": 160_000,
        "learning_rate": 1e-4,
        "augmentation": Augmentation(content_sizes=(2.0, 2.0), style_sizes=(2.0, 2.0), colour_share=0.0),
    },
    "ghiasi2017": {
        "model": "paper",
        "objective": "prediction",
        "batch_size": 8,
        "crop_size": 256,
        "steps": 8_000_000,
        "learning_rate": 1e-5,
        "backbone_rate": 1.0,
    },
    "normalization-network": {"model": "normalization-network", "crop_size": 512, "picture_size": 640},
    "light": {
        "model": "light",
        "loss_weights": {"content_weight": 2.0, "color_weight": 3.0, "consistency_weight": 1.0},
        "batch_size": 8,
        "crop_size": 512,
        "steps": 20_000,
        "learning_rate": 6e-4,
        "backbone_rate": 0.3,
        "warmup_steps": 100,
        "picture_size": 640,
        "augmentation": Augmentation((1.0, 2.5), (1.0, 1.25)),
    },
}
"""Keyword arguments of `TrainConfig` for published set-ups (docs/papers.md) and for the model that ships."""


def build_objective(config: TrainConfig) -> Objective:
    """The objective of the configuration, with its weights changed as asked.

    Raises ValueError where a weight is not one of the objective's.
    """
    objective = OBJECTIVES[objective_name(config)]()
    if isinstance(objective, AdaINObjective):
        if not config.model.startswith("adain"):
            raise UsageError(f"--objective adain: {config.model} decodes no features; choose --model adain")
        if config.model == "adain-vgg19":  # what the decoder is asked to paint are features of the model's encoder
            objective = replace(objective, vgg=replace(objective.vgg, network="vgg19"))
    if isinstance(objective, OctavesObjective) and config.model not in ("light", "normalization-network"):
        raise UsageError(f"--objective octaves: {config.model} paints no octaves; choose --model light")
    known = objective_weights(objective)
    unknown = [name for name in config.loss_weights if name not in known]
    if unknown:
        raise UsageError(f"--loss-weights {unknown[0]}: {type(objective).__name__} has {', '.join(known)}")
    return replace(objective, **config.loss_weights)


def objective_name(config: TrainConfig) -> Any:
    """The objective of the configuration, or the model's own where it leaves that open."""
    if config.objective != "auto":
        return config.objective
    return {
        "light": "octaves",
        "normalization-network": "octaves",
        "paper": "prediction",
        "adain": "adain",
        "adain-vgg19": "adain",
    }.get(config.model, "relative")


def objective_weights(objective: Objective) -> dict[str, float]:
    """The weights of an objective's terms, by name."""
    return {name: value for name, value in asdict(objective).items() if name.endswith("_weight")}


def save_config(config: TrainConfig, path: Path) -> str:
    """Write what `--config FILE` takes back, and return it."""
    text = json.dumps(_kept(config), indent=2)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return text


def changed_options(config: TrainConfig) -> list[str]:
    """A line for each option of a run to be resumed that its config.json has otherwise; none where there is no file.

    Raises UsageError where the run trains another model.
    """
    path = config.run_dir / CONFIG
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    if before.get("model", config.model) != config.model:
        raise UsageError(
            f"--model {config.model}: {path} is of a run that trains {before['model']}; leave --model out, or name "
            "another --run-dir"
        )
    return [
        f"--{name.replace('_', '-')} is now {json.dumps(value)}, was {json.dumps(before[name])}"
        for name, value in _kept(config).items()
        if name in before and before[name] != value and name != "run_dir"
    ]


def _kept(config: TrainConfig) -> dict[str, Any]:
    """The options as JSON has them, without those of NOT_KEPT."""
    options = {name: value for name, value in asdict(config).items() if name not in NOT_KEPT}
    return json.loads(json.dumps(options, default=str))
