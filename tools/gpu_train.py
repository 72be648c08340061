"""Go on training a model on one GPU until a given time: a stage of `gpu_check.py`, and a program of its own.

    python tools/gpu_train.py --data data --output out --until $(($(date +%s) + 300)) [--weights light]

The pictures of `data/content` and `data/style` lie on the device, and whole batches are cropped and varied there.
Within a step the host never waits for the device: gradients that are no number or explode are left out by the
optimizer's own kernel, and the record is read once in many steps. The learning rate falls to zero at the given time.

Written to the output: `model.safetensors` (the EMA of the weights, in float16), `checkpoint.pt.0`, ... (what
`--go-on` takes back, in pieces), `sheet.jpg` (photo, painting, before, after), and `train.json`.

Shapes: B pairs, S x S pixels of a crop.
"""

import copy
import io
import json
import math
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from arbitrary_nst.data import Augmentation, Batch
from arbitrary_nst.evaluation.metrics import feature_network
from arbitrary_nst.image import save_image
from arbitrary_nst.models.serialization import load_model, save_model
from arbitrary_nst.runtime.devices import channels_last, chosen_device, fast_bfloat16, out_of_memory
from arbitrary_nst.stylization.stylizer import Stylizer
from arbitrary_nst.training import TrainConfig
from arbitrary_nst.training.config import PRESETS
from arbitrary_nst.training.datasets import opened, split
from arbitrary_nst.training.networks import TrainingModule
from arbitrary_nst.training.objectives import OctavesObjective, loss_network, sum_of
from arbitrary_nst.training.schedule import parameter_groups
from arbitrary_nst.training.validation import validate

ON_A_GPU = {"largest_batch": 32, "crop_size": 512, "validation_pairs": 48, "tries": 10}
REHEARSAL = {"largest_batch": 2, "crop_size": 256, "validation_pairs": 2, "tries": 1}
"""Defaults on a GPU, and on a processor, where only the way is tried."""

PIECE = 15 * 2**20
"""Bytes of the largest piece of a checkpoint."""

MEMORY_SHARE = 0.8
"""Of the device's memory, how much a step may take."""

FEWEST_STEPS = 100
"""Batches are so small that the time suffices for as many steps, those of measuring included."""

LOG_EVERY, VALIDATE_EVERY = 25, 60.0
"""Steps between rows of the record, and seconds between validations."""

COMPILE_BELOW = 240.0
"""Seconds of training below which compiling is not tried: it takes a minute or more."""

