"""Training: the loop that fits every style model to its objective."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Subset, default_collate
from torchvision.utils import make_grid
from tqdm import tqdm

from arbitrary_nst.data import Augmentation, Pairs, PictureFolder, Resumable, batches
from arbitrary_nst.devices import fast_bfloat16, keep_freed_memory
from arbitrary_nst.features import VGGFeatures
from arbitrary_nst.models import FIXED_STYLES, MODELS, FixedStyles
from arbitrary_nst.models.files import load_model, model_card, model_file, save_model
from arbitrary_nst.objectives import OBJECTIVES, AdaINObjective, Objective, loss_network
from arbitrary_nst.paths import find_images, unique_names, written_whole
from arbitrary_nst.tracking import Tracker, WandbMode

VALIDATION_SIZE = 256
"""Side in pixels of the squares that a run is validated on, where its crops are smaller."""

CHECKPOINT, MODEL = "checkpoint.pt", "model.safetensors"

Batch = tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"], Int[Tensor, "B"]]
"""Photos, paintings, and the numbers of the paintings."""


class TrainingDiverged(FloatingPointError):
    """The gradient is no longer a number."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a style model on a collection of photos and a collection of paintings."""

    content_data: tuple[Path, ...]
    """Photos: files, folders (searched recursively) or globs."""
    style_data: tuple[Path, ...]
    """Paintings, likewise."""
    run_dir: Path
    """Folder of this run: checkpoint.pt, model.safetensors, train.csv, validation.csv, samples/."""
    preset: str = ""
    """Start from a published set-up (johnson2016, dumoulin2017, huang2017, ghiasi2017, normalization-network, light);
    options given beside it change it."""
    model: str = "light"
    """light, paper, adain, adain-vgg19, normalization-network, or, for the paintings of --style-data only,
    single-style, multi-style."""
    objective: Literal["auto", "relative", "prediction", "johnson", "adain"] = "auto"
    """auto: the paper's own for paper, adain and adain-vgg19; else relative, which needs no tuning since its terms
    are shares of what they compare with."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Weights of the objective to change, such as `content_weight 2 gram_weight 3`."""
    init: Path | None = None
    """A model file to start from, with fresh optimizer and schedule."""
    add_styles: bool = False
    """Train only the gammas and betas of the new styles; nothing else of --init changes (multi-style)."""
    resume: bool = False
    """Go on from the run folder's checkpoint."""

    steps: int = 160_000
    batch_size: int = 8
    crop_size: int = 256
    """Side of the crops in pixels."""
    picture_size: int = 512
    """Pictures are kept in memory with this short side, in pixels."""
    memory_gb: float = 8.0
    """Decoded pictures kept in memory; what does not fit is decoded at every use."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    learning_rate: float = 1e-3
    backbone_rate: float = 0.1
    """Learning rate of a pretrained predictor backbone, in units of `learning_rate`."""
    warmup_steps: int = 200
    """Steps of linear rise; a cosine down to zero follows."""
    gradient_clip: float = 5.0
    """Largest norm of the gradient."""
    patience: int = 10
    """A step whose gradient is NaN or infinite is skipped; after so many in a row the run stops."""
    ema_decay: float = 0.999
    """Of the running mean of weights, which is what is validated and saved as the model."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 (autocast) on CUDA and on processors that multiply it natively, else float32."""
    workers: int = 1
    """Processes that prepare batches."""
    seed: int = 0

    log_every: int = 20
    save_every: int = 500
    """Steps between checkpoints."""
    validate_every: int = 500
    """Steps between validations on held-out pictures, and grids of samples."""
    validation_pairs: int = 48
    """Photos and as many paintings that are held out of training."""
    wandb: WandbMode = "auto"

    def __post_init__(self) -> None:
        if self.preset and self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: choose one of {', '.join(PRESETS)}")
        if self.model not in MODELS:
            raise ValueError(f"--model {self.model}: choose one of {', '.join(MODELS)}")
        if self.crop_size % 8 or self.crop_size < 32:
            raise ValueError(f"--crop-size {self.crop_size}: must be a multiple of 8 and at least 32")
        for name in ("steps", "batch_size", "log_every", "save_every", "validate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.resume and self.init is not None:
            raise ValueError("--resume goes on from the run's own checkpoint, --init starts from a file: choose one")
        if self.add_styles and (self.model != "multi-style" or not (self.resume or self.init)):
            raise ValueError("--add-styles: needs --model multi-style and, in --init, the file of such a model")


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
    "normalization-network": {"model": "normalization-network"},
    "light": {
        "model": "light",
        "batch_size": 8,
        "crop_size": 128,
        "steps": 3500,
        "warmup_steps": 100,
        "picture_size": 384,
        "augmentation": Augmentation((1.5, 2.25), (1.25, 3.0), identity_share=0.03),
    },
}
"""Keyword arguments of `TrainConfig` for published set-ups (docs/papers.md) and for the model that ships."""


