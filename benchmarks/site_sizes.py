"""How long the static site takes for large photos, and in how much memory, in headless Chromium.

    python -m arbitrary_nst export --web site
    python benchmarks/site_sizes.py --site site [--megapixels 3 6 12] [--flags=--disable-features=WebGPU]

Each photo (3:2, an example enlarged) is given to a browser of its own and downloaded as PNG at its full size. Seconds
are those that the page tells, processor seconds and peak memory those of the process that runs the tab and its worker,
preview and PNG included. Needs Linux, Chromium, and `pip install playwright`.
"""

import functools
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tyro
from PIL import Image
from playwright.sync_api import sync_playwright

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "content" / "chelsea.jpg"
PATIENCE = 1_800_000
"""Milliseconds."""


@dataclass(frozen=True)
class Config:
    """Paint photos of several sizes on the site."""

    site: Path
    megapixels: tuple[float, ...] = (3, 6, 12)
    flags: tuple[str, ...] = ()
    """Options of Chromium, such as --js-flags=--wasm-max-mem-pages=16384 for 1 GiB of WebAssembly memory."""
    threads: bool = False
    """Let the service worker isolate the page, so that WebAssembly has threads."""
    output: Path | None = None
    """Folder for photos and pictures."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


def tabs() -> list[Path]:
    """Folders in /proc of the browser's processes that run pages."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # has just ended
            continue
    ours = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return [p for p in (Path(f"/proc/{n}") for n in ours) if "--type=renderer" in (p / "cmdline").read_text()]


def processor_seconds() -> float:
    fields = [(folder / "stat").read_text().rpartition(")")[2].split()[11:13] for folder in tabs()]
    return sum(int(ticks) for each in fields for ticks in each) / os.sysconf("SC_CLK_TCK")


def peak() -> float:
    """GiB that the largest of them has had resident at most."""
    lines = [line for folder in tabs() for line in (folder / "status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def main(config: Config) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(config.site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    for megapixels in config.megapixels:
        height = round((megapixels * 1e6 / 1.5) ** 0.5)
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
            output = config.output or Path(folder)
            output.mkdir(parents=True, exist_ok=True)
            photo = output / f"photo_{megapixels:g}.png"
            Image.open(PHOTO).resize((height * 3 // 2, height), Image.Resampling.BICUBIC).save(photo, compress_level=1)
            flags = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=[*flags, *config.flags])
            page = browser.new_context(service_workers="allow" if config.threads else "block").new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            if config.threads:
                page.wait_for_timeout(5000)  # the page loads itself again
            page.locator("#photo-file").set_input_files(photo)
            page.locator("#png:enabled").wait_for()
            preview, spent, begun = peak(), processor_seconds(), time.perf_counter()
            with page.expect_download() as download:
                page.locator("#png").click()
            download.value.save_as(painted := output / f"painted_{megapixels:g}.png")
            size = Image.open(painted).size
            seconds, spent = time.perf_counter() - begun, processor_seconds() - spent
            engine, told = page.locator("#engine").inner_text(), page.locator("#status").inner_text()
            print(f"{megapixels:g} megapixels, {engine}: {size[0]} x {size[1]}; {told}")
            print(f"    with the PNG {seconds:.0f} s, {spent:.0f} s of processor", end="; ")
            print(f"peak {peak():.2f} GiB, of the preview {preview:.2f} GiB", flush=True)
            browser.close()
    server.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Config))
