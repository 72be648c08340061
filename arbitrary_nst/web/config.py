"""Options of the page."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from arbitrary_nst.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Open a page in the browser that stylizes photos on this computer. Nothing leaves it, and no network is needed."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this computer's own lets others in: there is no password."""
    port: int | None = None
    """Port to listen on; otherwise the first free one from 7860 on."""
    browser: bool = True
    """Open the page in the browser."""
    max_bytes: Annotated[int, arg(metavar="N")] = 64 * 2**20
    """Refuse files of more bytes than this."""
    max_total_bytes: Annotated[int, arg(metavar="N")] = 4 * 2**30
    """Refuse uploads while the files of all visitors together have more bytes than this."""
    max_pixels: Annotated[int, arg(metavar="N")] = 8192 * 8192
    """Refuse pictures, and results, of more pixels than this."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py, that takes any painting."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device multiplies it natively, else float32."""

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: must be from 1 to 65535")
        for name in ("max_bytes", "max_total_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
