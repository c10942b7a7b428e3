"""What one request may take before it is answered: bytes, seconds, and a place among those that cost work. For any ASGI server.

Everything here is decided before a body is received, or while it arrives: a request that is refused costs little more than its
headers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_BYTES = 1 << 18  # of a refused body are read, and ...
LINGER_SECONDS = 1.0  # ... for so long: a connection closed earlier is reset, and many clients then lose the answer
RETRY = 5  # seconds after which a client may try again: most of a full queue has been answered by then


async def refuse(receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer one line of JSON without having received the body, and close the connection."""
    content = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(RETRY).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})  # which is all of it
    taken = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while taken < LINGER_BYTES:
                message = await receive()
                if not message.get("more_body"):
                    break
                taken += len(message["body"])
    await send({"type": "http.response.body", "body": b""})


class BodyLimit:
    """Refuses bodies that are too large (413) or do not arrive in time (408).

    limit: the bytes that the body of a request may have, by its scope. seconds: for the whole body. To the application a body that
    is refused while it arrives looks as if its client had left; whatever it then answers is replaced by the refusal.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[Scope], int], seconds: float) -> None:
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.limit(scope)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            await refuse(receive, send, 413, f"the body has {int(length):,} bytes, more than {most:,}; send less")
            return
        deadline = asyncio.get_running_loop().time() + self.seconds
        taken, complete, answered = 0, False, False
        refusal: tuple[int, str] | None = None

        async def limited() -> Message:
            nonlocal taken, complete, refusal
            if complete:
                return await receive()
            if refusal is None:
                try:
                    async with asyncio.timeout_at(deadline):
                        message = await receive()
                except TimeoutError:
                    refusal = 408, f"the body did not arrive within {self.seconds:g} s"
                else:
                    taken += len(message.get("body", b""))
                    complete = not message.get("more_body")
                    if taken <= most:
                        return message
                    refusal = 413, f"the body has more than {most:,} bytes; send less"
            return {"type": "http.disconnect"}

        async def passed(message: Message) -> None:
            nonlocal answered
            if refusal is None or answered:
                answered = True
                await send(message)

        try:
            await self.app(scope, limited, passed)
        except Exception:
            if refusal is None or answered:
                raise
        if refusal is not None and not answered:
            await refuse(receive, send, *refusal)


class Admission:
    """Gives each request that costs work a place before its body is received, or refuses it (503).

    costly: whether a request needs a place, by its scope. The place is held until the answer is sent. When the client leaves after
    its body has been received, the application is cancelled, and the place is free.
    """

    def __init__(self, app: ASGIApp, places: int, costly: Callable[[Scope], bool]) -> None:
        self.app, self.places, self.costly = app, places, costly
        self.taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.costly(scope):
            await self.app(scope, receive, send)
        elif self.taken >= self.places:
            await refuse(receive, send, 503, f"{self.places} requests are worked on or wait already; try again later")
        else:
            self.taken += 1
            try:
                await _while_connected(self.app, scope, receive, send)
            finally:
                self.taken -= 1


async def _while_connected(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application; cancel it when the client leaves between the end of its body and the end of the answer."""
    received, answered = asyncio.Event(), False

    async def body() -> Message:
        if received.is_set():
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}
        message = await receive()
        if not message.get("more_body"):
            received.set()
        return message

    async def answer(message: Message) -> None:
        nonlocal answered
        answered = message["type"] == "http.response.body" and not message.get("more_body")
        await send(message)

    async def disconnect() -> None:
        await received.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(disconnect())
    work: asyncio.Task[None] = asyncio.create_task(app(scope, body, answer))  # type: ignore[arg-type]
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answered:  # what is left to do is to tidy up
            await asyncio.wait({work})
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
    if not work.cancelled():
        work.result()
