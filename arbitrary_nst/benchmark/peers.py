"""Other people's models as candidates: TFLite and ONNX files, and any Python callable.

Their inputs are told apart by shape: pictures have three channels, all else is a style code. A network that gives a
picture stylizes, any other encodes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from arbitrary_nst.benchmark.candidates import Call, LeftOut, Task, picture

Shape = Sequence[int | None]
"""Of an input or an output; None where it is open."""

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
"""Element types of ONNX files that are filled."""


def is_picture(shape: Shape) -> bool:
    """Return True for the shape (batch, 3, H, W) or (batch, H, W, 3)."""
    return len(shape) == 4 and 3 in (shape[1], shape[3])


def only_side(shapes: Sequence[Shape]) -> int | None:
    """The side of square pictures that are all that is taken; None where it is open."""
    for shape in filter(is_picture, shapes):
        sides = shape[2:] if shape[1] == 3 else shape[1:3]
        if None not in sides and sides[0] == sides[1]:
            return sides[0]
    return None


def other_side(side: int | None, size: int) -> str | None:
    """The note for a network whose only side is another one; None if it takes this side."""
    return None if side in (None, size) else f"runs at {side}x{side} only"


def filled(shape: Shape, size: int) -> tuple[int, ...]:
    """The shape with nothing open: a batch of one, pictures of that size.

    Raises LeftOut where pictures are of another size, and ValueError where something else is open.
    """
    if not shape or not is_picture(shape):
        if None in shape[1:]:
            raise ValueError(f"an input of shape {tuple(shape)}: only batches and sides of pictures may be open")
        return tuple(1 if extent is None else extent for extent in shape)
    sides = (2, 3) if shape[1] == 3 else (1, 2)
    if any(shape[side] not in (None, size) for side in sides):
        raise LeftOut(f"runs at {'x'.join(str(shape[side]) for side in sides)} only")
    if shape[0] not in (None, 1):
        raise LeftOut(f"runs on batches of {shape[0]} only")
    return tuple((1 if index == 0 else size) if extent is None else extent for index, extent in enumerate(shape))


def noise(shape: Sequence[int], kind: Any) -> np.ndarray:
    """Numbers in [0, 1], of integers 0 to 1."""
    return np.random.default_rng(0).random(shape).round(0 if np.issubdtype(kind, np.integer) else 9).astype(kind)


@dataclass(frozen=True)
class NetworkFile:
    """Facts about a network in a file; the file itself is loaded by `prepare`."""

    path: Path
    threads: int
    name: str
    tasks: tuple[Task, ...]
    side: int | None

    precision = None

    def obstacle(self, task: Task, size: int) -> str | None:
        return other_side(self.side, size)


def _engine(module: str, path: Path, missing: str) -> Any:
    """The module that runs a file. Raises FileNotFoundError without the file, LeftOut without the module."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return import_module(module)
    except ImportError as error:
        raise LeftOut(missing) from error


class TFLite(NetworkFile):
    """A TFLite network; its inputs are as large as the file says."""

    @classmethod
    def opened(cls, path: Path, threads: int, name: str) -> "TFLite":
        """Raises LeftOut where ai-edge-litert is missing, and what it raises for a file that is none."""
        interpreter = _interpreter(path, threads)
        shapes = [details["shape"].tolist() for details in interpreter.get_input_details()]
        paints = is_picture(interpreter.get_output_details()[0]["shape"].tolist())
        return cls(path, threads, name, ("stylize",) if paints else ("encode",), only_side(shapes))

    def prepare(self, task: Task, size: int) -> Call:
        interpreter = _interpreter(self.path, self.threads)
        interpreter.allocate_tensors()
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], noise(filled(tensor["shape"].tolist(), size), tensor["dtype"]))
        output = interpreter.get_output_details()[0]["index"]

        def call() -> np.ndarray:
            interpreter.invoke()
            return interpreter.get_tensor(output)

        return call


def _interpreter(path: Path, threads: int) -> Any:
    missing = "TFLite files need ai-edge-litert: pip install ai-edge-litert"
    return _engine("ai_edge_litert.interpreter", path, missing).Interpreter(str(path), num_threads=threads)


class Onnx(NetworkFile):
    """An ONNX network in ONNX Runtime, on the processor."""

    @classmethod
    def opened(cls, path: Path, threads: int, name: str) -> "Onnx":
        """Raises LeftOut where onnxruntime is missing, and what it raises for a file that is none."""
        session = _session(path, threads)
        paints = is_picture(_shape(session.get_outputs()[0]))
        side = only_side([_shape(given) for given in session.get_inputs()])
        return cls(path, threads, name, ("stylize",) if paints else ("encode",), side)

    def prepare(self, task: Task, size: int) -> Call:
        session = _session(self.path, self.threads)
        inputs = {}
        for given in session.get_inputs():
            if given.type not in TYPES:
                raise ValueError(f"{self.path}: the input '{given.name}' is a {given.type}, which is not filled")
            inputs[given.name] = noise(filled(_shape(given), size), TYPES[given.type])
        return lambda: session.run(None, inputs)[0]


def _shape(end: Any) -> Shape:
    return [extent if isinstance(extent, int) else None for extent in end.shape]


def _session(path: Path, threads: int) -> Any:
    missing = "ONNX files need onnxruntime: pip install 'arbitrary_nst[export]'"
    onnxruntime = _engine("onnxruntime", path, missing)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class PythonCallable:
    """A function of a photo and a painting, both float (1, 3, S, S) in [0, 1] on the processor, that gives a picture of
    S x S pixels. What it computes to know the painting is in its time.

    Args:
        target: MODULE:FUNCTION. Modules are also looked for in the current folder.
    """

    target: str

    tasks: tuple[Task, ...] = ("stylize",)
    side = None
    precision = None

    @property
    def name(self) -> str:
        return self.target

    @classmethod
    def opened(cls, target: str) -> "PythonCallable":
        """Raises what the import raises, and ValueError where there is no such callable."""
        _function(target)
        return cls(target)

    def obstacle(self, task: Task, size: int) -> str | None:
        return None

    def prepare(self, task: Task, size: int) -> Call:
        function = _function(self.target)
        photo, painting = picture(size, seed=0), picture(size, seed=1)

        def call() -> Any:
            result = function(photo, painting)
            shape = tuple(getattr(result, "shape", ()))
            if size not in shape or 3 not in shape:
                raise ValueError(f"{self.target} gave no picture of {size}x{size} pixels, but {shape or type(result)}")
            return result

        return call


def _function(target: str) -> Any:
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    function = getattr(import_module(module), name, None)
    if not callable(function):
        raise ValueError(f"{target}: {module} has no callable '{name}'")
    return function
