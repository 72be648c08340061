"""The command: which candidates, at which sizes, and what becomes of those that cannot.

Every candidate is first tried in a process of its own, which shows what its first picture costs in time and memory.
Those that fit are then called in this process once a round, round after round, so that a machine whose speed drifts
drifts for all of them; the limits of the machine, which take their turn like a candidate, drift with them.
"""

import gc
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tqdm import tqdm

from arbitrary_nst.benchmark import startup
from arbitrary_nst.benchmark.candidates import TASKS, Call, Candidate, Exported, InTorch, LeftOut, Task, picture
from arbitrary_nst.benchmark.limits import Work, copy, matrix_product, work_of
from arbitrary_nst.benchmark.peers import Onnx, PythonCallable, TFLite
from arbitrary_nst.benchmark.report import Measurement, Omission, markdown, plot, record
from arbitrary_nst.benchmark.timing import WARMUP, Trial, alternate, in_fresh_process, memory_allowed, trial
from arbitrary_nst.errors import UsageError
from arbitrary_nst.image import save_image
from arbitrary_nst.models.onnx import STYLE_ENCODER, STYLIZER
from arbitrary_nst.models.serialization import is_exported
from arbitrary_nst.runtime.devices import chosen_device, keep_freed_memory
from arbitrary_nst.runtime.files import Failures, atomic_write, check_writable, unique_names
from arbitrary_nst.runtime.provenance import versions

Variant = Literal[
    "float32",
    "bfloat16",
    "float16",
    "float32-compiled",
    "bfloat16-compiled",
    "float16-compiled",
    "onnxruntime-float32",
    "onnxruntime-int8",
    "openvino-float32",
    "openvino-bfloat16",
]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Time the encoding of a painting and the stylizing of a photo: our model, and peers beside it."""

    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """Sides of the squares, in pixels; that of a peer that runs at one size only is added."""
    rounds: int = 15
    """Timed calls of each candidate; two calls before them are not counted."""
    model: str = "light"
    """A model that ships with the package, a .safetensors file or the folder of a training run, or OWNER/NAME on the
    Hugging Face hub."""
    variants: tuple[Variant, ...] = get_args(Variant)
    """How it is run: in PyTorch by precision, compiled or not; exported, by ONNX Runtime or OpenVINO."""
    tflite: tuple[Path, ...] = ()
    """Peers: TFLite networks. They need the package ai-edge-litert."""
    onnx: tuple[Path, ...] = ()
    """Peers: ONNX networks. Their inputs are filled by shape; open sides of pictures take the size."""
    callable: tuple[str, ...] = ()
    """Peers: MODULE:FUNCTION, a function of a photo and a painting, both float tensors (1, 3, S, S) in [0, 1], that
    gives a picture of S x S pixels."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Of PyTorch; everything else runs on the processor, and our own exported model only where the device is that."""
    threads: int = 2
    """Processor threads for every candidate."""
    longest: float = 600.0
    """Seconds: a candidate whose first picture at a size, or whose rounds there, would take longer is left out."""
    startup: bool = False
    """Measure something else: the seconds of the stylize command from its start to its end, in fresh processes, beside
    those of importing torch and torchvision."""
    output: Path | None = None
    """Also write everything as JSON to this file."""
    plot: Path | None = None
    """Also draw milliseconds against size into this file (PNG, SVG or PDF)."""

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError(f"--sizes {' '.join(map(str, self.sizes))}: must be at least one side of at least 1 pixel")
        for name in ("rounds", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}: must be at least 1")
        if not self.longest > 0:
            raise UsageError(f"--longest {self.longest:g}: must be more than 0 seconds")
        if is_exported(self.model):
            raise UsageError(f"--model {self.model}: give the model it was exported from, or its files to --onnx")
        for target in self.callable:
            module, colon, name = target.partition(":")
            if not (module and colon and name):
                raise UsageError(f"--callable {target}: must be MODULE:FUNCTION")
        if self.plot is not None and self.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise UsageError(f"--plot {self.plot}: must end in .png, .svg or .pdf")
        if self.plot is not None and self.startup:
            raise UsageError("--plot: --startup has nothing to plot; leave one of them out")


