"""The parts of the page that need no browser: files of a session, what is let in, commands and programs, codes kept."""

import asyncio
import json
import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tyro

from arbitrary_nst.commands import main
from arbitrary_nst.image import load_image, save_image
from arbitrary_nst.optimization.jobs import PRESETS, OptimizeConfig
from arbitrary_nst.runtime.files import ImageError
from arbitrary_nst.stylization.jobs import StylizeConfig
from arbitrary_nst.web.config import ServeConfig
from arbitrary_nst.web.painting import CODES, Painter, brushed_areas
from arbitrary_nst.web.sessions import (
    CAPACITY,
    GRACE,
    PREFIX,
    Cancelled,
    Result,
    Screen,
    Sessions,
    Source,
    server_folder,
)
from arbitrary_nst.web.snippets import command_line, python_code


@pytest.mark.parametrize(
    "option", [{"port": 0}, {"port": 70000}, {"max_bytes": 0}, {"max_total_bytes": 0}, {"max_pixels": -1}]
)
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
    assert [source.path.name for source in (first, second, third)] == ["lake.jpg"] * 3
    assert [source.path.read_bytes() for source in (first, second, third)] == [b"a", b"b", b"a"]
    assert first.path == third.path
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
    assert closed.cancel.is_set()
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


def test_a_reloaded_page_has_the_session_of_before_and_nobody_else_has(tmp_path):
    sessions, desk = Sessions(tmp_path), "0123456789abcdef" * 2
    session = sessions.resume("before", desk)
    assert sessions.resume("after", desk) is session
    sessions.leave("before")  # gradio notices it late
    assert session.closed is None
    assert sessions.resume("stranger", "") is not session
    assert sessions.resume("other", desk[::-1]) is not session
    sessions.leave("after")
    assert session.closed is not None
    sessions.sweep(session.closed + GRACE)
    assert sessions.resume("late", desk) is not session


def test_a_desk_is_no_name_of_another_page(tmp_path):
    sessions = Sessions(tmp_path)
    assert sessions.resume("stranger", "victim") is not sessions["victim"]


def test_a_result_keeps_its_files_until_the_next_result(tmp_path):
    session = Sessions(tmp_path)["one"]

    def result(name):
        with session.taking():
            session.photo = session.keep(upload(tmp_path, name))
        before, after, whole = session.place("before.jpg"), session.place("after.jpg"), session.place("whole.png")
        for path in (before, after, whole):
            path.parent.mkdir()
            path.touch()
        return Result(StylizeConfig(content=(), output=tmp_path), session.photo, (), (1, 1), before, after, (whole,))

    first = result("first.jpg")
    session.show(first)
    second = result("second.jpg")  # another photo was dropped
    files = [first.photo.path, first.before, first.after, *first.files]
    assert all(path.exists() for path in files)
    session.show(second)
    assert not any(path.exists() for path in files)
    assert all(path.exists() for path in (second.photo.path, second.before, second.after, *second.files))


def test_a_server_ends_after_the_step_that_runs_and_begins_no_other(tmp_path):
    sessions, begun, done = Sessions(tmp_path), threading.Event(), []
    session = sessions["one"]

    def action():
        begun.set()
        assert session.cancel.wait(60)
        time.sleep(0.2)
        done.append("first")
        yield "first"
        done.append("second")
        yield "second"

    with ThreadPoolExecutor() as pool:
        result = pool.submit(list, sessions.steps(action()))
        assert begun.wait(60)
        sessions.end()
        assert done == ["first"]
        with pytest.raises(Cancelled):
            result.result(60)
    assert done == ["first"]


def test_the_folder_of_a_killed_server_is_removed_and_that_of_another_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("arbitrary_nst.web.sessions.gettempdir", lambda: str(tmp_path))
    killed, foreign = tmp_path / f"{PREFIX}killed", tmp_path / f"{PREFIX}no-lock"
    for folder in (killed, foreign):
        folder.mkdir()
    (killed / "lock").touch()
    (killed / "photo.jpg").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(foreign)
    with server_folder() as running:
        assert not killed.exists()
        assert foreign.exists()
        with server_folder() as other:
            assert running.exists()
        assert not other.exists()
    assert not running.exists()


