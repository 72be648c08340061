"""Where to compute, and in which precision."""

import torch


def default_device() -> torch.device:
    """CUDA where there is one, then Apple's MPS, then the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not a public name: it may go
        return supported is not None and supported()
    return False
