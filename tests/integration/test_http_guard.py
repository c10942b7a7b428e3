"""The allow-list of Host and Origin, request by request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from argan.serving.http_guard import RequestGuard, loopback_origins


def status(method: str = "GET", kind: str = "http", server: Any = None, **headers: str) -> int:
    """What a request with these headers is answered: 200 is the application's own answer."""
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    guard = RequestGuard(inner, origins=loopback_origins(5000))
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": "/", "headers": pairs, "server": server}
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0].get("status", sent[0].get("code", 0)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:4200", "localhost:1", "LOCALHOST", "[::1]:4200"])
def test_the_machines_own_names_pass(host: str) -> None:
    assert status(host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example", "evil@localhost", "localhost/", "[::1", ""]
)
def test_foreign_hosts_are_refused(host: str) -> None:
    assert status(host=host) == 403
    assert status(host=host, kind="websocket") == 1008


def test_a_request_without_a_host_is_refused() -> None:
    assert status() == 403


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8888", "file://"])
def test_foreign_origins_are_refused(method: str, origin: str) -> None:
    assert status(method, host="127.0.0.1:4200", origin=origin) == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:4200", "https://127.0.0.1:4200", "http://localhost:5000"])
def test_own_and_listed_origins_pass(origin: str) -> None:
    assert status("POST", host="127.0.0.1:4200", origin=origin) == 200


def test_foreign_pages_embed_nothing_but_may_link() -> None:
    fetch = {"host": "127.0.0.1:4200", "sec_fetch_site": "cross-site"}
    assert status(**fetch, sec_fetch_mode="no-cors") == 403  # an img
    assert (
        status(**fetch, sec_fetch_mode="no-cors", referer="http://127.0.0.1:5000/x") == 200
    )  # an img on a listed page
    link = fetch | {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(**link) == 200  # a link that was clicked
    assert status("POST", **link) == 403  # a form of a page without a referrer
    for frame in ("iframe", "frame", "object", "embed"):
        assert status(**link | {"sec_fetch_dest": frame}) == 403


def test_the_address_that_a_connection_came_to_is_a_name_of_the_server() -> None:
    """As probes of Kubernetes and scrapes of Prometheus call it."""
    assert status(host="10.0.0.5:8000", server=("10.0.0.5", 8000)) == 200
    assert status(host="10.0.0.5:8000", server=("::ffff:10.0.0.5", 8000)) == 200
    assert status(host="10.0.0.6:8000", server=("10.0.0.5", 8000)) == 403
    assert status(host="", server=("", None)) == 403
