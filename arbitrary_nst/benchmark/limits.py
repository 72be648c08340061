"""Arithmetic and memory traffic of a computation, and the limits of the machine for both.

The limits are calls like any other, so that they take their turns among the candidates and share their weather.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

COPIED = 2**28
"""Bytes of the tensor whose copying shows how fast memory moves: more than a processor's own caches hold."""

SIDES = {"cpu": 2048}
OTHER_SIDE = 8192
"""Sides of the square matrices whose product shows how fast a device multiplies."""


@dataclass(frozen=True)
class Work:
    """Operations and memory traffic of one call.

    Args:
        flops: of its matrix products and convolutions, two for a multiply-add.
        moved: bytes that its operations are given and give back, each operation by itself; what is only seen
            another way (a transposed matrix, a slice) is not moved.
    """

    flops: int
    moved: int


def work_of(call: Callable[[], Any]) -> Work:
    """The work of one call of PyTorch operations, counted while it runs."""
    with FlopCounterMode(display=False) as flops, _MovedBytes() as traffic:
        call()
    return Work(flops.get_total_flops(), traffic.moved)


class _MovedBytes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # without autograd, operations made of others arrive whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        results = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        storages = {tensor.untyped_storage().data_ptr() for tensor in given}
        seen_anew = not func._schema.is_mutable and all(t.untyped_storage().data_ptr() in storages for t in made)
        if not seen_anew and not func.name().startswith("aten::empty"):
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in given + made)
        return results


def matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], int]:
    """A call that multiplies two large square matrices, and its floating-point operations."""
    side = SIDES.get(device.type, OTHER_SIDE)
    left, right = (torch.ones(side, side, dtype=dtype, device=device) / side for _ in range(2))
    return lambda: (left @ right)[0, 0].item(), 2 * side**3


def copy(device: torch.device) -> tuple[Callable[[], Any], int]:
    """A call that copies a large tensor, and the bytes that it reads and writes."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)[0].item(), 2 * COPIED
