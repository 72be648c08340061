"""What public functions take: dense tensors that hold numbers, and numbers."""

from numbers import Integral, Real

import torch
from torch import Tensor

from arbitrary_nst.errors import UsageError


def check_tensor(value: object, name: str, remedy: str) -> None:
    """Refuse what is no tensor (TypeError), and a sparse, nested or meta one (UsageError).

    Args:
        name, remedy: what the message calls it, and how to get the right one.
    """
    if not isinstance(value, Tensor):
        kind = type(value)
        raise TypeError(f"the {name} must be a tensor, not {kind.__module__}.{kind.__qualname__}: {remedy}")
    if value.layout != torch.strided or value.is_nested or value.is_meta:
        raise UsageError(
            f"the {name} must be a dense tensor that holds numbers, not {value.layout} on {value.device}: {remedy}"
        )


def is_number(value: object) -> bool:
    """Return whether it is a real number of Python or numpy, or a tensor of one; a bool is none."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Return whether it is an integer of Python or numpy; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)
