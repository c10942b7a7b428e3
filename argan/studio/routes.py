"""Pictures that follow the hand: asked for by page.js, served past gradio's queue, kept nowhere.

A scene's address says all about it; a photograph's holds the token that its page was given.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argan.errors import UserError
from argan.serving.http_guard import RequestGuard
from argan.serving.http_limits import BodyLimit
from argan.studio import about, images, uploads
from argan.studio.images import DepthImage, SceneAddress
from argan.studio.state import StudioState

DRAFT_SECONDS = 0.1  # seconds that a picture may take while the hand moves
DRAFT_MIN_PIXELS = 100_000  # pixels it has at least
# The page loads nothing but what this server gives it, whatever slips into a model card. Gradio needs scripts in the page.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class SecurityHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        await self.app(scope, receive, out)


def application(state: StudioState, sent: Path) -> FastAPI:
    """The server without the page. sent: the folder of files that pages have sent."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(uploads.UploadLimit, folder=sent)
    app.add_middleware(BodyLimit, limit=uploads.limit, seconds=uploads.SECONDS)
    app.add_middleware(RequestGuard)  # outermost, before gradio's routes as well

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, 400)

    app.include_router(_pictures(state), prefix="/studio")
    return app


def _pictures(state: StudioState) -> APIRouter:
    routes = APIRouter()

    def depth_image(
        model: str,
        photo: str | None = None,
        seed: int = 1,
        index: int = 0,
        truncation: float = 1.0,
        to: int | None = None,
        at: float = 0.0,
    ) -> DepthImage:
        return (
            state.depth_image(model, photo)
            if photo
            else state.scene(model, SceneAddress(seed, index, truncation, to, at))
        )

    Source = Annotated[DepthImage, Depends(depth_image)]
    drawing = threading.Lock()  # each preview uses all processors
    pace = 0.0  # seconds a pixel that the last one took

    @routes.get("/preview")
    def preview(
        image: Source, aperture: float, x: float, y: float, shape: str = "disc", draft: bool = False
    ) -> Response:
        """Through an aperture. A draft is only as large as can be drawn while the hand moves."""
        nonlocal pace
        with drawing:
            started = time.perf_counter()
            limit = max(DRAFT_MIN_PIXELS, DRAFT_SECONDS / pace) if draft and pace else images.PREVIEW
            pixels = image.through(aperture, (x, y), shape, limit)
            spent = time.perf_counter() - started
            if aperture and pixels.shape[0] * pixels.shape[1] >= DRAFT_MIN_PIXELS:
                pace = spent / (pixels.shape[0] * pixels.shape[1])
        return _jpeg(pixels, image.icc, {"Server-Timing": f"preview;dur={1000 * spent:.0f}"})

    def still(name: str, draw: Callable[[DepthImage], images.Pixels]) -> None:
        def picture(image: Source) -> Response:
            return _jpeg(draw(image), None, {"Cache-Control": "private, max-age=3600"})

        routes.get(f"/{name}")(picture)

    still("tile", images.tile)
    still("depth", images.depth)
    still("confidence", images.confidence)
    still("views", images.sheet)

    @routes.get("/card/{name}")
    def card_picture(name: str, model: Annotated[str, Query()]) -> Response:
        found = {path.name: path for path in about.pictures(state.catalog.get(model))}
        if name not in found:
            raise HTTPException(404)
        return FileResponse(found[name])

    return routes


def _jpeg(pixels: images.Pixels, icc: bytes | None, headers: dict[str, Any]) -> Response:
    return Response(images.jpeg(pixels, icc), media_type="image/jpeg", headers=headers)
