"""The pictures in docs/site.md: the static site at three widths, with example photos.

python -m arbitrary_nst export --web site
python tools/make_site_screenshots.py --site site --output docs/site

Needs Chromium, and `pip install playwright`.
"""

import argparse
import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONTENT, STYLES = EXAMPLES / "content", EXAMPLES / "styles"
TIMEOUT = 300_000
"""Milliseconds."""


def wide(page: Page) -> None:
    """One style of the gallery."""
    give(page, "chelsea.jpg")


def laptop(page: Page) -> None:
    """A painting of one's own mixed with one of the gallery, in a dark room."""
    page.get_by_label("Mix up to three").check()
    page.locator("#painting-file").set_input_files(STYLES / "woodcut_wave.jpg")
    give(page, "rocket.jpg")


def phone(page: Page) -> None:
    """As it is on a phone."""
    page.get_by_role("checkbox", name="The Scream").check()
    give(page, "coffee.jpg")


STATES = {
    wide: ((1920, 1080), "light"),
    laptop: ((1280, 800), "dark"),
    phone: ((390, 844), "light"),
}


def give(page: Page, photo: str) -> None:
    page.locator("#photo-file").set_input_files(CONTENT / photo)
    page.locator("#png:enabled").wait_for()
    page.locator("#result[aria-busy=false]").wait_for()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(options.site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for state, ((width, height), scheme) in STATES.items():
            viewport = {"width": width, "height": height}
            context = browser.new_context(viewport=viewport, color_scheme=scheme, service_workers="block")  # type: ignore
            page = context.new_page()
            page.set_default_timeout(TIMEOUT)
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            state(page)
            screenshot = Image.open(BytesIO(page.screenshot(full_page=state is phone)))
            screenshot.convert("RGB").save(options.output / f"{state.__name__}.jpg", quality=82, optimize=True)
            context.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
