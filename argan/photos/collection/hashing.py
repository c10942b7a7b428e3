"""Hashes of files: remembered by path, size and time of change, and checked again where a file is copied."""

from __future__ import annotations

import hashlib
import shutil
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd

from argan.errors import UserError
from argan.photos.folder import printable
from argan.photos.prepare import SourceFile

COLUMNS = ("path", "size", "mtime", "sha256")


def with_hashes(files: Sequence[SourceFile], cache: Path) -> tuple[list[SourceFile], pd.DataFrame]:
    """The files with their sha256, None for those that cannot be read; and the table to write into `cache` after all went well.

    What has the path, size and time of change that the cache remembers is not read.
    """
    try:
        before = pd.read_parquet(cache)[list(COLUMNS)]
    except (OSError, ValueError, KeyError):
        before = pd.DataFrame(columns=list(COLUMNS))
    known = {(path, size, mtime): digest for path, size, mtime, digest in before.itertuples(index=False, name=None)}

    def hashed(file: SourceFile) -> tuple[str, int, int, str]:
        path = printable(str(file.path.absolute()))
        try:
            status = file.path.stat()
            key = (path, status.st_size, status.st_mtime_ns)
            if key in known or not stat.S_ISREG(status.st_mode):
                return (*key, known.get(key, ""))
            return (*key, sha256(file.path))
        except OSError:
            return (path, 0, 0, "")

    with ThreadPoolExecutor() as pool:
        table = pd.DataFrame(list(pool.map(hashed, files)), columns=list(COLUMNS))
    result = [replace(file, sha256=digest or None) for file, digest in zip(files, table["sha256"], strict=True)]
    others = before[~before["path"].isin(table["path"])]
    table = pd.concat([others, table[table["sha256"] != ""]], ignore_index=True)
    return result, table.astype({"size": "int64", "mtime": "int64"})


def sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def copy_verified(file: SourceFile, folder: Path) -> None:
    """Copy a photo to where its hash says; it appears complete. Raises UserError where the copy has other bytes."""
    target = folder / "photos" / str(file.sha256)[:2] / f"{file.sha256}{file.path.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(file.path, temporary)
    if sha256(temporary) != file.sha256:
        temporary.unlink()
        raise UserError(f"{file.source} changed while it was added; nothing was added: run it again")
    temporary.replace(target)
