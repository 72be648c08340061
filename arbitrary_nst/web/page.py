"""The page: what is seen, and which action each part of it calls."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from arbitrary_nst.recipes import PRESETS
from arbitrary_nst.web import ServeConfig
from arbitrary_nst.web.actions import AREA_COLORS, AREA_OPACITY, MOST_STYLES, NO_STYLE, Actions, telling
from arbitrary_nst.web.guard import Guard
from arbitrary_nst.web.sessions import Sessions

TITLE = "Photos in the style of paintings"

STYLES = Path(__file__).with_name("page.css")

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
        try:
            _, url, _ = self.blocks.launch(
                server_name=self.config.host,
                server_port=self.config.port,
                inbrowser=self.config.browser,
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
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
                        Middleware(Guard, max_bytes=self.config.max_bytes),
                    ]
                },
            )
        except OSError as error:
            wanted = "" if self.config.port is None else f" --port {self.config.port}"
            raise ValueError(f"--host {self.config.host}{wanted}: is not free; choose another port") from error
        threading.Thread(target=self._sweep, daemon=True).start()
        return url

    def load_model(self) -> None:
        """Load what paints; actions wait for it. Raises what `Painter` raises."""
        from arbitrary_nst.web.painting import Painter

        config = self.config
        self._painter.set_result(Painter(config.model, config.device, config.precision, config.max_pixels))

    def close(self) -> None:
        """Stop the server."""
        self._closed.set()
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
                    file_types=["image"],
                    sources=["upload", "clipboard"],
                    columns=3,
                    height=220,
                    object_fit="cover",
                    buttons=[],
                    elem_id="paintings",
                )
            with gr.Tab("Style files"):
                self.saved = gr.File(label="Saved styles (.style)", file_count="multiple", height=220, elem_id="saved")
        self.chosen = gr.HTML(f'<p class="hint" role="status">{NO_STYLE}</p>', elem_id="chosen")
        self.weights = [
            gr.Slider(0, 1, 1, step=0.05, label=f"Share {number}", visible=False, elem_classes="weight")
            for number in range(1, MOST_STYLES + 1)
        ]
        self.start = gr.Button("Paint", variant="primary", elem_id="paint")

    def _picture(self) -> None:
        self.empty = gr.HTML(
            "<div><strong>Your picture will appear here.</strong>"
            "<span>Add a photo, choose a style, and paint. Several styles are mixed.</span></div>",
            elem_id="empty",
        )
        self.picture = gr.ImageSlider(
            label="Photo and picture",
            show_label=False,
            visible=False,
            interactive=False,
            buttons=["fullscreen"],
            max_height=460,
            elem_id="picture",
        )
        self.download = gr.DownloadButton("Download", visible=False, size="md", elem_id="download")
        with gr.Row():
            self.strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 is the photo's own look")
            self.scale = gr.Slider(
                0.25, 4, 1, step=0.05, label="Stroke size", info="of your own paintings", interactive=False
            )
        with gr.Row():
            self.color = gr.Radio(COLORS, value="none", label="Colours")
            self.size = gr.Dropdown(SIZES, value=0, label="Size", filterable=False)
        with gr.Accordion("The same on the command line and in Python", open=False, visible=False) as self.elsewhere:
            self.command = gr.Code(language="shell", label="Command", elem_id="command", **CODE)
            self.program = gr.Code(language="python", label="Python", elem_id="program", **CODE)
            self.needed = gr.File(label="Files that these need", visible=False, interactive=False)

    def _areas(self) -> None:
        gr.HTML(
            '<p class="hint">Brush over the photo where each style is to show, in its colour. Where nothing is brushed '
            "the photo keeps its own look.</p>"
        )
        self.legend = gr.HTML(f'<p class="hint">{NO_STYLE}</p>', elem_id="areas-legend")
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
            self.use_areas = gr.Button("Use these areas", variant="primary", size="md")
            self.forget_areas = gr.Button("Forget them", size="md")
        self.areas_told = gr.HTML(elem_classes="hint")

    def _optimization(self) -> None:
        gr.HTML(
            '<p class="hint">The first method of all (Gatys et al. 2016) changes the photo step by step until it has '
            "what your own paintings have. It takes minutes; stop it when you like what you see. It begins with a "
            "download of 500 MB if its network is not on this computer yet.</p>"
        )
        with gr.Row():
            self.preset = gr.Dropdown(list(PRESETS), value="relative", label="Set-up", filterable=False)
            self.side = gr.Slider(64, 1024, 256, step=16, label="Short side")
            self.steps = gr.Slider(1, 1000, 100, step=1, label="Steps")
        self.optimized_color = gr.Radio(COLORS, value="none", label="Colours")
        with gr.Row():
            self.optimize = gr.Button("Start", variant="primary", size="md", elem_id="optimize")
            self.stop = gr.Button("Stop", variant="stop", size="md", visible=False, elem_id="stop")
            self.optimized_download = gr.DownloadButton(
                "Download PNG", visible=False, size="md", elem_id="optimized-download"
            )
        self.iterate = gr.Image(
            label="What it looks like now", interactive=False, type="filepath", height=420, buttons=["fullscreen"]
        )
        self.losses = gr.HTML(elem_classes="hint", elem_id="losses")
        with gr.Accordion("The same on the command line", open=False):
            self.optimize_command = gr.Code(language="shell", label="Command", **CODE)

    # What happens

    def _connect(self, blocks: gr.Blocks) -> None:
        act, canvas = self.actions, [self.photo, self.editor]
        blocks.load(self._answering(act.show_gallery), None, [self.gallery, self.swatches], **QUIET)
        blocks.unload(self._leave)

        chosen = {"inputs": [self.gallery], "outputs": [*self.weights, self.chosen, self.legend, self.scale]}
        self.photo.upload(self._answering(act.take_photo), [self.photo], canvas, preprocess=False, **QUIET)
        self.photo.clear(self._answering(partial(act.take_photo, upload=None)), None, canvas, **QUIET)
        gr.on([self.paintings.upload, self.paintings.delete], self._answering(act.take_paintings), [self.paintings],
              [self.paintings], **QUIET).then(self._answering(act.show_chosen), **chosen, **QUIET)  # fmt: skip
        gr.on([self.saved.upload, self.saved.delete, self.saved.clear], self._answering(act.take_saved), [self.saved],
              [self.saved], **QUIET).then(self._answering(act.show_chosen), **chosen, **QUIET)  # fmt: skip
        self.gallery.change(self._answering(act.show_chosen), **chosen, **QUIET)

        screen = [self.gallery, self.strength, self.scale, self.color, self.size, *self.weights]
        shown = [self.picture, self.empty, self.download, self.command, self.program, self.needed, self.elsewhere]
        painting = {"inputs": screen, "outputs": shown, **PAINTING}
        self.start.click(self._painting(act.paint), **painting)
        self.example.click(self._answering(act.take_example), None, [*canvas, self.gallery], **QUIET).success(
            self._painting(act.paint), **painting
        )
        changed = [self.strength.release, self.scale.release, self.color.input, self.gallery.input, self.size.input]
        changed += [weight.release for weight in self.weights]
        gr.on(changed, self._painting(act.repaint), trigger_mode="always_last", **painting)
        self.use_areas.click(
            self._answering(act.take_areas), [self.editor, self.gallery], [self.areas_told, self.ways], **QUIET
        ).success(self._painting(act.paint), **painting)
        self.forget_areas.click(
            self._answering(act.forget_areas), None, [self.editor, self.areas_told], **QUIET
        ).success(self._painting(act.repaint), **painting)
        self._connect_optimization()

    def _connect_optimization(self) -> None:
        buttons = [self.optimize, self.stop]

        def running(is_running: bool) -> tuple[Any, Any]:
            return gr.Button(visible=not is_running), gr.Button(visible=is_running)

        screen = [self.gallery, self.preset, self.side, self.steps, self.optimized_color, *self.weights]
        shown = [self.iterate, self.losses, self.optimized_download, self.optimize_command]
        self.optimize.click(partial(running, True), None, buttons, **QUIET).then(
            self._iterating(self.actions.optimize), screen, shown, concurrency_id="optimize", **QUIET
        ).then(partial(running, False), None, buttons, **QUIET)
        self.stop.click(self._answering(self.actions.stop), None, None, **QUIET)

    def _answering(self, action: Callable[..., Any]) -> Callable[..., Any]:
        """An action for the session that asks for it, its errors told."""

        def answer(request: gr.Request, *screen: Any) -> Any:
            session = self.sessions[request.session_hash or ""]
            with telling(session):
                return action(session, *screen)

        return answer

    def _painting(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: gr.Request, progress: Any = gr.Progress(), *screen: Any) -> Any:  # noqa: B008
            session = self.sessions[request.session_hash or ""]
            with telling(session):
                return action(session, *screen, progress=progress)

        return answer

    def _iterating(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: gr.Request, *screen: Any) -> Any:
            session = self.sessions[request.session_hash or ""]
            with telling(session):
                yield from action(session, *screen)

        return answer

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
PAINTING: dict[str, Any] = {
    "concurrency_id": "paint",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress_on": None,
}
