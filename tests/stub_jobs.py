"""Jobs for the workers of a server in tests, without a model: what a request does is told by its seed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from argan.errors import UserError

SPIN, CRASH, LARGE = 1, 2, 3
LARGE_BYTES = 64 << 20  # more than the sockets of both ends hold


def prepare(domain: str) -> tuple[Any, list[dict[str, str]]]:
    if not domain:
        raise UserError("there is no domain")

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        while job["seed"] == SPIN:
            pass
        if job["seed"] == CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        content = bytes(LARGE_BYTES) if job["seed"] == LARGE else str(os.getpid()).encode()
        (Path(job["folder"]) / "answer").write_bytes(content)
        return {"media": "text/plain"}

    return handle, [{"domain": domain}]
