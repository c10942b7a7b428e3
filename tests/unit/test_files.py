"""Files and folders are there complete or not at all, whatever is killed, linked elsewhere or done twice at once."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from argan import files
from argan.errors import UserError

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


# ---- Folders ---------------------------------------------------------------------------------------------------------


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


def test_many_threads_swap_one_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    errors: list[BaseException] = []

    def work(who: str) -> None:
        try:
            for _ in range(5):
                put(target, who)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and names(target) == ["who"] and names(tmp_path) == ["target"]


def test_a_linked_folder_stays_on_its_disk(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk", tmp_path / "here" / "models"
    disk.mkdir()
    link.parent.mkdir()
    link.symlink_to(disk / "models")  # not there yet
    for who in ("first", "second", "third"):
        put(link, who)
        assert link.is_symlink() and (disk / "models" / "who").read_text() == who
    assert names(disk) == ["models"] and names(link.parent) == ["models"]


def test_what_the_link_of_an_earlier_version_became_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    put(tmp_path / "models", "first")
    (tmp_path / ".models.old").symlink_to(tmp_path / "disk")
    put(tmp_path / "models", "second")
    assert (tmp_path / "models" / "who").read_text() == "second" and names(tmp_path) == ["disk", "models"]


def test_a_link_to_a_disk_that_is_away_is_reported(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path / "away" / "models")
    with pytest.raises(UserError, match=r"models is a link to .*away/models.*mount that disk"):
        put(tmp_path / "models", "who")
    assert names(tmp_path) == ["models"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    put(tmp_path / "target", "before")
    with pytest.raises(ValueError, match="stop"), files.swapped(tmp_path / "target") as new:
        (new / "who").write_text("half")
        raise ValueError("stop")
    assert (tmp_path / "target" / "who").read_text() == "before" and names(tmp_path) == ["target"]


def test_a_lock_is_one_holders_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ExitStack() as stack:
        assert stack.enter_context(files.locked(path))
        with files.locked(path, wait=False) as again:
            assert not again
        assert path.exists()
    assert not path.exists()


# ---- Order and permissions -------------------------------------------------------------------------------------------


class Calls:
    """The order of writes to disk and renames."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        fsync, replace, sync = os.fsync, Path.replace, os.sync

        def synced(handle: int) -> None:
            kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
            self.made.append(f"fsync {kind}")
            fsync(handle)

        def renamed(path: Path, target: Path) -> Path:
            self.made.append(f"rename {target.name}")
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "sync", lambda: (self.made.append("sync"), sync())[1])
        monkeypatch.setattr(Path, "replace", renamed)


def test_content_is_on_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "folder", "before")
    calls = Calls(monkeypatch)
    files.write_text(tmp_path / "a", "x")
    assert calls.made == ["fsync file", "rename a", "fsync folder"]
    calls.made.clear()
    put(tmp_path / "folder", "after")
    assert calls.made == ["sync", "rename .folder.old", "rename folder", "fsync folder"]


def test_a_secret_is_never_readable_by_others_not_even_under_its_temporary_name(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "secret", 0o600) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.unlink()
        temporary.write_text("x")  # as a library does that makes a file of its own
        temporary.chmod(0o666)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_files_have_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_the_umask_of_the_process_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to all threads: a file that another one makes meanwhile would be open to everybody."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    files.write_json(tmp_path / "a", {})
    put(tmp_path / "folder", "who")


def test_a_linked_file_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    """With `cache.type symlink` it is a file of DVC's cache, named by its content."""
    (tmp_path / "cached").write_text("content")
    (tmp_path / "a.json").symlink_to(tmp_path / "cached")
    files.write_text(tmp_path / "a.json", "other")
    assert (tmp_path / "cached").read_text() == "content" and (tmp_path / "a.json").read_text() == "other"
