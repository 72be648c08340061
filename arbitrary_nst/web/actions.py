"""The actions of the page: each takes what the page shows, and yields changes to it."""

import html
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gradio as gr

from arbitrary_nst.errors import ArbitraryNSTError, UsageError
from arbitrary_nst.web.config import ServeConfig
from arbitrary_nst.web.sessions import MOST_STYLES, Cancelled, Result, Session, Sessions, Source

if TYPE_CHECKING:
    from arbitrary_nst.optimization.loop import Iterate
    from arbitrary_nst.stylization.jobs import StylizeConfig
    from arbitrary_nst.web.painting import Painter

logger = logging.getLogger(__name__)

AREA_COLORS = ((228, 87, 46), (23, 164, 160), (240, 180, 0), (123, 75, 214))
"""Colours in which the areas of the styles are brushed, in the order of the styles."""

AREA_OPACITY = 0.6

PREVIEW, THUMBNAIL = 1000, 256
"""Short sides, in pixels, of what the page shows of pictures and of paintings."""

SECONDS_BETWEEN_ITERATES = 0.6

ITERATES = 10
"""How many of the last iterates keep their files: a slow browser asks for one after the next are there."""

EXAMPLE_PHOTO, EXAMPLE_STYLE = Path(__file__).with_name("example.jpg"), "gallery:wheat-field"

NO_PHOTO = "Add a photo to begin."
NO_STYLE = "Choose a style: tick one in the gallery, or add a painting."

Changes = dict[str, Any]
"""New values, or properties, of parts of the page by their names."""

Bar = Callable[..., object]
"""Is called with the share of the work that is done, 0 to 1, and with `desc`, as `gradio.Progress` is."""

IDLE: dict[str, Changes] = {
    "status": {"cancel": gr.Button(interactive=False)},
    "losses": {"optimize": gr.Button(visible=True), "stop": gr.Button(visible=False)},
}
"""Changes that end a job, by the part of the page that tells its progress."""


def words(error: Exception, session: Session) -> str:
    """Word an error for the page: without temporary paths and without advice for the command line."""
    from arbitrary_nst.runtime.devices import out_of_memory

    if out_of_memory(error):
        return "There is not enough memory for this: choose a smaller size."
    if isinstance(error, FileNotFoundError):
        return "The file is no longer there: add it again."
    if not isinstance(error, ArbitraryNSTError):
        logger.exception("the page: unexpected error", exc_info=error)
        return f"This did not work ({type(error).__name__})."
    text = re.sub(rf"{re.escape(str(session.folder))}/(given/[0-9a-f]+/)?", "", str(error))
    return without_options(text)


def without_options(text: str) -> str:
    """Leave out the clauses of an error that name an option of the command line, or a command."""
    text = re.sub(r"--(?:content-size|size) \S+", "this size", text)
    first, *rest = re.split(r"(; |, or |, and |: (?=try|its|pip))", text)
    clauses = zip(rest[::2], rest[1::2], strict=True)
    return first + "".join(
        separator + clause for separator, clause in clauses if not re.search(r"--[a-z]|\bpip |`", clause)
    )


