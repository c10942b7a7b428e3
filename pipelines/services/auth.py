"""Prefect's and MLflow's servers behind an allow-list of Host and Origin, and MLflow's behind a password: what uvicorn serves.

Prefect's server is started as `prefect server start --background` starts it (uvicorn on `create_app`), with all its background
services. It checks its password itself. MLflow's own basic-auth app brings users and permissions, and wants another package; here
whoever may use the pipeline may use all of the registry. Clients give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; a
browser asks.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argan.serving.http_guard import LOOPBACK, RequestGuard, loopback_origins

HOSTS, ORIGINS, AUTH = "ARGAN_ALLOWED_HOSTS", "ARGAN_ALLOWED_ORIGINS", "ARGAN_AUTH"
APP = "argan"  # the entry point by which `mlflow server --app-name` finds `mlflow` here (pyproject.toml)
# Prefect's pages ask an analytics company for its configuration even where PREFECT_SERVER_ANALYTICS_ENABLED is false
POLICY = b"connect-src 'self'; frame-ancestors 'self'"
OPEN = ("/health",)  # what watches the server knows no password


def allowed(ports: Sequence[int], public: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts and origins that may be named to servers of this machine.

    ports: of all servers whose pages may show each other's pictures. public: `host[:port]` that proxies before them go by.
    """
    names = tuple(urlsplit(f"//{host}").hostname or "" for host in public)
    origins = tuple(f"{scheme}://{host}" for host in public for scheme in ("https", "http"))
    return LOOPBACK + names, loopback_origins(*ports) + origins


def environment(hosts: Sequence[str], origins: Sequence[str]) -> dict[str, str]:
    """What `prefect` and `mlflow` here read, and MLflow's own guard, which would refuse a proxy's name otherwise."""
    written = [f"[{host}]" if ":" in host else host for host in hosts]
    return {
        HOSTS: ",".join(hosts),
        ORIGINS: ",".join(origins),
        # It matches by fnmatch: a bracket is escaped
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
            each for host in written for each in (host, f"{host.replace('[', '[[]')}:*")
        ),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
    }


def prefect() -> ASGIApp:
    """Prefect's server, guarded; its pages speak to nobody but it."""
    from prefect.server.api.server import create_app

    app = create_app(final=True)

    async def restricted(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, answer)

    return _guarded(restricted)


def mlflow() -> ASGIApp:
    """MLflow's server, guarded."""
    from mlflow.server.fastapi_app import app

    auth = os.environ.get(AUTH)
    return _guarded(password(app, auth) if auth else app)


def _guarded(app: ASGIApp) -> ASGIApp:
    return RequestGuard(app, os.environ[HOSTS].split(","), os.environ[ORIGINS].split(","))


def password(app: ASGIApp, auth: str) -> ASGIApp:
    """`app`, for those alone whose requests carry `auth` (user:password, HTTP basic authentication)."""
    wanted = b"Basic " + base64.b64encode(auth.encode())

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        if scope["type"] == "lifespan" or scope["path"] in OPEN or hmac.compare_digest(given, wanted):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"www-authenticate", b'Basic realm="MLflow"'), (b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"MLflow wants a user and a password\n"})

    return checked
