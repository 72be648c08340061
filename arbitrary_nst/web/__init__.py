"""The command that opens a local page: photos in the style of paintings without a terminal.

What the page does lives beside it: `page` is what is seen, `actions` what happens, `sessions` the files of each person,
`painting` the pictures, `snippets` the same as commands and as Python, `guard` what is let in.
"""

import os
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg


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
    max_pixels: Annotated[int, arg(metavar="N")] = 8192 * 8192
    """Refuse pictures, and results, of more pixels than this."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py, that takes any painting."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device multiplies it natively, else float32."""

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"--port {self.port}: must be from 1 to 65535")
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")


def serve(config: ServeConfig) -> int:
    """Serve the page until Ctrl-C or SIGTERM; all that was uploaded or painted is gone then.

    Raises ValueError where gradio is not installed or the port is taken, ModelFileError or WeightsNotFoundError where
    there is no such model.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="arbitrary_nst-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}  # read when gradio is imported
        try:
            from arbitrary_nst.web.page import Page
        except ModuleNotFoundError as error:
            raise ValueError(f"serve: needs {error.name}: pip install 'arbitrary_nst[web]'") from error
        page = Page(config, Path(folder))
        try:
            url = page.open()
            print(f"The page is at {url} (Ctrl-C stops it)", flush=True)
            page.load_model()  # while the browser is already showing the page
            threading.Event().wait()
        finally:
            page.close()
    return 0
