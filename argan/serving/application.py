"""The HTTP application of `argan serve`: its routes, and what a request may ask for."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from argan.serving.http_guard import LOOPBACK, RequestGuard
from argan.serving.http_limits import RETRY_AFTER, Admission, BodyLimit
from argan.serving.metrics import Metrics, RequestMetrics
from argan.serving.workers import NoWorkerAvailable, Pool, WorkerCrashed, WorkerTimeout

QUEUE = 16  # requests that wait for a worker; at a second each, the last waits as long as a person does
BYTES_PER_PIXEL = 6  # of a file, per pixel that it may have: 16 bits a channel, not compressed
JSON_BYTES = 1 << 16  # of the options of a request, which take a hundred
MAX_SCENES = 64  # in a request
CHUNK_BYTES = 1 << 18  # of an answer that are held in memory while they are sent
JOBS = ("sample", "depth", "bokeh")


class RequestError(Exception):
    """A request that is refused or has failed: its status, and one line that says why and what to do."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Sample(BaseModel):
    """As the options of `argan sample`."""

    model_config = ConfigDict(extra="forbid")
    count: int = Field(default=1, ge=1, le=MAX_SCENES)
    seed: int = Field(default=0, ge=0, lt=2**63)


class OpenFileResponse(Response):
    """A file that a worker has written. It is opened at once, so it may be unlinked before it is sent."""

    def __init__(self, path: Path, media: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media, headers=headers)
        self.file = path.open("rb")
        self.headers["content-length"] = str(path.stat().st_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file as file:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            left = int(self.headers["content-length"])
            while left:
                part = file.read(CHUNK_BYTES)
                left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": left > 0})


@dataclass(frozen=True)
class Service:
    """The workers, the models they serve, and the limits of a request.

    models: what `GET /v1/models` answers. megapixels: of a photo. seconds: for a body to arrive, to wait for a worker, and to be
    done, each.
    """

    pool: Pool
    models: list[dict[str, Any]]
    megapixels: float
    seconds: float
    metrics: Metrics

    @property
    def domains(self) -> list[str]:
        return [model["domain"] for model in self.models]

    def job_kind(self, scope: Scope) -> str:
        """Which of JOBS a request asks for, of a model that there is; else nothing."""
        domain, kind = self.route(scope)
        return kind if scope["method"] == "POST" and domain else ""

    def route(self, scope: Scope) -> tuple[str, str]:
        """Domain and job of the path /v1/{domain}/{job}; ("", "") for any other path, domain or job."""
        match scope["path"].strip("/").split("/", 2):
            case ["v1", domain, job] if domain in self.domains and job in JOBS:
                return domain, job
        return "", ""

    def body_limit(self, scope: Scope) -> int:
        """The bytes that the body of a request may have."""
        photo = self.job_kind(scope) in ("depth", "bokeh")
        return int(BYTES_PER_PIXEL * self.megapixels * 1e6) if photo else JSON_BYTES

    def check(self, domain: str) -> None:
        if domain not in self.domains:
            reason = f"no model of the domain '{domain[:60]}'; there is: {', '.join(self.domains)}"
            raise RequestError(404, reason)

    async def run(self, kind: str, domain: str, folder: Path, **options: Any) -> Response:
        """The answer that a worker writes into `folder`. Raises RequestError."""
        job = {"kind": kind, "domain": domain, "folder": str(folder), **options}
        try:
            reply = await self.pool.run(job, self.seconds)
        except NoWorkerAvailable as error:
            raise RequestError(503, f"no turn came within {self.seconds:g} s; try again later") from error
        except WorkerTimeout as error:
            reason = f"not done within {self.seconds:g} s; send a smaller photo, or ask for less"
            raise RequestError(504, reason) from error
        except WorkerCrashed as error:
            reason = "the process that worked on it ended, perhaps for lack of memory; try again"
            raise RequestError(503, reason) from error
        if "fault" in reply:
            raise RequestError(500, _fault(reply["fault"]))
        if "error" in reply:
            raise RequestError(reply["status"], reply["error"])
        return OpenFileResponse(folder / "answer", reply["media"], reply.get("headers", {}))


def application(
    pool: Pool,
    models: list[dict[str, Any]],
    hosts: Collection[str] = LOOPBACK,
    megapixels: float = 30,
    seconds: float = 60,
) -> ASGIApp:
    """The application that docs/serving.md describes. See `Service`; hosts: names that clients may call the server by."""
    service = Service(pool, models, megapixels, seconds, Metrics(pool))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.open()
        yield
        await pool.close()

    # No pages of its own: FastAPI's take their scripts from elsewhere. The description is at /openapi.json.
    app = FastAPI(title="AR-GAN", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.include_router(routes)
    app.exception_handler(RequestError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_unknown)
    app.exception_handler(Exception)(_failed)
    admission = Admission(app, pool.count + QUEUE, lambda scope: bool(service.job_kind(scope)))
    limited = BodyLimit(admission, service.body_limit, seconds)
    return RequestGuard(RequestMetrics(limited, service.metrics, service.route), hosts)


# Routes

routes = APIRouter()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
Fraction = Annotated[float, Query(ge=0, allow_inf_nan=False)]


@routes.get("/health")
async def health(service: ServiceDependency) -> dict[str, Any]:
    """200 from the moment that photographs are taken to the moment that no more are."""
    return {"status": "ok", "models": service.domains}


@routes.get("/metrics")
async def metrics(service: ServiceDependency) -> Response:
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@routes.get("/v1/models")
async def list_models(service: ServiceDependency) -> list[dict[str, Any]]:
    """The models: their domain, resolution, largest disparity and recipe."""
    return service.models


@routes.post("/v1/{domain}/sample")
async def sample(domain: str, service: ServiceDependency, options: Sample | None = None) -> Response:
    """New scenes, as `argan sample` makes: a zip of <i>_image.png, <i>_photo.png and <i>_disparity.npy."""
    service.check(domain)
    with _request_folder() as folder:
        return await service.run("sample", domain, folder, **(options or Sample()).model_dump())


@routes.post("/v1/{domain}/depth")
async def depth(domain: str, request: Request, service: ServiceDependency) -> Response:
    """Depth of the photo in the body, as of `argan depth`: a zip of disparity.npy, depth.png, confidence.png."""
    service.check(domain)
    with _request_folder() as folder:
        await _save_body(request, folder / "photo")
        return await service.run("depth", domain, folder)


@routes.post("/v1/{domain}/bokeh", name="blurred")  # the name is the operation's in /openapi.json
async def bokeh(
    domain: str,
    request: Request,
    service: ServiceDependency,
    aperture: Fraction = 1.0,
    x: Fraction = 0.5,
    y: Fraction = 0.5,
    shape: str = "disc",
) -> Response:
    """The photo in the body, focused on (x, y), as of `argan bokeh`: a PNG with the photo's profile, EXIF and 16 bits."""
    service.check(domain)
    with _request_folder() as folder:
        await _save_body(request, folder / "photo")
        return await service.run("bokeh", domain, folder, aperture=aperture, focus=(x, y), shape=shape)


@contextmanager
def _request_folder() -> Iterator[Path]:
    """Where a request's files lie until it is answered."""
    with tempfile.TemporaryDirectory(prefix="argan-serve-") as folder:
        yield Path(folder)


async def _save_body(request: Request, path: Path) -> None:
    """Write the body into a file. Raises RequestError."""
    if request.headers.get("content-type", "").startswith(("multipart/", "application/x-www-form-urlencoded")):
        example = "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'"
        raise RequestError(415, f"send the photo itself as the body, such as with {example}")
    size = 0
    with path.open("wb") as file:
        try:
            async for part in request.stream():
                size += file.write(part)
        except ClientDisconnect as error:
            raise RequestError(499, "its sender has left") from error
    if size == 0:
        raise RequestError(422, "there is no photo in the body")


# Errors


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, error.reason)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    return _error(422, f"{name}: {first['msg'].lower()}" if name else first["msg"])


def _unknown(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{error.detail}; /openapi.json says what there is")


def _failed(_: Request, error: Exception) -> Response:
    return _error(500, _fault(type(error).__name__))


def _fault(name: str) -> str:
    return f"a fault of the server's ({name}); its log says more"


def _error(status: int, reason: str) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
    return JSONResponse({"error": " ".join(reason.split())}, status, headers)
