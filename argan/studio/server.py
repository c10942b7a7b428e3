"""The studio over HTTP, on loopback alone.

Gradio's engine runs what takes longer (a photo's depth, a file to download): a queue, so that two people at once wait for each
other rather than fight for the processor, and an API for scripts (`gradio_client`). What follows the hand goes past the
queue, and only the newest of it is made. The page itself is plain files in page/.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

from argan.errors import UserError

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page may load nothing but what this server gives it, whatever slips into a model card.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
JOBS = 2  # at a time; the others wait in the queue


def serve(model: str | None, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises UserError where it cannot start."""
    _free(port)
    # Read when gradio is imported: it would report its use, and look for newer versions of itself.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    from argan.model import MODELS, locate

    if model is not None:
        locate(model)  # fails at once
    elif not any(MODELS.glob("*/config.json")):
        from argan.registry import versions

        with suppress(UserError):
            if found := versions():
                champions = [v for v in found if "champion" in v.aliases] or found
                model = f"models:/{champions[0].name}/{champions[0].version}"
        if model is None:
            raise UserError(
                "there is no model: neither in models/ nor in the registry; train one (make repro), or name a folder: "
                "argan studio FOLDER"
            )
    with tempfile.TemporaryDirectory(prefix="argan-studio-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            import gradio
        except ModuleNotFoundError as error:
            raise UserError("the studio needs gradio, which is not installed: pip install 'argan[studio]'") from error
        from argan.studio.desk import Desk, Shelf

        desk = Desk(Shelf(model), Path(folder))
        _warm(desk)
        app = application(desk)
        over = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: over.set())
        try:
            app.launch(
                server_name=HOST, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
                mcp_server=False, pwa=False, enable_monitoring=False, max_threads=16,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror or error}); name another: --port") from error
        address = f"http://{HOST}:{port}"
        say(f"argan studio at {address} (Ctrl-C ends it)")
        if browser:
            webbrowser.open(address)
        while not over.wait(3600):
            pass
        say("argan studio ends")
        gradio.close_all(verbose=False)


def _free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken; the studio may be running already (http://{HOST}:{port}); name another: --port {port + 1}"
            ) from error


def _warm(desk: Any) -> None:
    """Load the model and make the first scenes; compile what previews need while the first page is being looked at."""
    from argan.studio.work import Scene

    desk.scenes.get(desk.shelf.default(), Scene())

    def compile_all() -> None:
        import numpy as np

        from argan.bokeh import refocus
        from argan.lightfield import Field

        ramp = np.tile(np.linspace(-0.02, 0.05, 64, dtype=np.float32), (64, 1))
        grey = np.zeros((64, 64, 3), np.uint8)
        refocus(grey, ramp, 1.0)
        Field(grey, ramp).view(0.5, 0.5)

    threading.Thread(target=compile_all, daemon=True, name="compile").start()


