"""Provenance of figures and weights: versions, the commit of the code, the device."""

import platform
import subprocess
from pathlib import Path

import torch
import torchvision

from arbitrary_nst import __version__


def commit() -> str | None:
    """The commit of the checkout that the package lies in; None where it lies in none."""
    root = Path(__file__).resolve().parents[2]
    try:
        command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        top, head = run.stdout.split("\n")[:2]
        return head if Path(top).resolve() == root else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def versions(device: torch.device) -> dict[str, str | None]:
    """Versions of Python, the libraries, this package and its code, and the name of the device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "arbitrary_nst": __version__,
        "commit": commit(),
        "device": f"{device} ({name})",
    }
