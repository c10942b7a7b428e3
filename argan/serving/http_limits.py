"""What one request may take before it is answered: bytes, seconds, and a slot among the expensive ones. For any ASGI server.

Everything here is decided before a body is received, or while it arrives: a request that is refused costs little more than its
headers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of a refused body so much is still read: a connection closed earlier is reset, and many clients then lose the answer
LINGER_BYTES = 1 << 18
LINGER_SECONDS = 1.0
RETRY_AFTER = 5  # seconds until a refused client may try again: most of a full queue has been answered by then


async def refuse(receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer one line of JSON without having received the body, and close the connection."""
    content = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})  # which is all of it
    received = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while received < LINGER_BYTES:
                message = await receive()
                if not message.get("more_body"):
                    break
                received += len(message["body"])
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
        max_bytes = self.limit(scope)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > max_bytes:
            await refuse(receive, send, 413, f"the body has {int(length):,} bytes, more than {max_bytes:,}; send less")
            return
        deadline = asyncio.get_running_loop().time() + self.seconds
        received, complete, answered = 0, False, False
        refusal: tuple[int, str] | None = None

        async def limited_receive() -> Message:
            nonlocal received, complete, refusal
            if complete:
                return await receive()
            if refusal is None:
                try:
                    async with asyncio.timeout_at(deadline):
                        message = await receive()
                except TimeoutError:
                    refusal = 408, f"the body did not arrive within {self.seconds:g} s"
                else:
                    received += len(message.get("body", b""))
                    complete = not message.get("more_body")
                    if received <= max_bytes:
                        return message
                    refusal = 413, f"the body has more than {max_bytes:,} bytes; send less"
            return {"type": "http.disconnect"}

        async def guarded_send(message: Message) -> None:
            nonlocal answered
            if refusal is None or answered:
                answered = True
                await send(message)

        try:
            await self.app(scope, limited_receive, guarded_send)
        except Exception:
            if refusal is None or answered:
                raise
        if refusal is not None and not answered:
            await refuse(receive, send, *refusal)


class Admission:
    """Gives each expensive request a slot before its body is received, or refuses it (503).

    expensive: whether a request needs a slot, by its scope. The slot is held until the answer is sent. When the client leaves after
    its body has been received, the application is cancelled, and the slot is free.
    """

    def __init__(self, app: ASGIApp, slots: int, expensive: Callable[[Scope], bool]) -> None:
        self.app, self.slots, self.expensive = app, slots, expensive
        self.used = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.expensive(scope):
            await self.app(scope, receive, send)
        elif self.used >= self.slots:
            await refuse(receive, send, 503, f"{self.slots} requests are worked on or wait already; try again later")
        else:
            self.used += 1
            try:
                await _while_connected(self.app, scope, receive, send)
            finally:
                self.used -= 1


async def _while_connected(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application; cancel it when the client leaves between the end of its body and the end of the answer."""
    received, answered = asyncio.Event(), False

    async def receive_body() -> Message:
        if received.is_set():
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}
        message = await receive()
        if not message.get("more_body"):
            received.set()
        return message

    async def send_answer(message: Message) -> None:
        nonlocal answered
        answered = message["type"] == "http.response.body" and not message.get("more_body")
        await send(message)

    async def await_disconnect() -> None:
        await received.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(await_disconnect())
    work: asyncio.Task[None] = asyncio.create_task(app(scope, receive_body, send_answer))  # type: ignore[arg-type]
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
