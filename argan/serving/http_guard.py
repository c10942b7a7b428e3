"""Who may talk to a server of this machine: an allow-list of Host and of Origin in front of any ASGI application.

A port on 127.0.0.1 is reached by more than its owner's programs. Every web page that the owner visits can send requests to it
(cross-site request forgery), and a page that points a name of its own at 127.0.0.1 even reads the answers (DNS rebinding). Both
are told by headers that a page cannot set: Host, Origin, Referer and Sec-Fetch-* (https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def loopback_origins(*ports: int) -> tuple[str, ...]:
    """The origins of pages that servers of this machine on these ports give out."""
    return tuple(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]") for port in ports)


class RequestGuard:
    """Passes on requests that name an allowed host and come from no foreign page; answers others 403 and one line of JSON.

    hosts: names in the Host header, without port; the address that a connection came to is always one. origins:
    `scheme://host[:port]` of pages allowed beside those of the server itself. Requests without any of a browser's headers (curl,
    Python) pass with the right Host; a link from elsewhere that a person follows passes as well. CORS preflights of foreign origins
    end here, without any CORS header.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, origins: Collection[str] = ()) -> None:
        self.app = app
        self.hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = None if scope["type"] == "lifespan" else self.refusal(scope)
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; None where it may pass."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        # The address itself that the connection came to is as good as a name: no DNS answer makes a foreign page's origin of it.
        # Probes of Kubernetes and scrapes of Prometheus call a server so.
        address = str((scope.get("server") or ("",))[0]).lower().removeprefix("::ffff:")
        if len(hosts) != 1 or _host(hosts[0]) not in self.hosts | {address} - {""}:
            return "this server does not go by that name: the Host header must be " + " or ".join(sorted(self.hosts))
        own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}  # a proxy may have ended TLS

        def foreign(origin: str) -> bool:
            return origin.lower().rstrip("/") not in own | self.origins

        for origin in headers.get("origin", []):
            if foreign(origin):
                return "requests from pages of another origin are not taken"
        site = headers.get("sec-fetch-site", ["none"])[0]
        if site not in ("none", "same-origin") and "origin" not in headers:
            # No-cors requests (img, script) carry no Origin; a page that hides its Referer is foreign too. A frame is a navigation,
            # but one inside the foreign page, which could lay what it likes over it (clickjacking).
            mode, destination = (headers.get(f"sec-fetch-{name}", [""])[0] for name in ("mode", "dest"))
            navigation = mode == "navigate" and destination == "document"
            safe = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
            referer = urlsplit(headers.get("referer", [""])[0])
            if not (navigation and safe) and foreign(f"{referer.scheme}://{referer.netloc}"):
                return "requests from pages of another origin are not taken"
        return None


def _host(value: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    try:
        return (urlsplit(f"//{value}").hostname or "") if not set(value) & set("/?#@\\ ") else ""
    except ValueError:
        return ""
