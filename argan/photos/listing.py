"""The photographs of a web folder: what its listing links to, as Apache, nginx, Caddy or `python -m http.server` write one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import httpx

from argan.errors import UserError
from argan.photos import photo_file
from argan.photos.sources.download import download
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

Say = Callable[[str], None]

PAGE = 32 << 20  # bytes of a listing: a hundred thousand links, with what servers write around them
SLOW = 10  # times the longest silence that is borne: in all, a page must be there then
PAGES = 10_000  # folders: more is a server that leads in circles


def photographs(url: str, folder: Path, say: Say = lambda line: None, retry: RetryPolicy | None = None) -> None:
    """Fetch every photograph below the listing at `url` (it ends in /) into `folder`, under its name there.

    What is in `folder` already is not fetched again. Raises UserError where a page is no listing or a file cannot be had.
    """
    retry = replace(retry or RetryPolicy(), ceiling=photo_file.PhotoLimits().file_bytes)
    if reason := url_refusal(url):
        raise UserError(f"{without_secrets(url)} {reason}")
    found = list(_below(httpx.URL(url), retry))
    if not found:
        raise UserError(
            f"{without_secrets(url)} lists no photographs: no link in it leads to a name below it that ends like one"
        )
    say(f"{len(found):,} photographs in {without_secrets(url)}")
    for i, (name, address) in enumerate(found, 1):
        download(address, folder / name, sha256=None, own=True, say=say, retry=retry)
        if i % 100 == 0:
            say(f"{without_secrets(url)}: {i:,} of {len(found):,} photographs fetched")


def _below(top: httpx.URL, retry: RetryPolicy) -> Iterator[tuple[str, str]]:
    """Name below `top`, and address, of each photograph; links that lead elsewhere are not followed."""
    waiting, seen, pages = [top], {_place(top)}, 0
    while waiting:
        here = waiting.pop()
        if (pages := pages + 1) > PAGES:
            raise UserError(
                f"{without_secrets(str(top))} has more than {PAGES:,} folders below it: give the address of one of them"
            )
        for link in _links(here, retry):
            try:
                target = here.join(link).copy_with(fragment=None)
            except (httpx.InvalidURL, ValueError):
                continue
            place = _place(target)
            name = _name(top, target)
            if name is None or place in seen:
                continue
            seen.add(place)
            if place.endswith("/"):
                waiting.append(target.copy_with(query=None))
            elif Path(name).suffix.lower() in photo_file.SUFFIXES:
                yield name, str(target)


def _place(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def _name(top: httpx.URL, target: httpx.URL) -> str | None:
    """The path of `target` below `top`, fit to be a file's; None where it lies elsewhere or its name is a trick."""
    base, place = _place(top), _place(target)
    if not place.startswith(base) or place == base:
        return None
    parts = [unquote(part) for part in place[len(base) :].rstrip("/").split("/")]
    if any(part in ("", ".", "..") or len(part) > 200 or not part.isprintable() or "/" in part for part in parts):
        return None
    return "/".join(parts)


def _links(url: httpx.URL, retry: RetryPolicy) -> list[str]:
    reasons = []
    for attempt in range(retry.attempts):
        try:
            return _page(url, retry)
        except (RetryableError, httpx.RequestError) as error:
            reasons.append(str(error) or type(error).__name__)
            wait = getattr(error, "wait", None)
            retry.sleep(min(retry.backoff * 2**attempt if wait is None else max(wait, 0), retry.longest_wait))
        except (PermanentError, httpx.InvalidURL) as error:
            raise UserError(f"{without_secrets(str(url))} cannot be listed: {error}") from error
    raise UserError(f"{without_secrets(str(url))} cannot be listed: {reasons[-1]}; try again later")


def _page(url: httpx.URL, retry: RetryPolicy) -> list[str]:
    with ExitStack() as stack:
        headers = {"Accept": "text/html", "Accept-Encoding": "identity", "User-Agent": "argan"}
        response, began = send_request(stack, str(url), headers, retry), retry.clock()
        if response.status_code in RETRYABLE_STATUSES:
            raise RetryableError(f"status {response.status_code}", retry_after(response.headers.get("retry-after")))
        if response.status_code != 200:
            raise PermanentError(f"status {response.status_code}")
        if not response.headers.get("content-type", "").startswith("text/html"):
            raise PermanentError(
                "it is no page of links; give the address of a zip or tar, or of a folder that the server lists"
            )
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > PAGE:
                raise PermanentError(f"the page is larger than {PAGE >> 20} MiB")
            if retry.clock() - began > SLOW * retry.stall:
                raise PermanentError(f"after {SLOW * retry.stall:g} s the page is incomplete")
    found = _Links()
    try:
        found.feed(content.decode("utf-8", "replace"))
    except AssertionError as error:  # what the parser says of some nonsense
        raise PermanentError("it is no HTML") from error
    return found.links


@dataclass
class _Links(HTMLParser):
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]
