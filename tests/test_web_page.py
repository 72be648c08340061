"""The page in headless Chromium: what a person clicks gives what the command line gives, for everybody their own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from PIL import Image

from arbitrary_nst.cli import main
from arbitrary_nst.image import load_image, save_image

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120_000
"""Milliseconds."""

MAX_BYTES = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page on a free port, with a temporary folder of its own; what it printed, and its address."""
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "arbitrary_nst", "serve", "--no-browser", "--max-bytes", str(MAX_BYTES)]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [*command, "--device", "cpu"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    found = re.search(r"http://\S+", told)
    assert found, (folder / "log").read_text()
    yield folder, found[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert list(folder.glob("arbitrary_nst-*")) == []  # nothing is left behind
    assert "arbitrary_nst/web" not in (folder / "log").read_text()  # no traceback that went through the page


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


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
        "before => (document.querySelectorAll('#picture img')[1]?.src ?? '') != before", arg=before, timeout=PATIENCE
    )


def shown(page):
    pictures = page.locator("#picture img")
    return pictures.nth(1).get_attribute("src") if pictures.count() > 1 else ""


def give(page, photo, paintings=()):
    page.locator("#photo input[type=file]").set_input_files(photo)
    page.locator("#photo img").wait_for()
    if paintings:
        page.get_by_role("tab", name="Own paintings").click()
        page.locator("#paintings input[type=file]").set_input_files(paintings)
        page.locator("#chosen", has_text=Path(paintings[-1]).name).wait_for()


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
    page.locator("#chosen", has_text="waves.png, The Scream").wait_for()
    with new_picture(page):
        page.locator("#paint").click()
    with new_picture(page):  # without another click
        strength = page.get_by_label("number input for Strength")
        strength.fill("0.6")
        strength.blur()
    theirs = downloaded(page, "#download", tmp_path / "page.png")
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
    theirs = downloaded(page, "#download", tmp_path / "page.png")
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
            downloaded(page, "#download", tmp_path / f"{name}.png")
            for page, name in zip((one, other), names, strict=True)
        ]
    monkeypatch.chdir(material)
    for name, picture in zip(names, pictures, strict=True):
        arguments = ["--content", "lake.jpg", "--style", f"gallery:{name}", "--output", f"{name}.png"]
        assert main(["stylize", *arguments, "--device", "cpu"]) == 0
        assert (material / f"{name}.png").read_bytes() == picture.read_bytes()


def test_a_broken_photo_is_told_and_not_kept(page, server, material):
    page.locator("#photo input[type=file]").set_input_files(material / "broken.jpg")
    told = page.locator(".toast-body").inner_text()
    assert "broken.jpg: the file is truncated" in told
    assert str(server[0]) not in told
    assert not list(server[0].rglob("broken*"))
    page.locator("#paint").click()
    page.locator(".toast-body", has_text="There is no photo yet").wait_for()


def test_an_optimization_is_watched_and_stopped(page, material, vgg16_file, tmp_path):
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


def test_a_request_that_names_a_file_of_the_computer_is_refused(server):
    _, config = asked(server[1], "config")
    (taking,) = [
        f["id"] for f in json.loads(config)["dependencies"] if any(t[1] == "upload" for t in f["targets"])
        and len(f["inputs"]) == 1 and len(f["outputs"]) == 2
    ]  # fmt: skip
    for path, status in (("/etc/passwd", 200), ("http://example.com/a.jpg", 403)):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file], "fn_index": taking, "session_hash": "stranger"}
        assert asked(server[1], "gradio_api/queue/join", body)[0] == status
        if status == 200:
            with urlopen(server[1] + "gradio_api/queue/data?session_hash=stranger", timeout=60) as events:
                last = next(line for line in events if b"process_completed" in line)
            assert json.loads(last[6:])["success"] is False
    assert not list(server[0].rglob("passwd"))


def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(server):
    before = {path.name for path in server[0].glob("arbitrary_nst-*/*")}
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="../../big.jpg"\r\n\r\n'
    body = form + bytes(MAX_BYTES + 1) + b"\r\n--b--\r\n"
    request = Request(server[1] + "gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=b"})
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=60)
    assert refused.value.code == 413
    assert {path.name for path in server[0].glob("arbitrary_nst-*/*")} == before
