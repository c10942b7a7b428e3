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
from argan.photos.collection import Collection, add
from argan.photos.sources.web import Patience


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photo_folder(tmp_path / "photos")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")
    for name in ("download", "photographs"):
        hasty = partial(getattr(collection, name), patience=Patience(sleep=lambda seconds: None))
        monkeypatch.setattr(collection, name, hasty)
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
import os, signal, sys
from pathlib import Path
from argan.photos.collection import add
left = int(sys.argv[3])
def count(event, arguments):  # every step by which a file or folder changes; -1: never
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile") and sys.argv[2] in str(arguments):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
add("mine", sys.argv[1], Path(sys.argv[2]), processes=0)
print(-1 - left)
"""


def start(folder: Path, home: Path, kill_at: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ADD, str(folder), str(home), str(kill_at)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.pipeline
def test_killed_at_any_step_it_is_what_it_was_or_what_it_should_be(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    put(folder, home)
    before = Collection.open("mine", home).revision
    for i in range(3):
        noise(folder / f"more{i}.png", 200 + i)
    after = add("mine", str(folder), shutil.copytree(home, tmp_path / "other"), processes=0).revision
    told, _ = start(folder, shutil.copytree(home, tmp_path / "whole")).communicate()
    steps = int(told)
    assert steps > 20
    at = sorted({*range(1, steps, 7), *range(steps - 6, steps + 1)})
    seen = []
    processes = []
    for step in at:
        tried = shutil.copytree(home, tmp_path / f"try{step}")
        processes.append((tried, start(folder, tried, step)))
        if len(processes) < 2 and step != at[-1]:
            continue
        for tried, process in processes:
            assert process.wait() == -signal.SIGKILL
            with collection._alone("mine", tried, print):  # what every change begins with
                seen.append(Collection.open("mine", tried).revision)
            assert put(folder, tried).revision == after
            stored = {path.stem for path in (tried / "mine" / "photos").rglob("*.*")}
            assert stored == set(Collection.open("mine", tried).index["file_sha256"])
        processes = []
    assert set(seen) == {before, after}


def test_two_adds_at_once_both_come_in(folder: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    other.mkdir()
    for i in range(12):
        noise(other / f"{i}.png", 100 + i)
    processes = [start(folder, home), start(other, home)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(Collection.open("mine", home).files()) == 24


def test_an_archive_that_was_bad_is_asked_for_again(folder: Path, tmp_path: Path, server: Server) -> None:
    whole = Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder)).read_bytes()
    url = server.offer("/all.zip", whole[:-100])
    with pytest.raises(UserError, match="is damaged"):
        put(url, tmp_path / "home")
    server.offer("/all.zip", whole)
    assert put(url, tmp_path / "home").new == 12


@pytest.mark.parametrize("page", [b"<![foo[bar]]><a href=x.jpg>", b"\0" * 100, b"<a href='http://[bad/x.jpg'>"])
def test_a_listing_that_makes_no_sense_is_one_line(tmp_path: Path, server: Server, page: bytes) -> None:
    url = server.offer("/nonsense/", page, good(kind="text/html"))
    with pytest.raises(UserError, match=r"cannot be listed|lists no photographs"):
        put(url, tmp_path / "home")
