"""The studio on a port of this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.errors import UserError
from argan.studio import HOST

if TYPE_CHECKING:
    from fastapi import FastAPI

    from argan.studio.state import StudioState


def serve(model: str | None, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises UserError where it cannot start."""
    # Read when gradio is imported: it would report its use, and look for newer versions of itself.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with (
            _bound_socket(port) as listening,
            tempfile.TemporaryDirectory(prefix="argan-studio-", ignore_cleanup_errors=True) as folder,
        ):
            os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "gradio")
            try:
                import uvicorn

                from argan.serving.http_connections import BACKLOG, connection_limits, limited_protocol
                from argan.studio.catalog import ModelCatalog
                from argan.studio.page import create_app
                from argan.studio.state import StudioState
            except ModuleNotFoundError as error:
                raise UserError(
                    f"the studio needs {error.name}, which is not installed: pip install 'argan[studio]'"
                ) from error
            kept = Path(folder) / "photos"
            kept.mkdir()
            state = StudioState(ModelCatalog(model), kept)
            warm(state)
            app: FastAPI = create_app(state)
            address = f"http://{HOST}:{port}"
            say(f"argan studio at {address} (Ctrl-C ends it)")
            if browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

            class Server(uvicorn.Server):
                def handle_exit(self, sig: int, frame: Any) -> None:
                    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # that pages are cut off is no news
                    super().handle_exit(sig, frame)

            settings = uvicorn.Config(
                app,
                http=limited_protocol(connection_limits()),
                backlog=BACKLOG,
                log_level="error",
                timeout_graceful_shutdown=1,
                server_header=False,
            )
            Server(settings).run([listening])
    except KeyboardInterrupt:
        pass
    say("argan studio ends")


def warm(state: StudioState) -> None:
    """Load the model, make the first scenes, and have compiled what previews need."""
    import numpy as np

    from argan.effects.bokeh import refocus
    from argan.studio.images import SceneAddress

    first = state.scene(state.catalog.default, SceneAddress())
    first.through(1.0, (0.5, 0.5), "disc")
    refocus(first.image.astype(np.uint16), first.disparity, 1.0)
    _ = first.field.view(0.5, 0.5)
    with suppress(UserError):  # a model without an estimator still imagines
        state.catalog.get(state.catalog.default).estimate(first.shown[0])


def _bound_socket(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # a browser that is early waits
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} cannot be used ({(error.strerror or str(error)).lower()}); the studio may be running already, at "
            f"http://{HOST}:{port}; name another: --port {port % 65535 + 1}"
        ) from error
    return listening


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
