"""A web server on this machine that misbehaves as it is told, for tests of what fetches files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Answers the n-th request of a path by the n-th of its answers, the last one for good."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers)))
            count = sum(path == self.path for path, _ in self.server.asked)
            data, answers = self.server.files.get(self.path, (b"", [status(404)]))
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):  # the other side has had enough
            answers[min(count, len(answers)) - 1](self, data)

    def log_message(self, *_: object) -> None:
        pass

    def head(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.files: dict[str, tuple[bytes, list[Answer]]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()  # lets go of answers that hang

    def offer(self, path: str, data: bytes, *answers: Answer) -> str:
        """Offer `data` at a path; returns its URL."""
        self.files[path] = (data, list(answers) or [good()])
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [headers.get("Range") for asked, headers in self.asked if asked == path]


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def good(
    cut: int | None = None,
    ranges: bool = True,
    tag: Callable[[bytes], str | None] = etag,
    change: Callable[[bytes], bytes] = lambda data: data,
    hang: bool = False,
    kind: str = "application/octet-stream",
) -> Answer:
    """The file, from the byte asked for. `cut`: the connection ends (or hangs) after so many bytes of the body."""

    def answer(handler: Handler, data: bytes) -> None:
        data = change(data)
        label = tag(data)
        wanted, unchanged = handler.headers.get("Range"), handler.headers.get("If-Range") in (None, label)
        named = {"ETag": label} if label else {}
        if ranges and wanted and unchanged:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                handler.head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
                return
            part = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.head(206, Content_Range=part, Content_Length=len(data) - start, Content_Type=kind, **named)
        else:
            start = 0
            handler.head(200, Content_Length=len(data), Content_Type=kind, **named)
        body = data[start:]
        handler.wfile.write(body if cut is None else body[:cut])
        if hang:
            handler.server.over.wait()

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda handler, data: handler.head(code, Content_Length=0, **headers)


def html(kind: str = "text/html; charset=utf-8") -> Answer:
    page = b"\n<!DOCTYPE html><title>Please log in</title>"

    def answer(handler: Handler, data: bytes) -> None:
        handler.head(200, Content_Length=len(page), Content_Type=kind)
        handler.wfile.write(page)

    return answer


def endless(handler: Handler, data: bytes) -> None:
    handler.head(200, Transfer_Encoding="chunked", Content_Type="application/gzip")
    while not handler.server.over.is_set():
        handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def chunked(handler: Handler, data: bytes) -> None:
    handler.head(200, Transfer_Encoding="chunked")
    handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))


def unmeasured(handler: Handler, data: bytes) -> None:
    """No length, no chunks: the end of the connection is the end of the file, or a cut."""
    handler.head(200)
    handler.wfile.write(data)
