"""From the name of a network's weights to a file on this machine, and to a clear word when there is none."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class WeightsNotFoundError(RuntimeError):
    """Weights are neither on this machine nor to be had over the network."""


def torch_hub_state(url: str) -> dict[str, Tensor]:
    """The state dictionary at `url`, from the torch hub's cache (`TORCH_HOME`) or else downloaded into it.

    Raises WeightsNotFoundError, naming the file, where it was looked for and how to get it.
    """
    name = url.rsplit("/", 1)[-1]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = (folder / name).is_file()
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except Exception as error:
        if cached:
            raise WeightsNotFoundError(
                f"{folder / name} is damaged ({error or type(error).__name__}): delete it, and it is downloaded again."
            ) from error
        if not isinstance(error, OSError | RuntimeError):  # URLError is an OSError
            raise
        raise WeightsNotFoundError(
            f"{name} is not in {folder} and could not be downloaded ({error}). Download {url} on a machine with "
            f"a network and put it into that folder, or set TORCH_HOME to a folder that has hub/checkpoints/{name}."
        ) from error


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """As if a package were not installed; one that is imported already stays."""
    hidden = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(package, None)


def timm_backbone(name: str, pretrained: bool, **options: Any) -> Any:
    """`timm.create_model(name, ...)`, its pretrained weights from the Hugging Face cache (`HF_HOME`) or its hub.

    Raises WeightsNotFoundError, naming the model, where it was looked for and how to get it.
    """
    with _hidden("wandb"):  # timm's summaries, which nothing here uses, import it: two thirds of timm's own time
        import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained or isinstance(error, (TypeError, KeyError)):
            raise
        home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
        raise WeightsNotFoundError(
            f"the weights of timm's {name} are not in {home} and could not be downloaded ({type(error).__name__}: "
            f"{error}). Run `python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` on a machine "
            f"with a network and copy its Hugging Face cache here, or set HF_HOME to a folder that has them."
        ) from error


def shipped_weights(name: str) -> Path:
    """The file of a model that ships inside the package.

    Raises WeightsNotFoundError, listing the models that do ship.
    """
    folder = Path(str(files("arbitrary_nst"))) / "pretrained"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise WeightsNotFoundError(
            f"no weights of a model named '{name}' ship with this package (those that do: {shipped}). Name one of "
            f"them, or give the path of a .safetensors file written by train.py."
        )
    return path
