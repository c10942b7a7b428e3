"""Files and folders are there complete or not at all, whatever is killed, linked elsewhere or done twice at once."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from argan import files
from argan.errors import UserError


def put(folder: Path, who: str) -> None:
    with files.swapped(folder) as new:
        (new / "who").write_text(who)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- Folders ---------------------------------------------------------------------------------------------------------


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
