"""Models to files and back: safetensors, with the model's name and card in the header."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arbitrary_nst.models import MODELS
from arbitrary_nst.weights import shipped_weights


class ModelFileError(ValueError):
    """A file is not a model of this package, or not one that this version knows."""


def save_model(model: nn.Module, name: str, path: Path, card: dict[str, Any] | None = None, half: bool = False) -> None:
    """Write a model's weights atomically; `half` stores them in float16.

    Args:
        name: its key in `MODELS`.
        card: what its users should know (data, steps, figures, licence); what JSON cannot hold is kept as text.
    """
    from safetensors.torch import save

    state = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_bytes(save(state, metadata={"model": name, "card": json.dumps(card or {}, default=str)}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def model_card(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the card of a model file.

    Raises ModelFileError where the file is missing or is not a model's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file. Give a .safetensors file written by train.py.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata["model"], json.loads(metadata.get("card", "{}"))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelFileError(f"{path}: not a model of this package ({error!r}). Was it written by train.py?") from error


def load_model(source: str | Path = "light") -> nn.Module:
    """A model in evaluation mode, in float32, from the name of one that ships or from a file.

    Raises:
        WeightsNotFoundError: no model of that name ships.
        ModelFileError: the file is missing, foreign, or of another network.
    """
    from safetensors.torch import load_file

    path = Path(source)
    if path.suffix != ".safetensors" and not path.is_file():
        path = shipped_weights(str(source))
    name, _ = model_card(path)
    if name not in MODELS:
        raise ModelFileError(f"{path}: holds a model '{name}', but this version knows {', '.join(MODELS)}.")
    model = MODELS[name](pretrained=False)
    try:
        model.load_state_dict({key: value.float() if value.is_floating_point() else value
                               for key, value in load_file(str(path)).items()})  # fmt: skip
    except RuntimeError as error:
        raise ModelFileError(f"{path}: its weights do not fit the network '{name}' ({error}).") from error
    return model.eval().to(memory_format=torch.channels_last)