def test_all_files_together_are_counted(tmp_path):
    sessions = Sessions(tmp_path)
    sessions["one"].keep(upload(tmp_path, content=b"abc"))
    assert sessions.bytes() == 6  # the upload and its copy


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [("strength", 7, 1), ("strength", -1, 0), ("strength", None, 1), ("scale", 0, 0.25), ("steps", 9999, 1000)],
)
def test_typed_numbers_are_moved_into_their_range(name, typed, expected):
    values: dict[str, Any] = {option.name: option.default for option in fields(Screen)} | {name: typed}
    *controls, weights = values.values()
    screen = Screen.of([*controls, *weights], [])
    assert screen == replace(Screen(), **{name: expected})
    assert type(getattr(screen, name)) is type(getattr(Screen, name))


def test_only_works_of_the_gallery_can_be_chosen_from_it():
    values = [["gallery:scream", "/etc/passwd"], *[getattr(Screen, option.name) for option in fields(Screen)[1:-1]]]
    assert Screen.of([*values, 1, 1, 1, 1], ["gallery:scream"]).gallery == ("gallery:scream",)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("a.png: 9 is above the limit; if you trust it, raise --max-pixels", "a.png: 9 is above the limit"),
        ("a.png: --content-size 4096 would make it 5 x 5; choose a smaller size, or raise --max-pixels",
         "a.png: this size would make it 5 x 5; choose a smaller size"),
        ("the loss is no longer a number at step 5: try a lower --learning-rate (now 1), or --optimizer adam",
         "the loss is no longer a number at step 5"),
        ("a.heic: is a HEIC file; pip install pillow-heif", "a.heic: is a HEIC file"),
        ("this needs the package x: pip install 'x'", "this needs the package x"),
        ("a--b.png: is truncated; get a complete copy", "a--b.png: is truncated; get a complete copy"),
    ],
)  # fmt: skip
def test_the_page_gives_no_advice_for_the_command_line(error, expected):
    actions = pytest.importorskip("arbitrary_nst.web.actions")
    assert actions.without_options(error) == expected


# What is let in


def answered(path, method="GET", body=b"", headers=(), max_bytes=100, room=2**40, **options):
    """The status with which a request is answered, 200 where it comes through whole."""
    return response(path, method, body, headers, max_bytes, room, **options)["status"]


def response(path, method="GET", body=b"", headers=(), max_bytes=100, room=2**40, host=b"127.0.0.1:7860"):
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

    scope = {"type": "http", "path": path, "method": method, "headers": [(b"host", host), *headers]}
    asyncio.run(Guard(app, max_bytes, Path("/tmp/server"), lambda: room)(scope, receive, send))
    return sent[0]


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
        (
            {"data": [{"path": "/tmp/server/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/server/a.png"}]},
            200,
        ),
        ({"data": [0.5, None, ["gallery:scream"]]}, 200),
        ({"data": [[{"image": {"path": "http://169.254.169.254/latest"}}]]}, 403),
        ({"data": [{"path": "file:///etc/passwd"}]}, 403),
        ({"data": [{"path": "/etc/passwd"}]}, 403),
        ({"data": [{"path": "/tmp/server/../other/a.png"}]}, 403),
        ({"data": [{"path": "a.png"}]}, 403),
        ({"data": ["a" * 2**20]}, 413),
    ],
)
def test_requests_that_name_foreign_files_are_refused(body, status):
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


def test_all_uploads_together_end_at_the_limit():
    length = [(b"content-length", b"1000")]
    assert answered("/gradio_api/upload", "POST", b"a" * 1000, length, room=1000) == 200
    assert answered("/gradio_api/upload", "POST", b"a" * 1000, length, room=999) == 507
    assert answered("/gradio_api/upload", "POST", b"a" * 1000, room=999) == 413  # its length was not announced


@pytest.mark.parametrize("path", ["/", "/monitoring"])
def test_no_other_site_may_frame_the_page(path):
    headers = dict(response(path)["headers"])
    assert headers[b"content-security-policy"] == b"frame-ancestors 'none'"
    assert headers[b"x-frame-options"] == b"DENY"


def test_a_reverse_proxy_that_hands_on_the_host_is_let_through():
    headers = [(b"origin", b"https://paint.example.org")]
    assert answered("/", headers=headers) == 403
    assert answered("/", headers=headers, host=b"paint.example.org") == 200


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
    optimization = replace(PRESETS["relative"]["optimization"], steps=(7,))
    config = OptimizeConfig(
        content=Path("/t/lake.jpg"), style=(Path("/t/a.png"),), output=Path("/t/b.png"), preset="relative",
        optimization=optimization, size=(64,),
    )  # fmt: skip
    words = shlex.split(command_line(config).replace("\\\n", " "))
    assert " ".join(words[4:]) == (
        "--content lake.jpg --style a.png --output b.png --preset relative --size 64 --steps 7"
    )


