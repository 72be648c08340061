"""The page: what is seen, and which action each part of it calls."""

import os
import threading
import webbrowser
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import gradio as gr
from gradio.blocks import Block
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from arbitrary_nst.errors import UsageError
from arbitrary_nst.optimization.presets import PRESETS
from arbitrary_nst.web.actions import (
    AREA_COLORS,
    AREA_OPACITY,
    IDLE,
    NO_PHOTO,
    NO_STYLE,
    Actions,
    Changes,
    failed,
)
from arbitrary_nst.web.config import ServeConfig
from arbitrary_nst.web.guard import Guard
from arbitrary_nst.web.sessions import MOST_STYLES, RANGES, Cancelled, Screen, Sessions

TITLE = "Photos in the style of paintings"

STYLES, SCRIPT = Path(__file__).with_name("page.css"), Path(__file__).with_name("page.js")

THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="stone",
    font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
).set(
    color_accent="*primary_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    slider_color="*primary_700",
    slider_color_dark="*primary_600",
    checkbox_background_color_selected="*primary_700",
    checkbox_background_color_selected_dark="*primary_600",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
)

COLORS = [("of the style", "none"), ("of the photo", "luminance"), ("painting recoloured", "covariance")]
"""What `--preserve-color` is called on the page."""

SIZES = [
    ("as large as the photo", 0),
    *((f"{side} pixels, short side", side) for side in (256, 512, 768, 1024, 2048, 4096)),
]

SWEEP_EVERY = 60
"""Seconds."""

DRAWINGS = 16
"""Brushed areas on their way from a page, at most; gradio would keep forever what nobody came for."""


