"""Downloads against a server that misbehaves: resumed or refused, never a wrong file under the final name."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, chunked, endless, etag, good, html, serving, status, unmeasured

from argan.errors import UserError
from argan.photos.sources import download as module
from argan.photos.sources import web
from argan.photos.sources.download import download
from argan.photos.sources.web import RetryPolicy

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


class DownloadLog:
    """What a download said and how long it would have slept."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.slept: list[float] = []

    def retry(self, **changed: Any) -> RetryPolicy:
        return RetryPolicy(sleep=self.slept.append, **{"attempts": 4, **changed})

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture(autouse=True)
def http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def log() -> DownloadLog:
    return DownloadLog()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "photos.tgz"


def get(urls: str | list[str], target: Path, log: DownloadLog, **changed: Any) -> module.Fetched:
    changed = {"sha256": SHA256, "retry": log.retry(), **changed}
    return download(urls, target, say=log.lines.append, **changed)


def refused(urls: str | list[str], target: Path, log: DownloadLog, match: str, **changed: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        get(urls, target, log, **changed)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def left(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if not p.name.endswith(".lock"))


def test_a_file_arrives_whole_with_progress_and_is_not_fetched_twice(
    server: Server, target: Path, log: DownloadLog
) -> None:
    url, seen = server.offer("/a", DATA), []
    fetched = get(url, target, log, size=len(DATA), progress=lambda done, total: seen.append((done, total)))
    assert (fetched.path, fetched.size, fetched.sha256) == (target, len(DATA), SHA256)
    assert target.read_bytes() == DATA
    assert left(target) == ["photos.tgz"]
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)
    assert get(url, target, log) == fetched
    assert len(server.asked) == 1
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_cut_at_random_bytes_it_goes_on_where_it_was(server: Server, target: Path, log: DownloadLog, seed: int) -> None:
    chance = random.Random(seed)
    url = server.offer("/a", DATA, *(good(cut=chance.randrange(len(DATA) // 3)) for _ in range(3)), good())
    get(url, target, log)
    assert target.read_bytes() == DATA
    starts = [int((r or "bytes=0-")[6:-1]) for r in server.ranges("/a")]
    assert len(starts) == 4 and starts == sorted(starts) and starts[-1] > 0
    assert log.slept == [1, 2, 4]
    assert left(target) == ["photos.tgz"]


def test_cut_before_the_first_byte_and_in_the_head(server: Server, target: Path, log: DownloadLog) -> None:
    def silent(handler: Any, data: bytes) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")

    url = server.offer("/a", DATA, lambda handler, data: None, silent, good(cut=0), good())
    get(url, target, log)
    assert target.read_bytes() == DATA


def test_as_long_as_every_try_brings_something_it_goes_on(
    server: Server, target: Path, log: DownloadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP", 10_000)
    url = server.offer("/a", DATA, good(cut=40_000))
    get(url, target, log, retry=log.retry(attempts=2))
    assert target.read_bytes() == DATA
    assert len(server.asked) == 8


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA, good(cut=1000, ranges=False))
    refused(url, target, log, r"photos\.tgz .*the connection broke.*4 tries.*run it again")
    assert len(server.asked) == 4


def test_wrong_bytes_of_the_right_length_are_removed_and_the_next_mirror_asked(
    server: Server, target: Path, log: DownloadLog
) -> None:
    wrong = server.offer("/wrong", DATA[:-1] + bytes([DATA[-1] ^ 1]))
    right = server.offer("/right", DATA)
    get([wrong, right], target, log, size=len(DATA))
    assert target.read_bytes() == DATA
    assert "wrong bytes" in log and "removed" in log
    target.unlink()
    refused(wrong, target, log, "wrong bytes .sha256 is")
    assert left(target) == []


def test_md5_serves_where_no_sha256_is_published(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA)
    assert get(url, target, log, sha256=None, md5=MD5.upper()).sha256 == SHA256
    target.unlink()
    refused(url, target, log, "md5 is", sha256=None, md5="0" * 32)
    refused(url, target, log, "sha256 is", sha256="0" * 64, md5=MD5)


def test_mirrors_are_asked_in_order_and_each_reason_is_told(server: Server, target: Path, log: DownloadLog) -> None:
    gone, forbidden = server.offer("/gone", b"", status(404)), server.offer("/no", b"", status(403))
    refused([gone, forbidden], target, log, r"gone: status 404; .*no: status 403")
    get([gone, forbidden, server.offer("/a", DATA)], target, log)
    assert target.read_bytes() == DATA
    assert log.slept == []


def test_a_second_mirror_goes_on_where_the_first_broke_off(server: Server, target: Path, log: DownloadLog) -> None:
    first = server.offer("/first", DATA, good(cut=100_000), status(404))
    second = server.offer("/second", DATA, good(tag=lambda data: '"another"'))
    get([first, second], target, log)
    assert target.read_bytes() == DATA
    assert server.ranges("/second") == ["bytes=100000-"]


def test_a_second_mirror_with_other_bytes_is_asked_again_from_the_start(
    server: Server, target: Path, log: DownloadLog
) -> None:
    first = server.offer("/first", DATA[::-1], good(cut=100_000), status(404))
    second = server.offer("/second", DATA)
    get([first, second], target, log)
    assert target.read_bytes() == DATA
    assert server.ranges("/second") == ["bytes=100000-", None]


@pytest.mark.parametrize("asked", ["7", "date", "nonsense", "86400", "-5", "9" * 5000, "Mon, 99 Foo 0000 99:99:99"])
def test_a_busy_server_is_waited_for_as_long_as_it_asks_up_to_a_cap(
    server: Server, target: Path, log: DownloadLog, asked: str
) -> None:
    value = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True) if asked == "date" else asked
    url = server.offer("/a", DATA, status(429, Retry_After=value), status(503), good())
    get(url, target, log)
    assert target.read_bytes() == DATA
    first, second = log.slept
    assert second == 2
    expected = {"7": 7, "86400": 120, "-5": 0}.get(asked, 1)
    assert 0 <= first <= 50 if asked == "date" else first == expected


def test_a_server_that_stays_busy_is_given_up(server: Server, target: Path, log: DownloadLog) -> None:
    refused(server.offer("/a", DATA, status(503)), target, log, "status 503 .4 tries")
    assert len(server.asked) == 4 and len(log.slept) == 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: Server, target: Path, log: DownloadLog, code: int) -> None:
    server.offer("/b", DATA)
    get(server.offer("/a", b"", status(code, Location="/b")), target, log)
    assert target.read_bytes() == DATA


def test_no_redirect_leads_out_of_https_or_for_ever(server: Server, target: Path, log: DownloadLog) -> None:
    for place in (
        "http://example.org/photos.tgz",
        "ftp://example.org/a",
        "http://127.0.0.1.example.org/",
        "file:///etc/x",
    ):
        url = server.offer("/a", DATA, status(302, Location=place))
        refused(url, target, log, "it leads to .* is not https")
    refused(server.offer("/a", DATA, status(302, Location="/a")), target, log, "more than 5 redirects")
    refused(server.offer("/a", DATA, status(302, Location="http://[::1/")), target, log, "Invalid URL")
    refused(server.offer("/a", DATA, status(302)), target, log, "status 302")
    local = server.offer("/b", DATA)
    assert web.url_refusal(local) is None
    assert "not https" in (web.url_refusal(local, from_https=True) or "")


@pytest.mark.parametrize(
    "url", ["http://example.org/a", "http://10.0.0.1/a", "ftp://127.0.0.1/a", "photos.tgz", "https://"]
)
def test_only_https_is_asked_at_all(target: Path, log: DownloadLog, url: str) -> None:
    refused(url, target, log, "is not https")


@pytest.mark.parametrize("value", [None, "1", "all"])
def test_http_even_from_this_machine_needs_the_setting(
    server: Server, target: Path, log: DownloadLog, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("ARGAN_ALLOW_HTTP")
    else:
        monkeypatch.setenv("ARGAN_ALLOW_HTTP", value)
    refused(server.offer("/a", DATA), target, log, "ARGAN_ALLOW_HTTP=loopback")
    assert server.asked == []


def test_no_proxy_sees_what_comes_from_this_machine(
    server: Server, target: Path, log: DownloadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    get(server.offer("/a", DATA), target, log)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "Text/HTML", "application/gzip"])
def test_an_html_page_with_status_200_is_refused(server: Server, target: Path, log: DownloadLog, kind: str) -> None:
    url = server.offer("/a", DATA, html(kind))
    refused(url, target, log, "HTML page")
    refused(url, target, log, "HTML page", sha256=None, own=True)
    assert left(target) == []


def test_a_body_without_end_is_cut_at_the_size_or_the_ceiling(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", b"", endless)
    refused(url, target, log, "more than 300,000 bytes", size=len(DATA))
    few = log.retry(ceiling=1 << 20)
    refused(url, target, log, "more than 1,048,576 bytes", retry=few)
    refused(url, target, log, "more than 1,048,576 bytes", retry=few, sha256=None, own=True)
    assert left(target) == []


def test_another_length_than_the_known_one_is_refused_before_it_is_fetched(
    server: Server, target: Path, log: DownloadLog
) -> None:
    refused(server.offer("/a", DATA), target, log, "it has 300,000 bytes, not 7", size=7)
    refused(server.offer("/b", DATA, chunked), target, log, "it has 300,000 bytes, not 300,001", size=300_001)
    refused(server.offer("/c", DATA), target, log, "300,000 bytes, more than", retry=log.retry(ceiling=1000))
    assert left(target) == []


def test_a_server_that_falls_silent_is_asked_again(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA, good(cut=50_000, hang=True), good())
    get(url, target, log, retry=log.retry(stall=1.0, attempts=20))
    assert target.read_bytes() == DATA
    assert "no byte for 1 s" in log


def test_a_server_that_drips_is_given_up(server: Server, target: Path, log: DownloadLog) -> None:
    ticks = iter(range(0, 10**9, 3600))  # an hour passes at every look at the clock
    refused(
        server.offer("/a", DATA),
        target,
        log,
        "bytes in 3600 s",
        retry=log.retry(slowest=10**9, clock=lambda: next(ticks)),
    )


def test_a_server_that_ignores_ranges_starts_over(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA, good(cut=100_000, ranges=False), good(ranges=False))
    get(url, target, log)
    assert target.read_bytes() == DATA
    assert server.ranges("/a") == [None, "bytes=100000-"]
    assert "from the start" in log


@pytest.mark.parametrize("own", [False, True])
def test_a_file_that_changes_midway_is_fetched_anew(server: Server, target: Path, log: DownloadLog, own: bool) -> None:
    old = good(cut=100_000, change=lambda data: data[::-1])
    url = server.offer("/a", DATA, old, good())
    get(url, target, log, sha256=None if own else SHA256, own=own)
    assert target.read_bytes() == DATA
    assert server.asked[1][1]["If-Range"] == etag(DATA[::-1])


def test_a_part_of_another_etag_is_never_joined_even_by_a_server_that_does_not_check(
    server: Server, target: Path, log: DownloadLog
) -> None:
    def careless(handler: Any, data: bytes) -> None:
        start = int(handler.headers["Range"][6:-1])
        body = data[start:]
        handler.head(
            206, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", Content_Length=len(body), ETag='"2"'
        )
        handler.wfile.write(body)

    url = server.offer("/a", DATA, good(cut=100_000, change=lambda data: data[::-1]), careless, good())
    get(url, target, log, sha256=None, own=True)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("given", ["bytes 5-299999/300000", "bytes 100000-299999/300001", "items 1-2/3", ""])
def test_a_range_that_is_not_the_one_asked_for_is_not_joined(
    server: Server, target: Path, log: DownloadLog, given: str
) -> None:
    def other(handler: Any, data: bytes) -> None:
        handler.head(206, Content_Range=given, Content_Length=200_000, ETag=etag(data))
        handler.wfile.write(data[100_000:])

    url = server.offer("/a", DATA, good(cut=100_000), other, good())
    get(url, target, log)
    assert target.read_bytes() == DATA
    assert "from the start" in log


def test_without_a_hash_only_a_strong_etag_lets_it_go_on(server: Server, target: Path, log: DownloadLog) -> None:
    for path, label in (("/none", None), ("/weak", 'W/"1"'), ("/odd", '"bl\xfcte"'), ("/bare", "1")):
        answers = [good(cut=100_000, tag=lambda data, label=label: label), good()]
        get(server.offer(path, DATA, *answers), target, log, sha256=None, own=True)
        assert server.ranges(path) == [None, None]
        target.unlink()
    get(server.offer("/strong", DATA, good(cut=100_000), good()), target, log, sha256=None, own=True)
    assert server.ranges("/strong") == [None, "bytes=100000-"]
    assert target.read_bytes() == DATA


def test_without_a_hash_a_length_must_be_announced_lest_a_cut_look_like_the_end(
    server: Server, target: Path, log: DownloadLog
) -> None:
    url = server.offer("/a", DATA, unmeasured)
    refused(url, target, log, "does not say how long", sha256=None, own=True)
    get(url, target, log)
    target.unlink()
    get(server.offer("/b", DATA, chunked), target, log, sha256=None, own=True)
    assert target.read_bytes() == DATA


def test_without_a_hash_only_a_users_own_url_is_fetched(server: Server, target: Path, log: DownloadLog) -> None:
    refused(server.offer("/a", DATA), target, log, "no checksum is known for photos.tgz", sha256=None)
    refused([], target, log, "no URL is known for photos.tgz")
    assert server.asked == []


def test_a_wrong_file_in_its_place_is_replaced(server: Server, target: Path, log: DownloadLog) -> None:
    target.parent.mkdir()
    target.write_bytes(b"half")
    gone = server.offer("/gone", b"", status(404))
    refused(gone, target, log, "status 404")
    target.write_bytes(b"half")
    get(server.offer("/a", DATA), target, log)
    assert target.read_bytes() == DATA
    assert "is not what it should be" in log


@pytest.mark.parametrize("note", [None, "{", "[]", '{"url": 3}'])
def test_a_part_that_nothing_vouches_for_or_a_damaged_note_does_no_harm(
    server: Server, target: Path, log: DownloadLog, note: str | None
) -> None:
    target.parent.mkdir()
    target.with_name("photos.tgz.part").write_bytes(b"x" * 1000)
    if note is not None:
        target.with_name("photos.tgz.part.json").write_text(note)
    get(server.offer("/a", DATA), target, log)
    assert target.read_bytes() == DATA


def test_a_part_longer_than_the_file_is_dropped(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA, good(cut=1000), status(404), good())
    with pytest.raises(UserError):
        get(url, target, log)
    with target.with_name("photos.tgz.part").open("ab") as file:
        file.write(bytes(len(DATA)))
    get(url, target, log)
    assert target.read_bytes() == DATA


def test_killed_while_it_fetches_the_next_one_goes_on(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a", DATA, good(cut=200_000, hang=True), good())
    code = "import sys; from argan.photos.sources.download import download as d; d(sys.argv[1], sys.argv[2], sha256=sys.argv[3])"
    process = subprocess.Popen([sys.executable, "-c", code, url, str(target), SHA256])
    part = target.with_name("photos.tgz.part")
    try:
        # Bytes wait in the process's own buffer, so not all that was sent need be on disk.
        while not (part.exists() and part.stat().st_size > 100_000):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = part.stat().st_size
    assert not target.exists()
    get(url, target, log)
    assert target.read_bytes() == DATA
    assert server.ranges("/a") == [None, f"bytes={there}-"]


def test_two_at_once_fetch_it_once(server: Server, target: Path) -> None:
    began, log = threading.Event(), DownloadLog()

    def slow(handler: Any, data: bytes) -> None:
        began.set()
        while not any("waiting" in line for line in log.lines):
            time.sleep(0.01)
        good()(handler, data)

    url, done = server.offer("/a", DATA, slow, good()), []
    first = threading.Thread(target=lambda: done.append(get(url, target, log)))
    first.start()
    began.wait()
    done.append(get(url, target, log))
    first.join()
    assert len(done) == 2 and done[0] == done[1]
    assert len(server.asked) == 1
    assert target.read_bytes() == DATA


def test_what_cannot_be_written_is_told_in_a_line(
    server: Server, tmp_path: Path, log: DownloadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    url = server.offer("/a", DATA)
    refused(url, tmp_path / "file" / "a.tgz", log, "cannot write .*a.tgz: ")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    refused(url, tmp_path / "a.tgz", log, "the disk lacks 299,000 bytes")


def test_messages_show_no_secrets(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a?token=hunter2", b"", status(404)).replace("http://", "http://me:hunter2@")
    with pytest.raises(UserError) as caught:
        get(url, target, log)
    assert "hunter2" not in str(caught.value) + "".join(log.lines)
    assert "/a: status 404" in str(caught.value)


def test_no_secret_of_an_address_is_left_beside_a_part(server: Server, target: Path, log: DownloadLog) -> None:
    url = server.offer("/a?token=hunter2", DATA, good(cut=100_000)).replace("http://", "http://me:sesame@")
    refused(url, target, log, "1 tries", retry=log.retry(attempts=1))
    note = target.with_name(target.name + ".part.json").read_text()
    assert "etag" in note and "hunter2" not in note and "sesame" not in note
