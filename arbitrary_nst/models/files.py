"""Models to files and back: safetensors, with the model's name, options and card in the header."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arbitrary_nst.models import MODELS
from arbitrary_nst.paths import written_whole
from arbitrary_nst.weights import shipped_weights


class ModelFileError(ValueError):
    """A file is not a model of this package, or not one that this version knows."""


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
    with written_whole(path) as partial:
        partial.write_bytes(save(state, metadata=header))


def model_file(source: str | Path) -> Path:
    """The file of a shipped model's name, or the file itself, or the folder of an exported model.

    Raises WeightsNotFoundError where no model of that name ships.
    """
    path = Path(source)
    return path if path.suffix == ".safetensors" or path.exists() else shipped_weights(str(source))


def model_card(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the card of a model file.

    Raises ModelFileError where the file is missing or is not a model's.
    """
    name, card, _ = _header(path)
    return name, card


def model_options(path: Path) -> dict[str, Any]:
    """What the builder of a model file's network needs to know: the names of its styles, where it has its own.

    Raises ModelFileError where the file is missing or is not a model's.
    """
    return _header(path)[2]


def model_identity(source: str | Path = "light") -> ModelIdentity:
    """Which model it is: the same for a copy of its file and under another card, another after any training.

    Raises WeightsNotFoundError where no model of that name ships, ModelFileError where the file is not a model's.
    """
    path = model_file(source)
    if path.is_dir():
        return ModelIdentity(*_exported(path)["identity"])
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

    if path.is_dir():
        facts = _exported(path)
        return facts["model"], facts["card"], {}
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file. Give a .safetensors file written by train.py.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata["model"], json.loads(metadata.get("card", "{}")), json.loads(metadata.get("options", "{}"))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelFileError(f"{path}: not a model of this package ({error!r}). Was it written by train.py?") from error


def _exported(folder: Path) -> dict[str, Any]:
    """What the files of an exported model say of themselves."""
    from arbitrary_nst.models.onnx import STYLIZER, facts_of, open_session

    return facts_of(open_session(folder / STYLIZER))


def load_model(source: str | Path = "light") -> nn.Module:
    """A model in evaluation mode, in float32: of a shipped one's name, of a file, or exported to ONNX in a folder.

    Raises:
        WeightsNotFoundError: no model of that name ships.
        ModelFileError: the file is missing, foreign, or of another network.
    """
    from safetensors.torch import load_file

    path = model_file(source)
    if path.is_dir():
        from arbitrary_nst.models.onnx import OnnxModel

        return OnnxModel(path).eval()
    name, _, options = _header(path)
    if name not in MODELS:
        raise ModelFileError(f"{path}: holds a model '{name}', but this version knows {', '.join(MODELS)}.")
    try:
        model = MODELS[name](pretrained=False, **options)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the network '{name}' cannot be built from its header ({error}).") from error
    try:
        model.load_state_dict({key: value.float() if value.is_floating_point() else value
                               for key, value in load_file(str(path)).items()})  # fmt: skip
    except RuntimeError as error:
        raise ModelFileError(f"{path}: its weights do not fit the network '{name}' ({error}).") from error
    return model.eval().to(memory_format=torch.channels_last)
