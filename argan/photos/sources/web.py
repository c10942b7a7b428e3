"""One request over the net: where it may go, how long it may take, and whether it is worth repeating."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from argan.redact import redacted

ALLOW_HTTP = "ARGAN_ALLOW_HTTP"  # set to "loopback": http, but from this very machine alone (tests, a tunnel)
LOOPBACK = ("127.0.0.1", "localhost")
RETRYABLE_STATUSES = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try, and how much to take."""

    attempts: int = 5  # failures in a row, none of which brought anything new, before the next mirror
    backoff: float = 1.0  # seconds before the second try, doubling
    longest_wait: float = 120.0  # whatever the server asks for: a pipeline that sleeps for hours looks dead
    stall: float = 60.0  # seconds without a byte
    slowest: int = 1 << 10  # bytes per second over such a time: a server that drips is as good as dead
    ceiling: int = 16 << 30  # bytes of a file whose size is not known beforehand
    redirects: int = 5
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class RetryableError(Exception):
    """It may work the next time; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class PermanentError(Exception):
    """This mirror cannot deliver the file."""


def send_request(stack: ExitStack, url: str, headers: dict[str, str], policy: RetryPolicy) -> httpx.Response:
    """The response at the end of the redirects, none of which may leave https. What `stack` holds open, it closes.

    Raises PermanentError where a redirect is refused, httpx.TransportError and httpx.InvalidURL.
    """
    for _ in range(policy.redirects + 1):
        here = is_loopback(url)  # never through a proxy
        client = stack.enter_context(httpx.Client(timeout=policy.stall, trust_env=not here, verify=not here))
        response = client.send(client.build_request("GET", url, headers=headers), stream=True)
        stack.callback(response.close)
        if not response.has_redirect_location:
            return response
        target = str(httpx.URL(url).join(response.headers["location"]))
        if reason := url_refusal(target, from_https=httpx.URL(url).scheme == "https"):
            raise PermanentError(f"it leads to {without_secrets(target)}, which {reason}")
        url = target
    raise PermanentError(f"more than {policy.redirects} redirects")


def url_refusal(url: str, from_https: bool = False) -> str | None:
    """Why this address is not requested, or None."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        return f"is no address ({error})"
    if parsed.scheme == "https" and parsed.host:
        return None
    if parsed.scheme == "http" and is_loopback(url) and not from_https and os.environ.get(ALLOW_HTTP) == "loopback":
        return None
    return f"is not https; give an https address ({ALLOW_HTTP}=loopback allows http from this machine itself)"


def is_loopback(url: str) -> bool:
    parsed = httpx.URL(url)
    return parsed.scheme == "http" and parsed.host in LOOPBACK


def without_secrets(url: str) -> str:
    """Without user, password and query, which may be secret."""
    return redacted(url).split("?")[0].split("#")[0]


def retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header; None where it is missing or nonsense."""
    if value is None:
        return None
    if re.fullmatch(r"-?\d{1,12}", value.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
