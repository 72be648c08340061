"""What happens on the page: every action takes what is on the screen and returns what is to be shown instead."""

import html
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from arbitrary_nst.paths import ImageError, unique_names
from arbitrary_nst.web import ServeConfig
from arbitrary_nst.web.sessions import Session, Sessions, Source

if TYPE_CHECKING:
    from arbitrary_nst.gatys import Iterate
    from arbitrary_nst.web.painting import Painter

MOST_STYLES = 4

AREA_COLORS = ((228, 87, 46), (23, 164, 160), (240, 180, 0), (123, 75, 214))
"""What the areas of the styles are brushed in, one after another."""

AREA_OPACITY = 0.6

PREVIEW, THUMBNAIL = 1000, 256
"""Short sides, in pixels, of what the page shows of pictures and of paintings."""

SECONDS_BETWEEN_ITERATES = 0.6

EXAMPLE_PHOTO, EXAMPLE_STYLE = Path(__file__).with_name("example.jpg"), "gallery:wheat-field"

NO_STYLE = "No style is chosen yet."


class Refused(ValueError):
    """What somebody asked for cannot be done yet; the message says what to do, in the words of the page."""


def _foreseen() -> tuple[type[Exception], ...]:
    """Errors whose message says all that somebody needs."""
    from arbitrary_nst.models.files import ModelFileError
    from arbitrary_nst.weights import WeightsNotFoundError

    return ImageError, ModelFileError, WeightsNotFoundError, ValueError, FloatingPointError


def _words(error: Exception, session: Session) -> str:
    """What is wrong, for the page, without places of the temporary folder."""
    places = (f"{session.folder / 'given'}/", f"{session.folder}/")
    words = str(error)
    for place in places:
        words = words.replace(place, "")
    return html.escape(words)


@contextmanager
def telling(session: Session) -> Iterator[None]:
    """Tell on the page what is wrong with a file or an option, and end what was asked for."""
    try:
        yield
    except _foreseen() as error:
        raise gr.Error(_words(error, session), duration=None, print_exception=False) from error


