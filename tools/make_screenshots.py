"""The pictures in docs/page.md: the page in each of its states, with example photos and styles.

python tools/make_screenshots.py --output docs/page

Needs Chromium, and `pip install playwright 'arbitrary_nst[web]'`.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONTENT, STYLES = EXAMPLES / "content", EXAMPLES / "styles"
TIMEOUT = 300_000
"""Milliseconds."""

LARGEST = 200_000
"""Bytes."""


def empty(page: Page) -> None:
    """As it opens."""


def result(page: Page) -> None:
    """A photo in a style of the gallery."""
    page.locator("#photo input[type=file]").set_input_files(CONTENT / "chelsea.jpg")
    page.get_by_label("Wheat Field with Cypresses").check()
    page.locator("#paint").click()
    page.locator("#picture img").first.wait_for()


def areas(page: Page) -> None:
    """Two own paintings, one of them brushed over a part of the photo."""
    page.locator("#photo input[type=file]").set_input_files(CONTENT / "rocket.jpg")
    page.get_by_role("tab", name="Own paintings").click()
    page.locator("#paintings input[type=file]").set_input_files([STYLES / "woodcut_wave.jpg", STYLES / "ink_wash.jpg"])
    page.locator("#hint", has_text="ink_wash.jpg").wait_for()
    page.get_by_role("tab", name="Areas").click()
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(2000)  # until the photo is drawn
    box = canvas.bounding_box() or {}
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    for part in range(1, 21):
        x, y = 0.25 + 0.025 * part, 0.3 + 0.04 * (part % 2)
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.mouse.up()


def slow(page: Page) -> None:
    """An optimization while it runs."""
    page.locator("#photo input[type=file]").set_input_files(CONTENT / "chelsea.jpg")
    page.get_by_role("tab", name="Own paintings").click()
    page.locator("#paintings input[type=file]").set_input_files(STYLES / "woodcut_wave.jpg")
    page.locator("#hint", has_text="woodcut_wave.jpg").wait_for()
    page.get_by_role("tab", name="Slow way").click()
    page.locator("#optimize").click()
    page.locator("#losses", has_text=re.compile("Step [2-9]")).wait_for()


def error(page: Page) -> None:
    """A photo of which the end is missing."""
    broken = {"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": (CONTENT / "coffee.jpg").read_bytes()[:9000]}
    page.locator("#photo input[type=file]").set_input_files(broken)  # type: ignore[arg-type]
    page.locator("#photo-told .wrong").wait_for()


STATES: tuple[Callable[[Page], None], ...] = (empty, result, areas, slow, error)


def save(screenshot: bytes, path: Path) -> None:
    """As a PNG of as many colours as `LARGEST` lets it have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(BytesIO(screenshot)).convert("RGB")
    for colors in (256, 128, 64, 32):
        picture.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    server = subprocess.Popen(
        [sys.executable, "-m", "arbitrary_nst", "serve", "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = re.findall(r"http://\S+", server.stdout.readline())[0]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        sizes = {"": (1280, 900), "-phone": (390, 844)}
        for state, suffix in [*((state, "") for state in STATES), (result, "-phone")]:
            width, height = sizes[suffix]
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(TIMEOUT)
            page.goto(url)
            page.locator("#gallery label").first.wait_for()
            state(page)
            if suffix:
                page.locator("#picture").scroll_into_view_if_needed()
            page.wait_for_timeout(2000)  # until what fades in is there
            save(page.screenshot(), output / f"{state.__name__}{suffix}.png")
            page.close()
        browser.close()
    server.terminate()
    server.wait()


if __name__ == "__main__":
    main()