class Actions:
    """Actions of the page, for any number of people at once: each gets the session of its page.

    Args:
        painter: ready as soon as the model is loaded; the page is shown before.
    """

    def __init__(self, config: ServeConfig, sessions: Sessions, painter: "Future[Painter]") -> None:
        self.config, self.sessions, self._painter = config, sessions, painter
        self._swatches = sessions.folder / "swatches.jpg"

    @property
    def painter(self) -> "Painter":
        return self._painter.result()

    # What is given

    def restore(self, session: Session) -> Iterator[Changes]:
        """Show the gallery, and after a reload all that was there before it."""
        screen, known = session.screen, self.painter.known_styles
        yield {
            "gallery": gr.CheckboxGroup(
                choices=[(caption, name) for name, caption in known.items()], value=list(screen.gallery)
            ),
            "photo": session.photo and str(session.preview),
            "editor": _canvas(session),
            "paintings": _thumbnails(session),
            "saved": list(session.saved) or None,
            **{name: getattr(screen, name) for name in ("strength", "scale", "color", "size")},
            **{name: getattr(screen, name) for name in ("preset", "side", "steps", "optimized_color")},
            "areas_told": AREAS if session.masks else "",
            **self._refreshed(session),
            **(self._result(session.result) if session.result else {}),
        }

    def take_photo(self, session: Session, upload: dict[str, Any] | None) -> Iterator[Changes]:
        """Keep the photo, and show it; None forgets it. The finished picture stays until the next one is painted.

        The upload is as gradio has it, so that nothing but `arbitrary_nst.image` decodes the file.
        """
        told: list[str] = []
        with session.taking():
            session.leave_photo()
            if upload is not None and upload["path"] is not None:
                with self._refusals(session, upload["path"], told):
                    photo = session.keep(upload["path"])
                    self.painter.extent(photo, None)
                    session.preview, session.photo = self._preview(session, photo.path, PREVIEW), photo
        yield {
            "photo": session.photo and str(session.preview),
            "editor": _canvas(session),
            "areas_told": "",
            "photo_told": wrong(told),
            **self._refreshed(session),
        }

    def take_example(self, session: Session) -> Iterator[Changes]:
        """Take the photo that ships with the page, and a style."""
        if EXAMPLE_STYLE in self.painter.known_styles:
            session.screen = replace(session.screen, gallery=(EXAMPLE_STYLE,))
        for changes in self.take_photo(session, {"path": str(EXAMPLE_PHOTO)}):
            yield changes | {"gallery": list(session.screen.gallery)}

    def show_swatches(self, session: Session) -> Iterator[Changes]:
        """Show the person's own photo, or where there is none a test picture, in the styles of the gallery."""
        count, photo = len(self.painter.known_styles), session.photo
        path = session.swatches or self._swatches

        def tell(share: float) -> None:
            if self.sessions.ended:
                raise Cancelled

        if count and photo is not None and session.swatches is None:
            path = session.place("swatches.jpg")
            self.painter.save_swatches(path, photo.path, tell)
            if session.photo is not photo:  # replaced meanwhile
                session.forget(path)
                return
            session.swatches = path
        elif count and not path.exists():
            self.painter.save_swatches(path, progress=tell)
        places = [
            f"#gallery label:nth-child({index + 1})::before "
            f"{{ background-position-x: {100 * index / max(count - 1, 1):.4f}% }}"
            for index in range(count)
        ]
        picture = f"background-image: url({_address(path)}); background-size: {count}00% 100%"
        yield {"swatches": f"<style>#gallery label::before {{ {picture} }} {' '.join(places)}</style>"}

    def take_paintings(self, session: Session, shown: Sequence[dict[str, Any]] | None) -> Iterator[Changes]:
        """Keep new paintings, and drop those that were removed."""
        paths = [item["image"]["path"] for item in shown or ()]
        told = self._take_styles(session, "paintings", paths, lambda path: self._preview(session, path, THUMBNAIL))
        yield {"paintings": _thumbnails(session), "styles_told": told, **self._refreshed(session)}

    def take_saved(self, session: Session, shown: Sequence[dict[str, Any]] | None) -> Iterator[Changes]:
        """Keep new style files, and drop those that were removed."""
        from arbitrary_nst.stylization.style_files import load_style

        def checked(path: Path) -> Path:
            load_style(path, self.config.model)
            return path

        told = self._take_styles(session, "saved", [item["path"] for item in shown or ()], checked)
        yield {"saved": list(session.saved) or None, "styles_told": told, **self._refreshed(session)}

    def _take_styles(self, session: Session, name: str, paths: Sequence[str], show: Callable[[Path], Path]) -> str:
        """Make `paths` the session's styles of this name; return what is wrong with new ones, which `show` may refuse.

        Args:
            show: returns the path by which the page knows a new file.
        """
        told: list[str] = []
        with session.taking():
            before, kept = getattr(session, name), {}
            for path in paths:
                if path in before:
                    kept[path] = before[path]
                    continue
                with self._refusals(session, path, told):
                    style = session.keep(path)
                    kept[str(show(style.path))] = style
            setattr(session, name, kept)
        return wrong(told)

    def refresh(self, session: Session) -> Iterator[Changes]:
        """Show what follows from the values of the controls."""
        yield self._refreshed(session)

    def _refreshed(self, session: Session) -> Changes:
        """A weight for each of several styles; their colours as brushes; what can be started, or why it cannot."""
        from arbitrary_nst.web.painting import SEPARATOR

        own = [style.path.name for style in (*session.paintings.values(), *session.saved.values())]
        known = self.painter.known_styles
        names = [*own, *(known[name].partition(SEPARATOR)[0] for name in session.screen.gallery)]
        several = 1 < len(names) <= MOST_STYLES
        weights = {
            f"weight_{index}": gr.Slider(
                value=session.screen.weights[index],
                visible=several and index < len(names),
                label=names[index] if index < len(names) else "",
            )
            for index in range(MOST_STYLES)
        }
        chosen = f"Chosen: {', '.join(names)}. " if names else ""
        hint, slow_hint = self._hint(session), self._slow_hint(session)
        return {
            **weights,
            "hint": html.escape(chosen + hint),
            "paint": gr.Button(interactive=not hint),
            "legend": _legend(names[:MOST_STYLES]),
            "use_areas": gr.Button(interactive=session.photo is not None and bool(names)),
            "scale": gr.Slider(interactive=bool(session.paintings)),
            "slow_hint": html.escape(slow_hint),
            "optimize": gr.Button(interactive=not slow_hint),
        }

    def _hint(self, session: Session) -> str:
        """Say what has to be done before the photo can be painted; empty where nothing has."""
        count = len(self._styles(session))
        if session.photo is None:
            return NO_PHOTO
        if not count:
            return NO_STYLE
        if count > MOST_STYLES:
            return f"At most {MOST_STYLES} styles can be mixed: leave out {count - MOST_STYLES}."
        if session.screen.color == "covariance" and len(session.paintings) < count:
            return "Only paintings of your own can be recoloured: choose other colours, or leave out the other styles."
        if session.masks and len(session.masks) != count:
            return "The areas were brushed for other styles: brush them again, or forget them."
        return ""

    def _slow_hint(self, session: Session) -> str:
        if session.photo is None:
            return NO_PHOTO
        count = len(self._styles(session))
        if not count or len(session.paintings) < count:
            return "This way needs paintings of your own, and no others: add them under Own paintings."
        return "" if count <= MOST_STYLES else self._hint(session)

    # Painting

    def paint(self, session: Session, progress: Bar) -> Iterator[Changes]:
        """Show the picture, painted with no more pixels than the page shows, and how to make it elsewhere."""
        hint = self._hint(session)
        if hint:
            raise UsageError(hint)
        photo, preview, styles = session.photo, session.preview, tuple(self._styles(session))
        assert photo is not None
        assert preview is not None
        size = self.painter.extent(photo, session.screen.size or None)
        config = self._config(session, photo, styles)
        smaller = replace(config, content_size=PREVIEW) if min(size) > PREVIEW else config
        shown = self.painter.extent(photo, smaller.content_size)
        after = session.place(f"{_short(photo.path.stem)}.jpg")
        result = Result(config, photo, styles, size, preview, after)
        session.begin(result)
        begin = time.monotonic()
        yield from self._save(session, replace(smaller, output=after, quality=90), result, shown, progress)
        session.show(result)
        told = f"Done: {shown[1]} x {shown[0]} pixels in {time.monotonic() - begin:.1f} s."
        if smaller is not config:
            told += f" The download is painted at {size[1]} x {size[0]} pixels."
        yield {"status": told, **IDLE["status"], **self._result(result)}

    def repaint(self, session: Session, progress: Bar) -> Iterator[Changes]:
        """Show a change at once, where the photo has been painted before."""
        result = session.result
        if result is None or result.photo is not session.photo or self._hint(session):
            return
        wanted = self._config(session, result.photo, self._styles(session))
        known = (result, session.pending or result)  # what is pending was cancelled, or has failed
        if all(replace(wanted, output=each.config.output) != each.config for each in known):
            yield from self.paint(session, progress)

    def download(self, session: Session, suffix: str, progress: Bar) -> Iterator[Changes]:
        """Paint the picture that is shown at its full size, show it, and offer the file."""
        result = session.result
        if result is None:
            raise UsageError("There is no picture yet.")
        height, width = result.size
        file = next((file for file in result.files if file.suffix == suffix), None)
        if file is None:
            file = session.place(f"{result.config.output.stem}{suffix}")
            yield from self._save(session, replace(result.config, output=file), result, result.size, progress)
            result = replace(result, files=(*result.files, file))
            if min(result.size) > PREVIEW:
                result = replace(result, after=self._preview(session, file, PREVIEW))
            session.show(result)
        link = f'<a href="{_address(file)}" download="{html.escape(file.name)}">{html.escape(file.name)}</a>'
        told = f"Done: {width} x {height} pixels."
        yield {"status": told, "file": link, "picture": _compared(result), **IDLE["status"]}

    def _save(
        self,
        session: Session,
        config: "StylizeConfig",
        result: Result,
        size: tuple[int, int],
        progress: Bar,
    ) -> Iterator[Changes]:
        """Paint a file, with its progress, until the session is told to cancel it."""
        told = f"Painting {size[1]} x {size[0]} pixels"
        session.cancel.clear()
        yield {"status": told, "file": "", "cancel": gr.Button(interactive=True)}

        def tell(share: float) -> None:
            if session.cancel.is_set():
                raise Cancelled
            progress(share, desc=told)

        self.painter.save(config, result.photo, result.styles, tell)

    def cancel(self, session: Session) -> Iterator[Changes]:
        """End the painting that is running."""
        session.cancel.set()
        yield from ()

    def take_areas(self, session: Session, drawing: dict[str, Any] | None, progress: Bar) -> Iterator[Changes]:
        """Keep the brushed areas as a mask for each style, and paint the picture."""
        import numpy as np
        import torch

        from arbitrary_nst.image import save_image
        from arbitrary_nst.web.painting import brushed_areas

        layers = [] if drawing is None else drawing["layers"]
        if not layers or not any(np.asarray(layer)[..., 3].any() for layer in layers):
            yield {"areas_told": wrong(["Brush over the photo first, in the colour of each style."])}
            return
        count = min(len(self._styles(session)), MOST_STYLES)
        strokes = torch.from_numpy(np.array(layers[0])).permute(2, 0, 1)
        places = [session.place(f"area-{index + 1}.png") for index in range(count)]
        for mask, place in zip(brushed_areas(strokes, AREA_COLORS[:count], AREA_OPACITY), places, strict=True):
            save_image(mask, place)
        session.masks = tuple(places)
        yield {"areas_told": AREAS, "ways": gr.Tabs(selected="picture"), **self._refreshed(session)}
        yield from self.paint(session, progress)

    def forget_areas(self, session: Session) -> Iterator[Changes]:
        """Paint every style everywhere again."""
        session.masks = ()
        yield {"editor": _canvas(session), "areas_told": "The styles show everywhere.", **self._refreshed(session)}

    # Optimizing

    def optimize(self, session: Session) -> Iterator[Changes]:
        """Show the iterates as they come; the last one, or where it is stopped, can be downloaded."""
        from arbitrary_nst.optimization.jobs import PRESETS, OptimizeConfig, load_material, run, save
        from arbitrary_nst.optimization.loop import feature_network
        from arbitrary_nst.web.snippets import command_line

        hint, screen = self._slow_hint(session), session.screen
        if hint:
            raise UsageError(hint)
        photo, styles = session.photo, self._styles(session)
        assert photo is not None
        config = OptimizeConfig(
            content=photo.path,
            style=tuple(style.path for style in styles),
            output=session.place(f"{_short(photo.path.stem)}_optimized.png"),
            preset=screen.preset,
            style_weights=screen.weights[: len(styles)] if len(styles) > 1 else (),
            size=(screen.side,),
            preserve_color=screen.optimized_color,
            optimization=replace(PRESETS[screen.preset]["optimization"], steps=(screen.steps,)),
            device=self.config.device,
            max_pixels=self.config.max_pixels,
        )
        session.stop.clear()
        yield {
            "optimize": gr.Button(visible=False),
            "stop": gr.Button(visible=True),
            "losses": "Reading the photo and the painting",
            "optimized_download": gr.DownloadButton(visible=False),
            "optimize_command": command_line(config),
        }
        material = load_material(config)
        shown: deque[Path] = deque()
        last, shown_at = None, 0.0
        for iterate in run(config, config.optimization, material, feature_network(config.optimization)):
            last = iterate
            if session.stop.is_set():
                break
            if time.monotonic() - shown_at > SECONDS_BETWEEN_ITERATES:
                shown_at, target = time.monotonic(), session.place("iterate.jpg")
                save(iterate, target, material)
                yield {"iterate": _image(target, "The photo as it is now"), "losses": _described(iterate)}
                shown.append(target)
                if len(shown) > ITERATES:
                    session.forget(shown.popleft())
        assert last is not None
        save(last, config.output, material)
        yield {
            "iterate": _image(self._preview(session, config.output, PREVIEW), "The stylized photo"),
            "losses": f"Done. {_described(last)}",
            "optimized_download": gr.DownloadButton(value=str(config.output), visible=True),
            **IDLE["losses"],
        }

    def stop(self, session: Session) -> Iterator[Changes]:
        """End the optimization of this page at its next step."""
        session.stop.set()
        yield from ()

    # Parts of these

    def _styles(self, session: Session) -> list[Source]:
        gallery = (Source(name, Path(name)) for name in session.screen.gallery)
        return [*session.paintings.values(), *session.saved.values(), *gallery]

    def _config(self, session: Session, photo: Source, styles: Sequence[Source]) -> "StylizeConfig":
        """Options of the command line for this picture."""
        from arbitrary_nst.stylization.jobs import StylizeConfig

        screen, masks = session.screen, session.masks
        name = "+".join(style.path.stem.removeprefix("gallery:") for style in styles)
        return StylizeConfig(
            content=(photo.path,),
            style=tuple(style.path for style in styles),
            output=session.folder / f"{_short(photo.path.stem)}_stylized_{_short(name)}.png",
            alpha=screen.strength,
            style_weights=screen.weights[: len(styles)] if len(styles) > 1 and not masks else (),
            mask=masks,
            preserve_color=screen.color,
            content_size=screen.size or None,
            style_scale=screen.scale if session.paintings else 1.0,
            model=self.config.model,
            device=self.config.device,
            precision=self.config.precision,
            max_pixels=self.config.max_pixels,
        )

    def _result(self, result: Result) -> Changes:
        """Show a result, and how to make it elsewhere."""
        from arbitrary_nst.web.snippets import command_line, python_code

        needed = [*[result.photo.path] * (result.photo.path.name == EXAMPLE_PHOTO.name), *result.config.mask]
        return {
            "picture": _compared(result),
            "jpeg": gr.Button(interactive=True),
            "png": gr.Button(interactive=True),
            "command": command_line(result.config),
            "program": python_code(result.config),
            "needed": gr.File([str(path) for path in needed], visible=bool(needed)),
            "elsewhere": gr.Accordion(visible=True),
        }

    @contextmanager
    def _refusals(self, session: Session, upload: str, told: list[str]) -> Iterator[None]:
        """Note why an upload cannot be used, and remove it at once; the others are taken."""
        try:
            yield
        except Exception as error:
            told.append(words(error, session))
            if Path(upload).is_relative_to(self.sessions.folder):
                Path(upload).unlink(missing_ok=True)

    def _preview(self, session: Session, path: Path, short_side: int) -> Path:
        """Write what is shown of a picture."""
        from arbitrary_nst.image import load_pixels, save_pixels

        target = session.place(f"{_short(path.stem)}.jpg")
        save_pixels(load_pixels(path, short_side, self.config.max_pixels), target, quality=90)
        return target


