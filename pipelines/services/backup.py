"""Everything the servers keep, in one file, and back: both databases, MLflow's artifacts, the parameters, by choice DVC's cache.

The file is a plain tar whose last member, manifest.json, names every other one with its size and hash. A backup is taken while the
servers run: the databases first, each in one moment, then the artifacts that they speak of, which are never written over.
A restore reads and checks the whole file before it puts anything in its place, and then everything at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from argan.errors import UserError
from argan.files import atomic, locked, swapped, write_json
from pipelines.services.databases import NAMES, Databases, installed, tool
from pipelines.services.servers import Services, Settings, kept_settings
from pipelines.stage import say

FORMAT = 1
WORKSPACE = (
    "params.yaml",
    "dvc.yaml",
    "dvc.lock",
    ".dvc/config",
    "registry",
    "metrics",
)  # of the folder it is called in
BLOCK = 1 << 20


# ---- Back up ---------------------------------------------------------------------------------------------------------


def backup(services: Services, file: Path | None, cache: bool = False, keep: int | None = None) -> Path:
    """Write the backup, whole or not at all, and return its path. Raises UserError.

    `cache`: DVC's cache too, where there is no DVC remote. `keep`: of the backups in that folder so many stay, 1 or more: this one,
    and of the others the newest.
    """
    if keep is not None and keep < 1:
        raise UserError(f"KEEP is {keep}; write how many backups are to stay, this one among them: 1 or more")
    if not (services.home / "settings.json").exists():
        raise UserError(f"there are no services in {services.home} to back up; make services, or set ARGAN_SERVICES")
    file = file or Path("backups") / time.strftime("argan-%Y%m%d-%H%M%S.tar")
    services.databases.check()
    file.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "database": services.databases.kind,
        "migrations": {name: services.databases.revision(name) for name in NAMES},
        "versions": {name: installed(name) for name in NAMES},
        "settings": asdict(services.settings),
        "rows": {},
        "files": files,
    }
    with (
        _alone(file.parent),
        atomic(file, 0o600) as temporary,  # it holds what the servers hold
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
        _scratch(file.parent) as scratch,
    ):
        for name in NAMES:
            dump = scratch / f"{name}.{services.databases.kind}"
            try:
                manifest["rows"][name] = _dump(services.databases, name, dump)
            except sqlite3.Error as error:
                raise UserError(
                    f"the {name} database cannot be copied to {file.parent} ({error}); nothing was written"
                ) from error
            _add(tar, f"databases/{dump.name}", dump, files)
            dump.unlink()
        if not services.settings.artifacts:
            _add_tree(tar, "artifacts", Path(services.artifacts), files)
        for part in WORKSPACE:
            _add_tree(tar, f"workspace/{part}", Path(part), files)
        if cache:
            _add_tree(tar, "cache", _cache_folder(), files)
        text = json.dumps(manifest, indent=1).encode()
        told = tarfile.TarInfo("manifest.json")
        told.size, told.mtime = len(text), int(time.time())
        tar.addfile(told, io.BytesIO(text))
    size, count = file.stat().st_size / 2**20, sum(name.startswith("artifacts/") for name in files)
    where = (
        f"not in it: they stay in {services.settings.artifacts}" if services.settings.artifacts else f"{count} files"
    )
    say(f"backed up to {file}, {size:.1f} MiB: both databases ({services.databases.kind}), artifacts ({where})")
    if not cache:
        say("DVC's cache is not in it: `dvc push` keeps it in the remote, or add it with CACHE=1")
    if keep:
        others = sorted(other for other in file.parent.glob("argan-????????-??????.tar") if other.name != file.name)
        for old in others[: max(len(others) - keep + 1, 0)]:
            old.unlink()
            say(f"removed {old}: {keep} backups are kept")
    return file


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One backup at a time into a folder; what killed ones left there, which may be as large as a backup, is removed."""
    with locked(folder / ".backup.lock", wait=False) as mine:
        if not mine:
            raise UserError(f"another backup is being written to {folder}; wait for it, or name another folder")
        for left_over in [*folder.glob(".*.tar.????????.tmp"), *folder.glob(".backup.*/")]:
            say(f"removing {left_over}, which a backup that was killed left")
            left_over.unlink() if left_over.is_file() else shutil.rmtree(left_over)
        yield


@contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=beside, prefix=".backup.") as folder:
        yield Path(folder)


