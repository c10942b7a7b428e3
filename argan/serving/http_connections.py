"""Connections that cannot be held for nothing: uvicorn bounds neither the time of headers, nor of a client that reads slowly, nor
how many connections there are.

A server that has as many connections as it may closes the one that has waited longest without a request, so that any number of
half-sent requests still leaves room for a whole one.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 1000  # at most, of 50 KB each
BACKLOG = 128  # connections that the system holds until they are accepted; asyncio accepts as many at a time, before any is closed
RESERVED = BACKLOG + 64  # file descriptors for those, and for all else: the workers, files of requests, the event loop


@dataclass(frozen=True)
class ConnectionLimits:
    """headers: seconds from the connection, or the first byte of a further request, to the end of its headers. reading: seconds
    until a client must have taken the next 48 KB of its answer, which a slow phone line does. connections: at most.
    """

    headers: float = 10.0
    reading: float = 30.0
    connections: int = CONNECTIONS


def connection_limits() -> ConnectionLimits:
    """As many connections as this process may have open files, of which it gets as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return ConnectionLimits(connections=max(soft - RESERVED, 8))
    return ConnectionLimits()


def limited_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with these limits, for `uvicorn.Config(http=limited_protocol(...), backlog=BACKLOG)`."""

    class LimitedProtocol(H11Protocol):
        idle_since = 0.0
        _headers_timer: asyncio.TimerHandle | None = None
        _reading_timer: asyncio.TimerHandle | None = None

        @property
        def idle(self) -> bool:
            """No request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.idle_since = self.loop.time()
            self._set_headers_timer()
            if len(self.connections) > limits.connections:
                idle = [c for c in self.connections if isinstance(c, LimitedProtocol) and c.idle and not c.closing]
                min(idle, key=lambda c: c.idle_since).transport.abort()  # in the last resort it is this one

        @property
        def closing(self) -> bool:
            return self.transport.is_closing()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._set_headers_timer()

        def on_response_complete(self) -> None:
            self.idle_since = self.loop.time()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._headers_timer, self._reading_timer):
                if timer is not None:
                    timer.cancel()

        def _set_headers_timer(self) -> None:
            if not self.idle:
                if self._headers_timer is not None:
                    self._headers_timer.cancel()
                    self._headers_timer = None
            elif self._headers_timer is None:
                self._headers_timer = self.loop.call_later(limits.headers, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading_timer = self.loop.call_later(limits.reading, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._reading_timer is not None:
                self._reading_timer.cancel()
                self._reading_timer = None

    return LimitedProtocol
