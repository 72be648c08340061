"""The parts of the page that need no browser: files of a session, what is let in, commands and programs, codes kept."""

import asyncio
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tyro

from arbitrary_nst.batch import StylizeConfig
from arbitrary_nst.image import save_image
from arbitrary_nst.optimization import PRESETS, OptimizeConfig
from arbitrary_nst.paths import ImageError
from arbitrary_nst.web import ServeConfig
from arbitrary_nst.web.painting import CODES, Painter, brushed_areas
from arbitrary_nst.web.sessions import CAPACITY, GRACE, Sessions, Source
from arbitrary_nst.web.snippets import command_line, python_code


@pytest.mark.parametrize("option", [{"port": 0}, {"port": 70000}, {"max_bytes": 0}, {"max_pixels": -1}])
def test_options_out_of_range_are_refused_by_name(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} "):
        ServeConfig(**option)


# Files of a session


def upload(folder, name="lake.jpg", content=b"a"):
    path = folder / ("0" * 64) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_of_one_name_are_kept_apart_and_known_by_their_content(tmp_path):
    session = Sessions(tmp_path)["one"]
    first, second, third = (session.keep(upload(tmp_path, content=content)) for content in (b"a", b"b", b"a"))
    assert [source.path.name for source in (first, second, third)] == ["lake.jpg", "lake-2.jpg", "lake-3.jpg"]
    assert first == third != second


def test_files_that_are_not_shown_are_removed(tmp_path):
    session = Sessions(tmp_path)["one"]
    with session.taking():
        session.photo = session.keep(upload(tmp_path))
        unused = session.keep(upload(tmp_path, "other.jpg"))
    assert session.photo.path.exists()
    assert not unused.path.exists()


def test_a_closed_page_leaves_nothing_and_an_open_one_is_left_alone(tmp_path):
    sessions = Sessions(tmp_path)
    closed, kept = sessions["closed"], sessions["open"]
    given = upload(tmp_path)
    for session in (closed, kept):
        session.keep(given)
    sessions.leave("closed")
    assert closed.stop.is_set()
    sessions.sweep(given.stat().st_mtime + GRACE / 2)
    assert closed.folder.exists()  # it may have lost its connection only
    assert closed.closed is not None
    sessions.sweep(closed.closed + GRACE)
    assert not closed.folder.exists()
    assert not given.exists()
    assert kept.folder.exists()
    assert len(sessions) == 1


def test_a_page_that_comes_back_in_time_goes_on(tmp_path):
    sessions = Sessions(tmp_path)
    session = sessions["one"]
    sessions.leave("one")
    assert sessions["one"] is session
    sessions.sweep(1e12)
    assert sessions["one"] is session


def test_sessions_are_bounded_and_the_idlest_one_goes(tmp_path):
    sessions = Sessions(tmp_path)
    first, second = sessions["first"], sessions["second"]
    for session in (first, second):
        session.keep(upload(tmp_path))
    for number in range(CAPACITY - 2):
        assert sessions[str(number)]
    assert sessions["first"] is first
    assert sessions["one more"]
    assert len(sessions) == CAPACITY
    assert not second.folder.exists()
    assert first.folder.exists()


# What is let in


def answered(path, method="GET", body=b"", headers=(), max_bytes=100):
    """The status with which a request is answered, 200 where it comes through whole."""
    requests = pytest.importorskip("starlette.requests")
    from arbitrary_nst.web.guard import Guard

    sent, parts = [], [body[:10], body[10:]]

    async def app(scope, receive, send):
        received = b""
        while method == "POST":
            message = await receive()
            if message["type"] == "http.disconnect":
                raise requests.ClientDisconnect
            received += message["body"]
            if not message["more_body"]:
                break
        assert received == body
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": [(b"host", b"127.0.0.1:7860"), *headers]}
    asyncio.run(Guard(app, max_bytes)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 200),
        ("/gradio_api/file=/tmp/a.png", "GET", 200),
        ("/gradio_api/file=https://example.com/a.png", "GET", 403),
        ("/gradio_api/file=https:/example.com/a.png", "GET", 403),
        ("/gradio_api/proxy=https://example.com/", "GET", 404),
        ("/monitoring", "GET", 404),
        ("/gradio_api/queue/join", "GET", 404),
        ("/", "DELETE", 404),
    ],
)
def test_only_what_the_page_asks_for_exists(path, method, status):
    assert answered(path, method) == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": [{"path": "/tmp/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/a.png"}]}, 200),
        ({"data": [0.5, None, ["gallery:scream"]]}, 200),
        ({"data": [[{"image": {"path": "http://169.254.169.254/latest"}}]]}, 403),
        ({"data": [{"path": "file:///etc/passwd"}]}, 403),
        ({"data": ["a" * 2**20]}, 413),
    ],
)
def test_requests_that_name_addresses_are_refused(body, status):
    assert answered("/gradio_api/queue/join", "POST", json.dumps(body).encode()) == status


def test_what_is_no_json_is_refused():
    assert answered("/gradio_api/queue/join", "POST", b"{" * 5000) == 400
    assert answered("/gradio_api/queue/join", "POST", b"[" * 100000) == 400