class Actions:
    """What the page does, for any number of people at once: each action is given the session of its page.

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

    def show_gallery(self, session: Session) -> tuple[Any, Any]:
        """The gallery's choices and their swatches."""
        known = self.painter.known_styles()
        if known and not self._swatches.exists():
            self.painter.save_swatches(self._swatches)
        choices = [(caption, name) for name, caption in known.items()]
        last = max(len(choices) - 1, 1)
        places = [
            f"#gallery label:nth-child({index + 1})::before {{ background-position-x: {100 * index / last:.4f}% }}"
            for index in range(len(choices))
        ]
        picture = f"background-image: url(/gradio_api/file={self._swatches}); background-size: {len(choices)}00% 100%"
        style = f"<style>#gallery label::before {{ {picture} }} {' '.join(places)}</style>"
        return gr.CheckboxGroup(choices=choices), style

    def take_photo(self, session: Session, upload: dict[str, Any] | None) -> tuple[Any, Any]:
        """Keep the photo; show it, and as what areas are brushed on. None forgets it.

        The upload is as gradio has it, so that nothing but `arbitrary_nst.image` decodes the file.
        """
        session.keep_results()
        with session.taking():
            session.photo, session.masks = None, ()
            if upload is not None and upload["path"] is not None:
                with self._warning(session, upload["path"]):
                    photo = session.keep(upload["path"])
                    session.preview = self._preview(session, photo.path, PREVIEW)
                    self.painter.extent(photo, None)
                    session.photo = photo
        return session.preview if session.photo else None, _canvas(session)

    def take_example(self, session: Session) -> tuple[Any, Any, list[str]]:
        """The photo that ships with the page, and a style."""
        known = self.painter.known_styles()
        return *self.take_photo(session, {"path": str(EXAMPLE_PHOTO)}), [
            EXAMPLE_STYLE
        ] if EXAMPLE_STYLE in known else []

    def take_paintings(self, session: Session, shown: Sequence[tuple[str, Any]] | None) -> list[tuple[str, str]]:
        """Keep new paintings, and drop those that were removed. Returns what stands for them, with their names."""
        with session.taking():
            kept: dict[str, Source] = {}
            for path, _ in shown or ():
                if path in session.paintings:
                    kept[path] = session.paintings[path]
                    continue
                with self._warning(session, path):
                    painting = session.keep(path)
                    kept[self._preview(session, painting.path, THUMBNAIL)] = painting
            session.paintings = kept
        return [(path, painting.path.name) for path, painting in kept.items()]

    def take_saved(self, session: Session, shown: Sequence[str] | None) -> list[str] | None:
        """Keep new style files, and drop those that were removed. Returns those that can be used."""
        from arbitrary_nst.styles import load_style

        with session.taking():
            kept: dict[str, Source] = {}
            for path in map(str, shown or ()):
                if path in session.saved:
                    kept[path] = session.saved[path]
                    continue
                with self._warning(session, path):
                    style = session.keep(path)
                    load_style(style.path, self.config.model)
                    kept[str(style.path)] = style
            session.saved = kept
        return list(kept) or None

    def show_chosen(self, session: Session, chosen: list[str]) -> tuple[Any, ...]:
        """A weight for each of the styles, where there are several; their colours as brushes; whether strokes scale."""
        from arbitrary_nst.web.painting import SEPARATOR

        own = [style.path.name for style in (*session.paintings.values(), *session.saved.values())]
        known = self.painter.known_styles()
        names = [*own, *(known[name].partition(SEPARATOR)[0] for name in chosen)]
        several = 1 < len(names) <= MOST_STYLES
        weights = [
            gr.Slider(visible=several and index < len(names), label=names[index] if index < len(names) else "")
            for index in range(MOST_STYLES)
        ]
        told = f"Chosen: {html.escape(', '.join(names))}" if names else NO_STYLE
        strokes = gr.Slider(interactive=bool(session.paintings))
        return *weights, f'<p class="hint" role="status">{told}</p>', _legend(names[:MOST_STYLES]), strokes

    # Painting

    def paint(
        self,
        session: Session,
        chosen: list[str],
        alpha: float,
        scale: float,
        color: str,
        size: int,
        *weights: float,
        progress: gr.Progress,
    ) -> tuple[Any, ...]:
        """The picture, what of it can be downloaded, and how to make it elsewhere."""
        from arbitrary_nst.batch import StylizeConfig
        from arbitrary_nst.web.snippets import command_line, python_code

        photo, styles = self._material(session, chosen)
        paintings = list(session.paintings.values())
        if color == "covariance" and len(paintings) < len(styles):
            raise Refused(
                "Only paintings of your own can be recoloured: of the gallery and of style files there are only codes. "
                "Choose other colours, or leave those styles out."
            )
        masks = session.masks[: len(styles)]
        if masks and len(session.masks) != len(styles):
            raise Refused("The areas were brushed for other styles: brush them again, or forget them.")
        names = self._names(session, chosen)
        progress(0, desc="Reading the photo")
        height, width = self.painter.extent(photo, size or None)
        config = StylizeConfig(
            content=(photo.path,),
            style=tuple(style.path for style in styles),
            output=session.place(f"{_short(photo.path.stem)}_stylized_{_short('+'.join(names))}.png"),
            alpha=alpha,
            style_weights=tuple(weights[: len(styles)]) if len(styles) > 1 and not masks else (),
            mask=masks,
            preserve_color=color,  # type: ignore[arg-type]
            content_size=size or None,
            style_scale=scale if paintings else 1.0,
            model=self.config.model,
            device=self.config.device,
            precision=self.config.precision,
            max_pixels=self.config.max_pixels,
        )
        progress(0.2, desc=f"Painting {width} x {height} pixels")
        self.painter.paint(config, photo, styles)
        progress(0.9, desc="Showing it")
        needed = [*[photo.path] * (photo.path.name == EXAMPLE_PHOTO.name), *masks]
        after = self._preview(session, config.output, PREVIEW)
        session.keep_results(config.output, Path(after))
        return (
            gr.ImageSlider((session.preview, after), visible=True),
            gr.HTML(visible=False),
            gr.DownloadButton(f"Download PNG, {width} x {height}", value=str(config.output), visible=True),
            command_line(config),
            python_code(config),
            gr.File([str(path) for path in needed], visible=bool(needed)),
            gr.Accordion(visible=True),
        )

    def repaint(self, session: Session, *screen: Any, progress: gr.Progress) -> Any:
        """After the first picture, what is changed is seen at once."""
        ready = bool(session.results) and bool(self._names(session, screen[0]))
        return self.paint(session, *screen, progress=progress) if ready else gr.skip()

    def take_areas(self, session: Session, drawing: dict[str, Any] | None, chosen: list[str]) -> tuple[str, Any]:
        """Keep what was brushed as a mask for each style, and show the picture."""
        import numpy as np
        import torch

        from arbitrary_nst.image import save_image
        from arbitrary_nst.web.painting import brushed_areas

        _, styles = self._material(session, chosen)
        layers = [] if drawing is None else drawing["layers"]
        if not layers or not any(np.asarray(layer)[..., 3].any() for layer in layers):
            raise Refused("Brush over the photo first: where each style is to show, in its colour.")
        session.masks = ()
        masks = brushed_areas(
            torch.from_numpy(np.array(layers[0])).permute(2, 0, 1), AREA_COLORS[: len(styles)], AREA_OPACITY
        )
        places = [session.place(f"area-{index + 1}.png") for index in range(len(masks))]
        for mask, place in zip(masks, places, strict=True):
            save_image(mask, place)
        session.masks = tuple(places)
        return "The styles show in their areas; elsewhere the photo keeps its own look.", gr.Tabs(selected="picture")

    def forget_areas(self, session: Session) -> tuple[Any, str]:
        """Every style everywhere again."""
        session.masks = ()
        return _canvas(session), "The styles show everywhere."

    # Optimizing

    def optimize(
        self, session: Session, chosen: list[str], preset: str, side: float, steps: float, color: str, *weights: float
    ) -> Iterator[tuple[Any, ...]]:
        """The iterates as they come; the last one, or where it is stopped, to be downloaded."""
        from arbitrary_nst.gatys import feature_network
        from arbitrary_nst.optimization import PRESETS, OptimizeConfig, load_material, run, save
        from arbitrary_nst.web.snippets import command_line

        photo, styles = self._material(session, chosen)
        if len(session.paintings) < len(styles):
            raise Refused(
                "This way looks at the paintings themselves: choose only paintings of your own, and none of the "
                "gallery or style files."
            )
        recipe = PRESETS[preset]["recipe"]
        config = OptimizeConfig(
            content=photo.path,
            style=tuple(style.path for style in styles),
            output=session.place(f"{_short(photo.path.stem)}_optimized.png"),
            preset=preset,
            style_weights=tuple(weights[: len(styles)]) if len(styles) > 1 else (),
            size=(int(side),),
            preserve_color=color,  # type: ignore[arg-type]
            recipe=replace(recipe, steps=(int(steps),)),
            device=self.config.device,
            max_pixels=self.config.max_pixels,
        )
        session.stop.clear()
        waiting = gr.DownloadButton(visible=False)
        yield gr.skip(), "Looking at the photo and the painting", waiting, command_line(config)
        material = load_material(config)
        previous, last, shown_at = None, None, 0.0
        for iterate in run(config, config.recipe, material, feature_network(config.recipe)):
            last = iterate
            if session.stop.is_set():
                break
            if time.monotonic() - shown_at > SECONDS_BETWEEN_ITERATES:
                shown_at, target = time.monotonic(), session.place("iterate.jpg")
                save(iterate, target, material)
                yield str(target), _described(iterate), gr.skip(), gr.skip()
                session.forget(previous)
                previous = target
        assert last is not None
        save(last, config.output, material)
        after = self._preview(session, config.output, PREVIEW)
        download = gr.DownloadButton(value=str(config.output), visible=True)
        yield after, _described(last), download, gr.skip()

    def stop(self, session: Session) -> None:
        """End the optimization of this page at its next step."""
        session.stop.set()

    # Parts of these

    def _material(self, session: Session, chosen: list[str]) -> tuple[Source, list[Source]]:
        if session.photo is None:
            raise Refused("There is no photo yet: drop one into the first box, or try the example.")
        styles = [*session.paintings.values(), *session.saved.values(), *(Source(name, Path(name)) for name in chosen)]
        if not styles:
            raise Refused("No style is chosen yet: tick one in the gallery, or add a painting.")
        if len(styles) > MOST_STYLES:
            raise Refused(f"{len(styles)} styles are chosen, and at most {MOST_STYLES} can be mixed: leave some out.")
        return session.photo, styles

    def _names(self, session: Session, chosen: list[str]) -> list[str]:
        """Of the chosen styles, as in the files that the command line writes."""
        paths = [style.path for style in (*session.paintings.values(), *session.saved.values())]
        return list(unique_names([*paths, *(Path(name.removeprefix("gallery:")) for name in chosen)]).values())

    @contextmanager
    def _warning(self, session: Session, upload: str) -> Iterator[None]:
        """An upload that cannot be used is told on the page, and removed at once; the others are taken."""
        try:
            yield
        except (*_foreseen(), OSError) as error:
            gone = isinstance(error, OSError)
            gr.Warning("The file is no longer there: add it again." if gone else _words(error, session), duration=None)
            if Path(upload).is_relative_to(self.sessions.folder):
                Path(upload).unlink(missing_ok=True)

    def _preview(self, session: Session, path: Path, short_side: int) -> str:
        """A file of what is shown of another one."""
        from arbitrary_nst.image import load_pixels, save_pixels

        target = session.place(f"{_short(path.stem)}.jpg")
        save_pixels(load_pixels(path, short_side, self.config.max_pixels), target, quality=90)
        return str(target)


def _canvas(session: Session) -> dict[str, Any] | None:
    """What areas are brushed on: the photo, with nothing on it."""
    if session.photo is None:
        return None
    return {"background": session.preview, "layers": [], "composite": None}


def _short(name: str) -> str:
    """At most 100 bytes of a file's name, so that longer ones can be made of it."""
    return name.encode()[:100].decode(errors="ignore")


def _legend(names: Sequence[str]) -> str:
    """Which colour is which style's."""
    rows = [
        f'<li><span style="background: rgb{color}"></span>{html.escape(name)}</li>'
        for name, color in zip(names, AREA_COLORS, strict=False)
    ]
    return f'<ul class="legend">{"".join(rows)}</ul>' if rows else f'<p class="hint">{NO_STYLE}</p>'


def _described(iterate: "Iterate") -> str:
    losses = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in iterate.losses.items())
    return f"Step {iterate.step} of {iterate.steps} · {losses}"
