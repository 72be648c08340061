"""Our own model as it can be run, in PyTorch and exported to ONNX; and what every candidate has.

Shapes: S x S pixels. Images are float RGB in [0, 1].
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.onnx import STYLE_ENCODER, STYLIZER, OnnxModel
from arbitrary_nst.runtime.devices import chosen_device, fast_bfloat16, fast_float16
from arbitrary_nst.stylization.stylizer import LARGE, Stylizer

Task = Literal["encode", "stylize"]
"""A painting to its style code, or a photo and a code to a picture."""

TASKS: tuple[Task, ...] = ("encode", "stylize")

Call = Callable[[], Any]
"""Does the task once; its inputs are ready, and its result is whole when it returns."""

FloatPrecision = Literal["float32", "bfloat16", "float16"]


class LeftOut(Exception):
    """A candidate does not run in a case, for a reason that is no failure and that a reader of the table is told."""


@runtime_checkable
class Candidate(Protocol):
    """One way to do the tasks. It travels to a fresh process, so it holds names, and loads what they name there.

    Attributes:
        name: of its row in the tables.
        tasks: what it does.
        side: the only size of pictures that it takes, in pixels; None: any.
        precision: in which it computes the network of our model; None where it is another network.
    """

    @property
    def name(self) -> str: ...
    @property
    def tasks(self) -> tuple[Task, ...]: ...
    @property
    def side(self) -> int | None: ...
    @property
    def precision(self) -> str | None: ...

    def obstacle(self, task: Task, size: int) -> str | None:
        """Why the task cannot be done at that size, as far as is known before loading; None: nothing is known."""
        ...

    def prepare(self, task: Task, size: int) -> Call:
        """Load everything. Raises LeftOut where only that shows that the task cannot be done at that size."""
        raise NotImplementedError


def picture(size: int, seed: int = 0) -> Float[Tensor, "1 3 S S"]:
    """A picture of soft blots."""
    blots = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(blots, (size, size), mode="bilinear")


def task_call(stylizer: Stylizer, task: Task, size: int) -> Call:
    """The call that users make."""
    photo, painting = picture(size, seed=0), picture(size, seed=1)
    if task == "encode":
        if stylizer.style_names:
            raise LeftOut("knows only its own styles: there is nothing to encode")
        return lambda: stylizer.encode_style(painting).cpu()
    names = stylizer.style_names
    code = stylizer.style_code(names[0]) if names else stylizer.encode_style(painting)
    return lambda: stylizer(photo, code)


@dataclass(frozen=True)
class InTorch:
    """A model in PyTorch, through the `Stylizer` that users call; its networks compiled or not.

    Args:
        source: a model's name, or its file.
    """

    source: str
    device: str
    precision: FloatPrecision
    compiled: bool = False

    tasks = TASKS
    side = None

    @property
    def name(self) -> str:
        return f"{Path(self.source).stem} {self.precision}" + (" compiled" if self.compiled else "")

    def obstacle(self, task: Task, size: int) -> str | None:
        device = chosen_device(self.device)
        if task == "encode" and self.precision != "float32":
            return "paintings are always encoded in float32"
        if self.precision == "bfloat16" and not fast_bfloat16(device):
            return f"{device} does not multiply bfloat16 natively"
        if self.precision == "float16" and not fast_float16(device):
            return f"{device} does not multiply float16 natively"
        if self.compiled and task == "stylize" and size * size > LARGE:
            return f"above {LARGE} pixels norms are given exact statistics by hooks, which are not compiled"
        if self.compiled and device.type == "cpu" and not any(map(shutil.which, _compilers())):
            return "torch.compile needs a C++ compiler, and there is none"
        return None

    def prepare(self, task: Task, size: int) -> Call:
        stylizer = Stylizer.from_pretrained(self.source, chosen_device(self.device), "float32")
        stylizer.dtype = getattr(torch, self.precision)  # float16 is no precision that a Stylizer offers
        if self.compiled:
            part = "predictor" if task == "encode" else "transformer"
            network: Any = getattr(stylizer.model, part, stylizer.model)
            network.compile(dynamic=False)  # anew for every size: the second in a process would be compiled for any
        return task_call(stylizer, task, size)


def _compilers() -> tuple[str, ...]:
    return (os.environ.get("CXX", "g++"), "g++", "clang++")


@dataclass(frozen=True)
class Exported:
    """A model that was exported, through the same `Stylizer`.

    Args:
        folder: with the style encoder and the stylizer.
        engine: what runs them, on the processor: "ONNX Runtime" or "OpenVINO".
        precision: of the stylizer.
    """

    source: str
    folder: Path
    engine: str
    precision: str
    tasks: tuple[Task, ...] = TASKS

    side = None

    @property
    def name(self) -> str:
        return f"{Path(self.source).stem} {self.engine} {self.precision}"

    def obstacle(self, task: Task, size: int) -> str | None:
        if self.engine == "OpenVINO" and find_spec("openvino") is None:
            return "needs openvino: pip install openvino"
        if self.precision == "bfloat16" and not fast_bfloat16(torch.device("cpu")):
            return "cpu does not multiply bfloat16 natively"
        return None

    def prepare(self, task: Task, size: int) -> Call:
        model = OnnxModel(self.folder) if self.engine == "ONNX Runtime" else _OpenVino(self.folder, self.precision)
        return task_call(Stylizer(model, "cpu", "float32"), task, size)


class _OpenVino(nn.Module):
    """Style encoder and stylizer as OpenVINO runs them; a `StyleModel` without parameters."""

    def __init__(self, folder: Path, precision: str) -> None:
        super().__init__()
        import openvino  # pyright: ignore[reportMissingImports]

        core = openvino.Core()
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        hints = {"float32": "f32", "bfloat16": "bf16"}
        self._encode = core.compile_model(folder / STYLE_ENCODER, "CPU", threads | {"INFERENCE_PRECISION_HINT": "f32"})
        painting = threads | {"INFERENCE_PRECISION_HINT": hints[precision]}
        self._paint = core.compile_model(folder / STYLIZER, "CPU", painting)
        self.code_size = int(self._paint.input("code").partial_shape[1].get_length())

    def encode_style(self, style: Tensor) -> Tensor:
        return torch.from_numpy(self._encode({"style": style.contiguous().numpy()})[0])

    def forward(self, content: Tensor, code: Tensor) -> Tensor:
        return torch.from_numpy(self._paint({"content": content.contiguous().numpy(), "code": code.numpy()})[0])
