"""The servers behind the pipeline, on this machine, all their data in one folder (ARGAN_SERVICES, else ./services).

python -m pipelines.services start | stop | status | migrate | backup [FILE] | restore FILE | verify FILE
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from argan.errors import UserError
from pipelines.services.databases import Databases
from pipelines.services.servers import Services, Settings, kept_settings
from pipelines.stage import run_command


def home() -> Path:
    return Path(os.environ.get("ARGAN_SERVICES") or "services").absolute()


def load(folder: Path | None = None, look: bool = False, **changed: Any) -> Services:
    """The services in a folder (default: ARGAN_SERVICES, else ./services), with settings changed where given. Raises UserError.

    `look`: to stop them or to see how they are, which needs no password of the database.
    """
    folder = (folder or home()).absolute()
    kept = kept_settings(folder)
    settings = replace(Settings(**kept), **{k: v for k, v in changed.items() if v is not None})
    if not look:
        settings = replace(settings, database=_database(folder, kept))
    return Services(folder, settings, _auth(folder) if settings.passwords else "")


def _auth(folder: Path) -> str:
    """user:password, of ARGAN_AUTH or of the last start, or a new one, which a start writes down. Raises UserError."""
    given, file = os.environ.get("ARGAN_AUTH"), folder / "auth"
    if given is not None and not re.fullmatch(r"[^:\s']+:[^\s']+", given):
        raise UserError("ARGAN_AUTH is user:password, without spaces and quotes")
    if given is None and file.exists():
        return file.read_text(encoding="utf-8").strip()
    return given or f"argan:{secrets.token_urlsafe(18)}"


def _database(folder: Path, kept: Mapping[str, Any]) -> str:
    """What identifies the database in use. Raises UserError where a start would silently leave the one of before."""
    url = os.environ.get("ARGAN_DATABASE_URL", "")
    before = kept.get("database")
    if not url:
        if before not in (None, "sqlite", "embedded"):
            raise UserError(
                f"these services keep their data in {before}: set ARGAN_DATABASE_URL to it, user and password included"
            )
        return before or "sqlite"
    now = url if url in ("sqlite", "embedded") else Databases(folder, url).identity
    if before not in (None, now):
        raise UserError(
            f"ARGAN_DATABASE_URL is another database ({now}) than these services have used so far ({before}); "
            "to use another: choose another folder by ARGAN_SERVICES; what is there moves by make backup and make restore"
        )
    return now


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.services", description="Prefect and MLflow servers, and a worker."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start what does not run yet")
    for name in ("prefect", "mlflow", "postgres"):
        start.add_argument(f"--{name}-port", type=_port, metavar="PORT")
    start.add_argument("--gpus", type=int, metavar="N", help="trainings at a time")
    start.add_argument(
        "--passwords",
        action=argparse.BooleanOptionalAction,
        help="ask for a password (ARGAN_AUTH, or made), as they do by themselves; without, all accounts here may do as you",
    )
    start.add_argument(
        "--allowed-hosts", type=_hosts, metavar="HOST[:PORT],...", help="names of proxies before them; '' for none"
    )
    start.add_argument("--worker", action=argparse.BooleanOptionalAction, help="a worker here too (it is so by itself)")
    start.add_argument("--artifacts", metavar="s3://BUCKET/PREFIX", help="MLflow's artifacts there, not in the folder")
    stop = commands.add_parser("stop", help="stop all; runs in work save their state")
    stop.add_argument("--drain", action="store_true", help="wait until runs in work have ended")
    commands.add_parser("status", help="what runs; exit code 1 when not all do")
    commands.add_parser("migrate", help="bring the databases to the installed versions; back up first")
    backup = commands.add_parser(
        "backup", help="databases, artifacts and parameters into one file; the servers may run"
    )
    backup.add_argument("file", type=Path, nargs="?", metavar="FILE", help="default: backups/argan-<time>.tar")
    backup.add_argument("--cache", action="store_true", help="DVC's cache too")
    backup.add_argument("--keep", type=int, metavar="N", help="remove all but the newest N in that folder")
    restore = commands.add_parser("restore", help="bring a backup back; the servers must be stopped")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--force", action="store_true", help="replace what is there without asking")
    verify = commands.add_parser("verify", help="read a backup to its end and check it")
    verify.add_argument("file", type=Path, metavar="FILE")
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    run_command(lambda: _do(command, options))


def _do(command: str, options: dict[str, Any]) -> None:
    from filelock import FileLock

    from pipelines.services import backup

    if command == "verify":
        return backup.verify(**options)
    place = home()
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock") if command != "status" else nullcontext():
        if command == "restore":
            return backup.restore(place, **options)
        services = load(place, command in ("stop", "status"), **(options if command == "start" else {}))
        match command:
            case "start":
                services.start()
            case "stop":
                services.stop(**options)
            case "status":
                sys.exit(0 if services.status() else 1)
            case "backup":
                with services.own_postgres():
                    backup.backup(services, **options)
            case "migrate":
                with services.own_postgres():
                    services.databases.migrate(os.environ | services.daemon("prefect").environment)
    return None


def _hosts(text: str) -> str:
    for host in text.split(",") if text else ():
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d+)?", host):
            raise argparse.ArgumentTypeError(f"{host!r} is no host: write a.example,b.example:8443")
    return text.lower()


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


if __name__ == "__main__":
    main()
