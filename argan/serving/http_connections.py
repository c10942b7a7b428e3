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

CONNECTIONS = 1000  # at most; at 50 KB each
BACKLOG = 128  # connections that the system holds until they are accepted; asyncio accepts as many at a time, before any is closed
RESERVED = BACKLOG + 64  # file descriptors for those, and for all else: the workers, files of requests, the event loop


@dataclass(frozen=True)
class Limits:
    headers: float = (
        10.0  # seconds from the connection, or the first byte of a further request, to the end of its headers
    )
    reading: float = 30.0  # seconds until a client must have taken the next 48 KB of its answer: a slow phone line does
    connections: int = CONNECTIONS


def limits() -> Limits:
    """As many connections as this process may have open files, of which it gets as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return Limits(connections=max(soft - RESERVED, 8))
    return Limits()


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with these limits, for `uvicorn.Config(http=protocol(limits()), backlog=BACKLOG)`."""

    class Limited(H11Protocol):
        since = 0.0  # when it began to wait for a request
        _headers: asyncio.TimerHandle | None = None
        _reading: asyncio.TimerHandle | None = None

        @property
        def waits(self) -> bool:
            """No request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.since = self.loop.time()
            self._await_headers()
            if len(self.connections) > limits.connections:
                waiting = [c for c in self.connections if isinstance(c, Limited) and c.waits and not c.closing]
                min(waiting, key=lambda c: c.since).transport.abort()  # in the last resort it is this one

        @property
        def closing(self) -> bool:
            return self.transport.is_closing()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_headers()

        def on_response_complete(self) -> None:
            self.since = self.loop.time()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._headers, self._reading):
                if timer is not None:
                    timer.cancel()

        def _await_headers(self) -> None:
            if not self.waits:
                if self._headers is not None:
                    self._headers.cancel()
                    self._headers = None
            elif self._headers is None:
                self._headers = self.loop.call_later(limits.headers, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading = self.loop.call_later(limits.reading, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None

    return Limited
