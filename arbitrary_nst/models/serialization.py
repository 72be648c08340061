"""Models to files and back: safetensors, with the model's name, options and card in the header."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arbitrary_nst.errors import ModelFileError
from arbitrary_nst.models import MODELS
from arbitrary_nst.runtime.files import atomic_write, unicode_name
from arbitrary_nst.runtime.hub import download, is_repository
from arbitrary_nst.runtime.weights import is_shipped, shipped_weights

RUN_MODEL = "model.safetensors"
"""Name of the finished model in the folder of a training run."""

STYLE_ENCODER, STYLIZER = "style_encoder.onnx", "stylizer.onnx"
"""Names of the two files in the folder of an exported model."""


@dataclass(frozen=True)
class ModelIdentity:
    """A model's name and the SHA-256 of its weights: a style code means something only to the model that made it."""

    name: str
    weights: str

    def __str__(self) -> str:
        return f"'{self.name}' (weights {self.weights[:12]})"


def save_model(model: nn.Module, name: str, path: Path, card: dict[str, Any] | None = None, half: bool = False) -> None:
    """Write a model's weights atomically; `half` stores them in float16.

    Args:
        name: its key in `MODELS`.
        card: what its users should know (data, steps, figures, licence); what JSON cannot hold is kept as text.

    Where the model has `options`, arguments that its builder needs, they are written too.
    """
    from safetensors.torch import save

    state = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    header = {"model": name, "card": json.dumps(card or {}, default=str)}
    options = getattr(model, "options", {})
    if options:
        header["options"] = json.dumps(options)
    with atomic_write(path) as partial:
        partial.write_bytes(save(state, metadata=header))


def model_file(source: str | Path) -> Path:
    """The .safetensors file of a model, or the .onnx file of an exported stylizer.

    Args:
        source: a file; the folder of a training run or of an exported model; the name of a model that ships; or a
            repository of the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION.

    Raises:
        WeightsNotFoundError: no model of that name ships or can be downloaded.
        ModelFileError: a folder has no model.
    """
    path, name = Path(source), str(source)
    for file in (path / RUN_MODEL, path / STYLIZER):
        if file.is_file():
            return file
    if path.is_dir() and not is_shipped(name):
        raise ModelFileError(
            f"{path}: this folder has neither the {RUN_MODEL} of a training run nor the {STYLIZER} of an exported model"
        )
    if path.is_file() or path.suffix in (".safetensors", ".onnx"):
        return path
    return download(name) if is_repository(name) else shipped_weights(name)


def is_exported(source: str | Path) -> bool:
    """Return True if a source of `model_file` is an exported model, for onnxruntime. Nothing is read or downloaded."""
    path = Path(source)
    return path.suffix == ".onnx" or (path.is_dir() and not (path / RUN_MODEL).is_file())


def model_card(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the card of a model file.

    Raises ModelFileError where the file is missing or is not a model's.
    """
    name, card, _ = _header(path)
    return name, card


def model_options(path: Path) -> dict[str, Any]:
    """Arguments of the builder of a model file's network: the names of its styles, if it has its own.

    Raises ModelFileError where the file is missing or is not a model's.
    """
    return _header(path)[2]


def model_identity(source: str | Path = "light") -> ModelIdentity:
    """Identity of a model: the same for a copy of its file and under another card, another after any training.

    Raises WeightsNotFoundError where no model of that name ships, ModelFileError where the file is not a model's.
    """
    path = model_file(source)
    stamp = path.stat() if path.is_file() else None
    return _identity(path, stamp and (stamp.st_ino, stamp.st_size, stamp.st_mtime_ns))


@lru_cache(16)
def _identity(path: Path, stamp: Hashable) -> ModelIdentity:
    """The identity of a file, which is read again only where its stamp has changed."""
    if path.suffix == ".onnx":
        return ModelIdentity(*_exported(path).identity)
    name, _ = model_card(path)
    with path.open("rb") as file:  # safetensors: the header's length in 8 bytes, the header, the tensors
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__")
        digest = sha256(json.dumps(header, sort_keys=True).encode())
        while chunk := file.read(2**20):
            digest.update(chunk)
    return ModelIdentity(name, digest.hexdigest())


def _header(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".onnx":
        metadata = _exported(path)
        return metadata.model, metadata.card, {}
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file. Give a .safetensors file written by train.py.")
    try:
        with unicode_name(path) as readable, safe_open(readable, framework="pt") as file:
            metadata = file.metadata() or {}
        card, options = (json.loads(metadata.get(key, "{}")) for key in ("card", "options"))
        if not (isinstance(card, dict) and isinstance(options, dict)):
            raise ValueError("card and options must be JSON objects")
        if not all(isinstance(name, str) for name in options.get("styles", ())):
            raise ValueError("names of styles must be text")
        return metadata["model"], card, options
    except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
        raise ModelFileError(f"{path}: not a model of this package ({error!r}). Was it written by train.py?") from error


def _exported(path: Path) -> Any:
    """The metadata of an exported stylizer."""
    from arbitrary_nst.models.onnx import open_session, read_metadata

    return read_metadata(open_session(path), path)


def load_model(source: str | Path = "light") -> nn.Module:
    """A model in evaluation mode, in float32, from any source that `model_file` takes.

    Raises:
        WeightsNotFoundError: no model of that name ships or can be downloaded.
        ModelFileError: the file is missing, foreign, or of another network.
    """
    from safetensors.torch import load_file

    path = model_file(source)
    if path.suffix == ".onnx":
        from arbitrary_nst.models.onnx import OnnxModel

        return OnnxModel(path).eval()
    name, _, options = _header(path)
    if name not in MODELS:
        raise ModelFileError(f"{path}: holds a model '{name}', but this version knows {', '.join(MODELS)}.")
    try:
        with torch.device("cpu"):  # whatever the caller's default device
            model = MODELS[name](pretrained=False, **options)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the network '{name}' cannot be built from its header ({error}).") from error
    try:
        with unicode_name(path) as readable:
            state = load_file(readable)
        model.load_state_dict({key: value.float() if value.is_floating_point() else value
                               for key, value in state.items()})  # fmt: skip
    except RuntimeError as error:
        raise ModelFileError(f"{path}: its weights do not fit the network '{name}' ({error}).") from error
    wrong = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if wrong:
        raise ModelFileError(f"{path}: weights of {wrong[0]} are NaN or infinite. Take another file of the run.")
    return model.eval().float().to(memory_format=torch.channels_last)
