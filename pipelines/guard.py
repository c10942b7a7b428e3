"""MLflow's server behind one user and password (HTTP basic authentication), for `mlflow server --app-name argan-password`.

MLflow's own basic-auth app brings users and permissions, and wants another package; here whoever may use the pipeline may use all
of the registry. Clients give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; a browser asks.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health",)  # what watches the server knows no password


def guard(inner: Asgi, auth: str) -> Asgi:
    """`inner`, for those alone whose requests carry `auth` (user:password)."""
    wanted = b"Basic " + base64.b64encode(auth.encode())

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        if scope["type"] == "lifespan" or scope["path"] in OPEN or hmac.compare_digest(given, wanted):
            await inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"www-authenticate", b'Basic realm="MLflow"'), (b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"MLflow wants a user and a password\n"})

    return guarded


def app() -> Asgi:
    """What uvicorn serves."""
    from mlflow.server.fastapi_app import app as mlflow

    return guard(mlflow, os.environ["ARGAN_AUTH"])