def _dump(databases: Databases, name: str, target: Path) -> dict[str, int]:
    """The database as it is at one moment, into a file; the rows of each table at that moment."""
    if databases.base is None:
        with (
            closing(sqlite3.connect(databases.file(name), timeout=60)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("pragma journal_mode = delete")
            return _rows_sqlite(copy, databases.file(name))
    with closing(databases.connect(name)) as database:
        database.execute("begin isolation level repeatable read read only")
        snapshot = database.execute("select pg_export_snapshot()").fetchone()[0]
        rows = _rows_postgres(database)
        _run(databases, name, "pg_dump", "--format=custom", f"--snapshot={snapshot}", "--no-owner", f"--file={target}")
    return rows


def _rows_sqlite(database: sqlite3.Connection, file: Path) -> dict[str, int]:
    told = database.execute("pragma integrity_check").fetchone()[0]
    if told != "ok":
        raise UserError(f"{file} is damaged ({told}); bring it back from an earlier backup (make restore)")
    tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
    return {t: database.execute(f'select count(*) from "{t}"').fetchone()[0] for t in sorted(tables)}


def _rows_postgres(database: Any) -> dict[str, int]:
    from psycopg import sql

    ask = "select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'"
    tables = sorted(row[0] for row in database.execute(ask))
    count = sql.SQL("select count(*) from {}")
    return {t: database.execute(count.format(sql.Identifier(t))).fetchone()[0] for t in tables}


def _run(databases: Databases, name: str, program: str, *arguments: str) -> None:
    """A program of PostgreSQL on one of the databases; the password goes through the environment."""
    done = subprocess.run(
        [tool(program), "--no-password", *arguments],
        env={**os.environ, **databases.variables(name)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no word"]
        )
        raise UserError(f"{program} on the {name} database ({databases.public}) failed: {lines[0].strip()[:300]}")


def _add_tree(tar: tarfile.TarFile, name: str, path: Path, files: dict[str, dict[str, Any]]) -> None:
    if path.is_file():
        _add(tar, name, path, files)
    elif path.is_dir():
        for inner in _below(path, frozenset()):
            _add(tar, f"{name}/{inner.relative_to(path).as_posix()}", inner, files)


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


def _add(tar: tarfile.TarFile, name: str, path: Path, files: dict[str, dict[str, Any]]) -> None:
    try:
        with path.open("rb") as content:
            told = tarfile.TarInfo(name)
            told.size, told.mtime = os.fstat(content.fileno()).st_size, int(os.fstat(content.fileno()).st_mtime)
            hashing = _Hashing(content)
            tar.addfile(told, hashing)  # type: ignore[arg-type]
    except FileNotFoundError:  # a run was deleted meanwhile
        return
    files[name] = {"size": told.size, "sha256": hashing.digest()}


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


def _cache_folder() -> Path:
    done = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("DVC's cache is not found here: run in the top folder of the repository")
    return Path(done.stdout.strip())


# ---- Restore ---------------------------------------------------------------------------------------------------------


def restore(home: Path, file: Path, force: bool = False) -> None:
    """Put what a backup holds into `home`, and into the PostgreSQL that ARGAN_DATABASE_URL names. Raises UserError.

    What is there is replaced at once, after all has been read, checked and loaded; a failure leaves everything as it was.
    """
    with _opened(file) as (tar, manifest):
        services = _target(home, manifest)
        if any(daemon.members() for daemon in services.daemons()):
            raise UserError(f"the services in {home} run; make services-stop first")
        _confirm(services, file, force)
        with swapped(home) as new:
            staged = replace(services, home=new)
            _extract(tar, manifest, new / "restored")
            for name in ("auth", "logs"):  # what belongs to this place
                if (home / name).exists():
                    (shutil.copytree if (home / name).is_dir() else shutil.copy2)(home / name, new / name)
            (new / "mlflow").mkdir()
            if (new / "restored" / "artifacts").exists():
                (new / "restored" / "artifacts").replace(new / "mlflow" / "artifacts")
            write_json(new / "settings.json", asdict(services.settings))
            _load(staged, manifest)
            shutil.rmtree(new / "restored" / "databases")
            if (cache := new / "restored" / "cache").exists():
                _fill(_cache_folder(), cache)
        say(f"restored to {home}: {services.databases.public}, as of {manifest['made']}")
        if (home / "restored" / "workspace").exists():
            say(
                f"params.yaml and the other files of the repository as they were then lie in {home / 'restored' / 'workspace'}"
            )
        if services.settings.artifacts:
            say(f"artifacts were not in the backup: they are those in {services.settings.artifacts}")


def verify(file: Path) -> None:
    """Read a backup to its end and check every hash. Raises UserError."""
    with _opened(file) as (tar, manifest):
        _extract(tar, manifest, None)
        say(f"{file} is whole: {len(manifest['files'])} files, made {manifest['made']} with {manifest['versions']}")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, Any]]]:
    try:
        with tarfile.open(file, "r:") as tar:
            content = tar.extractfile("manifest.json")
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