# What is shown

AREAS = "The styles show in their areas; elsewhere the photo stays as it is."


def failed(error: Exception, session: Session) -> str:
    """Show why an action has ended early."""
    return "Cancelled." if isinstance(error, Cancelled) else wrong([words(error, session)])


def wrong(told: Sequence[str]) -> str:
    """Show what is wrong, if anything is."""
    return "".join(f'<p class="wrong">{html.escape(line)}</p>' for line in told)


def _address(path: Path) -> str:
    return f"/gradio_api/file={quote(str(path))}"


def _image(path: Path, description: str) -> str:
    return f'<img src="{_address(path)}" alt="{description}">'


def _compared(result: Result) -> str:
    """The picture under its photo, and a handle that moves the border between them."""
    height, width = result.size
    return (
        f'<div class="compare" style="--width: {width}; --height: {height}">'
        f"{_image(result.after, 'The stylized photo')}{_image(result.before, 'The photo')}"
        '<input type="range" min="0" max="100" step="1" value="50" aria-label="How much of the photo is shown" '
        "oninput=\"this.parentNode.style.setProperty('--cut', this.value + '%')\"></div>"
    )


def _canvas(session: Session) -> dict[str, Any] | None:
    """The photo, with nothing brushed on it."""
    if session.photo is None:
        return None
    return {"background": str(session.preview), "layers": [], "composite": None}


def _thumbnails(session: Session) -> list[tuple[str, str]]:
    return [(path, painting.path.name) for path, painting in session.paintings.items()]


def _short(name: str) -> str:
    """At most 100 bytes of a file's name, so that longer ones can be made of it."""
    return name.encode()[:100].decode(errors="ignore")


def _legend(names: Sequence[str]) -> str:
    """Legend of the styles' colours."""
    rows = [
        f'<li><span style="background: rgb{color}"></span>{html.escape(name)}</li>'
        for name, color in zip(names, AREA_COLORS, strict=False)
    ]
    return f'<ul class="legend">{"".join(rows)}</ul>' if rows else NO_STYLE


def _described(iterate: "Iterate") -> str:
    losses = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in iterate.losses.items())
    return f"Step {iterate.step} of {iterate.steps} · {losses}"
