"""The page in headless Chromium: what a person clicks gives what the command line gives, for everybody their own."""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import torch
from PIL import Image

from arbitrary_nst.commands import main
from arbitrary_nst.errors import ImageError
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.web.sessions import PREFIX

pytest.importorskip("gradio")
pytest.importorskip("playwright")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120_000
"""Milliseconds."""

MAX_BYTES = 2**20

DROP = """async content => {
  const bytes = await (await fetch(`data:;base64,${content}`)).blob();
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "lake.heic"));
  const target = document.querySelector("#photo .upload-container");
  target.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer}));
}"""

HEAVY = ("serious", "critical")
"""What axe calls findings that keep somebody from using the page."""

SMALL_TARGETS = """() => [...document.querySelectorAll("button, input, a, [role=tab]")].filter(element => {
  const target = element.closest("label") ?? element.closest(".wrap-inner") ?? element;
  const {width, height} = target.getBoundingClientRect();
  return element.checkVisibility({visibilityProperty: true, opacityProperty: true}) && width > 2 && height > 2
    && (width < 24 || height < 24);
}).map(element => element.ariaLabel ?? element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page on a free port, with a temporary folder of its own; the folder, and its address."""
    with serving(tmp_path_factory.mktemp("server")) as (folder, url):
        yield folder, url


ENDLESS = """
import time
from arbitrary_nst.web.painting import Painter
paint = Painter.paint

def endless(self, config, photo, styles, progress):
    while config.alpha < 1:
        progress(0.5)
        time.sleep(0.01)
    return paint(self, config, photo, styles, progress)

Painter.paint = endless
"""
"""A server's program for pictures below full strength: they are painted until they are cancelled."""

SLOW = """
import os
from pathlib import Path
from arbitrary_nst.stylization.stylizer import Stylizer
paint = Stylizer.__call__

def slow(self, *arguments):
    Path(os.environ["TMPDIR"], "paints").touch()
    return [paint(self, *arguments) for _ in range(50)][0]

Stylizer.__call__ = slow
"""
"""A server's program for swatches that take a minute."""


LATE = """
import time
from arbitrary_nst.web.sessions import Screen
read = Screen.of.__func__

def late(cls, values, known):
    time.sleep(0 if values[0] else 2)
    return read(cls, values, known)

Screen.of = classmethod(late)
"""
"""A server's program that is slow to begin what was asked for while no style of the gallery was ticked."""


@contextmanager
def serving(folder, *options, stop=signal.SIGTERM, program=""):
    """A server in a process of its own, which leaves nothing behind.

    Args:
        program: is run before the server.
    """
    program += "\nimport sys\nfrom arbitrary_nst.__main__ import run\nsys.exit(run())"
    command = [sys.executable, "-c", program, "serve", "--no-browser", "--max-bytes", str(MAX_BYTES), *options]
    killed = folder / f"{PREFIX}killed"  # left by a server before
    killed.mkdir()
    (killed / "lock").touch()
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")  # nothing answers there
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"} | proxies
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [*command, "--device", "cpu"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        found = re.search(r"http://\S+", told)
        assert found, (folder / "log").read_text()
        assert not killed.exists()
        yield folder, found[0]
        process.send_signal(stop)
        assert process.wait(60) == 128 + stop
    finally:
        process.kill()
    assert list(folder.glob(f"{PREFIX}*")) == []  # nothing is left behind
    assert "arbitrary_nst/web" not in (folder / "log").read_text()  # no traceback that went through the page


@pytest.fixture
def material(tmp_path):
    """A photo with EXIF, a painting of its own folder, and a broken file."""
    for name, size in (("lake", (48, 72)), ("waves", (64, 64))):
        save_image(torch.rand(1, 3, *size), tmp_path / f"{name}.png")
    exif = Image.Exif()
    exif[271] = "Camera"
    Image.open(tmp_path / "lake.png").save(tmp_path / "lake.jpg", exif=exif, quality=95)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "lake.jpg").read_bytes()[:900])
    return tmp_path