def test_another_site_may_not_use_the_page():
    assert answered("/", headers=[(b"origin", b"http://127.0.0.1:7860")]) == 200
    assert answered("/", headers=[(b"origin", b"http://example.com")]) == 403
    assert answered("/", headers=[(b"origin", b"null")]) == 403


def test_uploads_end_at_the_limit():
    assert answered("/gradio_api/upload", "POST", b"a" * 1000) == 200
    assert answered("/gradio_api/upload", "POST", b"a" * (2**20 + 101)) == 413


# Commands and programs


def stylize_config(**options):
    given = {"content": (Path("/t/my lake.jpg"),), "style": (Path("/t/-waves.png"), Path("gallery:scream"))}
    return StylizeConfig(**{**given, "output": Path("/t/new.png"), "style_weights": (1.0, 0.25), **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.35, "style_scale": 1.5},
        {"mask": (Path("/t/area-1.png"), Path("/t/area-2.png")), "style_weights": ()},
        {"preserve_color": "luminance", "content_size": 512, "model": "mine.safetensors"},
    ],
)
def test_the_command_says_all_that_is_not_the_default(options):
    config = stylize_config(**options)
    words = shlex.split(command_line(config).replace("\\\n", " "))
    assert words[:4] == ["python", "-m", "arbitrary_nst", "stylize"]
    parsed = tyro.cli(StylizeConfig, args=words[4:])
    names = {name: tuple(Path(path.name) for path in getattr(config, name)) for name in ("content", "mask")}
    expected = replace(config, **names, style=(Path("-waves.png"), Path("gallery:scream")), output=Path("new.png"))
    assert parsed == expected
    compile(python_code(config), "program", "exec")


def test_the_command_of_an_optimization_says_what_differs_from_its_preset():
    recipe = replace(PRESETS["relative"]["recipe"], steps=(7,))
    config = OptimizeConfig(
        content=Path("/t/lake.jpg"), style=(Path("/t/a.png"),), output=Path("/t/b.png"), preset="relative",
        recipe=recipe, size=(64,),
    )  # fmt: skip
    words = shlex.split(command_line(config).replace("\\\n", " "))
    assert " ".join(words[4:]) == (
        "--content lake.jpg --style a.png --output b.png --preset relative --size 64 --steps 7"
    )


# Painting


@pytest.fixture
def painter(model_file):
    return Painter(str(model_file), "cpu", "auto", 10**6)


def source(path):
    return Source(path.read_bytes().hex(), path)


def painted(painter, pictures, **options):
    photo, style = pictures / "content" / "lake.jpg", pictures / "style" / "dots.png"
    config = StylizeConfig(content=(photo,), style=(style,), output=pictures / "new.png", **options)
    painter.paint(config, source(photo), [source(style)])
    return config.output.read_bytes()


@pytest.mark.parametrize("options", [{}, {"preserve_color": "covariance"}, {"content_size": 30, "style_scale": 0.5}])
def test_a_style_is_encoded_once_whatever_the_strength(painter, pictures, monkeypatch, options):
    whole = painted(painter, pictures, **options)
    encoded = []
    encode = painter.stylizer.encode_style
    monkeypatch.setattr(painter.stylizer, "encode_style", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    weaker = painted(painter, pictures, **options, alpha=0.5)
    assert weaker != whole
    assert len(encoded) == 1  # the photo's own code, with which a weaker style is blended
    assert painted(painter, pictures, **options) == whole
    assert painter.code.cache_info().misses == 1


def test_a_style_is_encoded_anew_for_another_stroke_size_and_for_another_painting(painter, pictures):
    first = painted(painter, pictures)
    assert painted(painter, pictures, style_scale=2.0) != first
    save_image(torch.rand(1, 3, 40, 40), pictures / "style" / "dots.png")
    assert painted(painter, pictures) != first
    assert painter.code.cache_info().misses == 3
    assert painter.code.cache_info().maxsize == CODES


def test_the_page_paints_what_the_command_line_paints(painter, pictures, stylize):
    assert stylize("--alpha", "0.5", "--preserve-color", "luminance") == 0
    expected = (pictures / "out" / "lake_stylized_dots.png").read_bytes()
    assert painted(painter, pictures, alpha=0.5, preserve_color="luminance") == expected


def test_results_over_the_limit_are_refused_before_work(painter, pictures):
    photo = source(pictures / "content" / "lake.jpg")
    assert painter.extent(photo, 42) == (42, 68)
    with pytest.raises(ImageError, match="limit of 1000000"):
        painter.extent(photo, 2000)


def test_the_gallery_belongs_to_the_model_that_ships(painter):
    assert painter.known_styles() == {}


def test_brushed_areas_are_masks_by_colour():
    drawing = torch.zeros(4, 2, 4, dtype=torch.uint8)
    drawing[:, 0, 0] = torch.tensor([250, 10, 0, 178])  # nearly red, as opaque as the brush
    drawing[:, 0, 1] = torch.tensor([0, 0, 255, 89])  # blue, a soft edge
    red, blue = brushed_areas(drawing, ((255, 0, 0), (0, 0, 255)), 0.7)
    assert red.shape == blue.shape == (1, 3, 2, 4)
    assert red[0, 0].tolist() == [[pytest.approx(1, abs=0.01), 0, 0, 0], [0] * 4]
    assert blue[0, 0].tolist() == [[0, pytest.approx(0.5, abs=0.01), 0, 0], [0] * 4]
