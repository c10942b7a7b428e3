"""Everything the servers keep, into one file: both databases, MLflow's artifacts, the parameters, by choice DVC's cache.

A backup is taken while the servers run: the databases first, each in one moment, then the artifacts that they speak of, which
are never written over. archive.py has the format of the file, restore.py the way back.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from argan.errors import UserError
from argan.files import atomic, locked
from pipelines.services import archive, migrations
from pipelines.services.databases import NAMES, Databases
from pipelines.services.dumps import dump
from pipelines.services.servers import Services
from pipelines.services.settings import SETTINGS
from pipelines.stage import say

# Of the folder in which it is called
WORKSPACE = ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", "registry", "metrics")


def backup(services: Services, file: Path | None, cache: bool = False, keep: int | None = None) -> Path:
    """Write the backup atomically and return its path. Raises UserError.

    `cache`: DVC's cache too, where there is no DVC remote. `keep`: of the backups in that folder so many stay, 1 or more: this one,
    and of the others the newest.
    """
    if keep is not None and keep < 1:
        raise UserError(f"KEEP is {keep}; write how many backups are to stay, this one among them: 1 or more")
    if not (services.home / SETTINGS).exists():
        raise UserError(f"there are no services in {services.home} to back up; make services, or set ARGAN_SERVICES")
    file = file or Path("backups") / time.strftime("argan-%Y%m%d-%H%M%S.tar")
    migrations.check(services.databases)
    file.parent.mkdir(parents=True, exist_ok=True)
    manifest = _manifest(services)
    with (
        _exclusive(file.parent),
        atomic(file, 0o600) as temporary,  # it holds what the servers hold
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
        _scratch_folder(file.parent) as scratch,
    ):
        _add_databases(tar, services.databases, scratch, manifest)
        if not services.settings.artifacts:
            archive.add_tree(tar, "artifacts", Path(services.artifacts), manifest["files"])
        for part in WORKSPACE:
            archive.add_tree(tar, f"workspace/{part}", Path(part), manifest["files"])
        if cache:
            archive.add_tree(tar, "cache", cache_folder(), manifest["files"])
        archive.add_manifest(tar, manifest)
    size, count = file.stat().st_size / 2**20, sum(name.startswith("artifacts/") for name in manifest["files"])
    remote = services.settings.artifacts
    where = f"not in it: they stay in {remote}" if remote else f"{count} files"
    say(f"backed up to {file}, {size:.1f} MiB: both databases ({services.databases.kind}), artifacts ({where})")
    if not cache:
        say("DVC's cache is not in it: `dvc push` keeps it in the remote, or add it with CACHE=1")
    if keep:
        _remove_others(file, keep)
    return file


def _manifest(services: Services) -> dict[str, Any]:
    """All that is known before anything is copied; `rows` and `files` are filled by what is added."""
    return {
        "format": archive.FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "database": services.databases.kind,
        "migrations": {name: services.databases.revision(name) for name in NAMES},
        "versions": {name: migrations.installed(name) for name in NAMES},
        "settings": asdict(services.settings),
        "rows": {},
        "files": {},
    }


def _add_databases(tar: tarfile.TarFile, databases: Databases, scratch: Path, manifest: dict[str, Any]) -> None:
    for name in NAMES:
        target = scratch / f"{name}.{databases.kind}"
        try:
            manifest["rows"][name] = dump(databases, name, target)
        except sqlite3.Error as error:
            raise UserError(
                f"the {name} database cannot be copied to {scratch.parent} ({error}); nothing was written"
            ) from error
        archive.add(tar, f"databases/{target.name}", target, manifest["files"])
        target.unlink()


def _remove_others(file: Path, keep: int) -> None:
    """Of the backups beside `file`, all but the newest, so that `keep` are left with it."""
    others = sorted(other for other in file.parent.glob("argan-????????-??????.tar") if other.name != file.name)
    for old in others[: max(len(others) - keep + 1, 0)]:
        old.unlink()
        say(f"removed {old}: {keep} backups are kept")


def cache_folder() -> Path:
    """DVC's, of this repository. Raises UserError."""
    done = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("DVC's cache is not found here: run in the top folder of the repository")
    return Path(done.stdout.strip())


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """One backup at a time into a folder; what killed ones left there, which may be as large as a backup, is removed."""
    with locked(folder / ".backup.lock", wait=False) as held:
        if not held:
            raise UserError(f"another backup is being written to {folder}; wait for it, or name another folder")
        for left_over in [*folder.glob(".*.tar.????????.tmp"), *folder.glob(".backup.*/")]:
            say(f"removing {left_over}, which a backup that was killed left")
            left_over.unlink() if left_over.is_file() else shutil.rmtree(left_over)
        yield


@contextmanager
def _scratch_folder(beside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=beside, prefix=".backup.") as folder:
        yield Path(folder)