@contextmanager
def opened(browser, url):
    """The page as one person has it; every request must stay on this computer."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    elsewhere = []
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else elsewhere.append(r.url))
    page.goto(url)
    page.locator("#gallery label").first.wait_for()
    yield page
    context.close()
    assert elsewhere == []


@pytest.fixture
def page(browser, server):
    with opened(browser, server[1]) as page:
        yield page


@contextmanager
def new_picture(page):
    """What is done in the block makes a new picture."""
    before = shown(page)
    yield
    page.wait_for_function(
        "before => (document.querySelector('#picture img')?.getAttribute('src') ?? '') != before",
        arg=before,
        timeout=PATIENCE,
    )


def shown(page):
    pictures = page.locator("#picture img")
    return pictures.first.get_attribute("src") if pictures.count() else ""


def give(page, photo, paintings=()):
    page.locator("#photo input[type=file]").set_input_files(photo)
    page.locator("#photo img").wait_for()
    if paintings:
        page.get_by_role("tab", name="Own paintings").click()
        page.locator("#paintings input[type=file]").set_input_files(paintings)
        page.locator("#hint", has_text=Path(paintings[-1]).name).wait_for()


def downloaded(page, button, target):
    with page.expect_download(timeout=PATIENCE) as download:
        page.locator(button).click()
    download.value.save_as(target)
    return target


def snippets(page):
    """The command and the program, as they would be copied."""
    page.get_by_role("button", name="The same on the command line and in Python").click()
    texts = [page.locator(f"{name} .cm-content").inner_text() for name in ("#command", "#program")]
    page.get_by_role("button", name="The same on the command line and in Python").click()
    return texts


def run_command(text, folder, monkeypatch, output):
    """Run what a person would paste into a terminal, in the folder of their files."""
    monkeypatch.chdir(folder)
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "arbitrary_nst"]
    words[words.index("--output") + 1] = str(output)
    assert main([*words[3:], "--device", "cpu"]) == 0
    return output


def test_the_picture_is_the_command_lines_to_the_last_bit(page, material, monkeypatch, tmp_path):
    give(page, material / "lake.jpg", [material / "waves.png"])
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_label("The Scream").check()
    page.locator("#hint", has_text="waves.png, The Scream").wait_for()
    with new_picture(page):
        page.locator("#paint").click()
    with new_picture(page):  # without another click
        strength = page.get_by_label("number input for Strength")
        strength.fill("0.6")
        strength.press("Enter")
    theirs = downloaded(page, "#png", tmp_path / "page.png")
    assert Image.open(theirs).getexif()[271] == "Camera"
    command, program = snippets(page)
    assert "--alpha 0.6" in command
    ours = run_command(command, material, monkeypatch, tmp_path / "command.png")
    assert ours.read_bytes() == theirs.read_bytes()
    exec(program, {})
    (written,) = material.glob("lake_stylized_*.png")
    assert torch.equal(load_image(written), load_image(theirs))


def test_areas_are_brushed(page, material, monkeypatch, tmp_path):
    give(page, material / "lake.jpg")
    page.get_by_label("The Scream").check()
    page.get_by_role("tab", name="Areas").click()
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.locator("#areas-legend", has_text="The Scream").wait_for()
    page.wait_for_timeout(1500)  # until the photo is drawn
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 10, y + 4, steps=3)
    page.mouse.up()
    with new_picture(page):
        page.get_by_role("button", name="Use these areas").click()
    theirs = downloaded(page, "#png", tmp_path / "page.png")
    page.get_by_role("button", name="The same on the command line and in Python").click()
    command = page.locator("#command .cm-content").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("KB|B")).first.click()
    download.value.save_as(material / "area-1.png")
    mask = load_image(material / "area-1.png")
    assert mask.max() > 0.99
    assert mask.min() == 0
    ours = run_command(command, material, monkeypatch, tmp_path / "command.png")
    assert ours.read_bytes() == theirs.read_bytes()


def test_two_people_at_once_get_their_own(browser, server, material, monkeypatch, tmp_path):
    names = ("scream", "sunrise")
    with opened(browser, server[1]) as one, opened(browser, server[1]) as other:
        for page, title in ((one, "The Scream"), (other, "Impression, Sunrise")):
            give(page, material / "lake.jpg")
            page.get_by_label(title).check()
        with new_picture(one), new_picture(other):
            one.locator("#paint").click()
            other.locator("#paint").click()
        pictures = [
            downloaded(page, "#png", tmp_path / f"{name}.png") for page, name in zip((one, other), names, strict=True)
        ]
    monkeypatch.chdir(material)
    for name, picture in zip(names, pictures, strict=True):
        arguments = ["--content", "lake.jpg", "--style", f"gallery:{name}", "--output", f"{name}.png"]
        assert main(["stylize", *arguments, "--device", "cpu"]) == 0
        assert (material / f"{name}.png").read_bytes() == picture.read_bytes()


def test_a_style_that_is_ticked_while_the_photo_is_read_counts(browser, material, tmp_path_factory):
    with (
        serving(tmp_path_factory.mktemp("late"), program=LATE) as (_, url),
        opened(browser, url) as page,
    ):
        with page.expect_response(re.compile("/upload")):
            page.locator("#photo input[type=file]").set_input_files(material / "lake.jpg")
        page.get_by_label("The Scream").check()
        with new_picture(page):
            page.locator("#paint").click()


def test_a_broken_photo_is_told_until_a_whole_one_is_given_and_not_kept(page, server, material):
    page.locator("#photo input[type=file]").set_input_files(material / "broken.jpg")
    told = page.locator("#photo-told .wrong")
    assert "broken.jpg: the file is truncated" in told.inner_text()
    assert str(server[0]) not in told.inner_text()
    assert not list(server[0].rglob("broken*"))
    assert page.locator("#paint").is_disabled()
    page.locator("#photo input[type=file]").set_input_files(material / "lake.jpg")
    told.wait_for(state="detached")


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_photos_that_a_browser_or_a_phone_makes_are_taken(page, material, suffix):
    photo = material / f"lake{suffix}"
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.open(material / "lake.png").save(photo)
    try:
        load_image(photo)
    except ImageError as error:
        pytest.skip(str(error))
    give(page, photo)
    page.wait_for_function("document.querySelector('#photo img').naturalWidth == 72")
    page.get_by_role("tab", name="Own paintings").click()
    page.locator("#paintings input[type=file]").set_input_files(photo)
    page.locator("#hint", has_text=photo.name).wait_for()


def test_a_photo_that_the_browser_does_not_know_can_be_dropped(page, material):
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.open(material / "lake.png").save(material / "lake.heic")
    content = base64.b64encode((material / "lake.heic").read_bytes()).decode()
    page.evaluate(DROP, content)
    page.wait_for_function("document.querySelector('#photo img')?.naturalWidth == 72")


def test_what_is_shown_is_there_after_a_reload(page, material, tmp_path):
    give(page, material / "lake.jpg", [material / "waves.png"])
    with new_picture(page):
        page.locator("#paint").click()
    before = shown(page)
    with new_picture(page):
        page.get_by_label("range slider for Strength").press("ArrowLeft")
    before = shown(page)
    page.reload()
    page.locator("#picture img").first.wait_for()
    assert shown(page) == before
    assert page.get_by_label("number input for Strength").input_value() == "0.95"
    page.locator("#hint", has_text="waves.png").wait_for()
    page.locator("#photo img").wait_for()
    assert Image.open(downloaded(page, "#jpeg", tmp_path / "page.jpg")).size == (72, 48)


def test_a_new_painting_repaints_and_the_next_photo_leaves_the_picture_and_its_download(page, material, tmp_path):
    give(page, material / "lake.jpg")
    page.get_by_label("The Scream").check()
    with new_picture(page):
        page.locator("#paint").click()
    page.get_by_role("tab", name="Own paintings").click()
    with new_picture(page):
        page.locator("#paintings input[type=file]").set_input_files(material / "waves.png")
    before = shown(page)
    save_image(torch.rand(1, 3, 40, 40), material / "next.png")
    page.locator("#photo input[type=file]").set_input_files(material / "next.png")
    page.wait_for_function("document.querySelector('#photo img')?.naturalWidth == 40")
    assert shown(page) == before
    assert Image.open(downloaded(page, "#png", tmp_path / "page.png")).size == (72, 48)


def test_the_page_is_usable_by_keyboard_and_finger(page, material):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    assert page.locator("#paint").is_disabled()
    give(page, material / "lake.jpg")
    page.get_by_label("The Scream").check()
    with new_picture(page):
        page.locator("#paint").click()
    handle = page.get_by_label("How much of the photo is shown")
    handle.press("ArrowRight")
    assert page.locator(".compare").evaluate("e => e.style.getPropertyValue('--cut')") == "51%"
    slider = page.get_by_label("range slider for Strength")
    slider.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert slider.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert "Done" in page.locator("#status [role=status]").inner_text()
    places = []
    for left, right in (("Gallery", "Picture"), ("Own paintings", "Areas"), ("Style files", "Slow way")):
        for tab in (left, right):
            page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        places.append(page.locator("#paint").evaluate("e => e.getBoundingClientRect().top + scrollY"))
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] in HEAVY] == []
        assert page.evaluate(SMALL_TARGETS) == []
    assert places[0] == places[1] == places[2]


def test_nothing_is_wider_than_a_phone(browser, server):
    with opened(browser, server[1]) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_optimization_that_cannot_start_can_be_started_again(page, server, material):
    page.get_by_role("tab", name="Slow way").click()
    start = page.locator("#optimize")
    assert start.is_disabled()
    give(page, material / "lake.jpg", [material / "waves.png"])
    given = max(server[0].glob(f"{PREFIX}*/session-*/given/*/waves.png"), key=lambda path: path.stat().st_mtime)
    content = given.read_bytes()
    given.write_bytes(content[:100])
    start.click()
    page.locator("#losses .wrong", has_text="waves.png").wait_for()
    assert start.is_visible()
    assert not page.locator("#stop").is_visible()
    given.write_bytes(content)
    for name, number in (("Short side", "64"), ("Steps", "2")):
        field = page.get_by_label(f"number input for {name}")
        field.fill(number)
        field.blur()
    begun = page.locator("#losses", has_text=re.compile("Step|Done"))
    for _ in range(30):  # a click may come before the page knows that the first try has ended
        if begun.is_visible():
            break
        if start.is_visible():
            start.click()
        page.wait_for_timeout(2000)
    page.locator("#losses", has_text="Done").wait_for()
    assert start.is_visible()


def test_an_optimization_is_watched_and_stopped(page, material, tmp_path):
    give(page, material / "lake.jpg", [material / "waves.png"])
    page.get_by_role("tab", name="Slow way").click()
    side = page.get_by_label("number input for Short side")
    side.fill("64")
    side.blur()
    page.locator("#optimize").click()
    page.locator("#losses", has_text=re.compile("Step [2-9]")).wait_for()
    page.locator("#stop").click()
    page.locator("#optimized-download").wait_for()
    page.locator("#optimize").wait_for()
    assert "Step 100 " not in page.locator("#losses").inner_text()
    assert Image.open(downloaded(page, "#optimized-download", tmp_path / "iterate.png")).size == (96, 64)


def test_a_painting_is_cancelled_and_the_picture_before_it_stays(browser, tmp_path_factory, material):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, program=ENDLESS) as (_, url), opened(browser, url) as page:
        give(page, material / "lake.jpg")
        page.get_by_label("The Scream").check()
        with new_picture(page):
            page.locator("#paint").click()
        before, cancel = shown(page), page.locator("#cancel")
        assert cancel.is_disabled()
        strength = page.get_by_label("number input for Strength")
        strength.fill("0.6")
        strength.press("Enter")  # which the page reports twice
        cancel.click()
        page.locator("#status", has_text="Cancelled").wait_for()
        page.wait_for_timeout(1000)
        assert cancel.is_disabled()
        assert shown(page) == before
        strength.fill("1")
        strength.press("Enter")
        with new_picture(page):
            page.locator("#paint").click()


def test_a_server_that_is_stopped_while_it_paints_swatches_ends_cleanly(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, program=SLOW) as (_, url), opened(browser, url) as page:
        while not (folder / "paints").exists():
            page.wait_for_timeout(100)


# Behind a reverse proxy


@contextmanager
def forwarding(target, folder):
    """A proxy as docs/page.md asks for, in this process; its address."""
    import httpx
    import uvicorn
    from starlette.requests import Request

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        host = request.headers["host"]
        headers = {**request.headers, "x-forwarded-host": host, "x-forwarded-proto": "http"}
        query = f"?{request.url.query}" if request.url.query else ""
        address, body = f"{target}{scope['raw_path'].decode().removeprefix('/')}{query}", await request.body()
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False) as client,
            client.stream(request.method, address, headers=headers, content=body) as answer,
        ):
            kept = [(name, value) for name, value in answer.headers.raw if name.lower() != b"connection"]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})

    proxy = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="error", lifespan="off"))
    thread = Thread(target=proxy.run)
    thread.start()
    yield f"http://localhost:{proxy.config.port}/"
    proxy.should_exit = proxy.force_exit = True
    thread.join(60)


@contextmanager
def nginx(target, folder):
    """nginx with the lines of docs/page.md; its address."""
    if shutil.which("nginx") is None:
        pytest.skip("no nginx: apt-get install nginx")
    (lines,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "page.md").read_text(encoding="utf-8"), re.DOTALL)
    port, lines = free_port(), lines.replace("http://10.0.0.2:7860", target.rstrip("/"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}}"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; {lines} }} }}"
    )
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-e", folder / "error"])
    yield f"http://localhost:{port}/"
    process.terminate()
    process.wait(60)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("proxy", [forwarding, nginx])
def test_the_page_works_behind_a_reverse_proxy(browser, tmp_path_factory, tmp_path, material, proxy):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--host", "0.0.0.0", stop=signal.SIGHUP) as (_, url), proxy(url, tmp_path) as address:
        with opened(browser, address) as page:
            give(page, material / "lake.jpg", [material / "waves.png"])
            with new_picture(page):
                page.locator("#paint").click()
            assert Image.open(downloaded(page, "#png", tmp_path / "page.png")).size == (72, 48)
        assert asked(address, "gradio_api/queue/join", {}, Origin="https://elsewhere.example")[0] == 403


# Without a browser


def asked(url, path, body=None, **headers):
    """Status and text of a request; one with a body is a POST of JSON."""
    encoded = None if body is None else json.dumps(body).encode()
    request = Request(url + path, encoded, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("gradio_api/file=/etc/passwd", 403),
        ("gradio_api/file=../../../../etc/passwd", 403),
        ("gradio_api/file=%2e%2e/%2e%2e/etc/passwd", 403),
        ("gradio_api/file=http://example.com/", 403),
        ("gradio_api/proxy=http://example.com/", 404),
        ("gradio_api/info", 404),
        ("monitoring", 404),
        ("docs", 404),
        ("gradio_api/vibe-code", 404),
    ],
)
def test_what_the_page_does_not_need_is_not_there(server, path, status):
    assert asked(server[1], path)[0] == status


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/etc/passwd", "http://example.com/a.jpg"])
def test_a_request_that_names_a_file_of_the_computer_or_of_another_is_refused(server, path):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file], "fn_index": 0, "session_hash": "stranger"}
    assert asked(server[1], "gradio_api/queue/join", body)[0] == 403


@pytest.mark.slow
@pytest.mark.parametrize("excess", [1, 2**21])
def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(server, excess):
    log = server[0] / "log"
    before = {path.name for path in server[0].glob(f"{PREFIX}*/*")}, log.read_text()
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="../../big.jpg"\r\n\r\n'
    body = form + bytes(MAX_BYTES + excess) + b"\r\n--b--\r\n"
    request = Request(server[1] + "gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=b"})
    with pytest.raises((URLError, ConnectionError)) as refused:  # the answer may come before all was sent
        urlopen(request, timeout=60)
    assert getattr(refused.value, "code", 413) == 413
    assert ({path.name for path in server[0].glob(f"{PREFIX}*/*")}, log.read_text()) == before
