"""The static site in headless Chromium: it paints what the package paints, offline too, and says what is wrong."""

import functools
import json
import re
import threading
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("playwright")

from playwright.sync_api import Error

from arbitrary_nst.commands import export as exporting
from arbitrary_nst.commands import main
from arbitrary_nst.commands.export import ExportConfig, export
from arbitrary_nst.errors import MissingPackageError
from arbitrary_nst.image import (
    load_image,
    load_pixel_picture,
    load_pixels,
    resize,
    resize_pixels,
    save_image,
    save_pixels,
)
from arbitrary_nst.image.color import with_colors_of
from arbitrary_nst.image.resizing import fitted_size
from arbitrary_nst.models.light import TOKENS, CoarseToFine, LightTransformer
from arbitrary_nst.models.serialization import STYLE_ENCODER, STYLIZER
from arbitrary_nst.models.style_prediction import StyleNetwork
from arbitrary_nst.nn import octaves
from arbitrary_nst.site import onnxruntime_web as runtime
from arbitrary_nst.stylization.style_files import gallery
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

PATIENCE = 60_000
"""Milliseconds."""

ALMOST = 1 / 255
"""Largest mean difference from the package's picture."""

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

HEAVY = ("serious", "critical")
"""What axe calls findings that keep somebody from using the page."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@contextmanager
def served(folder):
    """A static host without any headers of its own; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def small_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LightTransformer(quarter=8, eighth=8, half=4, deep=1, fine=1)
        model = CoarseToFine(StyleNetwork(tokens=TOKENS), network).eval()
        torch.nn.init.normal_(model.affine.weight, std=0.3)  # styles that differ
        return model


def exported(folder):
    try:
        assert export(ExportConfig(web=folder)) == 0
    except MissingPackageError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    """The site of a small model that takes the gallery's codes."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "load_model", lambda source: small_model)
        return exported(folder)


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@contextmanager
def opened(browser, address, **options):
    """The page as one visitor has it; every request must go to its own host."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "service_workers": "block"} | options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    elsewhere, errors = [], []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else elsewhere.append(r.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.locator("#needs").wait_for(state="detached")
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        yield page


def picture_like(height, width):
    """Soft shapes rather than noise."""
    return F.interpolate(torch.rand(1, 3, 6, 8), (height, width), mode="bicubic").clamp(0, 1)


def saved(path, height, width, alpha=None):
    save_image(picture_like(height, width), path, alpha)
    return path


def give(page, photo, paintings=()):
    page.locator("#photo-file").set_input_files(photo)
    page.locator("#thumbnail").wait_for()
    if paintings:
        page.locator("#painting-file").set_input_files(paintings)
        page.locator(".tile", has_text=paintings[-1].stem).wait_for()
    settled(page)


def until(page, condition):
    """Wait for a condition in JavaScript; `wait_for_function` needs an eval that the page forbids."""
    for _ in range(PATIENCE // 100):
        with suppress(Error):  # the page is just being loaded
            if page.evaluate(condition):
                return
        page.wait_for_timeout(100)
    pytest.fail(condition)


def settled(page):
    page.locator("#png:enabled").wait_for()


def downloaded(page, button, target):
    settled(page)
    with page.expect_download() as download:
        page.locator(button).click()
    download.value.save_as(target)
    return target


def mean_difference(path, expected):
    return (load_image(path) - expected).abs().mean().item()


# The same picture as Python's


def evaluate(page, expression, *images, **numbers):
    """What a function of pixels.js makes of images."""
    given = [{"width": i.shape[3], "height": i.shape[2], "values": i.flatten().tolist()} for i in images]
    script = f"""async ({{given, numbers}}) => {{
        const px = await import("./pixels.js");
        const images = given.map(image => ({{...image, data: Float32Array.from(image.values)}}));
        const {{width, height, data}} = ({expression})(px, images, numbers);
        return {{width, height, data: [...data]}};
    }}"""
    made = page.evaluate(script, {"given": given, "numbers": numbers})
    return torch.tensor(made["data"]).view(1, -1, made["height"], made["width"])


@pytest.mark.parametrize("size", [(11, 17), (37, 20), (90, 120), (38, 53), (1, 1)])
def test_resizing_is_the_packages(page, size):
    image = torch.rand(1, 3, 37, 53)
    made = evaluate(
        page, "(px, [image], {width, height}) => px.resize(image, width, height)", image, height=size[0], width=size[1]
    )
    torch.testing.assert_close(made, resize(image, size), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(33, 46), (32, 31), (29, 36), (18, 35)])