def benchmark(config: BenchmarkConfig) -> int:
    """Measure, print Markdown tables, and return the exit code: 1 where a candidate failed."""
    for file in filter(None, (config.output, config.plot)):
        check_writable(file)
    device = chosen_device(config.device)
    conditions: dict[str, Any] = {"rounds": config.rounds} | versions(device)
    if config.startup:
        seconds = startup.startup(config.model, config.device, config.rounds)
        print(f"{startup.markdown(seconds)}\n\n{json.dumps(conditions)}")
        _write(config.output, {"conditions": conditions, "seconds": seconds})
        return 0
    keep_freed_memory()  # as the commands do that paint
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    run = Run(config, device, conditions | {"threads": config.threads})
    try:
        with tempfile.TemporaryDirectory(prefix="arbitrary_nst-") as scratch:
            run.measure(run.candidates(Path(scratch)), Path(scratch))
    finally:
        torch.set_num_threads(before)
    print(f"{markdown(run.measurements, run.omissions)}\n\n{json.dumps(run.conditions)}")
    if config.plot is not None:
        plot(run.measurements, config.plot)
    run.failures.repeat()
    return 1 if run.failures.count else 0


def _write(path: Path | None, contents: dict[str, Any]) -> None:
    if path is not None:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(contents, indent=1), encoding="utf-8")


