"""The page, laid out with gradio. Photographs and scenes are shown by page.js, which asks routes.py for pictures."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder

from argan.errors import UserError
from argan.studio import about
from argan.studio.components import QUIET, Value, shapes, show_errors
from argan.studio.routes import application
from argan.studio.state import StudioState
from argan.studio.tabs import photo_tab, scenes_tab, space_tab
from argan.studio.uploads import FILE_BYTES

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def create_app(state: StudioState) -> FastAPI:
    """The page on its server."""
    colours = gr.themes.Base(
        primary_hue="neutral", secondary_hue="neutral", neutral_hue="stone", font=SANS, font_mono=MONO, radius_size="md"
    )
    return gr.mount_gradio_app(
        application(state, Path(get_upload_folder())),
        build_page(state),
        path="/",
        theme=colours,
        head=f"<style>{_read('page.css')}</style><script>{_read('page.js')}</script>",  # `css` would be rewritten
        footer_links=[],
        max_file_size=FILE_BYTES,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
    )


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def build_page(state: StudioState) -> gr.Blocks:
    first = state.catalog.default
    with gr.Blocks(title="AR-GAN studio", analytics_enabled=False, delete_cache=(300, 3600)) as blocks:
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>AR-GAN <span>studio</span></h1>", scale=3, min_width=160)
            model = gr.Dropdown(_entries(state), value=first, label="Model", elem_id="model", scale=1, min_width=200)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Imagine", id="imagine"):
                tiles, scene, scene_space = scenes_tab(state, first, model)
            with gr.Tab("Photo", id="photo"):
                photo, photo_space = photo_tab(state, first, model)
            with gr.Tab("3D", id="space") as space:
                show, source = space_tab(state, scene.picture, photo.picture)
            with gr.Tab("About", id="about"):
                card = gr.HTML(about.about_html(state.catalog.get(first), first), elem_id="about")

        for shown in (scene, photo):
            shown.listen()
        for button, name in ((scene_space, "Scene"), (photo_space, "Photo")):
            button.click(partial(_open_3d, name), None, [tabs, source], queue=False, **QUIET)
        # Turning to the tab selects it, whoever did it. Shown twice at once the mesh may never come: gradio drops the first
        show(space.select)
        show(source.input)

        def pick(reference: str, tiles: Value, scene: Value, photo: Value | None, *shape: str) -> tuple[Any, ...]:
            loaded = state.catalog.get(reference)
            choices = shapes(loaded)
            known = [value for _, value in choices]
            of_scene, of_photo = (chosen if chosen in known else "disc" for chosen in shape)
            if photo:
                photo |= {"model": reference, "note": None, "shape": of_photo}
                try:
                    photo["note"] = state.depth_image(reference, photo["photo"]).warning
                except UserError as error:  # the viewer shows it too
                    gr.Warning(escape(str(error)))
            return (
                tiles | {"model": reference},
                scene | {"model": reference, "shape": of_scene},
                photo,
                gr.Dropdown(choices, value=of_scene),
                gr.Dropdown(choices, value=of_photo),
                about.about_html(loaded, reference),
            )

        values = [tiles, scene.picture, photo.picture, scene.shape, photo.shape]
        model.input(show_errors(pick), [model, *values], [*values, card], **QUIET)
        # What was registered since the page was made
        blocks.load(lambda: gr.Dropdown(_entries(state)), None, model, queue=False, **QUIET)
    return blocks


def _open_3d(name: str) -> tuple[gr.Tabs, str]:
    return gr.Tabs(selected="space"), name


def _entries(state: StudioState) -> list[tuple[str, str]]:
    return [(entry.label, entry.reference) for entry in state.catalog.entries()]
