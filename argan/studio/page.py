"""The page, laid out with gradio. Photographs and scenes are shown by page.js, which asks routes.py for pictures."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from argan.bokeh import SHAPES
from argan.errors import UserError
from argan.photograph import PIXELS, RAW
from argan.studio import about, work
from argan.studio.desk import FILE_BYTES, Desk
from argan.studio.routes import application
from argan.studio.work import EXPORTS, Scene

HERE = Path(__file__).parent
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
JOBS = 2  # at a time; the others wait in gradio's queue
TYPES = [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", *RAW]
STAGE = """<figure class="stage"><div class="frame"><img alt="" draggable="false">
<button type="button" class="ring"></button></div><p class="nothing">@nothing</p><figcaption class="note" role="status"></figcaption></figure>"""

Value = dict[str, Any]


@dataclass(frozen=True)
class Stage:
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


def mounted(desk: Desk) -> FastAPI:
    """The page on its server."""
    colours = gr.themes.Base(
        primary_hue="neutral", secondary_hue="neutral", neutral_hue="stone", font=SANS, font_mono=MONO, radius_size="md"
    )
    return gr.mount_gradio_app(
        application(desk),
        page(desk),
        path="/",
        theme=colours,
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        max_file_size=FILE_BYTES,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
    )


def told(run: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong is said in the page, in one sentence."""

    @wraps(run)
    def ran(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except UserError as error:
            text = " ".join(str(error).split())
            raise gr.Error(text[:1].upper() + text[1:], print_exception=False) from error
        except (OSError, MemoryError) as error:
            raise gr.Error(f"This could not be done: {error or 'not enough memory'}", print_exception=False) from error

    return ran


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
                photo, photo_space = _photo(desk, model)
            with gr.Tab("3D", id="space") as space:
                show, source = _space(desk, scene.picture, photo.picture)
            with gr.Tab("About", id="about"):
                card = gr.HTML(about.fragment(desk.shelf.get(first), first), elem_id="about")

        for stage in (scene, photo):
            stage.listen()
        for button, name in ((scene_space, "Scene"), (photo_space, "Photo")):
            to = button.click(lambda name=name: (gr.Tabs(selected="space"), name), None, [tabs, source], queue=False, api_visibility="private")  # type: ignore[misc]  # fmt: skip
            show(to.then)
        show(space.select)
        show(source.input)

        def pick(reference: str, tiles: Value, scene: Value, photo: Value | None) -> tuple[Any, ...]:
            loaded = desk.shelf.get(reference)
            if photo:
                try:
                    photo |= {"model": reference, "note": desk.relief(reference, photo["photo"]).warning}
                except UserError as error:
                    gr.Warning(str(error))
            return (
                tiles | {"model": reference},
                scene | {"model": reference},
                photo,
                about.fragment(loaded, reference),
            )

        shown = [tiles, scene.picture, photo.picture, card]
        model.input(told(pick), [model, *shown[:3]], shown, show_progress="hidden", api_visibility="private")
        # What was registered since the page was made
        blocks.load(lambda: gr.Dropdown(_offers(desk)), None, model, show_progress="hidden", queue=False, api_visibility="private")
    return blocks


def _offers(desk: Desk) -> list[tuple[str, str]]:
    return [(offer.label, offer.reference) for offer in desk.shelf.offers()]


def _stage(name: str, views: list[str], nothing: str, value: Value | None = None) -> Callable[[], Stage]:
    """Puts the picture here, and returns what puts its controls there."""
    picture = gr.HTML(
        value,
        html_template=STAGE.replace("@nothing", nothing),
        js_on_load="argan.stage(element, props, watch)",
        elem_id=name,
        apply_default_css=False,
    )

    def controls() -> Stage:
        view = gr.Radio(views, value="Picture", label="Show", elem_id=f"{name}-view")
        aperture = gr.Slider(0, 4, 1, step=0.05, label="Aperture", elem_id=f"{name}-aperture", buttons=[])
        choices = [(shape[0].upper() + shape[1:], shape) for shape in SHAPES]
        shape = gr.Dropdown(choices, value="disc", label="Shape of its opening", elem_id=f"{name}-shape", filterable=False)
        return Stage(picture, aperture, shape, view)

    return controls


def grid(
    model: str, way: str, seed: float | None, truncation: float, start: float | None, end: float | None
) -> Value:
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
                way = gr.Radio(["Scenes", "From one to another"], value="Scenes", label="Show", elem_id="way", scale=2, min_width=220)
                seed = gr.Number(1, label="Seed", precision=0, minimum=0, maximum=work.SEEDS - 1, elem_id="seed", min_width=90)
                again = gr.Button("Surprise me", elem_id="again", min_width=120)
            with gr.Row(elem_classes="line"):
                truncation = gr.Slider(
                    0, 2, 1, step=0.05, label="Truncation", elem_id="truncation", buttons=[], min_width=220, scale=2,
                    info="Below 1: closer to the typical scene. Above: bolder.",
                )  # fmt: skip
                a = gr.Number(0, label="From scene", precision=0, minimum=0, maximum=9999, visible=False, elem_id="from", min_width=90)
                b = gr.Number(1, label="To scene", precision=0, minimum=0, maximum=9999, visible=False, elem_id="to", min_width=90)
        with gr.Column(scale=5, min_width=320, elem_classes="aside"):
            value = {
                "model": first, "scene": start["scenes"][0], "name": start["names"][0],
                "aperture": 1, "shape": "disc", "view": "Picture", "x": 0.5, "y": 0.5,
            }  # fmt: skip
            controls = _stage("scene", ["Picture", "Depth"], "Open a scene.", value)
            stage = controls()
            with gr.Row(elem_classes="line"):
                space = gr.Button("See it in 3D", elem_id="scene-space")
    quiet: Value = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    inputs = [model, way, seed, truncation, a, b]
    gr.on([seed.change, truncation.change, a.change, b.change], told(grid), inputs, tiles, **quiet)
    gr.on(
        way.input,
        told(lambda *inputs: (grid(*inputs), *(gr.Number(visible=inputs[1] != "Scenes") for _ in "ab"))),
        inputs,
        [tiles, a, b],
        **quiet,
    )
    again.click(lambda: random.randrange(1, 100_000), None, seed, **quiet)
    tiles.open(None, [tiles, *stage.controls], stage.picture, js="(...all) => argan.opened(...all)", api_visibility="private")
    return tiles, stage, space


def _photo(desk: Desk, model: gr.Dropdown) -> tuple[Stage, gr.Button]:
    with gr.Row(elem_classes="bench"):
        with gr.Column(scale=8, min_width=320):
            controls = _stage("picture", ["Picture", "Depth", "Confidence"], "Your photograph appears here.")
        with gr.Column(scale=3, min_width=260, elem_classes="aside"):
            file = gr.File(label="Your photo", show_label=False, file_types=TYPES, elem_id="drop", height=120, buttons=[])
            limits = f"up to {FILE_BYTES >> 20} MB and {PIXELS // 1_000_000} megapixels"
            gr.HTML(f"JPEG, PNG, WebP, TIFF, HEIC or camera raw, {limits}. It stays on this machine.", elem_classes="hint")
            name = gr.HTML("", elem_id="name", visible=False)
            with gr.Group(visible=False, elem_classes="plain") as tools:
                stage = controls()
                develop = gr.Button("Download full size", variant="primary", elem_id="develop")
                fetch = gr.DownloadButton("Download", elem_id="developed", elem_classes="fetch", visible=True)
                space = gr.Button("See it in 3D", elem_id="photo-space")

    def arrive(path: str, reference: str, aperture: float, shape: str, view: str) -> tuple[Any, ...]:
        photo = desk.receive(Path(path))
        note = desk.relief(reference, photo.token).warning
        value = {
            "model": reference, "photo": photo.token, "name": photo.name, "note": note,
            "aperture": aperture, "shape": shape, "view": view, "x": 0.5, "y": 0.5,
        }  # fmt: skip
        facts = f"{photo.width:,} × {photo.height:,} pixels"
        return value, gr.HTML(f"<b>{_text(photo.name)}</b> {facts}", visible=True), gr.Group(visible=True)

    # Whether or not it was a photo, the next can be dropped
    job: Value = {"concurrency_limit": JOBS, "concurrency_id": "jobs", "api_visibility": "private"}
    file.upload(
        told(arrive), [file, model, *stage.controls], [stage.picture, name, tools], show_progress_on=[file], **job
    ).then(lambda: None, None, file, queue=False, show_progress="hidden", api_visibility="private")

    def developed(value: Value) -> str:
        focus = float(value["x"]), float(value["y"])
        return str(desk.develop(value["photo"], value["model"], float(value["aperture"]), focus, value["shape"]))

    _download(develop, "Developing …", told(developed), [stage.picture], fetch, job)
    return stage, space


def _download(button: gr.Button, busy: str, make: Callable[..., str], inputs: list[Any], fetch: gr.DownloadButton, job: Value) -> None:
    """A button that makes a file, and then has the browser fetch it."""
    quiet: Value = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    label = button.value
    made = button.click(lambda: gr.Button(busy, interactive=False), None, button, **quiet).then(
        make, inputs, fetch, show_progress="hidden", **job
    )
    made.success(None, None, None, js=f"() => argan.fetched('{fetch.elem_id}')", api_visibility="private")
    made.then(lambda: gr.Button(label, interactive=True), None, button, **quiet)


def _space(desk: Desk, scene: gr.HTML, photo: gr.HTML) -> tuple[Callable[[Any], Any], gr.Radio]:
    with gr.Row(elem_classes="line"):
        source = gr.Radio(["Scene", "Photo"], value="Scene", label="Of the open", elem_id="source")
    with gr.Row(elem_classes="bench", equal_height=False):
        with gr.Column(scale=1, min_width=320):
            orbit = gr.Model3D(show_label=False, label="The mesh", elem_id="orbit", clear_color=(0, 0, 0, 0), height=480, interactive=False)
        with gr.Column(scale=1, min_width=320):
            wiggle = gr.HTML(
                None,
                html_template='<div class="field" role="img" tabindex="0" aria-label="Light field"></div>',
                js_on_load="argan.field(element, props, watch)",
                elem_id="wiggle",
                apply_default_css=False,
            )
    with gr.Row(elem_classes="line"):
        kind = gr.Dropdown(list(EXPORTS), value=next(iter(EXPORTS)), label="File for other programs", elem_id="kind", filterable=False, scale=2, min_width=240)
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
        stem = Path(value["name"]).stem if value.get("photo") else value["name"].lower().replace(" ", "-").replace("%", "-percent")
        return str(work.export(desk.shown(value), kind, desk.place(stem)))

    job: Value = {"concurrency_limit": JOBS, "concurrency_id": "jobs", "api_visibility": "private"}
    inputs = [source, scene, photo]
    _download(save, "Making it …", told(saved), [kind, *inputs], fetch, job)
    return lambda event: event(told(turned), inputs, [wiggle, orbit], show_progress="minimal", **job), source


def _text(name: str) -> str:
    from html import escape

    return escape(name, quote=True)