@contextmanager
def _compiling_in(folder: Path) -> Iterator[None]:
    """Compiled code is kept in this folder only: a candidate's trial compiles anew, and this process finds its code."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class Run:
    """One run of the command: what was measured, what was left out, and what failed."""

    def __init__(self, config: BenchmarkConfig, device: torch.device, conditions: dict[str, Any]) -> None:
        self.config = config
        self.device = device
        self.conditions = conditions
        self.measurements: list[Measurement] = []
        self.omissions: list[Omission] = []
        self.failures = Failures()
        self.limits: list[dict[str, Any]] = conditions.setdefault("limits", [])

    # Candidates

    def candidates(self, scratch: Path) -> list[Candidate]:
        """All that there are, in the order of the tables."""
        config = self.config
        found: list[Candidate] = []
        outside = [variant for variant in config.variants if variant.startswith(("onnxruntime-", "openvino-"))]
        for variant in config.variants:
            if variant not in outside:
                precision, _, compiled = variant.partition("-")
                found.append(InTorch(config.model, config.device, precision, bool(compiled)))  # type: ignore[arg-type]
        if outside:
            made = self._opened("exported model", lambda: self._exported(scratch, "onnxruntime-int8" in outside)) or []
            variants = {f"{item.engine.replace(' ', '').lower()}-{item.precision}": item for item in made}
            found += [variants[variant] for variant in outside if variant in variants]
        names = unique_names([*config.tflite, *config.onnx])
        openers: list[tuple[str, Callable[[], Candidate]]] = [
            *((names[path], partial(TFLite.opened, path, config.threads, names[path])) for path in config.tflite),
            *((names[path], partial(Onnx.opened, path, config.threads, names[path])) for path in config.onnx),
            *((target, partial(PythonCallable.opened, target)) for target in config.callable),
        ]
        found += filter(None, (self._opened(name, opener) for name, opener in openers))
        return found

    def _exported(self, scratch: Path, int8: bool) -> list[Exported]:
        if self.device.type != "cpu":
            raise LeftOut(f"runs on the processor, not on {self.device}")
        return exported(self.config.model, scratch, int8)

    def _opened(self, name: str, opener: Callable[[], Any]) -> Any:
        """Open it; report a failure and return None."""
        try:
            return opener()
        except Exception as error:
            self._tell(None, None, name, error)
            return None

    def _tell(self, task: Task | None, size: int | None, name: str, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, LeftOut):
            where = " ".join(map(str, filter(None, [name, task, size])))
            self.failures.add(Path(name), RuntimeError(f"{where}: {reason}"))
            reason = f"failed: {reason}"
        self.omissions.append(Omission(task, size, name, reason))

    # Measuring

    def measure(self, candidates: Sequence[Candidate], scratch: Path) -> None:
        """Every task at every size; what is measured is written as it grows."""
        only = {candidate.side for candidate in candidates if candidate.side is not None}
        sizes = sorted({*self.config.sizes, *only})
        for size in tqdm(sizes, desc="sizes", unit="size", leave=False, disable=None):
            for task in TASKS:
                with _compiling_in(scratch / f"{task}-{size}"):
                    self._measure_at(task, size, [candidate for candidate in candidates if task in candidate.tasks])
                gc.collect()
                _write(self.config.output, record(self.measurements, self.omissions, self.conditions))

    def _measure_at(self, task: Task, size: int, candidates: Sequence[Candidate]) -> None:
        ready: list[tuple[Candidate, Call, Trial]] = []
        works: dict[str, Work] = {}
        left = memory_allowed(self.device) if self.device.type == "cpu" else None
        for candidate in candidates:
            try:
                tried = self._trial(candidate, task, size)
                if left is not None and tried.own is not None:
                    if 1e6 * tried.own > left:
                        raise LeftOut(f"takes {tried.own:.0f} MB, which are not free beside the others")
                    left -= round(1e6 * tried.own)
                call = candidate.prepare(task, size)
                if isinstance(candidate, InTorch) and not candidate.compiled:  # the others compute the same
                    works[candidate.precision] = work_of(call)
                ready.append((candidate, call, tried))
            except Exception as error:  # one bad candidate never ends a run
                self._tell(task, size, candidate.name, error)
        if ready:
            self._take_turns(task, size, ready, works)

    def _trial(self, candidate: Candidate, task: Task, size: int) -> Trial:
        config, obstacle = self.config, candidate.obstacle(task, size)
        if obstacle is not None:
            raise LeftOut(obstacle)
        arguments = (candidate, task, size, self.device, config.threads, memory_allowed(self.device))
        tried: Trial = in_fresh_process(trial, *arguments, seconds=config.longest)
        if tried.again * (config.rounds + WARMUP) > config.longest:
            raise LeftOut(f"takes {tried.again:.1f} seconds a call: {config.rounds} rounds take more than --longest")
        return tried

    def _take_turns(
        self, task: Task, size: int, ready: Sequence[tuple[Candidate, Call, Trial]], works: dict[str, Work]
    ) -> None:
        limits = {name: matrix_product(self.device, getattr(torch, name)) for name in works}
        limits["copy"] = copy(self.device)
        turns = {f"limit {name}": call for name, (call, _) in limits.items()}
        times = alternate(turns | {candidate.name: call for candidate, call, _ in ready}, self.config.rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        rates = {name: 1000 * amount / medians[f"limit {name}"] for name, (_, amount) in limits.items()}
        self.limits.append({"task": task, "size": size, "a second": rates})
        for candidate, _, tried in ready:
            name, shares = candidate.name, (None, None)
            if candidate.precision in works:
                work, seconds = works[candidate.precision], medians[name] / 1000
                shares = work.flops / seconds / rates[candidate.precision], work.moved / seconds / rates["copy"]
            self.measurements.append(
                Measurement(task, size, name, times[name], medians[name], tried.first, tried.memory, *shares)
            )


def exported(source: str, folder: Path, int8: bool = False) -> list[Exported]:
    """Export a model, and what can be done with the files: float32, and int8 calibrated with generated pictures.

    Raises LeftOut where a package is missing or models of its kind are not exported.
    """
    try:
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]

        from arbitrary_nst.commands.export import ExportConfig, export
    except ImportError as error:
        raise LeftOut(f"needs {error.name}: pip install 'arbitrary_nst[export]'") from error
    photos, whole, small = (folder / name for name in ("photos", "float32", "int8"))
    for seed in range(4 if int8 else 0):
        save_image(picture(256, seed), photos / f"{seed}.png")
    try:
        with redirect_stdout(None):
            export(ExportConfig(output=whole, model=source, int8=(photos,) if int8 else ()))
    except ValueError as error:
        raise LeftOut(str(error)) from error
    made = [
        Exported(source, whole, "ONNX Runtime", "float32"),
        Exported(source, whole, "OpenVINO", "float32"),
        Exported(source, whole, "OpenVINO", "bfloat16", ("stylize",)),
    ]
    if int8:
        small.mkdir()
        shutil.copy(whole / STYLE_ENCODER, small)
        shutil.copy(whole / "stylizer_int8.onnx", small / STYLIZER)
        made.append(Exported(source, small, "ONNX Runtime", "int8", ("stylize",)))
    return made
