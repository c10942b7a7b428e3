"""`argan serve`: scenes, depth and bokeh over HTTP, the same as the commands make.

The server holds connections and files; the work is done by processes (workers.py), of which there are as many as cores, while
QUEUE other requests wait for one, and more are refused before their bodies are received. A photograph goes into a file as it
arrives, and the answer comes out of one, so neither a slow sender nor a slow reader holds a worker. Work that takes too long, or
whose client has left, is killed.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argan.errors import UserError
from argan.serving.http_connections import BACKLOG, limits, protocol
from argan.serving.http_guard import LOOPBACK, RequestGuard
from argan.serving.http_limits import RETRY, Admission, BodyLimit
from argan.serving.workers import Late, Lost, NoTurn, Pool, Template

QUEUE = 16  # requests that wait for a worker; at a second each, the last waits as long as a person does
BYTES = 6  # of a file, per pixel that it may have: 16 bits a channel, not compressed
JSON_BYTES = 1 << 16  # of the options of a request, which take a hundred
COUNT = 64  # scenes in a request
CHUNK = 1 << 18  # bytes of an answer that are held in memory while they are sent
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)  # of the histogram
WORK = ("sample", "depth", "bokeh")


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


class Answer(Response):
    """A file that a worker has written; it may be unlinked once this is made."""

    def __init__(self, path: Path, media: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media, headers=headers)
        self.file = path.open("rb")
        self.headers["content-length"] = str(path.stat().st_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file as file:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            left = int(self.headers["content-length"])
            while left:
                part = file.read(CHUNK)
                left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": left > 0})


def application(
    pool: Pool,
    models: list[dict[str, Any]],
    hosts: Collection[str] = LOOPBACK,
    megapixels: float = 30,
    seconds: float = 60,
) -> ASGIApp:
    """The application: what docs/serving.md says.

    pool: its workers do the jobs of jobs.py. models: what `GET /v1/models` answers. hosts: names that clients may call
    the server by. megapixels: of a photo. seconds: for a body to arrive, to wait for a worker, and to be done, each.
    """
    domains = [model["domain"] for model in models]
    registry = CollectorRegistry()
    requests = Counter("argan_requests", "Requests", ["what", "domain", "status"], registry=registry)
    took = Histogram("argan_request_seconds", "Time of requests", ["what"], buckets=SECONDS, registry=registry)
    Gauge("argan_waiting", "Requests that wait for a worker", registry=registry).set_function(lambda: pool.waiting)
    Gauge("argan_running", "Requests that are worked on", registry=registry).set_function(lambda: pool.running)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.open()
        yield
        await pool.close()

    # No pages of its own: FastAPI's take their scripts from elsewhere. The description is at /openapi.json.
    app = FastAPI(title="AR-GAN", docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _error(error.status, error.reason)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        return _error(422, f"{name}: {first['msg'].lower()}" if name else first["msg"])

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, f"{error.detail}; /openapi.json says what there is")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return _error(500, f"a fault of the server's ({type(error).__name__}); its log says more")

    async def done(domain: str, what: str, folder: Path, **options: Any) -> Response:
        """What a worker makes of the job."""
        job = {"what": what, "domain": domain, "folder": str(folder), **options}
        try:
            reply = await pool.run(job, seconds)
        except NoTurn as error:
            raise Refused(503, f"no turn came within {seconds:g} s; try again later") from error
        except Late as error:
            raise Refused(504, f"not done within {seconds:g} s; send a smaller photo, or ask for less") from error
        except Lost as error:
            raise Refused(503, "the process that worked on it ended, perhaps for lack of memory; try again") from error
        if "fault" in reply:
            raise Refused(500, f"a fault of the server's ({reply['fault']}); its log says more")
        if "error" in reply:
            raise Refused(reply["status"], reply["error"])
        return Answer(folder / "answer", reply["media"], reply.get("headers", {}))

    def check(domain: str) -> None:
        if domain not in domains:
            raise Refused(404, f"no model of the domain '{domain[:60]}'; there is: {', '.join(domains)}")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """200 from the moment that photographs are taken to the moment that no more are."""
        return {"status": "ok", "models": domains}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def list_models() -> list[dict[str, Any]]:
        """The models: their domain, resolution, largest disparity and recipe."""
        return models

    @app.post("/v1/{domain}/sample")
    async def sample(domain: str, asked: Sample | None = None) -> Response:
        """New scenes, as `argan sample` makes: a zip of <i>_image.png, <i>_photo.png and <i>_disparity.npy."""
        check(domain)
        with _folder() as folder:
            return await done(domain, "sample", folder, **(asked or Sample()).model_dump())

    @app.post("/v1/{domain}/depth")
    async def depth(domain: str, request: Request) -> Response:
        """Depth of the photo in the body, as of `argan depth`: a zip of disparity.npy, depth.png, confidence.png."""
        check(domain)
        with _folder() as folder:
            await _receive(request, folder / "photo")
            return await done(domain, "depth", folder)

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
        check(domain)
        with _folder() as folder:
            await _receive(request, folder / "photo")
            return await done(domain, "bokeh", folder, aperture=aperture, focus=(x, y), shape=shape)

    def work(scope: Scope) -> str:
        """Which of WORK a request asks for, of a model that there is; else nothing."""
        domain, what = _parts(scope)
        return what if scope["method"] == "POST" and domain in domains and what in WORK else ""

    def most(scope: Scope) -> int:
        return int(BYTES * megapixels * 1e6) if work(scope) in ("depth", "bokeh") else JSON_BYTES

    admitted = Admission(app, pool.count + QUEUE, lambda scope: bool(work(scope)))
    counted = Counted(BodyLimit(admitted, most, seconds), set(domains), requests, took)
    return RequestGuard(counted, hosts)


def _parts(scope: Scope) -> tuple[str, str]:
    """Domain and last part of /v1/{domain}/{what}."""
    version, _, rest = scope["path"].strip("/").partition("/")
    domain, _, what = rest.partition("/")
    return (domain, what) if version == "v1" else ("", "")


class Counted:
    """Counts every answer, and how long the good ones took."""

    def __init__(self, app: ASGIApp, domains: set[str], requests: Counter, took: Histogram) -> None:
        self.app, self.domains, self.requests, self.took = app, domains, requests, took

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, counted = time.perf_counter(), 499, False  # 499 where the client left before there was an answer
        domain, what = _parts(scope)
        known = domain in self.domains and what in WORK  # labels are known names alone: each is kept for ever

        def count() -> None:
            nonlocal counted
            if not counted:
                counted = True
                self.requests.labels(what if known else "", domain if known else "", status).inc()
                if known and status == 200:
                    self.took.labels(what).observe(time.perf_counter() - start)

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                count()  # before the client knows that it is answered, and may ask for the numbers
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            count()


def _error(status: int, reason: str) -> Response:
    headers = {"Retry-After": str(RETRY)} if status == 503 else None
    return JSONResponse({"error": " ".join(reason.split())}, status, headers)


@contextmanager
def _folder() -> Iterator[Path]:
    """Where a request's files lie until it is answered."""
    with tempfile.TemporaryDirectory(prefix="argan-serve-") as folder:
        yield Path(folder)


