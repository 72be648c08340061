"""Files of network weights by name, and a clear error if there is none."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from arbitrary_nst.errors import WeightsNotFoundError, did_you_mean

FEATURES = "_features"
"""How the names of the files of shipped feature networks end; those of models do not."""


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
    """Hide a package as if it were not installed; one that is imported already stays."""
    hidden = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(package, None)


def timm_backbone(name: str, pretrained: bool, stages: Sequence[int]) -> Any:
    """The feature stages of a timm model, as `timm.create_model(name, features_only=True, out_indices=stages)`.

    Pretrained weights are those that ship with this package or, where they do not suffice, come from the Hugging Face
    cache (`HF_HOME`) or its hub. Of EfficientNets, timm keeps, and computes, what follows the last stage; here it is
    left out.

    Raises WeightsNotFoundError, naming the model, where it was looked for and how to get it.
    """
    state = shipped_features(name) if pretrained else {}
    backbone = _timm_stages(name, pretrained and not state, stages)
    wanted = backbone.state_dict().keys()
    if state and wanted <= state.keys():
        backbone.load_state_dict({key: state[key] for key in wanted})
    elif state:
        backbone = _timm_stages(name, True, stages)
    return backbone


def _timm_stages(name: str, pretrained: bool, stages: Sequence[int]) -> Any:
    with _hidden("wandb"):  # timm's summaries, which nothing here uses, import it: two thirds of timm's own time
        import timm

    try:
        network: Any = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=tuple(stages))
    except Exception as error:
        if not pretrained or isinstance(error, (TypeError, KeyError)):
            raise
        home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
        raise WeightsNotFoundError(
            f"the weights of timm's {name} are not in {home} and could not be downloaded ({type(error).__name__}: "
            f"{error}). Run `python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` on a machine "
            f"with a network and copy its Hugging Face cache here, or set HF_HOME to a folder that has them."
        ) from error
    if hasattr(network, "blocks"):
        network.blocks = network.blocks[: network.feature_info.get_dicts()[-1]["stage"]]
    return network


PRETRAINED = Path(str(files("arbitrary_nst"))) / "assets" / "pretrained"


def is_shipped(name: str) -> bool:
    """Return True if a model of that name ships inside the package."""
    return (PRETRAINED / f"{name}.safetensors").is_file() and not name.endswith(FEATURES)


def shipped_weights(name: str) -> Path:
    """The file of a model that ships inside the package.

    Raises WeightsNotFoundError, listing the models that do ship.
    """
    if not is_shipped(name):
        listed = sorted(path.stem for path in PRETRAINED.glob("*.safetensors") if is_shipped(path.stem))
        raise WeightsNotFoundError(
            f"no weights of a model named '{name}' ship with this package (those that do: {', '.join(listed)})"
            f"{did_you_mean(name, listed)} Name one of them, a .safetensors file, the folder of a training run, or a "
            "repository of the Hugging Face hub, OWNER/NAME."
        )
    return PRETRAINED / f"{name}.safetensors"


def shipped_features(network: str) -> dict[str, Tensor]:
    """The layers of a pretrained feature network that ship inside the package, in float16; {} where none do."""
    path = PRETRAINED / f"{network}{FEATURES}.safetensors"
    return load_file(path) if path.is_file() else {}
