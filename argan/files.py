"""Files and folders that appear complete or not at all: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from argan.errors import UserError

TOKEN = "[0-9a-f]{8}"  # of secrets.token_hex(4), in the names of temporary files
LOCK = ".swap.lock"  # ends the names of lock files: no other lock of the project is called so


@contextmanager
def atomic(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yields a temporary file in the same folder; on success it is fsynced, renamed to `path` and the folder fsynced; else it
    is removed.

    mode: permissions, which the file has before it has its name; those of any new file (0666 less the umask) by default.
    A `path` that is a link is replaced by a file: it may lead into a cache, DVC's for one, whose files must not change.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # 40 characters of the name tell whose it is; with all of them it may be longer than a name can be
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
    rights = stat.S_IMODE(os.fstat(handle).st_mode) if mode is None else mode
    os.close(handle)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fchmod(file.fileno(), rights)  # some libraries write a file of their own there
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)  # else a crash of the machine may forget the new name
    except Exception as error:
        if (
            not isinstance(error, OSError) and type(error).__name__ != "SafetensorError"
        ):  # which wraps the system's errors
            raise
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    with atomic(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, mode: int | None = None) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n", mode)


def sync(folder: Path) -> None:
    """Keep the names in a folder through a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path`, which exists for as long as somebody holds it; a killed holder loses it.

    Yields whether it is held: without `wait` another process, or thread, may have it.
    """
    while (handle := _acquire(path, wait)) is None:
        pass
    try:
        yield handle >= 0
    finally:
        if handle >= 0:
            path.unlink(missing_ok=True)
            os.close(handle)


def _acquire(path: Path, wait: bool) -> int | None:
    """A handle of the locked file; -1 where another holds it, None where its last holder has just removed the file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except BlockingIOError:
        os.close(handle)
        return -1
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


@contextmanager
def swapped(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`; on success it takes its place, on any failure `folder` stays as it was.

    Any number of processes may do so at once: each fills a folder of its own, and the last to finish wins. A `folder` that
    is a link stays one: the new folder is written beside, and takes the place of, what the link leads to. What killed
    processes left is removed. Raises UserError where it cannot be written.
    """
    folder = real(folder)
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        with locked(_lock(new)):  # for as long as this process lives nobody else removes `new`
            try:
                new.mkdir()
                yield new
                os.sync()  # one for all files: thousands of fsyncs would take minutes
                with locked(_lock(folder)):
                    _recover(folder)
                    if folder.exists():
                        folder.replace(_old(folder))
                    new.replace(folder)
                    sync(folder.parent)
                    _recover(folder)
            finally:
                _remove(new)
                recover(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def recover(folder: str | Path) -> None:
    """Put back what a kill in the middle of `swapped` moved aside, and remove what killed processes left beside `folder`."""
    folder = real(folder)
    if folder.parent.is_dir():
        with locked(_lock(folder)):
            _recover(folder)


def _recover(folder: Path) -> None:
    old = _old(folder)
    if old.exists() and not folder.exists():  # a kill, or an error, came between the two renames
        old.replace(folder)
    _remove(old)
    left_over = re.compile(rf"({re.escape(f'.{folder.name}.')}(?:{TOKEN}\.)?new)(?:{re.escape(LOCK)})?")
    names = {found[1] for path in folder.parent.iterdir() if (found := left_over.fullmatch(path.name))}
    for path in (folder.with_name(name) for name in names):
        with locked(_lock(path), wait=False) as dead:
            if dead:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def real(folder: str | Path) -> Path:
    """Where a folder is once links are followed. Raises UserError for a link into a place that is not there."""
    found = Path(os.path.realpath(folder))
    if Path(folder).is_symlink() and not found.parent.is_dir():
        raise UserError(
            f"{folder} is a link to {found}, and {found.parent} is not there; mount that disk, or remove the link"
        )
    return found


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}{LOCK}")


def _cannot_write(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(
        f"cannot write {path}: {reason}; free some space or fix the folder, then run the same command again"
    )