async def _receive(request: Request, path: Path) -> None:
    """The body, as a file."""
    if request.headers.get("content-type", "").startswith(("multipart/", "application/x-www-form-urlencoded")):
        raise Refused(
            415,
            "send the photo itself as the body, such as with curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'",
        )
    size = 0
    with path.open("wb") as file:
        try:
            async for part in request.stream():
                size += file.write(part)
        except ClientDisconnect as error:
            raise Refused(499, "its sender has left") from error
    if size == 0:
        raise Refused(422, "there is no photo in the body")


# ---- The server ------------------------------------------------------------------------------------------------------


def serve(
    references: list[str], host: str, port: int, megapixels: float, seconds: float, names: Collection[str] = ()
) -> None:
    """Load the models, listen, and serve until SIGTERM or Ctrl-C, which let what was begun end. Raises UserError.

    names: by which the server is called beside its address, such as those that a proxy passes on in the Host header.
    """
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does so for sockets of its own alone; without, an answer takes 40 ms more
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
    with listener, Template("argan.serving.jobs:prepare", [references, megapixels]) as template:
        try:
            listener.listen(BACKLOG)  # not before the models are there: until then connections are refused
        except OSError as error:
            raise UserError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
        domains = ", ".join(model["domain"] for model in template.facts)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"serving {domains} at {address}; Ctrl-C ends it", flush=True)
        if not _loopback(host):
            print("warning: no password is asked for: put a proxy with one in front", file=sys.stderr, flush=True)
        lost = False

        def failed() -> None:
            nonlocal lost
            lost = server.should_exit = True

        pool = Pool(template, os.cpu_count() or 1, failed)
        settings = uvicorn.Config(
            application(pool, template.facts, {*LOOPBACK, host, *names}, megapixels, seconds),
            http=protocol(limits()),
            backlog=BACKLOG,
            ws="none",
            log_level="warning",
            timeout_graceful_shutdown=round(seconds) + 5,
            server_header=False,
        )
        server = uvicorn.Server(settings)
        # Both are raised again by uvicorn when all has ended; SIGINT is heard though a shell's background job is deaf to it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        server.run(sockets=[listener])
        if lost:  # a supervisor starts all of it again
            print("error: the process that workers come from has ended, perhaps for lack of memory", file=sys.stderr)
            sys.exit(1)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
