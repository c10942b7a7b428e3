"""What files that a page sends may take of the disk. Gradio bounds one file, but neither all of them nor an upload cut short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from argan.serving.http_limits import refuse

FILE_BYTES = 128 << 20  # of a photograph
FORM_BYTES = 1 << 16  # that a form adds to its file
BODY_BYTES = 1 << 20  # of any other request: the page's values take a few KB
SECONDS = 600.0  # for a body: the largest photo through a tunnel of 2 Mbit/s
DISK_BYTES = 1 << 30  # of all files that were sent; the photos that are held are counted apart
FILES = 1000  # of any size


def limit(scope: Scope) -> int:
    """The bytes that the body of a request may have."""
    return FILE_BYTES + FORM_BYTES if is_upload(scope) else BODY_BYTES


def is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")


class UploadLimit:
    """Makes room in `folder` before a file is received: the oldest files go. Refuses (503) what has no room beside what arrives."""

    def __init__(self, app: ASGIApp, folder: Path, most: int = DISK_BYTES) -> None:
        self.app, self.folder, self.most = app, folder, most
        self.arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_upload(scope):
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        size = int(length) if length.isdigit() else limit(scope)
        if self.arriving + size > self.most:
            await refuse(receive, send, 503, "too many files are being sent at once; try again later")
            return
        self.arriving += size
        try:
            self.make_room()
            await self.app(scope, receive, send)
        finally:
            self.arriving -= size

    def make_room(self) -> None:
        """Delete the oldest files until those and what arrives fit."""
        files = list(_files(self.folder))
        total, count = sum(stat.st_size for _, stat in files), len(files)
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
            if total + self.arriving <= self.most and count < FILES:
                return
            path.unlink(missing_ok=True)
            total, count = total - stat.st_size, count - 1


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All files in `folder` and their sizes and times; gradio may delete one meanwhile."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.stat()
