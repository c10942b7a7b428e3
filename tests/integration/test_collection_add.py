"""Collections from addresses, by processes that are killed, and by two at once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from loopback import Server, good, html, serving, status
from photo_folders import noise, photo_folder, put

from argan.errors import UserError
from argan.photos import collection
from argan.photos.collection import Collection, add, origin
from argan.photos.collection.changes import exclusive
from argan.photos.sources.web import RetryPolicy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")
    for name in ("download", "photographs"):
        hasty = partial(getattr(origin, name), retry=RetryPolicy(sleep=lambda seconds: None))
        monkeypatch.setattr(origin, name, hasty)
    with serving() as made:
        yield made


def test_an_address_of_an_archive_is_fetched_and_its_hash_checked(folder: Path, tmp_path: Path, server: Server) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder)).read_bytes()
    url = server.offer("/all.zip", archive, status(503), good(cut=999), good())
    wrong = "0" * 64
    with pytest.raises(UserError, match=f"wrong bytes .*{wrong}"):
        put(url, tmp_path / "home", sha256=wrong)
    assert collection.names(tmp_path / "home") == []
    assert put(url, tmp_path / "home").new == 12
    assert put(folder, tmp_path / "home").new == 0
    with pytest.raises(UserError, match="HTML page"):
        put(server.offer("/login.zip", b"", html()), tmp_path / "home")


def test_an_address_of_a_folder_gives_what_its_listing_links_to(folder: Path, tmp_path: Path, server: Server) -> None:
    """As nginx and Apache write one; links out of the folder, and tricks with names, are left alone."""
    for path in folder.iterdir():
        where = "/mine/b%20c/" if path.suffix == ".webp" else "/mine/"
        server.offer(where + path.name, path.read_bytes(), good(cut=99), good())
    names = {suffix: [path.name for path in folder.glob(f"*{suffix}")] for suffix in (".webp", ".png")}
    elsewhere = [
        "../",
        "/",
        "https://example.org/x.jpg",
        "/other/x.jpg",
        "..%2f..%2fx.jpg",
        "?C=M;O=A",
        "notes.txt",
        "%00.jpg",
    ]

    def page(*links: str) -> bytes:
        rows = "".join(f'<tr><td><a href="{link}">{link[:9]}..&gt;</a></td></tr>' for link in links)
        return f"<!DOCTYPE html><html><title>Index of /mine</title><table>{rows}</table>".encode()

    listing = good(kind="text/html;charset=UTF-8")
    url = server.offer("/mine/", page(*elsewhere, *names[".png"], "b%20c/"), status(429, Retry_After=0), listing)
    server.offer("/mine/b%20c/", page("/mine/", "./", *names[".webp"], "../b%20c/"), listing)
    assert put(url, tmp_path / "home").new == 12
    assert sorted(Collection.open("mine", tmp_path / "home").index["source"])[-1] == "b c/owl.webp"
    assert {path for path, _ in server.asked if "x.jpg" in path or "notes" in path} == set()
    assert not list((tmp_path / "home").glob(".mine.fetched"))
    with pytest.raises(UserError, match=r"/gone/ cannot be listed: status 404"):
        put(url.replace("mine", "gone"), tmp_path / "home")
    server.offer("/mine/9.png", b"", status(404))
    server.offer("/mine/", page("9.png"), listing)
    with pytest.raises(UserError, match=r"cannot download 9.png .*status 404"):
        put(url, tmp_path / "home")
    assert len(Collection.open("mine", tmp_path / "home").index) == 12


ADD = """
import sys
from pathlib import Path
from argan.photos.collection import add
add("mine", sys.argv[1], Path(sys.argv[2]), processes=0)
"""
# For every "<step> <home>" that comes in: adds the folder argv[1] to that home in a forked process, which is killed at that step, a
# step being whatever changes a file or folder (0: never); answers with the process's status and the steps it was able to count.
ADD_AND_KILL = """
import os, signal, sys
from pathlib import Path
from argan.photos.collection import add
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile")
for line in sys.stdin:
    kill_at, home = line.split()
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, os.read(reading, 20).decode() or 0, flush=True)
        os.close(reading)
        continue
    steps = 0
    def count(event, arguments):
        global steps
        if event in CHANGES and home in str(arguments):
            steps += 1
            if steps == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    add("mine", sys.argv[1], Path(home), processes=0)
    os.write(writing, str(steps).encode())
    os._exit(0)
"""


def start(folder: Path, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ADD, str(folder), str(home)], stdout=subprocess.PIPE, text=True)


@pytest.mark.pipeline
def test_killed_at_any_step_it_is_what_it_was_or_what_it_should_be(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    put(folder, home)
    before = Collection.open("mine", home).revision
    for i in range(3):
        noise(folder / f"more{i}.png", 200 + i)
    after = add("mine", str(folder), shutil.copytree(home, tmp_path / "other"), processes=0).revision
    command = [sys.executable, "-c", ADD_AND_KILL, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as adder:
        assert adder.stdin is not None and adder.stdout is not None

        def add_and_kill(step: int) -> tuple[Path, int, int]:
            """A copy of the home after the kill, the status of the process, and its steps."""
            tried = shutil.copytree(home, tmp_path / f"try{step}")
            print(step, tried, file=adder.stdin, flush=True)
            status, steps = adder.stdout.readline().split()
            return tried, int(status), int(steps)

        _, status, steps = add_and_kill(0)
        assert status == 0 and steps > 20
        revisions = set()
        for step in sorted({*range(1, steps, 7), *range(steps - 6, steps + 1)}):
            tried, status, _ = add_and_kill(step)
            assert status == -signal.SIGKILL
            with exclusive("mine", tried, print):  # what every change begins with
                revisions.add(Collection.open("mine", tried).revision)
            assert put(folder, tried).revision == after
            stored = {path.stem for path in (tried / "mine" / "photos").rglob("*.*")}
            assert stored == set(Collection.open("mine", tried).index["file_sha256"])
        adder.stdin.close()
    assert revisions == {before, after}


def test_two_adds_at_once_both_come_in(folder: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    other.mkdir()
    for i in range(12):
        noise(other / f"{i}.png", 100 + i)
    processes = [start(folder, home), start(other, home)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(Collection.open("mine", home).files()) == 24


def test_an_archive_that_was_bad_is_asked_for_again(folder: Path, tmp_path: Path, server: Server) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder)).read_bytes()
    url = server.offer("/all.zip", archive[:-100])
    with pytest.raises(UserError, match="is damaged"):
        put(url, tmp_path / "home")
    server.offer("/all.zip", archive)
    assert put(url, tmp_path / "home").new == 12


@pytest.mark.parametrize("page", [b"<![foo[bar]]><a href=x.jpg>", b"\0" * 100, b"<a href='http://[bad/x.jpg'>"])
def test_a_listing_that_makes_no_sense_is_one_line(tmp_path: Path, server: Server, page: bytes) -> None:
    url = server.offer("/nonsense/", page, good(kind="text/html"))
    with pytest.raises(UserError, match=r"cannot be listed|lists no photographs"):
        put(url, tmp_path / "home")