def _target(home: Path, manifest: dict[str, Any]) -> Services:
    """The services to be: ports and who may use them as it is here, all else from the backup."""
    access = ("passwords", "allowed_hosts")
    told = {k: v for k, v in manifest["settings"].items() if k in Settings.__dataclass_fields__ and k not in access}
    here = kept_settings(home)
    told |= {k: v for k, v in here.items() if k.endswith("_port") or k in access}
    url = os.environ.get("ARGAN_DATABASE_URL") or here.get("database") or told["database"]
    kind = "sqlite" if url == "sqlite" else "postgresql"
    if kind != manifest["database"]:
        raise UserError(
            f"the backup holds {manifest['database']} databases and cannot be loaded into {kind}: "
            f"{'unset' if kind == 'postgresql' else 'set'} ARGAN_DATABASE_URL, or choose another folder by ARGAN_SERVICES"
        )
    if "://" in url and "ARGAN_DATABASE_URL" not in os.environ:
        raise UserError(
            f"the databases of the backup were in {url}: set ARGAN_DATABASE_URL, user and password included"
        )
    told["database"] = url if "://" not in url else Databases(home, url).identity
    services = Services(home, Settings(**told))
    services.databases.known(manifest["migrations"])
    return services


def _confirm(services: Services, file: Path, force: bool) -> None:
    there = [str(services.databases.file(n)) for n in NAMES if services.databases.file(n).exists()]
    if services.settings.database == "embedded":
        there = [str(services.home / "postgres")] if (services.home / "postgres").exists() else []
    elif services.databases.base is not None:
        there = [f"the database {n}" for n in NAMES if services.databases.exists(n) and services.databases.revision(n)]
    if (services.home / "mlflow" / "artifacts").exists():
        there.append(str(services.home / "mlflow" / "artifacts"))
    if not there or force:
        return
    told = f"{', '.join(there)} would be replaced by what is in {file}"
    if not sys.stdin.isatty():
        raise UserError(f"{told}; to do it: make restore FILE={file} FORCE=1")
    if input(f"{told}. Type yes to go on: ").strip() != "yes":
        raise UserError("nothing was changed")


def _extract(tar: tarfile.TarFile, manifest: dict[str, Any], to: Path | None) -> None:
    """Every file of the manifest, checked; nothing else of the archive is touched. Without `to` they are only checked."""
    wanted = dict(manifest["files"])
    for member in tar:
        if member.name == "manifest.json":
            continue
        told, path = wanted.pop(member.name, None), PurePosixPath(member.name)
        if told is None or not member.isfile() or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{tar.name!s} holds {member.name}, which its manifest does not name; take another backup")
        content, hash_ = tar.extractfile(member), hashlib.sha256()
        assert content is not None
        target = None if to is None else to / path
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        with (target or Path(os.devnull)).open("wb") as out:
            while block := content.read(BLOCK):
                hash_.update(block)
                out.write(block)
            if target is not None:
                out.flush()
                os.fsync(out.fileno())
        if hash_.hexdigest() != told["sha256"]:
            raise UserError(f"{tar.name!s} is damaged: {member.name} is not what was written; take another backup")
    if wanted:
        raise UserError(f"{tar.name!s} is damaged: it lacks {next(iter(wanted))}; take another backup")


def _load(staged: Services, manifest: dict[str, Any]) -> None:
    """The dumps into their databases, checked by the rows of every table."""
    dumps = staged.home / "restored" / "databases"
    if staged.databases.base is None:
        for name in NAMES:
            file = staged.databases.file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            (dumps / f"{name}.sqlite").replace(file)
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
                _same(name, _rows_sqlite(database, file), manifest)
        return
    with staged.own_postgres(), staged.databases.replacing() as loading:
        for name in NAMES:
            dump = str(dumps / f"{name}.postgresql")
            _run(loading, name, "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={loading.name(name)}", dump)
            with closing(loading.connect(name)) as database:
                _same(name, _rows_postgres(database), manifest)


def _same(name: str, rows: dict[str, int], manifest: dict[str, Any]) -> None:
    if rows != manifest["rows"][name]:
        differing = sorted(t for t in {*rows, *manifest["rows"][name]} if rows.get(t) != manifest["rows"][name].get(t))
        raise UserError(
            f"the {name} database came back with other rows in {', '.join(differing)}; nothing was replaced"
        )


def _fill(cache: Path, found: Path) -> None:
    """Into DVC's cache what it lacks: its files are named by what is in them."""
    for source in found.rglob("*"):
        target = cache / source.relative_to(found)
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target) if source.stat().st_dev == target.parent.stat().st_dev else shutil.move(
                source, target
            )
    shutil.rmtree(found)
