"""A backup brought back: read and checked to its end before anything is put in its place, and then everything at once."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from argan.errors import UserError
from argan.files import swapped, write_json
from pipelines.services import archive, migrations
from pipelines.services.backup import cache_folder
from pipelines.services.databases import NAMES, Databases
from pipelines.services.dumps import load_files, load_postgres
from pipelines.services.lifecycle import running_postgres
from pipelines.services.servers import Services
from pipelines.services.settings import SETTINGS, Settings, read_settings
from pipelines.stage import say


def restore(home: Path, file: Path, force: bool = False) -> None:
    """Put what a backup holds into `home`, and into the PostgreSQL that ARGAN_DATABASE_URL names. Raises UserError.

    What is there is replaced at once, after all has been read, checked and loaded; a failure leaves everything as it was.
    """
    with archive.opened(file) as (tar, manifest):
        services = _restored_services(home, manifest)
        if any(daemon.members() for daemon in services.daemons().values()):
            raise UserError(f"the services in {home} run; make services-stop first")
        _confirm(services, file, force)
        with swapped(home) as new:
            staged = replace(services, home=new)
            archive.extract(tar, manifest, new / "restored")
            for name in ("auth", "logs"):  # what belongs to this place
                if (home / name).exists():
                    (shutil.copytree if (home / name).is_dir() else shutil.copy2)(home / name, new / name)
            (new / "mlflow").mkdir()
            if (new / "restored" / "artifacts").exists():
                (new / "restored" / "artifacts").replace(new / "mlflow" / "artifacts")
            write_json(new / SETTINGS, asdict(services.settings))
            _load(staged, manifest["rows"])
            shutil.rmtree(new / "restored" / "databases")
            if (cache := new / "restored" / "cache").exists():
                _fill(cache_folder(), cache)
        say(f"restored to {home}: {services.databases.description}, as of {manifest['made']}")
        if (home / "restored" / "workspace").exists():
            say(
                f"params.yaml and the other files of the repository as they were then lie in {home / 'restored' / 'workspace'}"
            )
        if services.settings.artifacts:
            say(f"artifacts were not in the backup: they are those in {services.settings.artifacts}")


def verify(file: Path) -> None:
    """Read a backup to its end and check every hash. Raises UserError."""
    with archive.opened(file) as (tar, manifest):
        archive.extract(tar, manifest, None)
        say(f"{file} is intact: {len(manifest['files'])} files, made {manifest['made']} with {manifest['versions']}")


def _restored_services(home: Path, manifest: dict[str, Any]) -> Services:
    """The services to be: ports and who may use them as it is here, all else from the backup."""
    access = ("passwords", "allowed_hosts")
    settings = {k: v for k, v in manifest["settings"].items() if k in Settings.__dataclass_fields__ and k not in access}
    here = read_settings(home)
    settings |= {k: v for k, v in here.items() if k.endswith("_port") or k in access}
    url = os.environ.get("ARGAN_DATABASE_URL") or here.get("database") or settings["database"]
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
    settings["database"] = url if "://" not in url else Databases(home, url).identity
    services = Services(home, Settings(**settings))
    migrations.check_known(services.databases, manifest["migrations"])
    return services


def _confirm(services: Services, file: Path, force: bool) -> None:
    existing = [str(services.databases.file(n)) for n in NAMES if services.databases.file(n).exists()]
    if services.settings.database == "embedded":
        existing = [str(services.home / "postgres")] if (services.home / "postgres").exists() else []
    elif services.databases.base is not None:
        existing = [
            f"the database {n}" for n in NAMES if services.databases.exists(n) and services.databases.revision(n)
        ]
    if (services.home / "mlflow" / "artifacts").exists():
        existing.append(str(services.home / "mlflow" / "artifacts"))
    if not existing or force:
        return
    question = f"{', '.join(existing)} would be replaced by what is in {file}"
    if not sys.stdin.isatty():
        raise UserError(f"{question}; to do it: make restore FILE={file} FORCE=1")
    if input(f"{question}. Type yes to go on: ").strip() != "yes":
        raise UserError("nothing was changed")


def _load(staged: Services, rows: dict[str, dict[str, int]]) -> None:
    dumps = staged.home / "restored" / "databases"
    if staged.databases.base is None:
        load_files(staged.databases, dumps, rows)
    else:
        with running_postgres(staged), staged.databases.replacing() as loading:
            load_postgres(loading, dumps, rows)


def _fill(cache: Path, restored: Path) -> None:
    """Into DVC's cache what it lacks: its files are named by what is in them."""
    for source in restored.rglob("*"):
        target = cache / source.relative_to(restored)
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target) if source.stat().st_dev == target.parent.stat().st_dev else shutil.move(
                source, target
            )
    shutil.rmtree(restored)
