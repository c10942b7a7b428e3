"""A file from the net: from one of several mirrors, resumed where it broke off, checked whole, then under its final name.

While it grows it is `<name>.part`, beside it `<name>.part.json` says of which file on which server it is a part. Only bytes
whose hash is right get the final name; wrong ones are removed, saying so. To resume, call it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx

from argan.errors import UserError
from argan.files import sync, write_json
from argan.locks import exclusive_lock
from argan.photos.sources.web import (
    RETRYABLE_STATUSES,
    PermanentError,
    RetryableError,
    RetryPolicy,
    retry_after,
    send_request,
    url_refusal,
    without_secrets,
)

HTML = (b"<!doctype html", b"<html")
STEP = 1 << 20  # bytes a try must bring beyond the furthest one before, not to count as a failure

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fetched:
    """A file in its place. `sha256` is of its bytes, also where it was checked by another hash or by none."""

    path: Path
    size: int
    sha256: str


def download(
    urls: str | Sequence[str],
    path: str | Path,
    *,
    sha256: str | None,
    md5: str | None = None,
    size: int | None = None,
    own: bool = False,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
    retry: RetryPolicy | None = None,
) -> Fetched:
    """Fetch `path` from the first of `urls` that delivers it; a file already there with the right hash is left as it is.

    `md5` is for files of which no sha256 is published: it finds damage, not malice. Neither is needed for a user's `own` URL.
    Raises UserError when a URL is not https, no hash is known, no mirror delivers the right bytes, or the disk is full.
    """
    path = Path(path)
    urls = [urls] if isinstance(urls, str) else list(urls)
    if not urls:
        raise UserError(f"no URL is known for {path.name}; give the file itself")
    for url in urls:
        if reason := url_refusal(url):
            raise UserError(f"{without_secrets(url)} {reason}")
    if not (sha256 or md5 or own):
        raise UserError(f"no checksum is known for {path.name}: it is not fetched unchecked; pin its sha256")
    pins = {name: pin.lower() for name, pin in (("sha256", sha256), ("md5", md5)) if pin}
    job = _Job(path, pins, size, say, progress, retry or RetryPolicy())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{path.name} is being fetched by another process: waiting for it"
        with exclusive_lock(path.with_name(f".{path.name}.lock"), say, busy):
            return job.present() or job.fetch(urls)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or fix the folder, then run it again"
        ) from error


def digests(path: Path) -> dict[str, str]:
    """sha256 and md5 of a file, in one pass."""
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for each in hashes.values():
                each.update(chunk)
    return {name: each.hexdigest() for name, each in hashes.items()}


def mismatch(found: dict[str, str], pins: dict[str, str]) -> str | None:
    """The first pinned hash that differs, in words; None when all agree."""
    return next(
        (f"{name} is {found[name]}, not {pin}" for name, pin in pins.items() if found[name] != pin),
        None,
    )


@dataclass
class _Job:
    path: Path
    pins: dict[str, str]
    size: int | None
    say: Say
    progress: Progress
    retry: RetryPolicy
    from_pieces: bool = False  # the part was put together from several answers
    furthest: int = 0  # bytes that any try reached
    reasons: list[str] = field(default_factory=list)

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".part.json")

    def present(self) -> Fetched | None:
        """The file where it is already there and right. One that is wrong is removed."""
        if not self.path.exists():
            return None
        found = digests(self.path)
        if wrong := mismatch(found, self.pins):
            self.say(f"{self.path} is not what it should be ({wrong}): removed, fetched anew")
            self.path.unlink()
            return None
        return Fetched(self.path, self.path.stat().st_size, found["sha256"])

    def fetch(self, urls: list[str]) -> Fetched:
        for url in urls:
            try:
                return self.from_mirror(url)
            except PermanentError as error:
                self.reasons.append(f"{without_secrets(url)}: {error}")
                self.say(f"{self.path.name}: {self.reasons[-1]}")
        raise UserError(
            f"cannot download {self.path.name} ({'; '.join(self.reasons)}); run it again later: it goes on where it broke off, "
            f"or put the right file at {self.path}"
        )

    def from_mirror(self, url: str) -> Fetched:
        failures, self.furthest = 0, self.offset()
        while True:
            try:
                self.attempt(url)
                return self.finish()
            except RetryableError as error:
                here = self.offset()
                failures = 1 if here >= self.furthest + STEP else failures + 1
                self.furthest = max(self.furthest, here)
                if failures >= self.retry.attempts:
                    raise PermanentError(f"{error} ({failures} tries)") from error
                wait = self.retry.backoff * 2 ** (failures - 1) if error.wait is None else error.wait
                wait = min(max(wait, 0.0), self.retry.longest_wait)
                self.say(f"{self.path.name}: {error}; {here:,} bytes are there, again in {wait:.0f} s")
                self.retry.sleep(wait)

    def attempt(self, url: str) -> None:
        """One request; on return the part is complete as far as lengths show."""
        offset, note = self.offset(), self.read_note()
        same = note.get("url") == _url_digest(url)
        known = self.size or (note.get("total") if same else None)
        if offset and not (note and (self.pins or (same and note.get("etag")))):
            self.drop()  # nothing vouches for what another answer would add to it
            offset = 0
        if offset and offset == known:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "argan"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if same and note.get("etag"):
                headers["If-Range"] = note["etag"]
        with ExitStack() as stack:
            try:
                response = send_request(stack, url, headers, self.retry)
                self.take(url, response, offset, note if same else {})
            except httpx.TimeoutException as error:
                raise RetryableError(f"no byte for {self.retry.stall:g} s") from error
            except httpx.TransportError as error:
                raise RetryableError(f"the connection broke ({error or type(error).__name__})") from error
            except httpx.InvalidURL as error:
                raise PermanentError(f"it leads to a broken address ({error})") from error

    def take(self, url: str, response: httpx.Response, offset: int, note: dict[str, Any]) -> None:
        """Check what the response announces, then write its body."""
        start, total = self.announced(response, offset, note)
        limit = self.size or self.retry.ceiling
        if self.size and total not in (None, self.size):
            raise PermanentError(f"it has {total:,} bytes, not {self.size:,}")
        if total and total > limit:
            raise PermanentError(f"it has {total:,} bytes, more than the {limit:,} allowed")
        if total is None and not self.pins and response.headers.get("transfer-encoding", "").lower() != "chunked":
            raise PermanentError("it does not say how long the file is: a cut could not be distinguished from the end")
        if (lacking := (total or self.size or 0) - start - shutil.disk_usage(self.path.parent).free) > 0:
            raise UserError(
                f"cannot fetch {self.path}: the disk lacks {lacking:,} bytes; free some space, run it again"
            )
        if offset and not start:
            self.say(f"{self.path.name}: {without_secrets(url)} does not go on where it broke off: from the start")
        self.from_pieces = start > 0
        etag = response.headers.get("etag", "")
        strong = etag if etag.startswith('"') and etag.isascii() else None  # a weak one does not vouch for every byte
        write_json(self.note, {"url": _url_digest(url), "etag": strong, "total": total})
        done, window, since = start, start, self.retry.clock()
        with self.part.open("ab" if start else "wb") as file:
            for chunk in response.iter_raw():
                if not done and chunk.lstrip()[:14].lower().startswith(HTML):
                    self.give_up("it sends an HTML page, not the file")
                done += len(chunk)
                if done > limit:
                    self.give_up(f"it sends more than {limit:,} bytes")
                file.write(chunk)
                self.progress(done, total or self.size)
                if (passed := self.retry.clock() - since) >= self.retry.stall:
                    if done - window < self.retry.slowest * passed:
                        raise RetryableError(f"{done - window} bytes in {passed:.0f} s")
                    window, since = done, self.retry.clock()
            file.flush()
            os.fsync(file.fileno())
        if total and done != total:
            raise RetryableError(f"cut off at {done:,} of {total:,} bytes")
        if self.size and done != self.size:
            self.give_up(f"it has {done:,} bytes, not {self.size:,}")

    def announced(self, response: httpx.Response, offset: int, note: dict[str, Any]) -> tuple[int, int | None]:
        """First byte and total length of what comes, by status and headers."""
        code, headers = response.status_code, response.headers
        if code in RETRYABLE_STATUSES:
            raise RetryableError(f"status {code}", retry_after(headers.get("retry-after")))
        if code == 416 and offset:
            self.drop()
            raise RetryableError("what is there is no part of the file any more: from the start")
        if code != 200 and not (code == 206 and offset):
            raise PermanentError(f"status {code}")
        if headers.get("content-type", "").split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
            raise PermanentError("it answers with an HTML page (a login, a licence or an error), not the file")
        if code == 200:
            length = headers.get("content-length")
            return 0, int(length) if length and length.isdigit() else None
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", headers.get("content-range", "").strip())
        total = int(found[3]) if found and found[3] != "*" else None
        changed = note.get("etag") and headers.get("etag", note["etag"]) != note["etag"]
        if not found or int(found[1]) != offset or changed or note.get("total") not in (None, total):
            self.drop()
            raise RetryableError("the file has changed on the server: from the start")
        return offset, total or self.size or int(found[2]) + 1

    def finish(self) -> Fetched:
        found = digests(self.part)
        if wrong := mismatch(found, self.pins):
            self.drop()
            self.say(f"{self.path.name}: wrong bytes ({wrong}): removed")
            if self.from_pieces:
                raise RetryableError("wrong bytes, put together from several answers: from the start")
            raise PermanentError(f"wrong bytes ({wrong})")
        size = self.offset()
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)
        sync(self.path.parent)
        return Fetched(self.path, size, found["sha256"])

    def offset(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def give_up(self, reason: str) -> NoReturn:
        self.drop()
        raise PermanentError(reason)


def _url_digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