MAX_GRAD_RATIO = 30.0
"""Steps are left out whose gradient's norm is this many times the median of the last ones."""

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count for in the brightness of a grey."""


def colour_matrices(vary: Augmentation, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What colours of a batch of paintings are multiplied with, (B, 3, 3), and their contrasts, (B,).

    Brightness, saturation and, as a turn around the grey axis, hue; none for the paintings that keep their colours.
    """

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    varied = torch.rand(count, generator=generator) < vary.colour_share
    brightness, contrast, saturation = (
        torch.where(varied, drawn(*limits), 1.0) for limits in (vary.brightness, vary.contrast, vary.saturation)
    )
    angle = torch.where(varied, drawn(-vary.hue, vary.hue), 0.0) * 2 * math.pi
    one, third = torch.eye(3), torch.full((3, 3), 1 / 3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = third + angle.cos()[:, None, None] * (one - third) + angle.sin()[:, None, None] * across
    grey = torch.tensor(LUMA).expand(3, 3)
    fade = saturation[:, None, None] * one + (1 - saturation)[:, None, None] * grey
    return brightness[:, None, None] * (fade @ turn), contrast


def recolour(images: Float[Tensor, "B 3 S S"], matrices: Tensor, contrast: Tensor) -> Float[Tensor, "B 3 S S"]:
    """Images in [0, 1] in other colours (`colour_matrices`)."""
    images = torch.einsum("bij,bjhw->bihw", matrices, images).clamp_(0, 1)
    grey: Any = sum(share * mean for share, mean in zip(LUMA, images.mean((2, 3)).unbind(1), strict=True))
    contrast = contrast[:, None, None, None]
    return (contrast * images).add_((1 - contrast) * grey[:, None, None, None]).clamp_(0, 1)


class Crops:
    """Batches of pairs, cut and varied on the device that the pictures lie on; which ones depends on the seed alone.

    They are drawn as `data.PairDataset` draws them, a whole batch at once, with hue as a turn of colours.
    """

    def __init__(self, pairs: Any, batch: int, seed: int, device: torch.device) -> None:
        self.pairs, self.batch, self.device = pairs, batch, device
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> "Crops":
        return self

    def __next__(self) -> Batch:
        vary = self.pairs.augmentation
        content = self._cut(self.pairs.contents, vary.content_sizes)
        style = self._cut(self.pairs.styles, vary.style_sizes)
        content = self._flipped(content, 3)
        if vary.flip_styles:
            style = self._flipped(self._flipped(style, 2), 3)
        matrices, contrast = (self._sent(values) for values in colour_matrices(vary, self.batch, self.generator))
        style = recolour(style, matrices, contrast)
        number = torch.zeros(self.batch, dtype=torch.int64, device=self.device)
        return channels_last(content, self.device), channels_last(style, self.device), number

    def _sent(self, values: Tensor) -> Tensor:
        return (values.pin_memory() if self.device.type == "cuda" else values).to(self.device, non_blocking=True)

    def _integer(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _cut(self, pictures: Any, sizes: tuple[float, float]) -> Float[Tensor, "B 3 S S"]:
        """Squares that are the short side of a picture divided by a size, drawn log-uniformly."""
        crop = self.pairs.crop_size
        result = torch.empty(self.batch, 3, crop, crop, device=self.device)
        logs = torch.rand(self.batch, generator=self.generator).mul_(math.log(sizes[1] / sizes[0])).tolist()
        for index, log in enumerate(logs):
            pixels = pictures[self._integer(len(pictures))]
            height, width = pixels.shape[1:]
            side = max(1, round(min(height, width) / (sizes[0] * math.exp(log))))
            top, left = self._integer(height - side + 1), self._integer(width - side + 1)
            square = pixels[None, :, top : top + side, left : left + side].float()
            result[index : index + 1] = F.interpolate(square, (crop, crop), mode="bilinear", antialias=side > crop)
        return result.div_(255)

    def _flipped(self, images: Tensor, axis: int) -> Tensor:
        chosen = self._sent(torch.rand(self.batch, generator=self.generator) < 0.5)
        return torch.where(chosen[:, None, None, None], images.flip(axis), images)


@dataclass
class Learner:
    """A model, its EMA and its optimizer; a step of it waits for nothing."""

    module: TrainingModule
    optimizer: torch.optim.Optimizer
    mean: Any
    """A copy of the model: the EMA of its weights."""
    device: torch.device
    autocast: Callable[[], Any]
    decay: float
    clip: float
    limit: Tensor
    """The largest norm of a gradient that is followed."""
    count: int = 0

    def __post_init__(self) -> None:
        both = zip(self.module.model.state_dict().values(), self.mean.state_dict().values(), strict=True)
        floating = [(value, mean) for value, mean in both if value.is_floating_point()]
        self.values, self.means = ([pair[side] for pair in floating] for side in (0, 1))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(self, batch: Batch, rate: float) -> Float[Tensor, "N"]:
        """Follow the gradient, if it is usable. Returns the losses, the norm, and whether the step was left out (1)."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate
        losses = self.backward(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, error_if_nonfinite=False)
        refused = (~(norm <= self.limit)).float()  # also where it is NaN
        self.optimizer.found_inf = refused  # type: ignore[attr-defined]  # what a GradScaler tells the fused kernel
        self.optimizer.step()
        self.count += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.means, self.values, 1 - min(self.decay, (1 + self.count) / (10 + self.count)))
        return torch.stack([*(loss.detach().float() for loss in losses.values()), norm, refused])

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        self.optimizer.zero_grad()
        with self.autocast():
            losses = self.module(*batch)
        sum_of(losses.values()).backward()
        return losses

    def bare(self, batch: Batch) -> None:
        """Forward and backward through the networks alone, as the objective calls them, without losses."""
        features, model, half = self.module.features, self.module.model, batch[0].shape[2] // 2
        content, style = (F.avg_pool2d(image, 2) for image in batch[:2])
        with self.autocast():
            with torch.no_grad():
                features(torch.cat([content, content])), features(torch.cat([style, style]))
            code = model.encode_style(style)
            first = model(content, code)
            second = model(content, code, batch[0][:, :, :half, :half], first=False)
            deepest = list(features(torch.cat([first, second])).values())[-1]
        deepest.float().mean().backward()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """All that a run goes on from; what Adam remembers in bfloat16, half as large."""
        optimizer = copy.copy(self.optimizer.state_dict())
        optimizer["state"] = {
            index: {name: v.bfloat16() if v.ndim else v for name, v in values.items()}
            for index, values in optimizer["state"].items()
        }
        return {"model": self.module.model.state_dict(), "optimizer": optimizer, "count": self.count}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; the EMA begins with its model file."""
        self.module.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.count = state["count"]


def write_pieces(state: dict[str, Any], folder: Path, size: int = PIECE) -> list[Path]:
    """`checkpoint.pt.0`, `checkpoint.pt.1`, ...: one file, cut."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    for path in folder.glob("checkpoint.pt.*"):
        path.unlink()
    pieces = []
    while part := content.read(size):
        pieces.append(folder / f"checkpoint.pt.{len(pieces)}")
        pieces[-1].write_bytes(part)
    return pieces


def read_pieces(folder: Path, device: torch.device) -> dict[str, Any]:
    """What `write_pieces` wrote."""
    pieces = sorted(folder.glob("checkpoint.pt.*"), key=lambda path: int(path.suffix[1:]))
    if not pieces:
        raise FileNotFoundError(f"{folder}: there is no checkpoint.pt.0 to go on from; leave --go-on out")
    whole = io.BytesIO(b"".join(path.read_bytes() for path in pieces))
    return torch.load(whole, map_location=device, weights_only=True)


def rate_at(progress: float, count: int, peak: float, warmup: int) -> float:
    """A linear rise over the first steps, and half a cosine down to zero at the end of the time."""
    return peak * min(1.0, (count + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def fitting_batch(learner: Learner, make: Callable[[int], Crops], largest: int, longest: float) -> int:
    """The largest power of two of pairs, up to `largest`, that a step has memory and time for.

    Args:
        longest: seconds of a forward and backward pass.
    """
    batch = largest
    while True:
        try:
            crops = make(batch)
            seconds = backward_seconds(learner, crops)
            if longest < seconds < 10 * longest:  # the first one may have chosen kernels
                seconds = backward_seconds(learner, crops)
            learner.optimizer.zero_grad()
        except Exception as error:
            if not out_of_memory(error) or batch == 1:
                raise
            fits = False
        else:
            whole = learner.device.type == "cuda" and torch.cuda.get_device_properties(learner.device).total_memory
            small = not whole or torch.cuda.max_memory_allocated(learner.device) <= MEMORY_SHARE * whole
            fits = small and seconds <= longest
        if fits or batch == 1:
            return batch
        if learner.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(learner.device)
        batch //= 2


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, which is waited for."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def backward_seconds(learner: Learner, crops: Crops) -> float:
    """Seconds of a forward and backward pass, data included."""
    return seconds_of(lambda: learner.backward(next(crops)), learner.device)


def timed(call: Callable[[], Any], device: torch.device, times: int) -> float:
    """Milliseconds of one call: the median of several, each waited for, after two that are not counted."""
    return statistics.median([1000 * seconds_of(call, device) for _ in range(times + 2)][2:])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compile_if_it_pays(learner: Learner, batch: Batch, seconds: float) -> dict[str, Any]:
    """Compile the feature network and keep that if the seconds left gain by it. Returns what was found."""
    features: Any = learner.module.features
    eager, began = timed(lambda: learner.backward(batch), learner.device, 5), time.monotonic()
    found: dict[str, Any] = {"eager_ms": eager, "kept": False}
    try:
        features.compile(dynamic=False)
        compiled = timed(lambda: learner.backward(batch), learner.device, 5)
        found |= {"compiled_ms": compiled, "seconds": time.monotonic() - began, "kept": compiled < 0.97 * eager}
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:300]
    if not found["kept"]:
        features._compiled_call_impl = None
    learner.optimizer.zero_grad()
    return found


def sheet(before: Any, after: Any, pairs: Batch, device: torch.device, path: Path, count: int = 8) -> None:
    """Rows of photo, painting, what the model of before makes of them, and that of after, as users would have them."""
    stylizers, rows = [Stylizer(copy.deepcopy(model), device) for model in (before, after)], []
    for photo, painting in zip(pairs[0][:count].cpu().split(1), pairs[1][:count].cpu().split(1), strict=True):
        row = [photo, painting]
        for stylizer in stylizers:
            row.append(stylizer(photo, stylizer.encode_style(painting, size=min(384, painting.shape[2] // 2))))
        rows.append(torch.cat(row, 3))
    save_image(torch.cat(rows, 2), path)


def build(config: TrainConfig, device: torch.device, half: bool) -> tuple[Learner, Any]:
    """The learner, and the model that it begins from."""
    model = load_model(config.init or "light")
    objective = OctavesObjective(**config.loss_weights)
    module = TrainingModule(copy.deepcopy(model).train(), loss_network(objective), objective)
    mean = copy.deepcopy(model).requires_grad_(False)
    for network in (model, module, mean):
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if half:
        module.features.network.to(torch.bfloat16)  # else autocast converts frozen weights at every call
    optimizer = torch.optim.Adam(parameter_groups(module.model, config), fused=True)
    limit = torch.full((), torch.finfo(torch.float32).max, device=device)

    def autocast() -> Any:
        return torch.autocast(device.type, torch.bfloat16, enabled=half)

    return Learner(module, optimizer, mean, device, autocast, config.ema_decay, config.gradient_clip, limit), model


def train(config: TrainConfig, until: float, largest: int, go_on: Path | None = None, tries: int = 10) -> dict:
    """Train until that time (seconds since 1970), the last validation included, and write all files.

    Returns the record.
    """
    began, output = time.monotonic(), config.run_dir
    output.mkdir(parents=True, exist_ok=True)
    device = chosen_device(config.device)
    half = fast_bfloat16(device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(config.seed)
    contents, styles = (opened(paths, config, device) for paths in (config.content_data, config.style_data))
    pairs, held_out, _ = split(contents, styles, config)
    learner, start = build(config, device, half)
    if go_on:
        learner.load_state(read_pieces(go_on, device))
    place = SimpleNamespace(device=device, autocast=learner.autocast)
    # features of its own: those of the learner may be compiled for its batches
    judged = TrainingModule(learner.mean, copy.deepcopy(learner.module.features), learner.module.objective).eval()
    judge = feature_network().to(device)
    record: dict[str, Any] = {"precision": "bfloat16" if half else "float32", "pictures": [len(contents), len(styles)]}
    record |= {"seconds_to_load": time.monotonic() - began, "rows": [], "validation": []}

    def make(count: int) -> Crops:
        return Crops(pairs, count, config.seed, device)

    def keep() -> None:
        (output / "train.json").write_text(json.dumps(record, indent=1))

    def judge_now() -> float:
        """Validate and keep the model. Returns the seconds that it took."""
        began = time.time()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # losses compare random positions: always the same ones
            found = validate(place, judged, judge, {"held_out": held_out})["held_out"]
        record["validation"].append({"step": learner.count, "seconds": time.monotonic() - first} | found)
        print("validation", json.dumps(record["validation"][-1]), flush=True)
        save_model(learner.mean, "light", output / "model.safetensors", {"steps": learner.count} | found, half=True)
        keep()
        return time.time() - began

    def note(rate: float, seconds: float) -> None:
        """Add a row about the steps since the last one."""
        values = torch.stack(pending).cpu()  # the only place where the host waits
        norms.extend(values[:, -2][values[:, -1] == 0].tolist())
        if norms:
            learner.limit.fill_(MAX_GRAD_RATIO * statistics.median(norms[-100:]))
        means = dict(zip(names, values.nanmean(0).tolist(), strict=True))
        speed = batch * len(pending) / seconds
        record["rows"].append({"step": learner.count, "rate": rate, "pairs_per_second": speed} | means)
        print(json.dumps(record["rows"][-1]), flush=True)
        pending.clear()

    record["batch"] = batch = fitting_batch(learner, make, largest, (until - time.time()) / FEWEST_STEPS)
    crops = make(batch)
    sample = next(crops)
    with FlopCounterMode(display=False) as work:
        learner.backward(sample)
    record["flops_per_pair"] = work.get_total_flops() / batch
    record["step_ms"] = timed(lambda: learner.backward(sample), device, tries)
    record["bare_ms"] = timed(lambda: learner.bare(sample), device, tries)
    record["data_ms"] = timed(lambda: next(crops), device, tries)
    first = time.monotonic()
    stop = until - judge_now()
    left = stop - time.time()
    if device.type == "cuda" and left > COMPILE_BELOW:
        record["compile"] = compile_if_it_pays(learner, sample, left)
        print("compile", json.dumps(record["compile"]), flush=True)

    names, before = (*learner.backward(sample), "gradient", "left_out"), learner.count
    pending: list[Tensor] = []
    norms: list[float] = []
    rate, started = 0.0, time.time()
    told = judged_at = started
    while learner.count == before or time.time() < stop:
        progress = (time.time() - started) / max(1.0, stop - started)
        rate = rate_at(progress, learner.count, config.learning_rate, config.warmup_steps)
        pending.append(learner.step(next(crops), rate))
        if len(pending) == LOG_EVERY:
            note(rate, time.time() - told)
            told = time.time()
            if told - judged_at > VALIDATE_EVERY and stop - told > VALIDATE_EVERY / 2:
                stop = until - judge_now()
                told = judged_at = time.time()
    wait(device)
    if pending:
        note(rate, time.time() - told)
    taken, steps = time.time() - started, learner.count - before
    record |= {"steps": steps, "seconds": taken, "pairs_per_second": steps * batch / taken}
    record["tflops"] = record["pairs_per_second"] * record["flops_per_pair"] / 1e12
    if device.type == "cuda":
        record["memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    judge_now()
    write_pieces(learner.state(), output)
    with suppress(Exception):  # a sheet is worth no run
        sheet(start, learner.mean, held_out, device, output / "sheet.jpg")
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with content/ and style/")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--weights", default="light", help="a model's file, or a shipped model's name")
    parser.add_argument("--go-on", type=Path, help="folder of an earlier output, whose checkpoint is gone on from")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--largest-batch", type=int)
    parser.add_argument("--crop-size", type=int)
    parser.add_argument("--validation-pairs", type=int)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    given = parser.parse_args(arguments)
    defaults = ON_A_GPU if chosen_device(given.device).type == "cuda" else REHEARSAL
    preset = PRESETS["light"]
    config = TrainConfig(
        content_data=(str(given.data / "content"),),
        style_data=(str(given.data / "style"),),
        run_dir=given.output,
        init=Path(given.weights),
        device=given.device,
        crop_size=given.crop_size or defaults["crop_size"],
        loss_weights=preset["loss_weights"],
        picture_size=640,
        memory_gb=32.0,
        resident=True,
        learning_rate=given.learning_rate,
        backbone_rate=0.3,
        warmup_steps=100,
        validation_pairs=given.validation_pairs or defaults["validation_pairs"],
        augmentation=preset["augmentation"],
        wandb="off",
    )
    largest = given.largest_batch or defaults["largest_batch"]
    record = train(config, given.until, largest, given.go_on, defaults["tries"])
    print(json.dumps({name: value for name, value in record.items() if name not in ("rows", "validation")}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
