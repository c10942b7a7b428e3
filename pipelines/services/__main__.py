"""The servers behind the pipeline, on this machine, all their data in one folder (ARGAN_SERVICES, else ./services).

python -m pipelines.services start | stop | status | migrate | backup [FILE] | restore FILE | verify FILE
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipelines.services.servers import Services
from pipelines.stage import run_command


def main() -> None:
    options = vars(_parser().parse_args())
    command = options.pop("command")
    run_command(lambda: _run(command, options))


def _run(command: str, options: dict[str, Any]) -> None:
    from filelock import FileLock

    from pipelines.services import backup, lifecycle, migrations, restore

    if command == "verify":
        return restore.verify(**options)
    home = Path(os.environ.get("ARGAN_SERVICES") or "services").absolute()
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock") if command != "status" else nullcontext():
        if command == "restore":
            return restore.restore(home, **options)
        changed = options if command == "start" else {}
        services = Services.load(home, need_database=command not in ("stop", "status"), **changed)
        match command:
            case "start":
                lifecycle.start(services)
            case "stop":
                lifecycle.stop(services, **options)
            case "status":
                sys.exit(0 if lifecycle.status(services) else 1)
            case "backup":
                with lifecycle.running_postgres(services):
                    backup.backup(services, **options)
            case "migrate":
                with lifecycle.running_postgres(services):
                    environment = services.daemons()["prefect"].environment
                    migrations.migrate(services.databases, os.environ | environment)
    return None


def _parser() -> argparse.ArgumentParser:
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
    return parser


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
