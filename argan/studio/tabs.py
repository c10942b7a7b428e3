"""The tabs of the page: scenes, photo and 3D."""

from __future__ import annotations

import random
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from argan.errors import UserError
from argan.photos.photo_file import MAX_PIXELS, SUFFIXES
from argan.studio import images
from argan.studio.components import QUEUED, QUIET, Value, Viewer, download, shapes, show_errors, viewer
from argan.studio.images import EXPORTS, SceneAddress
from argan.studio.state import StudioState
from argan.studio.uploads import FILE_BYTES


def grid(model: str, way: str, seed: float | None, truncation: float, start: float | None, end: float | None) -> Value:
    """Scenes to choose from: the first ones of a seed, or steps between two of them. Raises UserError."""
    if None in (seed, start, end):
        raise UserError("seed and scenes are whole numbers")
    number, a, b = (int(x) for x in (seed, start, end) if x is not None)
    if way == "Scenes":
        scenes = [SceneAddress(number, i, truncation) for i in range(images.GRID)]
    else:
        scenes = [SceneAddress(number, a, truncation, b, images.step(i)) for i in range(images.GRID)]
    return {"model": model, "scenes": [s.address for s in scenes], "names": [s.name for s in scenes], "open": None}


def scenes_tab(state: StudioState, first: str, model: gr.Dropdown) -> tuple[gr.HTML, Viewer, gr.Button]:
    start = grid(first, "Scenes", 1, 1.0, 0, 1) | {"open": 0}
    with gr.Row(elem_classes="bench"):
        with gr.Column(scale=6, min_width=320):
            tiles = gr.HTML(
                start,
                html_template='<div class="tiles" role="group" aria-label="Scenes to open"></div>',
                js_on_load="argan.tiles(element, props, watch, () => trigger('open'))",
                elem_id="tiles",
                apply_default_css=False,
            )
            with gr.Row(elem_classes="line"):
                way = gr.Radio(
                    ["Scenes", "Interpolate"], value="Scenes", label="Show", elem_id="way", scale=2, min_width=200
                )
                seed = gr.Number(
                    1, label="Seed", precision=0, minimum=0, maximum=images.SEEDS - 1, elem_id="seed", min_width=90
                )
                again = gr.Button("Surprise me", elem_id="again", min_width=120)
            with gr.Row(elem_classes="line"):
                truncation = gr.Slider(
                    0, 2, 1, step=0.05, label="Truncation", elem_id="truncation", buttons=[], min_width=220, scale=2,
                    info="Below 1: closer to the typical scene. Above: bolder.",
                )  # fmt: skip
                a = gr.Number(
                    0,
                    label="From scene",
                    precision=0,
                    minimum=0,
                    maximum=9999,
                    visible=False,
                    elem_id="from",
                    min_width=90,
                )
                b = gr.Number(
                    1, label="To scene", precision=0, minimum=0, maximum=9999, visible=False, elem_id="to", min_width=90
                )
        with gr.Column(scale=5, min_width=320, elem_classes="aside"):
            value = {
                "model": first, "scene": start["scenes"][0], "name": start["names"][0],
                "aperture": 1, "shape": "disc", "view": "Picture", "x": 0.5, "y": 0.5,
            }  # fmt: skip
            controls = viewer("scene", ["Picture", "Depth"], "Open a scene.", shapes(state.catalog.get(first)), value)
            made = controls()
            with gr.Row(elem_classes="line"):
                space = gr.Button("See it in 3D", elem_id="scene-space")
    inputs = [model, way, seed, truncation, a, b]
    gr.on(
        [seed.change, truncation.change, a.change, b.change],
        show_errors(grid),
        inputs,
        tiles,
        **QUIET,
        trigger_mode="always_last",
    )
    gr.on(
        way.input,
        show_errors(lambda *inputs: (grid(*inputs), *(gr.Number(visible=inputs[1] != "Scenes") for _ in "ab"))),
        inputs,
        [tiles, a, b],
        **QUIET,
        trigger_mode="always_last",
    )
    again.click(lambda: random.randrange(1, 100_000), None, seed, **QUIET)
    tiles.open(
        None, [tiles, *made.controls], made.picture, js="(...all) => argan.opened(...all)", api_visibility="private"
    )
    return tiles, made, space


