"""What the services were started with: settings, password and database, kept in their folder for the next start."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from argan.errors import UserError
from argan.files import write_text
from argan.redact import redacted
from pipelines.services.databases import Databases

SETTINGS = "settings.json"
AUTH = "auth"
WITHOUT_URL = ("sqlite", "embedded")  # values of ARGAN_DATABASE_URL that are no URL


@dataclass(frozen=True)
class Settings:
    """What `start` was given, kept in <home>/settings.json for the next start; nothing secret."""

    prefect_port: int = 4200
    mlflow_port: int = 5000
    postgres_port: int = 5433  # of the embedded PostgreSQL, if that is used
    gpus: int = 1  # trainings at a time: the limit `gpu`
    passwords: bool = True
    allowed_hosts: str = ""  # host[:port],...: names that proxies before the servers go by
    worker: bool = True  # False where other machines work for this one
    artifacts: str = ""  # s3://bucket/prefix for MLflow's artifacts; empty: a folder in home
    database: str = "sqlite"  # the URL without user and password, "embedded", or "sqlite"


def read_settings(home: Path) -> dict[str, Any]:
    """What the last start wrote down; empty before the first. Raises UserError."""
    file = home / SETTINGS
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "allowed_hosts" not in content:  # of a version whose servers had no passwords unless they were asked for
            content.pop("passwords", None)
        return {f.name: content[f.name] for f in fields(Settings) if f.name in content}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and start again") from error


def auth_of(home: Path) -> str:
    """user:password, of ARGAN_AUTH or of the last start, or a new one, which a start writes down. Raises UserError."""
    variable, file = os.environ.get("ARGAN_AUTH"), home / AUTH
    if variable is not None and not re.fullmatch(r"[^:\s']+:[^\s']+", variable):
        raise UserError("ARGAN_AUTH is user:password, without spaces and quotes")
    if variable is None and file.exists():
        return file.read_text(encoding="utf-8").strip()
    return variable or f"argan:{secrets.token_urlsafe(18)}"


def database_of(home: Path, settings: Mapping[str, Any]) -> str:
    """What identifies the database in use. Raises UserError where a start would silently leave the one of the last start.

    settings: of the last start.
    """
    url = os.environ.get("ARGAN_DATABASE_URL", "")
    last = redacted(settings["database"]) if settings.get("database") else None
    if not url:
        if last not in (None, *WITHOUT_URL):
            raise UserError(
                f"these services keep their data in {last}: set ARGAN_DATABASE_URL to it, user and password included"
            )
        return last or "sqlite"
    current = url if url in WITHOUT_URL else Databases(home, url).identity
    if last not in (None, current):
        raise UserError(
            f"ARGAN_DATABASE_URL is another database ({current}) than these services have used so far ({last}); "
            "to use another: choose another folder by ARGAN_SERVICES; what is there moves by make backup and make restore"
        )
    return current


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    write_text(path, text, 0o600)


def secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(18)) -> str:
    """The secret in a file that only its owner can read; made once."""
    if not path.exists():
        write_private(path, make())
    return path.read_text(encoding="utf-8").strip()
