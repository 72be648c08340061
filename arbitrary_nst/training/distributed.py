"""The processes of a run: one, or those that torchrun starts on one machine or several."""

import os
from typing import TYPE_CHECKING, Any

import torch

from arbitrary_nst.runtime.devices import chosen_device, chosen_precision
from arbitrary_nst.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FIRST_SCALE = 2.0**10
"""Of the loss with float16. PyTorch's own, 2^16, overflows with our features, and a run would begin by skipping."""


def launch(config: TrainConfig) -> tuple["Fabric", Any]:
    """The device of this process, joined to the others where torchrun started it (Fabric's DDP), and the precision.

    Raises ValueError for a device that this machine does not have.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision  # takes a second, and most commands train nothing

    device = chosen_device(config.device)
    precision = chosen_precision(config.precision, device)
    many: dict[str, Any] = {}
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        many = {"strategy": "ddp", "num_nodes": int(os.environ["WORLD_SIZE"]) // local, "devices": local}
    number_format: dict[str, Any] = {"precision": "bf16-mixed" if precision == "bfloat16" else "32-true"}
    if precision == "float16":  # as a plugin, since by name Fabric has it for CUDA only
        scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE)
        number_format = {"plugins": MixedPrecision("16-mixed", device.type, scaler)}
    fabric = Fabric(accelerator=device.type, **{"devices": 1, **many}, **number_format)
    fabric.launch()
    return fabric, precision


def agree(fabric: "Fabric", *numbers: float) -> list[float]:
    """The maximum of each number over all processes, so that all of them decide the same."""
    if fabric.world_size == 1:
        return list(numbers)
    largest: Any = fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64, device=fabric.device), reduce_op="max")
    return largest.tolist()