def test_octaves_are_the_packages(page, size):
    content, painted = torch.rand(1, 3, *size), torch.rand(1, 3, *size)
    coarse = octaves.pyramid(content, 2)[0]
    before = torch.rand_like(coarse)
    view = octaves.Octave(content, coarse, before).read((0, size[0]), (0, size[1]))
    made = evaluate(page, "(px, [content]) => px.halve(content)", content)
    torch.testing.assert_close(made, coarse, atol=1e-6, rtol=0)
    made = evaluate(page, "(px, images) => px.withNoise(px.guide(...images))", content, coarse, before)
    torch.testing.assert_close(made, view.guide, atol=1e-6, rtol=0)
    made = evaluate(page, "(px, images) => px.anchor(...images)", painted, before)
    torch.testing.assert_close(made, view.anchored(painted).clamp(0, 1), atol=1e-6, rtol=0)


def test_noise_is_the_packages(page):
    made = page.evaluate("async () => [...(await import('./pixels.js')).noiseField()].filter((_, i) => i % 101 === 0)")
    torch.testing.assert_close(torch.tensor(made), octaves.noise_field().flatten()[::101], atol=1e-6, rtol=0)
    made = page.evaluate(
        "async () => {const {withNoise} = await import('./pixels.js'), size = {width: 1300, height: 1100};"
        "const {data} = withNoise({...size, data: new Float32Array(3 * 1300 * 1100)});"
        "return [...data].filter((_, i) => i % 1009 === 0)}"
    )
    expected = octaves.noise((0, 1100), (0, 1300)).expand(1, 3, -1, -1).flatten()[::1009]
    torch.testing.assert_close(torch.tensor(made), expected, atol=1e-6, rtol=0)


def test_strength_and_colours_are_the_packages(page):
    photo, painted = torch.rand(1, 3, 9, 7), torch.rand(1, 3, 9, 7)
    mixed = evaluate(page, "(px, [painted, photo]) => px.mix(painted, photo, 0.75, true)", painted, photo)
    expected = 0.25 * photo + 0.75 * with_colors_of(painted, photo)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def test_sizes_are_the_packages(page):
    sides = [(x, y) for x in (1, 511, 512, 899, 900, 1500, 2048, 4097) for y in (640, 1799, 1800, 3000, 5000)]
    script = """async sides => {
        const {countOctaves, fittedSize, round} = await import("./pixels.js");
        return sides.map(([h, w]) => [countOctaves(w, h), fittedSize(w, h, 333), round(h / 2)]);
    }"""
    for (height, width), (count, fitted, half) in zip(sides, page.evaluate(script, sides), strict=True):
        assert count == octaves.count_octaves(height, width)
        assert tuple(fitted) == fitted_size(height, width, 333)[::-1]
        assert half == round(height / 2)


def test_own_paintings_strokes_and_strength(page, small_model, tmp_path):
    photo, painting = saved(tmp_path / "photo.png", 203, 301), saved(tmp_path / "painting.png", 401, 533)
    give(page, photo, [painting])
    page.locator("#strokes").fill("70")
    page.locator("#strength").fill("60")
    made = downloaded(page, "#png", tmp_path / "made.png")
    stylizer = Stylizer(small_model, "cpu", "float32")
    code = stylizer.encode_style(load_image(painting), scale=0.7)
    expected = stylizer(load_image(photo), code, 0.6)
    assert mean_difference(made, expected) < ALMOST
    assert mean_difference(made, stylizer(load_image(photo), code)) > 3 * ALMOST


def test_two_octaves_in_two_styles_of_the_gallery_with_the_photos_colours(page, small_model, tmp_path):
    photo = saved(tmp_path / "photo.png", 1025, 1038)
    page.locator("#mix").check()
    page.get_by_role("checkbox", name="The Scream").check()
    assert page.locator(".tile :checked").count() == 2
    page.locator("#shares input").first.fill("10")
    page.locator("#keep-colors").check()
    give(page, photo)
    made = downloaded(page, "#png", tmp_path / "made.png")
    stylizer = Stylizer(small_model, "cpu", "float32")
    code = blend_codes([gallery()[name].code for name in ("wheat-field", "scream")], [10, 5])
    expected = stylizer(load_image(photo), code, preserve_color="luminance")
    assert mean_difference(made, expected) < ALMOST
    assert mean_difference(made, stylizer(load_image(photo), code)) > 3 * ALMOST


