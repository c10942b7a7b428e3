"""`argan serve`: scenes, depth and bokeh over HTTP, the same as the commands make.

One process, its models loaded before it listens. A request's photograph goes into a file as it arrives and is refused at the first
byte too many; what it asks for is worked out by a thread, of which there are as many as cores, while QUEUE others wait their turn
and more are sent away. Work once begun cannot be broken off: it is bounded by the size of what it is asked for, and goes on
holding its place when its client has stopped waiting, so that no more is done at once than there are cores for.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argan import bokeh, photograph, pictures
from argan.errors import UserError
from argan.model import Model
from argan.sources.decode import register_heif

QUEUE = 16  # requests that wait for a thread; at a second each, the last waits as long as a person does
BYTES = 6  # of a file, per pixel that it may have: 16 bits a channel, not compressed
COUNT = 64  # scenes in a request
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)  # of the histogram


class Refused(Exception):
    """A request that is not done: its status, and one line of why and the way out."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Sample(BaseModel):
    """As the options of `argan sample`."""

    model_config = ConfigDict(extra="forbid")
    count: int = Field(default=1, ge=1, le=COUNT)
    seed: int = Field(default=0, ge=0, lt=2**63)


class Work:
    """The threads, and who may have one."""

    def __init__(self, seconds: float, registry: CollectorRegistry) -> None:
        self.seconds = seconds
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="argan")
        self.free = asyncio.Semaphore(os.cpu_count() or 1)
        self.waiting = 0
        Gauge("argan_waiting", "Requests that wait for a thread", registry=registry).set_function(lambda: self.waiting)
        self.running = Gauge("argan_running", "Requests that are being worked out", registry=registry)

    async def do(self, request: Request, job: Callable[[], Response]) -> Response:
        """job(), in a thread. Raises Refused when too many wait, or when it takes too long with the wait."""
        if self.free.locked() and self.waiting >= QUEUE:
            raise Refused(503, f"{QUEUE} requests wait already; try again later")
        self.waiting += 1
        try:
            async with asyncio.timeout(self.seconds):
                await self.free.acquire()
        except TimeoutError as error:
            raise Refused(503, f"no turn came within {self.seconds:g} s; try again later") from error
        finally:
            self.waiting -= 1
        if await request.is_disconnected():
            self.free.release()
            return Response(status_code=499)  # nobody hears it
        self.running.inc()
        future = asyncio.get_running_loop().run_in_executor(self.threads, job)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.seconds)
        except TimeoutError as error:
            raise Refused(504, f"not done within {self.seconds:g} s; send a smaller photo, or ask for less") from error

    def _done(self, future: asyncio.Future[Response]) -> None:
        self.free.release()
        self.running.dec()
        if not future.cancelled():
            future.exception()  # heard, though its client may have left


