"""The page, laid out with gradio. Photographs and scenes are shown by page.js, which asks routes.py for pictures."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder

from argan.errors import UserError
from argan.photos.photo_file import MAX_PIXELS, SUFFIXES
from argan.studio import about, work
from argan.studio.desk import Desk
from argan.studio.parts import JOB, QUIET, Stage, Value, download, shapes, stage, told
from argan.studio.routes import application
from argan.studio.uploads import FILE_BYTES
from argan.studio.work import EXPORTS, Scene

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
TYPES = [*SUFFIXES]


def mounted(desk: Desk) -> FastAPI:
    """The page on its server."""
    colours = gr.themes.Base(
        primary_hue="neutral", secondary_hue="neutral", neutral_hue="stone", font=SANS, font_mono=MONO, radius_size="md"
    )
    return gr.mount_gradio_app(
        application(desk, Path(get_upload_folder())),
        page(desk),
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


def page(desk: Desk) -> gr.Blocks:
    first = desk.shelf.default
    with gr.Blocks(title="AR-GAN studio", analytics_enabled=False, delete_cache=(300, 3600)) as blocks:
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>AR-GAN <span>studio</span></h1>", scale=3, min_width=160)
            model = gr.Dropdown(_offers(desk), value=first, label="Model", elem_id="model", scale=1, min_width=200)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Imagine", id="imagine"):
                tiles, scene, scene_space = _imagine(desk, first, model)
            with gr.Tab("Photo", id="photo"):
                photo, photo_space = _photo(desk, first, model)
            with gr.Tab("3D", id="space") as space:
                show, source = _space(desk, scene.picture, photo.picture)
            with gr.Tab("About", id="about"):
                card = gr.HTML(about.fragment(desk.shelf.get(first), first), elem_id="about")

        for shown in (scene, photo):
            shown.listen()
        for button, name in ((scene_space, "Scene"), (photo_space, "Photo")):
            button.click(partial(_turn_to, name), None, [tabs, source], queue=False, **QUIET)
        # Turning to the tab selects it, whoever did it. Shown twice at once the mesh may never come: gradio drops the first
        show(space.select)
        show(source.input)

        def pick(reference: str, tiles: Value, scene: Value, photo: Value | None, *shape: str) -> tuple[Any, ...]:
            loaded = desk.shelf.get(reference)
            choices = shapes(loaded)
            known = [value for _, value in choices]
            of_scene, of_photo = (chosen if chosen in known else "disc" for chosen in shape)
            if photo:
                photo |= {"model": reference, "note": None, "shape": of_photo}
                try:
                    photo["note"] = desk.relief(reference, photo["photo"]).warning
                except UserError as error:  # the stage says it too, and stays on show
                    gr.Warning(escape(str(error)))
            return (
                tiles | {"model": reference},
                scene | {"model": reference, "shape": of_scene},
                photo,
                gr.Dropdown(choices, value=of_scene),
                gr.Dropdown(choices, value=of_photo),
                about.fragment(loaded, reference),
            )

        values = [tiles, scene.picture, photo.picture, scene.shape, photo.shape]
        model.input(told(pick), [model, *values], [*values, card], **QUIET)
        # What was registered since the page was made
        blocks.load(lambda: gr.Dropdown(_offers(desk)), None, model, queue=False, **QUIET)
    return blocks


def _turn_to(name: str) -> tuple[gr.Tabs, str]:
    return gr.Tabs(selected="space"), name


def _offers(desk: Desk) -> list[tuple[str, str]]:
    return [(offer.label, offer.reference) for offer in desk.shelf.offers()]


def grid(model: str, way: str, seed: float | None, truncation: float, start: float | None, end: float | None) -> Value:
    """Scenes to choose from: the first ones of a seed, or steps between two of them. Raises UserError."""
    if None in (seed, start, end):
        raise UserError("seed and scenes are whole numbers")
    number, a, b = (int(x) for x in (seed, start, end) if x is not None)
    if way == "Scenes":
        scenes = [Scene(number, i, truncation) for i in range(work.GRID)]
    else:
        scenes = [Scene(number, a, truncation, b, work.step(i)) for i in range(work.GRID)]
    return {"model": model, "scenes": [s.address for s in scenes], "names": [s.name for s in scenes], "open": None}


def _imagine(desk: Desk, first: str, model: gr.Dropdown) -> tuple[gr.HTML, Stage, gr.Button]:
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
                    1, label="Seed", precision=0, minimum=0, maximum=work.SEEDS - 1, elem_id="seed", min_width=90
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
            controls = stage("scene", ["Picture", "Depth"], "Open a scene.", shapes(desk.shelf.get(first)), value)
            made = controls()
            with gr.Row(elem_classes="line"):
                space = gr.Button("See it in 3D", elem_id="scene-space")
    inputs = [model, way, seed, truncation, a, b]
    gr.on(
        [seed.change, truncation.change, a.change, b.change],
        told(grid),
        inputs,
        tiles,
        **QUIET,
        trigger_mode="always_last",
    )
    gr.on(
        way.input,
        told(lambda *inputs: (grid(*inputs), *(gr.Number(visible=inputs[1] != "Scenes") for _ in "ab"))),
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


def _photo(desk: Desk, first: str, model: gr.Dropdown) -> tuple[Stage, gr.Button]:
    with gr.Row(elem_classes="bench"):
        with gr.Column(scale=8, min_width=320):
            choices = shapes(desk.shelf.get(first))
            controls = stage("picture", ["Picture", "Depth", "Confidence"], "Your photograph appears here.", choices)
        with gr.Column(scale=3, min_width=260, elem_classes="aside"):
            file = gr.File(
                label="Your photo", show_label=False, file_types=TYPES, elem_id="drop", height=136, buttons=[]
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
            photo = desk.receive(Path(path))
            note = desk.relief(reference, photo.token).warning
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
    file.upload(told(arrive), [file, model, *made.controls], shown, show_progress_on=[file], **JOB)

    def developed(value: Value) -> str:
        focus = float(value["x"]), float(value["y"])
        return str(desk.develop(value["photo"], value["model"], float(value["aperture"]), focus, value["shape"]))

    download(develop, "Developing …", told(developed), [made.picture], fetch)
    return made, space


def _space(desk: Desk, scene: gr.HTML, photo: gr.HTML) -> tuple[Callable[[Any], Any], gr.Radio]:
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
        path = desk.place("scene.glb")
        work.write_orbit(desk.shown(value), path)
        return value, str(path)

    def saved(kind: str, *sources: Any) -> str:
        value = chosen(*sources)
        stem = (
            Path(value["name"]).stem
            if value.get("photo")
            else value["name"].lower().replace(" ", "-").replace("%", "-percent")
        )
        return str(work.export(desk.shown(value), kind, desk.place(stem)))

    inputs = [source, scene, photo]
    download(save, "Making it …", told(saved), [kind, *inputs], fetch)
    return lambda event: event(told(turned), inputs, [wiggle, orbit], show_progress="minimal", **JOB), source
