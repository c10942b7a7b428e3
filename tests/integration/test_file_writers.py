"""Processes that write one folder, and processes killed while they write."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from argan import files

# Fills a folder beside `target`, says so, and swaps it in when a line comes in.
WRITER = """
import sys
from pathlib import Path
from argan import files
with files.swapped(sys.argv[1]) as new:
    (new / "who").write_text(sys.argv[2])
    print(new, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(writers: list[subprocess.Popen[str]], target: Path, who: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that has filled its folder and waits; and that folder."""
    command = [sys.executable, "-c", WRITER, str(target), who]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writers.append(process)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def put(folder: Path, who: str) -> None:
    with files.swapped(folder) as new:
        (new / "who").write_text(who)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_processes_write_one_folder_and_neither_spoils_the_others(
    tmp_path: Path, writers: list[subprocess.Popen[str]]
) -> None:
    target = tmp_path / "target"
    (first, in_first), (second, in_second) = start(writers, target, "first"), start(writers, target, "second")
    put(target, "third")
    assert in_first != in_second and (in_first / "who").read_text() == "first", "what lives is left alone"
    for process, who in ((first, "first"), (second, "second")):
        process.communicate("go\n")
        assert process.returncode == 0 and (target / "who").read_text() == who
    assert names(tmp_path) == ["target"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path, writers: list[subprocess.Popen[str]]
) -> None:
    target = tmp_path / "target"
    put(target, "before")
    (killed, left), (_, kept) = start(writers, target, "killed"), start(writers, target, "living")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (tmp_path / ".target.new").mkdir()  # as earlier versions called theirs
    assert left.exists()
    files.recover(target)
    assert (target / "who").read_text() == "before" and (kept / "who").read_text() == "living"
    assert not left.exists() and not (tmp_path / ".target.new").exists()


def test_a_kill_between_the_two_renames_is_recovered(tmp_path: Path) -> None:
    target = tmp_path / "target"
    put(target, "before")
    script = """
import os, signal, sys
from pathlib import Path
from argan import files
rename = Path.replace
def replace(self, to):
    if self.suffix == ".new":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, to)
Path.replace = replace
with files.swapped(sys.argv[1]) as new:
    (new / "who").write_text("after")
"""
    done = subprocess.run([sys.executable, "-c", script, str(target)])
    assert done.returncode == -signal.SIGKILL and not target.exists()
    files.recover(target)
    assert (target / "who").read_text() == "before" and names(tmp_path) == ["target"]
