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
from collections.abc import Collection

import uvicorn

from argan.errors import UserError
from argan.serving.application import application
from argan.serving.http_connections import BACKLOG, connection_limits, limited_protocol
from argan.serving.http_guard import LOOPBACK
from argan.serving.workers import ForkServer, Pool


def serve(
    references: list[str], host: str, port: int, megapixels: float, seconds: float, names: Collection[str] = ()
) -> None:
    """Load the models, listen, and serve until SIGTERM or Ctrl-C, which let what was begun end. Raises UserError.

    names: by which the server is called beside its address, such as those that a proxy passes on in the Host header.
    """
    with (
        _bound_socket(host, port) as listener,
        ForkServer("argan.serving.jobs:prepare", [references, megapixels]) as fork_server,
    ):
        try:
            listener.listen(BACKLOG)  # not before the models are there: until then connections are refused
        except OSError as error:
            raise UserError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
        domains = ", ".join(model["domain"] for model in fork_server.facts)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"serving {domains} at {address}; Ctrl-C ends it", flush=True)
        if not _is_loopback(host):
            print("warning: no password is asked for: put a proxy with one in front", file=sys.stderr, flush=True)
        fork_server_lost = False

        def end() -> None:
            nonlocal fork_server_lost
            fork_server_lost = server.should_exit = True

        pool = Pool(fork_server, os.cpu_count() or 1, on_lost=end)
        settings = uvicorn.Config(
            application(pool, fork_server.facts, {*LOOPBACK, host, *names}, megapixels, seconds),
            http=limited_protocol(connection_limits()),
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
        if fork_server_lost:  # a supervisor starts all of it again
            print("error: the process that workers come from has ended, perhaps for lack of memory", file=sys.stderr)
            sys.exit(1)


def _bound_socket(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet. Raises UserError."""
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio sets it for sockets of its own alone; without, an answer takes 40 ms more
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
