"""The file of a backup: a plain tar whose last member, manifest.json, names every other one with its size and hash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from argan.errors import UserError
from pipelines.stage import say

FORMAT = 1
MANIFEST = "manifest.json"
BLOCK = 1 << 20  # bytes that are read at a time

Files = dict[str, dict[str, Any]]  # of a manifest: name -> size, sha256


@contextmanager
def opened(file: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    """A backup and its manifest. Raises UserError."""
    try:
        with tarfile.open(file, "r:") as tar:
            content = tar.extractfile(MANIFEST)
            manifest = json.loads(content.read()) if content else {}
            if manifest.get("format") != FORMAT:
                raise UserError(
                    f"{file} has format {manifest.get('format')}, known is {FORMAT}: a newer version made it"
                )
            yield tar, manifest
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there; name a backup: make restore FILE=backups/argan-....tar") from error
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"{file} is damaged or no backup ({error}); take another one") from error


def extract(tar: tarfile.TarFile, manifest: dict[str, Any], to: Path | None) -> None:
    """Every file of the manifest, checked; nothing else of the archive is touched. Without `to` they are only checked."""
    wanted = dict(manifest["files"])
    for member in tar:
        if member.name == MANIFEST:
            continue
        entry, path = wanted.pop(member.name, None), PurePosixPath(member.name)
        if entry is None or not member.isfile() or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{tar.name!s} holds {member.name}, which its manifest does not name; take another backup")
        content, digest = tar.extractfile(member), hashlib.sha256()
        assert content is not None
        target = None if to is None else to / path
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        with (target or Path(os.devnull)).open("wb") as out:
            while block := content.read(BLOCK):
                digest.update(block)
                out.write(block)
            if target is not None:
                out.flush()
                os.fsync(out.fileno())
        if digest.hexdigest() != entry["sha256"]:
            raise UserError(f"{tar.name!s} is damaged: {member.name} is not what was written; take another backup")
    if wanted:
        raise UserError(f"{tar.name!s} is damaged: it lacks {next(iter(wanted))}; take another backup")


def add_manifest(tar: tarfile.TarFile, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=1).encode()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mtime = len(text), int(time.time())
    tar.addfile(member, io.BytesIO(text))


def add_tree(tar: tarfile.TarFile, name: str, path: Path, files: Files) -> None:
    """Add a file, or all files below a folder, as `name`; nothing where neither is there."""
    if path.is_file():
        add(tar, name, path, files)
    elif path.is_dir():
        for inner in _below(path, frozenset()):
            add(tar, f"{name}/{inner.relative_to(path).as_posix()}", inner, files)


def add(tar: tarfile.TarFile, name: str, path: Path, files: Files) -> None:
    """Add a file as `name`, and its size and hash to `files`."""
    try:
        with path.open("rb") as content:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = os.fstat(content.fileno()).st_size, int(os.fstat(content.fileno()).st_mtime)
            hashing = _Hashing(content)
            tar.addfile(member, hashing)  # type: ignore[arg-type]
    except FileNotFoundError:  # a run was deleted meanwhile
        return
    files[name] = {"size": member.size, "sha256": hashing.digest()}


def _below(folder: Path, inside: frozenset[str]) -> Iterator[Path]:
    """Files below a folder, links followed, saying so. inside: the folders, links resolved, that led here."""
    inside |= {os.path.realpath(folder)}
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:  # a run was deleted meanwhile
        return
    for inner in entries:
        if inner.is_symlink():
            target = os.path.realpath(inner)
            if target in inside or not inner.exists():
                why = "a folder that it lies in" if target in inside else "nothing that is there"
                say(f"warning: left out of the backup: {inner}, a link that leads to {target}, {why}")
                continue
            say(f"{inner} is a link to {target}: what is there is in the backup, and comes back without the link")
        if inner.is_dir():
            yield from _below(inner, inside)
        elif inner.is_file():
            yield inner


class _Hashing:
    """A file that hashes what is read of it."""

    def __init__(self, content: IO[bytes]) -> None:
        self.content, self.hash = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self.content.read(size)
        self.hash.update(block)
        return block

    def digest(self) -> str:
        return self.hash.hexdigest()