def photo_tab(state: StudioState, first: str, model: gr.Dropdown) -> tuple[Viewer, gr.Button]:
    with gr.Row(elem_classes="bench"):
        with gr.Column(scale=8, min_width=320):
            choices = shapes(state.catalog.get(first))
            controls = viewer("picture", ["Picture", "Depth", "Confidence"], "Your photograph appears here.", choices)
        with gr.Column(scale=3, min_width=260, elem_classes="aside"):
            file = gr.File(
                label="Your photo", show_label=False, file_types=[*SUFFIXES], elem_id="drop", height=136, buttons=[]
            )
            limits = f"up to {FILE_BYTES >> 20} MB and {MAX_PIXELS // 1_000_000} megapixels"
            gr.HTML(
                f"JPEG, PNG, WebP, TIFF, HEIC or camera raw, {limits}. It stays on this machine.", elem_classes="hint"
            )
            name = gr.HTML("", elem_id="name", visible=False)
            with gr.Group(visible=False, elem_classes="plain") as tools:
                made = controls()
                develop = gr.Button("Download full size", variant="primary", elem_id="develop")
                fetch = gr.DownloadButton("Download", elem_id="developed", elem_classes="fetch", visible=True)
                space = gr.Button("See it in 3D", elem_id="photo-space")

    def arrive(path: str, reference: str, aperture: float, shape: str, view: str) -> tuple[Any, ...]:
        """The last one empties the field: whether or not it was a photo, the next can be dropped."""
        try:
            photo = state.add_photo(Path(path))
            note = state.depth_image(reference, photo.token).warning
        except UserError as error:
            text = " ".join(str(error).split())
            gr.Warning(escape(text), title="Not opened")
            return gr.skip(), gr.HTML(f'<span class="wrong">{escape(text)}</span>', visible=True), gr.skip(), None
        value = {
            "model": reference, "photo": photo.token, "name": photo.name, "note": note,
            "aperture": aperture, "shape": shape, "view": view, "x": 0.5, "y": 0.5,
        }  # fmt: skip
        facts = f"{photo.width:,} × {photo.height:,} pixels"
        return value, gr.HTML(f"<b>{escape(photo.name)}</b> {facts}", visible=True), gr.Group(visible=True), None

    shown = [made.picture, name, tools, file]
    file.upload(show_errors(arrive), [file, model, *made.controls], shown, show_progress_on=[file], **QUEUED)

    def developed(value: Value) -> str:
        focus = float(value["x"]), float(value["y"])
        return str(state.write_bokeh(value["photo"], value["model"], float(value["aperture"]), focus, value["shape"]))

    download(develop, "Developing …", show_errors(developed), [made.picture], fetch)
    return made, space


def space_tab(state: StudioState, scene: gr.HTML, photo: gr.HTML) -> tuple[Callable[[Any], Any], gr.Radio]:
    with gr.Row(elem_classes="line"):
        source = gr.Radio(
            [("The open scene", "Scene"), ("Your photo", "Photo")], value="Scene", label="Show", elem_id="source"
        )
    with gr.Row(elem_classes="bench", equal_height=False):
        with gr.Column(scale=1, min_width=320):
            orbit = gr.Model3D(
                show_label=False,
                label="The mesh",
                elem_id="orbit",
                clear_color=(0, 0, 0, 0),
                height=400,
                interactive=False,
                camera_position=(90, 88, 1.3),
            )
            gr.HTML("Drag it or hold an arrow key to turn it; scroll or pinch to come closer.", elem_classes="hint")
        with gr.Column(scale=1, min_width=320):
            wiggle = gr.HTML(
                None,
                html_template='<div class="field" role="img" tabindex="0" aria-label="Light field"></div>',
                js_on_load="argan.field(element, props, watch)",
                elem_id="wiggle",
                apply_default_css=False,
            )
            gr.HTML("Point at it: your eye moves within the lens.", elem_classes="hint")
    with gr.Row(elem_classes="line"):
        kind = gr.Dropdown(
            list(EXPORTS),
            value=next(iter(EXPORTS)),
            label="File for other programs",
            elem_id="kind",
            filterable=False,
            scale=2,
            min_width=240,
        )
        save = gr.Button("Download", elem_id="save", variant="primary", min_width=160)
        fetch = gr.DownloadButton("Download", elem_id="saved", elem_classes="fetch")

    def chosen(which: str, scene: Value, photo: Value | None) -> Value:
        if which == "Photo" and not photo:
            raise UserError("there is no photo yet: drop one in the Photo tab")
        return photo if which == "Photo" and photo else scene

    def turned(*sources: Any) -> tuple[Value, str]:
        value = chosen(*sources)
        path = state.new_file("scene.glb")
        images.write_orbit(state.shown(value), path)
        return value, str(path)

    def saved(kind: str, *sources: Any) -> str:
        value = chosen(*sources)
        stem = (
            Path(value["name"]).stem
            if value.get("photo")
            else value["name"].lower().replace(" ", "-").replace("%", "-percent")
        )
        return str(images.export(state.shown(value), kind, state.new_file(stem)))

    inputs = [source, scene, photo]
    download(save, "Making it …", show_errors(saved), [kind, *inputs], fetch)
    return lambda event: event(show_errors(turned), inputs, [wiggle, orbit], show_progress="minimal", **QUEUED), source