def test_the_program_paints_what_the_command_paints_where_masks_are_transparent(tmp_path, model_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lake", "waves", "dots"):
        save_image(torch.rand(1, 3, 40, 60), f"{name}.png")
    opacity = torch.linspace(0, 1, 60).expand(1, 1, 40, 60)
    save_image(torch.ones(1, 3, 40, 60), "area-1.png", opacity)
    save_image((1 - opacity[:, :, ::2, ::2]).expand(1, 3, -1, -1), "area-2.png")
    config = StylizeConfig(
        content=(Path("lake.png"),), style=(Path("waves.png"), Path("dots.png")), output=Path("new.png"),
        mask=(Path("area-1.png"), Path("area-2.png")), model=str(model_file), device="cpu",
    )  # fmt: skip
    assert main(shlex.split(command_line(config).replace("\\\n", " "))[3:]) == 0
    expected = load_image("new.png")
    Path("new.png").unlink()
    exec(python_code(config), {})
    assert (load_image("new.png") - expected).abs().max() < 1.5 / 255


# Painting


@pytest.fixture
def painter(model_file):
    return Painter(str(model_file), "cpu", "auto", 10**6)


def source(path):
    return Source(path.read_bytes().hex(), path)


def painted(painter, pictures, **options):
    photo, style = pictures / "content" / "lake.jpg", pictures / "style" / "dots.png"
    config = StylizeConfig(content=(photo,), style=(style,), output=pictures / "new.png", **options)
    painter.save(config, source(photo), [source(style)])
    return config.output.read_bytes()


@pytest.mark.parametrize("options", [{}, {"preserve_color": "covariance"}, {"content_size": 30, "style_scale": 0.5}])
def test_a_style_is_encoded_once_whatever_the_strength(painter, pictures, monkeypatch, options):
    whole = painted(painter, pictures, **options)
    encoded = []
    encode = painter.stylizer.encode_style
    monkeypatch.setattr(painter.stylizer, "encode_style", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    weaker = painted(painter, pictures, **options, alpha=0.5)
    assert weaker != whole
    assert painted(painter, pictures, **options, alpha=0.25) != weaker
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
    expected = (pictures / "out" / "lake_stylized_dots-png.png").read_bytes()
    assert painted(painter, pictures, alpha=0.5, preserve_color="luminance") == expected


def test_a_picture_is_painted_once_for_all_formats(painter, pictures, monkeypatch):
    painted(painter, pictures)
    monkeypatch.setattr(painter.stylizer, "paint_pixels", lambda *_, **__: pytest.fail("painted again"))
    painted(painter, pictures, quality=80)


def test_progress_grows_and_ends_a_painting_where_it_raises(painter, pictures, monkeypatch):
    photo, style = (source(pictures / name) for name in ("content/lake.jpg", "style/dots.png"))
    config = StylizeConfig(content=(photo.path,), style=(style.path,), output=pictures / "new.png")
    monkeypatch.setattr("arbitrary_nst.stylization.runner.LARGE", 100)
    parts = []
    painter.paint(config, photo, [style], parts.append)
    assert len(parts) > 2
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (0, 1)

    def cancel(part):
        raise InterruptedError

    stronger = replace(config, alpha=0.5)
    with pytest.raises(InterruptedError):
        painter.paint(stronger, photo, [style], cancel)
    assert painter.paint(stronger, photo, [style]).shape[0] == 3  # nothing is left of it


def test_swatches_are_of_the_photo(painter, pictures, monkeypatch):
    code = painter.stylizer.encode_style(torch.rand(1, 3, 40, 40))
    monkeypatch.setattr(painter, "known_styles", {"gallery:one": "One", "gallery:two": "Two"})
    monkeypatch.setattr("arbitrary_nst.web.painting.load_style", lambda *_: SimpleNamespace(code=code))
    painter.save_swatches(pictures / "swatches.png", pictures / "content" / "lake.jpg")
    side = min(load_image(pictures / "content" / "lake.jpg").shape[2:])
    assert load_image(pictures / "swatches.png").shape[2:] == (side, 2 * side)


def test_a_server_that_ends_paints_no_more_swatches(desk, pictures, monkeypatch):
    actions, session = desk
    monkeypatch.setattr(actions.painter, "known_styles", {"gallery:one": "One", "gallery:two": "Two"})
    monkeypatch.setattr("arbitrary_nst.web.painting.load_style", lambda *_: SimpleNamespace(code=None))
    painted = []
    monkeypatch.setattr(actions.painter, "stylizer", lambda *_: painted.append(1) or actions.sessions.end())
    with pytest.raises(Cancelled):
        changed(actions.show_swatches, session)
    assert len(painted) == 1


# Actions


@pytest.fixture
def desk(painter, tmp_path, model_file):
    """The actions, a session whose photo is larger than what the page shows, and what they have changed so far."""
    actions = pytest.importorskip("arbitrary_nst.web.actions")
    from concurrent.futures import Future

    future = Future()
    future.set_result(painter)
    sessions = Sessions(tmp_path / "server")
    actions = actions.Actions(ServeConfig(model=str(model_file), device="cpu"), sessions, future)
    return actions, sessions["one"]


def unseen(share, desc):
    """A progress bar that shows nothing."""


def changed(action, *arguments, **options):
    """All that an action changes, later changes over earlier ones."""
    changes = {}
    for change in action(*arguments, **options):
        changes |= change
    return changes


def give(actions, session, pictures):
    changed(actions.take_photo, session, {"path": str(pictures / "content" / "lake.jpg")})
    changed(actions.take_paintings, session, [{"image": {"path": str(pictures / "style" / "dots.png")}}])


def test_a_preview_is_shown_and_the_whole_picture_downloaded(desk, pictures, monkeypatch, stylize):
    actions, session = desk
    monkeypatch.setattr("arbitrary_nst.web.actions.PREVIEW", 30)
    save_image(torch.rand(1, 3, 48, 72), pictures / "content" / "lake.jpg")
    give(actions, session, pictures)
    sizes = []
    save = actions.painter.save
    monkeypatch.setattr(
        actions.painter, "save", lambda config, *rest: sizes.append(config.content_size) or save(config, *rest)
    )
    changed(actions.paint, session, progress=unseen)
    assert min(load_image(session.result.after).shape[2:]) == 30
    for suffix in (".png", ".jpg"):
        changed(actions.download, session, suffix, progress=unseen)
    assert sizes == [30, None, None]
    whole, jpeg = session.result.files
    assert stylize() == 0
    assert whole.read_bytes() == (pictures / "out" / "lake_stylized_dots-png.png").read_bytes()
    assert load_image(jpeg).shape == load_image(whole).shape
    changed(actions.download, session, ".png", progress=unseen)
    assert len(sizes) == 3


def test_a_new_photo_leaves_the_finished_picture_alone(desk, pictures):
    actions, session = desk
    give(actions, session, pictures)
    changed(actions.paint, session, progress=unseen)
    first = session.result
    save_image(torch.rand(1, 3, 30, 30), pictures / "content" / "next.png")
    changes = changed(actions.take_photo, session, {"path": str(pictures / "content" / "next.png")})
    assert "picture" not in changes
    assert changed(actions.repaint, session, progress=unseen) == {}
    changed(actions.download, session, ".png", progress=unseen)
    assert session.result.photo is first.photo
    assert session.result.files[0].name == "lake_stylized_dots.png"


def test_a_photo_that_is_replaced_while_it_is_painted_stays_for_its_result(desk, pictures):
    actions, session = desk
    give(actions, session, pictures)
    save_image(torch.rand(1, 3, 30, 30), pictures / "content" / "next.png")
    upload = {"path": str(pictures / "content" / "next.png")}
    replaced = []

    def progress(*_, **__):
        if not replaced:
            replaced.append(changed(actions.take_photo, session, upload))

    changed(actions.paint, session, progress=progress)
    assert replaced
    assert all(path.exists() for path in (session.result.photo.path, session.result.before, session.result.after))


def test_a_photo_that_is_replaced_before_its_painting_begins_is_not_painted(desk, pictures, monkeypatch):
    actions, session = desk
    give(actions, session, pictures)
    changed(actions.paint, session, progress=unseen)
    first, extent = session.result, actions.painter.extent
    save_image(torch.rand(1, 3, 30, 30), pictures / "content" / "next.png")

    def slow(*arguments):
        monkeypatch.setattr(actions.painter, "extent", extent)
        changed(actions.take_photo, session, {"path": str(pictures / "content" / "next.png")})
        return extent(*arguments)

    monkeypatch.setattr(actions.painter, "extent", slow)
    with pytest.raises(ValueError, match="replaced"):
        changed(actions.paint, session, progress=unseen)
    assert session.result is first
    assert all(path.exists() for path in (first.before, first.after, session.preview, session.photo.path))
    changed(actions.paint, session, progress=unseen)
    assert session.result.photo.path.name == "next.png"


def test_painting_waits_for_a_photo_and_a_style(desk, pictures):
    actions, session = desk
    assert changed(actions.refresh, session)["paint"].interactive is False
    with pytest.raises(ValueError, match="photo"):
        changed(actions.paint, session, progress=unseen)
    give(actions, session, pictures)
    ready = changed(actions.refresh, session)
    assert ready["paint"].interactive is True
    assert ready["optimize"].interactive is True
    session.screen = replace(session.screen, gallery=tuple("abcd"))
    actions.painter.known_styles = dict.fromkeys("abcd", "a work")
    assert changed(actions.refresh, session)["paint"].interactive is False
    session.screen = replace(session.screen, gallery=("a",), color="covariance")
    assert changed(actions.refresh, session)["paint"].interactive is False


def test_a_cancelled_painting_shows_nothing_and_the_next_one_does(desk, pictures):
    actions, session = desk
    give(actions, session, pictures)
    with pytest.raises(Cancelled):
        changed(actions.paint, session, progress=lambda *_, **__: session.cancel.set())
    assert session.result is None
    changed(actions.paint, session, progress=unseen)
    assert session.result is not None


def test_a_change_that_was_cancelled_is_not_painted_again_by_itself(desk, pictures):
    actions, session = desk
    give(actions, session, pictures)
    changed(actions.paint, session, progress=unseen)
    session.screen = replace(session.screen, strength=0.5)
    with pytest.raises(Cancelled):
        changed(actions.repaint, session, progress=lambda *_, **__: session.cancel.set())
    assert changed(actions.repaint, session, progress=unseen) == {}  # the page reports a change twice
    session.screen = replace(session.screen, strength=0.4)
    assert "picture" in changed(actions.repaint, session, progress=unseen)


def test_the_last_iterates_can_still_be_fetched_and_older_ones_are_removed(desk, pictures, monkeypatch):
    actions, session = desk
    give(actions, session, pictures)
    kept, written = pytest.importorskip("arbitrary_nst.web.actions").ITERATES, []

    def save(iterate, target, material):
        save_image(torch.rand(1, 3, 8, 8), target)
        written.append(target)

    iterates = [SimpleNamespace(step=step, steps=30, losses={"style": 1.0}) for step in range(30)]
    monkeypatch.setattr("arbitrary_nst.web.actions.SECONDS_BETWEEN_ITERATES", -1)
    monkeypatch.setattr("arbitrary_nst.optimization.jobs.load_material", lambda config: None)
    monkeypatch.setattr("arbitrary_nst.optimization.jobs.run", lambda *_: iter(iterates))
    monkeypatch.setattr("arbitrary_nst.optimization.jobs.save", save)
    monkeypatch.setattr("arbitrary_nst.optimization.loop.feature_network", lambda optimization: None)
    changed(actions.optimize, session)
    *shown, whole = written
    assert len(shown) == len(iterates)
    assert [path for path in shown if path.exists()] == shown[-kept:]
    assert whole.exists()


def test_a_refused_upload_is_told_and_the_others_are_kept(desk, pictures):
    actions, session = desk
    (pictures / "style" / "broken.png").write_bytes(b"no picture")
    shown = [{"image": {"path": str(pictures / "style" / name)}} for name in ("broken.png", "dots.png")]
    changes = changed(actions.take_paintings, session, shown)
    assert "broken.png" in changes["styles_told"]
    assert [name for _, name in changes["paintings"]] == ["dots.png"]
    assert changed(actions.take_paintings, session, [])["styles_told"] == ""


def test_results_over_the_limit_are_refused_before_work(painter, pictures):
    photo = source(pictures / "content" / "lake.jpg")
    assert painter.extent(photo, 42) == (42, 68)
    with pytest.raises(ImageError, match="limit of 1000000"):
        painter.extent(photo, 2000)


def test_the_gallery_belongs_to_the_model_that_ships(painter):
    assert painter.known_styles == {}


def test_brushed_areas_are_masks_by_colour():
    drawing = torch.zeros(4, 2, 4, dtype=torch.uint8)
    drawing[:, 0, 0] = torch.tensor([250, 10, 0, 178])  # nearly red, as opaque as the brush
    drawing[:, 0, 1] = torch.tensor([0, 0, 255, 89])  # blue, a soft edge
    red, blue = brushed_areas(drawing, ((255, 0, 0), (0, 0, 255)), 0.7)
    assert red.shape == blue.shape == (1, 3, 2, 4)
    assert red[0, 0].tolist() == [[pytest.approx(1, abs=0.01), 0, 0, 0], [0] * 4]
    assert blue[0, 0].tolist() == [[0, pytest.approx(0.5, abs=0.01), 0, 0], [0] * 4]
