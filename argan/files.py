"""Files and folders that appear whole or not at all: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from argan.errors import UserError


@contextmanager
def atomic(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yields a temporary name in the same folder; on success it is fsynced, renamed to `path` and the folder fsynced; else it
    is removed.

    mode: its rights, which it has before it has its name; those of any new file by default.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # 40 characters of the name tell whose it is; with all of them it may be longer than a name can be
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read
        temporary.chmod(0o666 & ~_umask() if mode is None else mode)
        temporary.replace(path)
        sync(path.parent)  # else a crash of the machine may forget the new name
    except Exception as error:
        if (
            not isinstance(error, OSError) and type(error).__name__ != "SafetensorError"
        ):  # which wraps the system's errors
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write {path}: {reason}; free some space or mend the folder, then run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Keep the names in a folder through a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


@contextmanager
def swapped(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`; on success it takes its place, on any failure `folder` stays as it was."""
    folder = Path(folder)
    new, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))

    def settle() -> None:
        if old.exists() and not folder.exists():  # a kill, or an error, came between the two renames below
            old.replace(folder)
        for left_over in (new, old):
            shutil.rmtree(left_over, ignore_errors=True)

    try:
        settle()
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free some space or mend the folder, then run it again"
        ) from error
    finally:
        settle()
