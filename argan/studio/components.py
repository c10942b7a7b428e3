"""Parts of the page that are used more than once: a viewer for images with depth, and a button that makes a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from argan.effects.aperture_shape import COLLECTION, SHAPES
from argan.errors import UserError
from argan.inference.model import Model

Value = dict[str, Any]  # what a viewer shows: see page.js
QUIET: Value = {"show_progress": "hidden", "api_visibility": "private"}
QUEUED: Value = {
    "concurrency_limit": 2,
    "concurrency_id": "jobs",
    "api_visibility": "private",
}  # the others wait their turn
VIEWER_HTML = """<figure class="viewer">
<div class="frame"><img alt="" draggable="false"><button type="button" class="ring"></button></div>
<p class="nothing">@nothing</p><figcaption class="note" role="status"></figcaption>
</figure>"""


def show_errors(run: Callable[..., Any]) -> Callable[..., Any]:
    """Shows what is wrong in the page, in one sentence."""

    @wraps(run)
    def guarded(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except UserError as error:
            raise gr.Error(escape(" ".join(str(error).split())), print_exception=False) from error
        except (OSError, MemoryError) as error:
            raise gr.Error(
                escape(f"This could not be done: {error or 'not enough memory'}"), print_exception=False
            ) from error

    return guarded


@dataclass(frozen=True)
class Viewer:
    """A picture with depth and what moves it."""

    picture: gr.HTML
    aperture: gr.Slider
    shape: gr.Dropdown
    view: gr.Radio

    @property
    def controls(self) -> list[Any]:
        return [self.aperture, self.shape, self.view]

    def listen(self) -> None:
        """In the browser alone: page.js asks for what follows."""
        gr.on(
            [self.aperture.input, self.shape.input, self.view.input],
            None,
            [self.picture, *self.controls],
            self.picture,
            js="(...all) => argan.changed(...all)",
            api_visibility="private",
        )


def shapes(model: Model) -> list[tuple[str, str]]:
    """Of the opening, as the page calls them and as `argan bokeh` does: the collection's own where the model knows it."""
    named = [(shape[0].upper() + shape[1:], shape) for shape in SHAPES]
    try:
        known = model.iris is not None and model.iris.outline is not None
    except UserError:  # damaged: the others are still there
        known = False
    return [*named, ("As the collection's", COLLECTION)] if known else named


def viewer(
    name: str, views: list[str], nothing: str, choices: list[tuple[str, str]], value: Value | None = None
) -> Callable[[], Viewer]:
    """Puts the picture here, and returns what puts its controls there."""
    picture = gr.HTML(
        value,
        html_template=VIEWER_HTML.replace("@nothing", nothing),
        js_on_load="argan.viewer(element, props, watch)",
        elem_id=name,
        apply_default_css=False,
    )

    def controls() -> Viewer:
        aperture = gr.Slider(0, 4, 1, step=0.05, label="Aperture", elem_id=f"{name}-aperture", buttons=[])
        with gr.Row(elem_classes="line"):
            view = gr.Radio(views, value="Picture", label="Show", elem_id=f"{name}-view", min_width=230)
            shape = gr.Dropdown(
                choices,
                value="disc",
                label="Shape of the opening",
                elem_id=f"{name}-shape",
                filterable=False,
                min_width=130,
            )
        return Viewer(picture, aperture, shape, view)

    return controls


def download(
    button: gr.Button, busy: str, make: Callable[..., str], inputs: list[Any], fetch: gr.DownloadButton
) -> None:
    """A button that makes a file, and then has the browser fetch it."""
    label = button.value
    finished = button.click(lambda: gr.Button(busy, interactive=False), None, button, **QUIET, queue=False).then(
        make, inputs, fetch, **QUIET | QUEUED
    )
    finished.success(None, None, None, js=f"() => argan.fetched('{fetch.elem_id}')", api_visibility="private")
    finished.then(lambda: gr.Button(label, interactive=True), None, button, **QUIET, queue=False)