class TrainingModule(nn.Module):
    """Model, frozen features and objective as one module: a batch in, named losses out.

    Where a model knows a single style, its painting's features are computed once for the whole batch.
    """

    def __init__(self, model: nn.Module, features: VGGFeatures, objective: Objective) -> None:
        super().__init__()
        self.model: Any = model
        self.features, self.objective = features, objective
        self.single = isinstance(model, FixedStyles) and model.code_size == 1

    def forward(
        self, content: Float[Tensor, "B 3 S S"], style: Float[Tensor, "B 3 S S"], number: Int[Tensor, "B"]
    ) -> dict[str, Float[Tensor, ""]]:
        if self.single:
            style, number = style[:1], number[:1]
        code = style_codes(self.model, style, number)
        return self.objective(self.model, self.features, content, style, code)


def style_codes(model: Any, style: Float[Tensor, "B 3 S S"], number: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
    """What the model makes of paintings, or the codes of its own styles by their numbers."""
    return model.codes(number) if isinstance(model, FixedStyles) else model.encode_style(style)


def train(config: TrainConfig) -> int:
    """The command: train, say where the model is, and return the exit code."""
    keep_freed_memory()
    print(f"the model is {fit(config)}")
    return 0


def fit(config: TrainConfig) -> Path:
    """Train, and return the file of the finished model.

    Raises:
        TrainingDiverged: the gradient stays NaN or infinite; the last checkpoint is from before.
        ImageError, ValueError: the data or the options cannot be used.
        WeightsNotFoundError: weights of the feature network or the backbone are missing.
    """
    fabric = _fabric(config)
    objective = build_objective(config)
    checkpoint = find_checkpoint(config)
    contents, styles = _folder(config.content_data, config), _folder(config.style_data, config)
    names = list(unique_names(styles.paths).values())

    torch.manual_seed(config.seed)
    model = starting_model(config, names)
    known = [model.style_names.index(name) for name in names] if isinstance(model, FixedStyles) else None
    pairs, validation = split(contents, styles, config, known)
    ema = AveragedModel(model, multi_avg_fn=running_mean(config.ema_decay), use_buffers=True)
    module = TrainingModule(model.train(), loss_network(objective), objective)
    for network in (module, ema):
        network.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module, optimizer = fabric.setup(module, torch.optim.Adam(parameter_groups(model, config)))

    state: dict[str, Any] = {"model": model, "ema": ema, "optimizer": optimizer, "step": 0}
    if config.resume:
        fabric.load(checkpoint, state)
    tracker = Tracker(config.run_dir, asdict(config), config.wandb)
    progress = Progress(state["step"], config)
    sampler = Resumable(state["step"], config.steps, config.batch_size)
    for batch in batches(pairs, sampler, config.workers):
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * scheduled_rate(state["step"], config)
        losses = module(*to_device(batch, fabric.device))
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        fabric.backward(loss)
        norm: Any = fabric.clip_gradients(module, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
        finite = bool(norm.isfinite())
        if finite:
            optimizer.step()
            ema.update_parameters(model)
        progress.count(finite)

        state["step"] = step = state["step"] + 1
        last = step == config.steps
        saving = last or step % config.save_every == 0
        if progress.skipped_in_a_row >= config.patience:
            raise TrainingDiverged(
                f"{config.patience} steps in a row without a finite gradient at step {step}, with a loss of "
                f"{loss.item()}; {checkpoint}, if already written, is from before. Resume with a lower "
                f"--learning-rate (now {config.learning_rate}) or with --precision float32."
            )
        if saving or step % config.log_every == 0:
            values = {name: value.item() for name, value in {**losses, "loss": loss, "gradient": norm}.items()}
            tracker.scalars(step, values | progress.show(values["loss"]))
        if last or step % config.validate_every == 0:
            validate(fabric, TrainingModule(ema.module, module.features, objective), validation, tracker, step)
        if saving:
            save_model(ema.module, config.model, checkpoint.with_name(MODEL), {"steps": step, "config": asdict(config)})
            save_checkpoint(fabric, state, checkpoint)
    tracker.close()
    return checkpoint.with_name(MODEL)


class Progress:
    """The bar on the terminal, the speed since this process began, and the steps that had to be skipped.

    A crop without any detail, a white wall, has no finite gradient through a chain of instance norms: the step is
    skipped, counted and shown.
    """

    def __init__(self, step: int, config: TrainConfig) -> None:
        self._config = config
        self._bar = tqdm(total=config.steps, initial=step, unit="step", dynamic_ncols=True)
        self._started, self._first = time.monotonic(), step
        self.skipped = self.skipped_in_a_row = 0

    def count(self, taken: bool) -> None:
        """One step more, taken or skipped."""
        self.skipped += not taken
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        self._bar.update()

    def show(self, loss: float) -> dict[str, float]:
        """Show loss and speed; return learning rate, speed and skipped steps for the record."""
        images = (self._bar.n - self._first) * self._config.batch_size
        speed = images / (time.monotonic() - self._started)
        self._bar.set_postfix(loss=f"{loss:.3f}", images=f"{speed:.1f}/s", skipped=self.skipped)
        rate = scheduled_rate(int(self._bar.n), self._config)
        return {"learning_rate": rate, "images_per_second": speed, "skipped": self.skipped}


def find_checkpoint(config: TrainConfig) -> Path:
    """The run's checkpoint file, refusing to overwrite one and to resume from none (ValueError)."""
    path = config.run_dir / CHECKPOINT
    if config.resume and not path.is_file():
        raise ValueError(f"--resume: there is no {path}; leave the flag out to start the run")
    if not config.resume and path.exists():
        raise ValueError(f"{path} is of an earlier run: add --resume to go on with it, or name another --run-dir")
    return path


def to_device(batch: Sequence[Tensor], device: torch.device) -> Batch:
    """A batch where it is computed with, its images in the memory format that convolutions prefer."""
    content, style, number = batch
    content, style = (x.to(device, memory_format=torch.channels_last, non_blocking=True) for x in (content, style))
    return content, style, number.to(device, non_blocking=True)


def starting_model(config: TrainConfig, names: Sequence[str]) -> nn.Module:
    """The model as training finds it: new, that of --init, or, to know its styles, that of the run to resume.

    Args:
        names: those of the paintings, which a model of fixed styles knows them by.

    Raises ValueError where a file holds another model or other styles.
    """
    fixed = config.model in FIXED_STYLES
    source = config.run_dir / MODEL if config.resume and fixed else config.init
    if source is None:
        return MODELS[config.model](**{"styles": names} if fixed else {})
    held, _ = model_card(model_file(source))
    if held != config.model:
        raise ValueError(f"{source}: holds a model '{held}', not '{config.model}': change --model or --init")
    model = load_model(source)
    if not isinstance(model, FixedStyles):
        return model
    if config.add_styles and not config.resume:
        model.add_styles(names)
    elif config.add_styles and set(names) <= set(model.style_names):
        model.train_only(names)
    elif set(names) != set(model.style_names):
        raise ValueError(
            f"{source}: its styles are {', '.join(model.style_names)}, those of --style-data {', '.join(names)}; "
            "--add-styles with --init learns new ones"
        )
    return model


def _fabric(config: TrainConfig):
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=config.device, devices=1, precision="32-true")
    if config.precision == "bfloat16" or (config.precision == "auto" and fast_bfloat16(fabric.device)):
        fabric = Fabric(accelerator=config.device, devices=1, precision="bf16-mixed")
    return fabric


def build_objective(config: TrainConfig) -> Objective:
    """The objective of the configuration, with its weights changed as asked.

    Raises ValueError where a weight is not one of the objective's.
    """
    own = {"paper": "prediction", "adain": "adain", "adain-vgg19": "adain"}.get(config.model, "relative")
    objective = OBJECTIVES[own if config.objective == "auto" else config.objective]()
    if isinstance(objective, AdaINObjective):
        if not config.model.startswith("adain"):
            raise ValueError(f"--objective adain: {config.model} decodes no features; choose --model adain")
        if config.model == "adain-vgg19":  # what the decoder is asked to paint are features of the model's encoder
            objective = replace(objective, network="vgg19")
    known = [name for name in asdict(objective) if name.endswith("_weight")]
    unknown = [name for name in config.loss_weights if name not in known]
    if unknown:
        raise ValueError(f"--loss-weights {unknown[0]}: {type(objective).__name__} has {', '.join(known)}")
    return replace(objective, **config.loss_weights)


def _folder(paths: tuple[Path, ...], config: TrainConfig) -> PictureFolder:
    return PictureFolder(find_images(paths), config.picture_size, int(config.memory_gb / 2 * (1 << 30)))


def split(
    contents: PictureFolder, styles: PictureFolder, config: TrainConfig, known: Sequence[int] | None = None
) -> tuple[Pairs, Batch]:
    """Pairs to train on, and a fixed batch of pairs of held-out photos and paintings.

    At most a tenth of either is held out; which, the seed decides. A collection of fewer than ten pictures (one
    painting, say) is used for both.

    Args:
        known: numbers by which a model of fixed styles knows the paintings. None of them is held out then, and they
            are what is to be learned: crops show all of their short side, and are not mirrored or given other colours;
            no photo is its own style.
    """
    vary = config.augmentation
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0, flip_styles=known is None)
    if known is not None:
        vary = replace(plain, content_sizes=vary.content_sizes)
    numbers = range(len(styles)) if known is None else known
    parts = []
    for offset, folder in enumerate((contents, styles)):
        order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(config.seed + offset)).tolist()
        spared = known is not None and offset == 1
        count = 0 if spared else min(config.validation_pairs, len(folder) // 10)
        held_out = order[:count] or order
        parts.append((Subset(folder, order[count:]), Subset(folder, held_out)))
    (train_contents, held_contents), (train_styles, held_styles) = parts
    train_numbers, held_numbers = ([numbers[i] for i in part.indices] for part in (train_styles, held_styles))
    size = max(config.crop_size, min(2 * config.crop_size, VALIDATION_SIZE))
    fixed = Pairs(held_contents, held_styles, size, config.seed, plain, held_numbers)
    validation = default_collate([fixed[index] for index in range(config.validation_pairs)])
    train_pairs = Pairs(train_contents, train_styles, config.crop_size, config.seed, vary, train_numbers)
    return train_pairs, tuple(validation)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters: those of a pretrained backbone at their own rate, the rest at the full one."""
    groups: dict[float, list[nn.Parameter]] = {config.backbone_rate: [], 1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[config.backbone_rate if "backbone." in name else 1.0].append(parameter)
    return [{"params": group, "scale": scale, "lr": 0.0} for scale, group in groups.items() if group]


def running_mean(decay: float) -> Callable[..., None]:
    """Exponential moving average that forgets the random start: the decay of update n is at most (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(averages: Any, values: Any, updates: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # counters of batch norms
            torch._foreach_copy_(averages, values)
            return
        count = int(updates)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + count) / (10 + count)))

    return update


def scheduled_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


@torch.no_grad()
def validate(
    fabric: Any, module: TrainingModule, pairs: Batch, tracker: Tracker, step: int, batch_size: int = 8
) -> dict[str, float]:
    """Mean losses on held-out pairs, and a grid of the first eight: content, style, result."""
    model = module.model.eval()
    sums: dict[str, float] = {}
    for chunk in zip(*(part.split(batch_size) for part in pairs), strict=True):
        with fabric.autocast():
            losses = module(*to_device(chunk, fabric.device))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(chunk[0]) / len(pairs[0])
    tracker.scalars(step, sums | {"loss": sum(sums.values())}, "validation")

    content, style, number = to_device([part[:8] for part in pairs], fabric.device)
    with fabric.autocast():
        stylized = model(content, style_codes(model, style, number))
    rows = torch.stack([content, style, stylized.float()], dim=1).flatten(0, 1).clamp(0, 1).cpu()
    tracker.image(step, "samples", make_grid(rows, nrow=6), "content | style | result")
    model.train()
    return sums


def save_checkpoint(fabric: Any, state: dict[str, Any], path: Path) -> None:
    """Everything that the run needs to go on, written beside the old file and then put in its place."""
    with written_whole(path) as partial:
        fabric.save(partial, state)