class Page:
    """The page and its server.

    Args:
        folder: for everything that is uploaded and made; the caller removes it.
    """

    def __init__(self, config: ServeConfig, folder: Path) -> None:
        self.config, self.sessions = config, Sessions(folder)
        self._painter: Future[Any] = Future()
        self.actions = Actions(config, self.sessions, self._painter)
        self._closed = threading.Event()
        self.blocks = self._build()

    def open(self) -> str:
        """Start the server in a thread of its own and return the page's address."""
        Image.MAX_IMAGE_PIXELS = self.config.max_pixels // 2  # of brushed areas; Pillow refuses twice as many
        local = self.config.host in ("127.0.0.1", "localhost", "::1")
        hosts = ["127.0.0.1", "localhost", "[::1]"] if local else ["*"]
        middleware = [
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
            Middleware(Guard, max_bytes=self.config.max_bytes, folder=self.sessions.folder, room=self._room),
        ]
        own = f"{self.config.host},localhost,127.0.0.1"
        os.environ["no_proxy"] = f"{getproxies().get('no', '')},{own}"  # gradio calls its own server when it starts
        try:
            _, url, _ = self.blocks.launch(
                server_name=self.config.host,
                server_port=self.config.port,
                inbrowser=False,
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                max_file_size=self.config.max_bytes,
                theme=THEME,
                css_paths=STYLES,
                app_kwargs={"middleware": middleware},
            )
        except OSError as error:
            wanted = "" if self.config.port is None else f" --port {self.config.port}"
            raise UsageError(f"--host {self.config.host}{wanted}: is not free; choose another port") from error
        threading.Thread(target=self._sweep, daemon=True).start()
        if self.config.browser:
            webbrowser.open(url)
        return url

    def _room(self) -> int:
        return self.config.max_total_bytes - self.sessions.bytes()

    def load_model(self) -> None:
        """Load what paints; actions wait for it. Raises what `Painter` raises."""
        from arbitrary_nst.web.painting import Painter

        config = self.config
        self._painter.set_result(Painter(config.model, config.device, config.precision, config.max_pixels))

    def close(self) -> None:
        """Stop the server and all that it does."""
        self._closed.set()
        if not self._painter.done():
            self._painter.set_exception(Cancelled())
        self.sessions.end()
        self.blocks.close(verbose=False)

    def _sweep(self) -> None:
        while not self._closed.wait(SWEEP_EVERY):
            self.sessions.sweep()
            drawings = self.editor.blob_storage
            for name in list(drawings)[:-DRAWINGS]:
                drawings.pop(name, None)

    # What is seen

    def _build(self) -> gr.Blocks:
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
            gr.HTML(f"<h1>{TITLE}</h1><p>Everything happens on this computer.</p>", elem_id="head")
            with gr.Row(elem_id="desk"):
                with gr.Column(scale=4, min_width=280, elem_id="given"):
                    self._photo_and_styles()
                with gr.Column(scale=7, min_width=280), gr.Tabs(elem_id="ways") as self.ways:
                    with gr.Tab("Picture", id="picture"):
                        self._picture()
                    with gr.Tab("Areas"):
                        self._areas()
                    with gr.Tab("Slow way"):
                        self._optimization()
            self._connect(blocks)
        return blocks

    def _photo_and_styles(self) -> None:
        self.photo = gr.Image(
            label="Photo",
            sources=["upload", "clipboard"],
            type="filepath",
            height=230,
            buttons=["fullscreen"],
            placeholder="# Drop a photo here\nor click to choose one",
            elem_id="photo",
        )
        self.photo_told = gr.HTML(elem_id="photo-told", elem_classes="hint")
        self.example = gr.Button("Try it with an example", size="sm", elem_id="example")
        with gr.Tabs(elem_id="styles"):
            with gr.Tab("Gallery"):
                self.gallery = gr.CheckboxGroup(label="Styles of the gallery", show_label=False, elem_id="gallery")
                self.swatches = gr.HTML(visible="hidden")
            with gr.Tab("Own paintings"):
                self.paintings = gr.Gallery(
                    label="Your paintings",
                    interactive=True,
                    type="filepath",
                    file_types=["image", ".heic", ".heif", ".avif"],  # of which some browsers do not know that they are
                    sources=["upload", "clipboard"],
                    columns=3,
                    height=220,
                    object_fit="cover",
                    buttons=[],
                    elem_id="paintings",
                )
            with gr.Tab("Style files"):
                self.saved = gr.File(label="Saved styles (.style)", file_count="multiple", height=220, elem_id="saved")
        self.styles_told = gr.HTML(elem_id="styles-told", elem_classes="hint")
        self.weights = [_slider("weights", f"Share {n + 1}", visible=False) for n in range(MOST_STYLES)]
        self.hint = gr.HTML(NO_PHOTO, elem_id="hint", elem_classes="hint")
        with gr.Row(elem_id="start"):
            self.paint = gr.Button("Paint", variant="primary", interactive=False, scale=3, elem_id="paint")
            self.cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="cancel")

    def _picture(self) -> None:
        self.picture = gr.HTML(
            '<div class="empty"><strong>Your picture will appear here.</strong>'
            "<span>Add a photo, choose a style, and paint. Several styles are mixed.</span></div>",
            elem_id="picture",
        )
        self.status = gr.HTML(elem_id="status", elem_classes="hint", min_height=44)
        with gr.Row():
            self.jpeg = gr.Button("Download JPEG", size="md", interactive=False, elem_id="jpeg")
            self.png = gr.Button("Download PNG", size="md", interactive=False, elem_id="png")
        self.file = gr.HTML(visible="hidden", elem_id="file")
        with gr.Row():
            self.strength = _slider("strength", "Strength", info="0 is the photo", min_width=240)
            self.scale = _slider("scale", "Stroke size", info="of your own paintings", interactive=False, min_width=240)
        with gr.Row():
            self.color = gr.Radio(COLORS, value="none", label="Colours", min_width=240)
            self.size = gr.Dropdown(SIZES, value=0, label="Size", filterable=False, min_width=240)
        with gr.Accordion("The same on the command line and in Python", open=False, visible=False) as self.elsewhere:
            self.command = gr.Code(language="shell", label="Command", elem_id="command", **CODE)
            self.program = gr.Code(language="python", label="Python", elem_id="program", **CODE)
            self.needed = gr.File(label="Files that these need", visible=False, interactive=False)

    def _areas(self) -> None:
        gr.HTML(
            '<p class="hint">Brush over the photo where each style is to show, in its colour. Where nothing is brushed '
            "the photo stays as it is.</p>"
        )
        self.legend = gr.HTML(NO_STYLE, elem_id="areas-legend", elem_classes="hint")
        self.editor = gr.ImageEditor(
            label="Areas",
            show_label=False,
            type="numpy",
            sources=[],
            transforms=[],
            layers=False,
            brush=gr.Brush(
                colors=[(f"rgb{color}", AREA_OPACITY) for color in AREA_COLORS], color_mode="fixed", default_size=40
            ),
            buttons=[],
            height=460,
            elem_id="editor",
        )
        with gr.Row():
            self.use_areas = gr.Button("Use these areas", variant="primary", size="md", interactive=False)
            self.forget_areas = gr.Button("Forget them", size="md")
        self.areas_told = gr.HTML(elem_id="areas-told", elem_classes="hint")

    def _optimization(self) -> None:
        gr.HTML(
            '<p class="hint">The first method of all (Gatys et al. 2016) changes the photo step by step until it has '
            "what your own paintings have. It takes minutes; stop it when you like what you see. Some set-ups begin "
            "with a download of 500 MB.</p>"
        )
        with gr.Row():
            self.preset = gr.Dropdown(list(PRESETS), value="relative", label="Set-up", filterable=False, min_width=200)
            self.side = _slider("side", "Short side", min_width=220)
            self.steps = _slider("steps", "Steps", min_width=220)
        self.optimized_color = gr.Radio(COLORS, value="none", label="Colours")
        with gr.Row():
            self.optimize = gr.Button("Start", variant="primary", size="md", interactive=False, elem_id="optimize")
            self.stop = gr.Button("Stop", variant="stop", size="md", visible=False, elem_id="stop")
            self.optimized_download = gr.DownloadButton(
                "Download PNG", visible=False, size="md", elem_id="optimized-download"
            )
        self.slow_hint = gr.HTML(NO_PHOTO, elem_id="slow-hint", elem_classes="hint")
        self.losses = gr.HTML(elem_classes="hint", elem_id="losses")
        self.iterate = gr.HTML(elem_id="iterate")
        with gr.Accordion("The same on the command line", open=False):
            self.optimize_command = gr.Code(language="shell", label="Command", **CODE)

    # What happens

    def _connect(self, blocks: gr.Blocks) -> None:
        act, on = self.actions, self._on
        paint: dict[str, Any] = {"concurrency_id": "paint", "concurrency_limit": 1}
        swatches: dict[str, Any] = {"concurrency_id": "swatches", "concurrency_limit": 1}
        self.controls = [self.gallery, self.strength, self.scale, self.color, self.size]
        self.controls += [self.preset, self.side, self.steps, self.optimized_color, *self.weights]
        self.parts: dict[str, Any] = {n: part for n, part in vars(self).items() if isinstance(part, Block)}
        self.parts |= {f"weight_{index}": weight for index, weight in enumerate(self.weights)}

        desk = gr.Textbox(visible=False)
        blocks.load(self._answer_first, [desk], list(self.parts.values()), js=SCRIPT.read_text(), **QUIET).then(
            **on(act.show_swatches, **swatches)
        )
        blocks.unload(self._leave)

        last: dict[str, Any] = {"trigger_mode": "always_last"}  # what is given while an action runs is not lost
        refresh = on(act.refresh)  # after a file is taken: the controls may have changed while it was read
        photo = {"told": "photo_told", **last}
        for event in (
            self.photo.upload(**on(act.take_photo, self.photo, **photo)),
            self.photo.clear(**on(partial(act.take_photo, upload=None), **photo)),
        ):
            event.then(**refresh).then(**on(act.show_swatches, **swatches))
        self.example.click(**on(act.take_example, told="photo_told")).then(
            **on(act.paint, progress=True, **paint)
        ).then(**on(act.show_swatches, **swatches))
        own = [self.paintings.upload, self.paintings.delete]
        saved = [self.saved.upload, self.saved.delete, self.saved.clear]
        for events, part, take in ((own, self.paintings, act.take_paintings), (saved, self.saved, act.take_saved)):
            taken = gr.on(events, **on(take, part, told="styles_told", **last)).then(**refresh)
            taken.then(**on(act.repaint, progress=True, **paint))

        changed = [slider.release for slider in (self.strength, self.scale, *self.weights)]
        changed += [part.input for part in (self.gallery, self.color, self.size)]
        gr.on(changed, **on(act.refresh, **last))
        gr.on(changed, **on(act.repaint, progress=True, **paint, **last))

        self.paint.click(**on(act.paint, progress=True, **paint))
        self.cancel.click(**on(act.cancel))
        for button, suffix in ((self.jpeg, ".jpg"), (self.png, ".png")):
            button.click(**on(partial(act.download, suffix=suffix), progress=True, **paint)).then(
                None, None, None, js="() => document.querySelector('#file a')?.click()"
            )
        self.use_areas.click(**on(act.take_areas, self.editor, progress=True, preprocess=True, **paint))
        self.forget_areas.click(**on(act.forget_areas)).then(**on(act.repaint, progress=True, **paint))
        self.optimize.click(**on(act.optimize, told="losses", concurrency_id="optimize", concurrency_limit=1))
        self.stop.click(**on(act.stop))

    def _on(
        self, action: Callable[..., Any], *given: Any, told: str = "status", progress: bool = False, **options: Any
    ) -> dict[str, Any]:
        """The arguments of an event that calls an action.

        Args:
            given: parts of the page whose values the action is given, after its session.
            told: the part that shows what is wrong.
            progress: the action reports its progress, which is shown there too.
        """
        controls = len(self.controls)

        def answer(request: gr.Request, bar: Any = gr.Progress(), *values: Any) -> Iterator[Any]:  # noqa: B008
            session = self.sessions[request.session_hash or ""]
            report = {"progress": bar} if progress else {}

            def acted() -> Iterator[Changes]:
                session.screen = Screen.of(values[:controls], list(self.actions.painter.known_styles))
                yield from action(session, *values[controls:], **report)

            yield gr.skip()  # gradio clears the outputs of a generator that yields nothing
            try:
                for changes in self.sessions.steps(acted()):
                    yield self._named(changes)
            except Exception as error:
                yield self._named({told: failed(error, session), **IDLE.get(told, {})})

        shown = {"show_progress": "full", "show_progress_on": [self.status]} if progress else {}
        return {
            "fn": answer,
            "inputs": [*self.controls, *given],
            "outputs": list(self.parts.values()),
            "preprocess": False,
            "concurrency_limit": None,
            **QUIET,
            **shown,
            **options,
        }

    def _named(self, changes: dict[str, Any]) -> dict[Any, Any]:
        return {self.parts[name]: change for name, change in changes.items()}

    def _answer_first(self, request: gr.Request, desk: str) -> Iterator[dict[Any, Any]]:
        session = self.sessions.resume(request.session_hash or "", desk)
        with suppress(Cancelled):
            for changes in self.sessions.steps(self.actions.restore(session)):
                yield self._named(changes)

    def _leave(self, request: gr.Request) -> None:
        self.sessions.leave(request.session_hash or "")


CODE: dict[str, Any] = {
    "interactive": False,
    "lines": 1,
    "wrap_lines": True,
    "show_line_numbers": False,
    "buttons": ["copy"],
}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _slider(name: str, label: str, **options: Any) -> gr.Slider:
    low, high, step = RANGES[name]
    default = getattr(Screen, name)
    return gr.Slider(low, high, default[0] if name == "weights" else default, step=step, label=label, **options)
