"""Devices, their precision and their free memory."""

import ctypes
import re
from contextlib import suppress
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.errors import UsageError


def chosen_device(name: torch.device | str | None = None) -> torch.device:
    """The device of that name; for None and "auto" CUDA where there is one, then Apple's MPS, then the processor.

    Raises UsageError for a device that this machine does not have.
    """
    if name is not None and name != "auto":
        device = torch.device(name)
        counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if (device.index or 0) >= counts.get(device.type, 1 + (device.index or 0)):
            raise UsageError(f"--device {name}: PyTorch finds no such device on this machine; choose cpu or auto")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def channels_last(image: Float[Tensor, "B C H W"], device: torch.device) -> Float[Tensor, "B C H W"]:
    """The image on the device where it is computed with, in the memory format that convolutions prefer."""
    return image.to(device, memory_format=torch.channels_last, non_blocking=True)


def fast_bfloat16(device: torch.device) -> bool:
    """Return True if the device multiplies bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not a public name: it may go
        return supported is not None and supported()
    return False


def chosen_precision(name: str, device: torch.device) -> str:
    """The precision of that name; for "auto" bfloat16 where the device multiplies it natively, else float32."""
    return ("bfloat16" if fast_bfloat16(device) else "float32") if name == "auto" else name


def fast_float16(device: torch.device) -> bool:
    """Return True if the device multiplies float16 natively."""
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version of torch
        return bool(capabilities.get("avx512_fp16") or capabilities.get("amx_fp16"))
    return device.type in ("cuda", "mps")


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can still be had; None where nobody says.

    For the processor, where Linux says it: the least of what the machine has available and what the process's control
    groups (version 2) leave of their limits.

    Args:
        root: of the file system that /proc and /sys are read from.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return None
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return None
    return min(free + _left_by_groups(root), default=None)


def _left_by_groups(root: Path) -> list[int]:
    """Bytes that each control group around the process leaves of its limit; a cache of files counts as free."""
    try:
        own = next(line[3:] for line in (root / "proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    left, groups = [], root / "sys/fs/cgroup"
    folder = groups / own.strip("/")
    for group in (folder, *folder.parents[: len(folder.relative_to(groups).parts)]):
        with suppress(OSError, ValueError):  # no limit is the word "max"; the outermost group has no files
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            statistics = (group / "memory.stat").read_text().split()
            cached = int(statistics[statistics.index("inactive_file") + 1]) if "inactive_file" in statistics else 0
            left.append(max(limit - used + cached, 0))
    return left


def out_of_memory(error: BaseException) -> bool:
    """Return True if a computation failed for lack of memory, in the words of any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def reset_peak_memory(device: torch.device) -> bool:
    """Begin to measure anew; False where peak memory cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the high-water mark becomes what is used now
    except OSError:
        return False
    return device.type == "cpu"


def peak_memory(device: torch.device) -> float | None:
    """Megabytes (10^6 bytes) since then: what torch allocated on a GPU, else what the whole process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:  # not Linux
        return None
    return int(match[1]) * 1024 / 1e6 if match else None


def keep_freed_memory() -> bool:
    """Let this process keep the memory of tensors that it frees, and say whether it will.

    glibc returns large freed blocks to the system, and every step of an optimization or a training pays for their pages
    again: a tenth of its time on a processor (docs/lab-notebook.md). Only commands call this; a library does not change
    its host process. Without glibc nothing changes.
    """
    trim_threshold, mmap_max = -1, -4  # names of mallopt(3)
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