def application(models: Mapping[str, Model], megapixels: float = 30, seconds: float = 60) -> FastAPI:
    """The application: what docs/serving.md says. models: domain -> model; megapixels: of a photo; seconds: for a request."""
    registry = CollectorRegistry()
    requests = Counter("argan_requests", "Requests", ["what", "domain", "status"], registry=registry)
    took = Histogram("argan_request_seconds", "Time of requests", ["what"], buckets=SECONDS, registry=registry)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.work = Work(seconds, registry)
        yield
        app.state.work.threads.shutdown()

    # No pages of its own: FastAPI's take their scripts from elsewhere. The description is at /openapi.json.
    app = FastAPI(title="AR-GAN", docs_url=None, redoc_url=None, lifespan=life)

    app.add_middleware(Counted, domains=set(models), requests=requests, took=took)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return told(error.status, error.reason)

    @app.exception_handler(UserError)
    async def unusable(_: Request, error: UserError) -> Response:
        return told(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        return told(422, f"{name}: {first['msg'].lower()}" if name else first["msg"])

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return told(error.status_code, f"{error.detail}; /openapi.json says what there is")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return told(500, f"a fault of the server's ({type(error).__name__}); its log says more")

    def model(domain: str) -> Model:
        if domain not in models:
            raise Refused(404, f"no model of the domain '{domain[:60]}'; there is: {', '.join(models)}")
        return models[domain]

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """200 from the moment that photographs are taken to the moment that no more are."""
        return {"status": "ok", "models": list(models)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def list_models() -> list[dict[str, Any]]:
        """The models: their domain, resolution, largest disparity, and the fingerprint of their data."""
        return [
            {
                "domain": d,
                "resolution": m.config.resolution,
                "disparity_max": m.config.disparity_max,
                "recipe": m.config.recipe,
            }
            for d, m in models.items()
        ]

    @app.post("/v1/{domain}/sample")
    async def sample(domain: str, request: Request, asked: Sample | None = None) -> Response:
        """New scenes, as `argan sample` makes: a zip of <i>_image.png, <i>_photo.png and <i>_disparity.npy."""
        made, wanted = model(domain), asked or Sample()
        return await request.app.state.work.do(request, lambda: _sample(made, wanted))

    @app.post("/v1/{domain}/depth")
    async def depth(domain: str, request: Request) -> Response:
        """Depth of the photo in the body, as of `argan depth`: a zip of disparity.npy, depth.png, confidence.png."""
        seen = model(domain)
        async with _photo(request, megapixels, seconds) as path:
            return await request.app.state.work.do(request, lambda: _depth(seen, path, megapixels))

    @app.post("/v1/{domain}/bokeh")
    async def blurred(
        domain: str,
        request: Request,
        aperture: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 1.0,
        x: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.5,
        y: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.5,
        shape: str = "disc",
    ) -> Response:
        """The photo in the body, focused on (x, y), as of `argan bokeh`: a PNG with the photo's profile, EXIF and 16 bits."""
        made = model(domain)
        async with _photo(request, megapixels, seconds) as path:
            return await request.app.state.work.do(
                request, lambda: _bokeh(made, path, megapixels, aperture, (x, y), shape)
            )

    return app


class Counted:
    """Counts every answer, and how long the good ones took."""

    def __init__(self, app: ASGIApp, domains: set[str], requests: Counter, took: Histogram) -> None:
        self.app, self.domains, self.requests, self.took = app, domains, requests, took

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            version, _, rest = scope["path"].strip("/").partition("/")
            domain, _, what = rest.partition("/")  # labels are known names alone: each is kept for ever
            known = version == "v1" and domain in self.domains and what in ("sample", "depth", "bokeh")
            self.requests.labels(what if known else "", domain if known else "", status).inc()
            if known and status == 200:
                self.took.labels(what).observe(time.perf_counter() - start)


def told(status: int, reason: str) -> Response:
    headers = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": " ".join(reason.split())}, status, headers)


# ---- What is asked for -----------------------------------------------------------------------------------------------


def _sample(model: Model, asked: Sample) -> Response:
    files: dict[str, bytes] = {}
    scenes = model.sample(asked.count, asked.seed)
    for i, (image, photo, disparity) in enumerate(zip(scenes.images, scenes.photos, scenes.disparity, strict=True)):
        files |= {f"{i}_image.png": pictures.png(image), f"{i}_photo.png": pictures.png(photo)}
        files[f"{i}_disparity.npy"] = _npy(disparity)
    return _zip(files)


def _depth(model: Model, path: Path, megapixels: float) -> Response:
    said = model.estimate(_read(path, megapixels))
    files = {
        "disparity.npy": _npy(said.disparity),
        "depth.png": pictures.png(pictures.depth_colors(said.disparity)),
        "confidence.png": pictures.png((said.confidence * 255).round().astype(np.uint8)),
    }
    return _zip(files, said.warning)


def _bokeh(
    model: Model, path: Path, megapixels: float, aperture: float, focus: tuple[float, float], shape: str
) -> Response:
    photo = _read(path, megapixels)
    made = model.bokeh(photo, aperture, focus, shape)
    return Response(photograph.png(made, photo.icc, photo.exif), media_type="image/png")


def _read(path: Path, megapixels: float) -> photograph.Photograph:
    """The photograph, refused before it is decoded where it has too many pixels."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Exception:  # said better by `read`
        width = height = 0
    if width * height > megapixels * 1e6:
        raise Refused(
            413, f"the photo has {width} x {height} pixels, more than {megapixels:g} million; send it smaller"
        )
    try:
        return photograph.read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), "what was sent")) from error


@asynccontextmanager
async def _photo(request: Request, megapixels: float, seconds: float) -> AsyncIterator[Path]:
    """The body, as a file, for as long as it is needed."""
    largest = int(BYTES * megapixels * 1e6)
    kind = request.headers.get("content-type", "")
    if kind.startswith(("multipart/", "application/x-www-form-urlencoded")):
        raise Refused(
            415,
            "send the photo itself as the body, such as with curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'",
        )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > largest:
        raise Refused(413, f"the photo has {int(length):,} bytes, more than {largest:,}; send it smaller")
    with tempfile.TemporaryDirectory(prefix="argan-serve-") as folder:
        path, size = Path(folder) / "photo", 0
        with path.open("wb") as file:
            try:
                async with asyncio.timeout(seconds):
                    async for part in request.stream():
                        size += len(part)
                        if size > largest:
                            raise Refused(413, f"the photo has more than {largest:,} bytes; send it smaller")
                        file.write(part)
            except ClientDisconnect as error:
                raise Refused(499, "its sender has left") from error
            except TimeoutError as error:
                raise Refused(408, f"the photo did not arrive within {seconds:g} s") from error
        if size == 0:
            raise Refused(422, "there is no photo in the body")
        yield path


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zip(files: Mapping[str, bytes], warning: str | None = None) -> Response:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # stored: PNGs are compressed already
        for name, content in files.items():
            archive.writestr(name, content)
    headers = {"Argan-Warning": warning} if warning else None
    return Response(file.getvalue(), media_type="application/zip", headers=headers)


# ---- The server ------------------------------------------------------------------------------------------------------


def serve(references: list[str], host: str, port: int, megapixels: float, seconds: float) -> None:
    """Load the models, listen, and serve until SIGTERM or Ctrl-C, which let what was begun end. Raises UserError."""
    models: dict[str, Model] = {}
    for reference in references:
        model = Model.load(reference)
        if model.domain in models:
            raise UserError(f"{reference} is a second model of the domain '{model.domain}'; serve it at another --port")
        models[model.domain] = model
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
        # asyncio does so for sockets of its own alone; without, an answer takes 40 ms more
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
    warm(models)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    print(f"serving {', '.join(models)} at {address}; Ctrl-C ends it", flush=True)
    if not host.startswith("127.") and host not in ("localhost", "::1"):
        print("warning: no password is asked for: put a proxy with one in front", file=sys.stderr, flush=True)
    settings = uvicorn.Config(
        application(models, megapixels, seconds),
        log_level="warning",
        timeout_graceful_shutdown=round(seconds) + 5,
        server_header=False,
    )
    # Both are raised again by uvicorn when all has ended; SIGINT is heard though a shell's background job is deaf to it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    uvicorn.Server(settings).run(sockets=[listener])


def warm(models: Mapping[str, Model]) -> None:
    """Read and compile all that a first request would wait for. Raises UserError for a model that is not whole."""
    register_heif()
    torch.set_num_threads(1)  # a thread for each of several requests
    grey = np.full((96, 96, 3), 128, np.uint8)
    for model in models.values():
        model.sample(1)
        disparity = model.estimate(grey).disparity
    bokeh.refocus(grey, disparity + np.linspace(0, 0.1, 96, dtype=np.float32), 1.0)