def application(desk: Any) -> Any:
    """The gradio server with the studio's routes and jobs."""
    import gradio
    from fastapi import HTTPException, Query, Request
    from fastapi.responses import FileResponse, JSONResponse, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from argan import photograph
    from argan.bokeh import SHAPES, focus_pixel, refocus
    from argan.studio import about, work
    from argan.studio.desk import FILE_BYTES
    from argan.studio.work import Scene

    app = gradio.Server(title="argan studio", docs_url=None, redoc_url=None, openapi_url=None)
    # A page elsewhere that points its own name at this machine is not let in.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    previews = threading.Lock()

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, 400)

    @app.middleware("http")
    async def only_this_server(request: Request, call: Any) -> Response:
        response: Response = await call(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    # The page

    @app.get("/")
    def page() -> Response:
        text = (PAGE / "index.html").read_text(encoding="utf-8")
        shapes = "".join(f'<option value="{escape(s, quote=True)}">{escape(s.capitalize())}</option>' for s in SHAPES)
        return Response(
            text.replace("{shapes}", shapes).replace("{megabytes}", str(FILE_BYTES >> 20)),
            media_type="text/html",
            headers={"Cache-Control": "no-cache"},
        )

    @app.get("/page/{name}")
    def part(name: str) -> Response:
        path = PAGE / name
        if path.parent != PAGE or path.suffix not in TYPES or not path.is_file():
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    @app.get("/models")
    def models() -> dict[str, Any]:
        return {"models": [vars(offer) for offer in desk.shelf.offers()], "default": desk.shelf.default()}

    @app.get("/about")
    def card(model: str) -> Response:
        return Response(about.fragment(desk.shelf.get(model), model), media_type="text/html")

    @app.get("/card/{name}")
    def card_picture(name: str, model: str) -> Response:
        found = {path.name: path for path in about.pictures(desk.shelf.get(model))}
        if name not in found:
            raise HTTPException(404)
        return FileResponse(found[name])

    # Pictures. A scene's address says all about it.

    @app.get("/scene/{kind}")
    def scene(
        kind: Literal["image", "photo", "depth", "views", "mesh"],
        model: str,
        scene: Annotated[Scene, Query()],
    ) -> Response:
        made = desk.scenes.get(model, scene)
        return _picture(made, kind)

    @app.get("/photo/{kind}")
    def photo_picture(
        kind: Literal["image", "depth", "confidence", "views", "mesh"], photo: str, model: str
    ) -> Response:
        held = desk.photo(photo)
        if kind == "image":
            return Response(work.encoded(held.preview, "JPEG", held.icc), media_type="image/jpeg")
        if kind == "confidence":
            said = desk.estimate(held, model)
            return Response(work.encoded(work.confidence(held.preview, said.confidence)), media_type="image/webp")
        return _picture(desk.relief(held, model), kind)

    def _picture(made: work.Relief, kind: str) -> Response:
        if kind == "mesh":
            path = desk.place("scene.glb")
            work.export(made, "glb", path)
            content = path.read_bytes()
            path.unlink()
            path.parent.rmdir()
            return Response(content, media_type="model/gltf-binary")
        pixels = {
            "image": lambda: work.enlarged(made.image),
            "photo": lambda: work.enlarged(made.photo),
            "depth": lambda: work.enlarged(work.depth(made.disparity)),
            "views": lambda: work.sheet(made.views),
        }[kind]()
        return Response(work.encoded(pixels), media_type="image/webp", headers={"Cache-Control": "max-age=3600"})

    # Photographs

    @app.post("/photos")
    async def receive(request: Request, name: str = "photo") -> dict[str, Any]:
        limit = f"{name} is too large; the studio takes files up to {FILE_BYTES >> 20} MB"
        if int(request.headers.get("content-length") or 0) > FILE_BYTES:
            raise UserError(limit)
        path = desk.place(name)
        try:
            with path.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
                    if file.tell() > FILE_BYTES:
                        raise UserError(limit)
        except BaseException:  # a browser that leaves while it sends
            path.unlink(missing_ok=True)
            path.parent.rmdir()
            raise
        return {"photo": desk.received(path)}

    @app.get("/preview")
    def preview(
        photo: str, model: str, number: int, aperture: float, x: float, y: float, shape: str = "disc",
        highlight: float = 4.0, draft: bool = False,
    ) -> Response:  # fmt: skip
        held = desk.photo(photo)
        held.latest = max(held.latest, number)
        said = desk.estimate(held, model)
        with previews:  # each uses all processors; whoever waited may find that a newer one is wanted
            if number < held.latest:
                return Response(status_code=204)
            started = time.perf_counter()
            pixels, disparity = held.preview, said.disparity
            if draft:
                pixels = work.reduced(pixels, work.DRAFT)
                disparity = work.resized(disparity, pixels.shape[1] / disparity.shape[1])[: len(pixels)]
            made = refocus(pixels, disparity, aperture, (_within(x, "x"), _within(y, "y")), shape, _bright(highlight))
            content = work.encoded(made, "JPEG", held.icc)
            spent = 1000 * (time.perf_counter() - started)
        return Response(content, media_type="image/jpeg", headers={"Server-Timing": f"preview;dur={spent:.0f}"})

    def _within(value: float, name: str) -> float:
        if not 0 <= value <= 1:
            raise UserError(f"the focus is outside the photo: {name} is {value:g}, it must be from 0 to 1 of the frame")
        return value

    def _bright(value: float) -> float:
        if not 1 <= value <= 16:
            raise UserError(f"highlights must be from 1 to 16, got {value:g}")
        return value

    @app.get("/made/{token}")
    def made(token: str) -> Response:
        path = desk.file(token)
        if path is None:
            raise HTTPException(404, "this file is not kept any more; ask for it again")
        return FileResponse(path, filename=path.name)

    # Jobs, through gradio's queue

    def job(run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def told(*arguments: Any) -> Any:
            try:
                return run(*arguments)
            except UserError as error:
                raise gradio.Error(" ".join(str(error).split()), print_exception=False) from error
            except (OSError, MemoryError) as error:
                raise gradio.Error(f"this could not be done: {error or 'not enough memory'}", print_exception=False) from error

        app.api(told, name=run.__name__, concurrency_limit=JOBS, concurrency_id="jobs")
        return told

    @job
    def look(photo: str, model: str) -> dict[str, Any]:
        """The depth of a photograph: its size, a warning where it is unlike the domain's photos, mean confidence (0..1)."""
        held = desk.photo(photo)
        said = desk.estimate(held, model)
        return {
            "name": held.name, "width": held.width, "height": held.height, "warning": said.warning,
            "unlike": said.unlike, "confidence": round(float(said.confidence.mean()), 3),
        }  # fmt: skip

    @job
    def develop(photo: str, model: str, aperture: float, x: float, y: float, shape: str, highlight: float) -> dict[str, Any]:
        """The photograph at full size through an aperture: PNG with its profile, EXIF and 16 bits."""
        held = desk.photo(photo)
        taken = photograph.read(held.path)
        height, width = taken.pixels.shape[:2]
        focus = focus_pixel((_within(x, "x"), _within(y, "y")), width, height)
        disparity = desk.shelf.get(model).depth(taken)
        finished = refocus(taken.pixels, disparity, aperture, focus, shape, _bright(highlight))
        path = desk.place(f"{held.path.stem}.bokeh.png")
        photograph.write_png(path, finished, taken.icc, taken.exif)
        return {"file": f"made/{desk.keep(path)}", "name": path.name}

    @job
    def download(kind: str, model: str, photo: str | None, scene: dict[str, Any] | None) -> dict[str, Any]:
        """A file made of a photo or of a scene, {seed, index, truncation, to, at}: one of work.EXPORTS."""
        if kind not in work.EXPORTS:
            raise UserError(f"there is no download '{kind}'; there is: {', '.join(work.EXPORTS)}")
        if photo:
            held = desk.photo(photo)
            stem, source = held.path.stem, desk.relief(held, model)
        else:
            try:
                wanted = Scene(**(scene or {}))
                source = desk.scenes.get(model, wanted)
            except TypeError as error:
                raise UserError(f"a scene is seed, index, truncation, to and at; got {scene}") from error
            stem = f"scene-{wanted.seed}-{wanted.index}" + (f"-to-{wanted.to}-at-{wanted.at:g}" if wanted.to is not None else "")
        path = work.export(source, kind, desk.place(stem + work.EXPORTS[kind]))
        return {"file": f"made/{desk.keep(path)}", "name": path.name}

    return app