def test_a_turned_transparent_photo(page, small_model, tmp_path):
    alpha = torch.linspace(0.2, 1, 150).expand(1, 1, 97, 150)
    save_image(picture_like(97, 150), tmp_path / "photo.png", alpha)
    give(page, tmp_path / "photo.png")
    made = downloaded(page, "#png", tmp_path / "made.png")
    stylizer = Stylizer(small_model, "cpu", "float32")
    expected = stylizer(load_image(tmp_path / "photo.png"), gallery()["wheat-field"].code)
    opacity = [Image.open(path).getchannel("A").tobytes() for path in (made, tmp_path / "photo.png")]
    assert opacity[0] == opacity[1]
    assert mean_difference(made, expected) < 2 * ALMOST  # a canvas rounds colours below transparency
    white = load_image(downloaded(page, "#jpeg", tmp_path / "made.jpg"))
    laid = expected * alpha + 1 - alpha
    assert (F.avg_pool2d(white, 8) - F.avg_pool2d(laid, 8)).abs().mean() < 2 * ALMOST  # JPEG changes single pixels


def test_a_photo_that_lies_on_its_side_is_upright(page, small_model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(saved(tmp_path / "photo.png", 90, 160)).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    give(page, tmp_path / "photo.jpg")
    made = downloaded(page, "#png", tmp_path / "made.png")
    expected = Stylizer(small_model, "cpu", "float32")(
        load_image(tmp_path / "photo.jpg"), gallery()["wheat-field"].code
    )
    assert expected.shape[2:] == (160, 90)
    assert mean_difference(made, expected) < ALMOST


def test_a_smaller_size_is_content_size(page, small_model, tmp_path):
    photo = saved(tmp_path / "photo.png", 700, 613)
    give(page, photo)
    page.locator("#size").select_option("512")
    made = downloaded(page, "#png", tmp_path / "made.png")
    content = resize_pixels(load_pixel_picture(photo).rgb, 512)[None].float() / 255
    expected = Stylizer(small_model, "cpu", "float32")(content, gallery()["wheat-field"].code)
    assert Image.open(made).size == (512, 585)
    assert mean_difference(made, expected) < ALMOST


@pytest.mark.slow
def test_the_weights_that_ship_paint_the_packages_pictures(browser, tmp_path):
    stylizer = Stylizer.from_pretrained("light", "cpu", "float32")
    pairs = {"astronaut": "woodcut_wave", "coffee": "ink_wash", "rocket": "stained_glass"}
    with served(exported(tmp_path / "site")) as address, opened(browser, address) as page:
        for photo, style in pairs.items():
            pixels = load_pixels(EXAMPLES / "content" / f"{photo}.jpg", 384)
            painting = EXAMPLES / "styles" / f"{style}.jpg"
            save_pixels(pixels, tmp_path / f"{photo}.png")
            page.locator(".tile :checked").uncheck()  # nothing is painted before the next is chosen
            give(page, tmp_path / f"{photo}.png", [painting])
            made = downloaded(page, "#png", tmp_path / f"{photo}_painted.png")
            expected = stylizer(pixels[None].float() / 255, stylizer.encode_style(load_image(painting)))
            assert mean_difference(made, expected) < ALMOST
        assert page.locator("#engine").inner_text().startswith("WebAssembly")


# With and without a network


def test_the_page_opens_with_little_and_loads_models_when_they_are_needed(browser, address):
    context = browser.new_context(service_workers="block")
    page, loaded = context.new_page(), {}
    page.on("response", lambda response: loaded.update({response.url: len(response.body())}))
    page.goto(address, wait_until="networkidle")
    context.close()
    assert f"{address}swatches.webp" in loaded
    assert sum(loaded.values()) < 200_000
    assert not any("/models/" in url or "/ort/" in url for url in loaded)


def test_the_second_visit_needs_no_network_and_has_threads(browser, folder, tmp_path):
    with served(folder) as address:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        until(page, "crossOriginIsolated")  # after a load by itself
        give(page, saved(tmp_path / "photo.png", 60, 80))
        before = downloaded(page, "#png", tmp_path / "before.png").read_bytes()
    page.reload()
    assert page.evaluate("crossOriginIsolated")
    give(page, tmp_path / "photo.png")
    assert downloaded(page, "#png", tmp_path / "after.png").read_bytes() == before
    assert "thread" in page.locator("#engine").inner_text()
    context.close()


# What goes wrong


def test_files_that_are_no_pictures_are_told(page, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    page.locator("#photo-file").set_input_files(tmp_path / "notes.jpg")
    page.locator("#photo-told", has_text="notes.jpg").wait_for()
    page.locator("#photo-file").set_input_files(tmp_path / "phone.heic")
    page.locator("#photo-told", has_text="HEIC").wait_for()
    page.locator("#painting-file").set_input_files(tmp_path / "notes.jpg")
    page.locator("#style-told", has_text="notes.jpg").wait_for()
    give(page, saved(tmp_path / "photo.png", 60, 80))
    assert page.locator("#photo-told").inner_text() == ""


def test_a_browser_without_webassembly_is_told(page):
    page.add_init_script("delete globalThis.WebAssembly")
    page.reload()
    page.locator("#status.wrong", has_text="WebAssembly").wait_for()
    assert page.locator("#photo-file").is_disabled()


def rewritten(page, before, after):
    """The worker has other text in one place."""

    def answer(route):
        body = route.fetch().text()
        assert before in body
        route.fulfill(body=body.replace(before, after), content_type="text/javascript")

    page.route("**/worker.js", answer)


OCTAVE = "async function octave(content, guide, view) {"


def test_what_does_not_fit_is_painted_smaller_and_told(page, tmp_path):
    limit = 'if (content.width * content.height > 4e5) throw new RangeError("Array buffer allocation failed");'
    rewritten(page, OCTAVE, OCTAVE + limit)
    give(page, saved(tmp_path / "photo.png", 600, 800))
    made = downloaded(page, "#png", tmp_path / "made.png")
    assert Image.open(made).size == (692, 519)
    assert "800 \u00d7 600" in page.locator("#status").inner_text()
    page.locator("#size option", has_text="692 \u00d7 519").wait_for(state="attached")


def test_what_webassembly_has_no_memory_for_is_painted_smaller_and_told(launch, address, tmp_path):
    confined = launch("--js-flags=--wasm-max-mem-pages=2048")  # 128 MiB
    with opened(confined, address) as page:
        give(page, saved(tmp_path / "photo.png", 1200, 1700))
        made = downloaded(page, "#png", tmp_path / "made.png")
        assert 512 < min(Image.open(made).size) < 1200
        assert "1700 \u00d7 1200" in page.locator("#status").inner_text()
    confined.close()


def test_no_memory_at_all_is_told(page, tmp_path):
    rewritten(page, OCTAVE, OCTAVE + 'throw new RangeError("Array buffer allocation failed");')
    page.locator("#photo-file").set_input_files(saved(tmp_path / "photo.png", 60, 80))
    page.locator("#status.wrong", has_text="memory").wait_for()
    assert page.locator("#cancel").is_hidden()


def test_models_that_do_not_come_are_told_and_tried_again(page, tmp_path):
    page.route("**/models/*", lambda route: route.abort())
    page.locator("#photo-file").set_input_files(saved(tmp_path / "photo.png", 60, 80))
    page.locator("#status.wrong", has_text="downloaded").wait_for()
    page.unroute("**/models/*")
    page.locator("#strength").fill("90")
    settled(page)


def test_painting_is_cancelled_and_goes_on(page, tmp_path):
    rewritten(page, OCTAVE, OCTAVE + "await new Promise(done => setTimeout(done, 1500));")
    page.locator("#photo-file").set_input_files(saved(tmp_path / "photo.png", 60, 80))
    page.locator("#status", has_text="Painting").wait_for()
    page.locator("#cancel").click()
    page.locator("#cancel").wait_for(state="hidden")
    assert page.locator(".compare").is_hidden()
    page.locator("#strength").fill("90")
    settled(page)
    assert page.locator(".compare").is_visible()


# For everybody


def test_pictures_are_dropped_and_pasted(page, tmp_path):
    data = saved(tmp_path / "photo.png", 60, 80).read_bytes()
    script = """([data, kind, place, name]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([Uint8Array.from(data)], name, {type: "image/png"}));
        const event = kind === "drop" ? new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true})
            : new ClipboardEvent(kind, {clipboardData: carried, bubbles: true});
        document.querySelector(place).dispatchEvent(event);
    }"""
    page.evaluate(script, [list(data), "paste", "body", "pasted.png"])
    page.locator(".drop", has_text="pasted.png").wait_for()
    settled(page)
    page.evaluate(script, [list(data), "drop", "#result", "dropped.png"])
    page.locator(".drop", has_text="dropped.png").wait_for()
    page.evaluate(script, [list(data), "drop", "#styles", "waves.png"])
    page.locator(".tile:has(:checked)", has_text="waves").wait_for()
    settled(page)


def test_the_page_is_usable_by_keyboard_and_readers_and_no_wider_than_the_screen(page, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    give(page, saved(tmp_path / "photo.png", 60, 80))
    page.locator("#cut").press("ArrowRight")
    assert page.locator(".compare").evaluate("e => e.style.getPropertyValue('--cut')") == "51%"
    for scheme, width in (("light", 1280), ("dark", 1920), ("light", 390), ("dark", 860)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found if each["impact"] in HEAVY] == []
    page.locator("#photo-file").focus()
    order = []
    for _ in range(5):
        order.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert order == ["photo-file", "camera", "example", "mix", "painting-file"]


def test_a_photo_is_taken_with_the_camera(page):
    page.evaluate("""() => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 96, height: 64});
        const context = canvas.getContext("2d");
        setInterval(() => {
            context.fillStyle = `hsl(${performance.now() % 360} 80% 50%)`;
            context.fillRect(0, 0, 40, 40);
        }, 50);
        navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(10);
    }""")
    page.get_by_role("button", name="Camera", exact=True).click()
    until(page, "document.querySelector('video').videoWidth")
    page.get_by_role("button", name="Take it").click()
    page.locator(".drop", has_text="96").wait_for()
    settled(page)
    assert page.evaluate("document.querySelector('video').srcObject") is None
    page.get_by_role("button", name="Camera for a painting").click()
    until(page, "document.querySelector('video').videoWidth")
    page.get_by_role("button", name="Take it").click()
    page.locator(".tile:has(:checked)", has_text="camera").wait_for()


def test_no_camera_is_told(page):
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('not allowed'); }; }")
    page.get_by_role("button", name="Camera", exact=True).click()
    page.locator("#photo-told", has_text="camera").wait_for()


# The files


@pytest.mark.slow
def test_the_site_says_what_it_holds(folder):
    (listed,) = re.findall(r"^const FILES = (\{.*?\});", (folder / "sw.js").read_text(), re.DOTALL)
    files = json.loads(listed)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(files) | {"sw.js"} == there
    assert {f"ort/{name}" for name in runtime.FILES} <= there
    about = json.loads((folder / "site.js").read_text().removeprefix("export default ").rstrip(";\n"))
    assert [style["name"] for style in about["gallery"]] == list(gallery())
    assert (folder / "gallery.bin").stat().st_size == 4 * about["codeSize"] * len(gallery())


@pytest.mark.slow
def test_the_models_do_not_tell_the_sizes_of_maps(folder):
    """Large photos take less memory then."""
    onnx = pytest.importorskip("onnx")
    for name in (STYLE_ENCODER, STYLIZER):
        assert not onnx.load(str(folder / "models" / name)).graph.value_info


def test_a_runtime_that_cannot_be_had_is_one_line(tmp_path, monkeypatch, small_model, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(MissingPackageError, match=re.escape(str(tmp_path))):
        runtime.runtime_files()
    cached = tmp_path / "arbitrary_nst" / f"onnxruntime-web-{runtime.VERSION}.tgz"
    cached.parent.mkdir()
    cached.write_bytes(b"something else")
    with pytest.raises(MissingPackageError, match=r"127\.0\.0\.1"):
        runtime.runtime_files()


def test_a_folder_is_needed_for_lower_precisions(tmp_path, capsys):
    assert main(["export", "--web", str(tmp_path), "--float16"]) == 2
    assert "--output" in capsys.readouterr().err
