"""Where the registry is, and how MLflow is spoken to: what it, its database or its server throws comes out as one line."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from argan.config.params import Mlflow
from argan.errors import UserError
from argan.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri(settings: Mlflow | None = None) -> str:
    """The environment's MLFLOW_TRACKING_URI, else the parameter, else params.yaml's in this folder, else the default."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if settings is None and Path("params.yaml").exists():
        from argan.config import params

        settings = params.load().mlflow
    return (settings or Mlflow()).tracking_uri


def public(uri: str) -> str:
    """The URI without user, password and query: fit for a receipt that goes into Git."""
    return redacted(uri).split("?")[0].rstrip("/")


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def reach(uri: str) -> None:
    """Raises UserError at once where MLflow would try again for minutes."""
    parts, file = urlsplit(uri), sqlite_file(uri)
    try:
        if file is not None:
            if file.exists():
                with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                    database.execute("pragma schema_version").fetchone()
            elif not os.access(file.absolute().parent, os.W_OK):
                raise OSError(f"the folder {file.absolute().parent} is not there or not writable")
        elif parts.hostname:
            port = parts.port or {"https": 443, "http": 80}.get(
                parts.scheme, 5432 if "postgres" in parts.scheme else 3306
            )
            socket.create_connection((parts.hostname, port), timeout=5).close()
        elif not parts.scheme.startswith(("sqlite", "databricks", "http", "postgresql", "mysql", "mssql")):
            raise OSError(
                "MLflow keeps no registry in a folder; use sqlite:///FILE, postgresql+psycopg://... or http(s)://..."
            )
    except (OSError, ValueError, sqlite3.Error) as error:
        raise broken(uri, error) from error


def broken(uri: str, error: Exception) -> UserError:
    """What went wrong with the registry, in one line without its secrets."""
    told = re.sub(r"\(Background on this error[^)]*\)", "", str(error)).replace(
        uri, public(uri)
    )  # an address elsewhere
    reason = redacted(" ".join(told.split()))[:300]
    if isinstance(error, ModuleNotFoundError):
        reason += "; for PostgreSQL: pip install 'argan[postgres]', and a URI that starts with postgresql+psycopg://"
    return UserError(
        f"MLflow at {public(uri)} cannot be used ({reason}); start it, or set mlflow.tracking_uri or MLFLOW_TRACKING_URI"
    )


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """Whatever MLflow, its database or its server throw comes out as one line."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ModuleNotFoundError) as error:
        raise broken(uri, error) from error


def connect(uri: str) -> MlflowClient:
    reach(uri)
    from mlflow import MlflowClient

    with speaking(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def revision() -> str:
    """The Git commit of this folder, `+` when code or params are changed since; empty without Git."""
    try:
        ask = {"capture_output": True, "text": True, "timeout": 20, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", "*.py", "params.yaml"], **ask
        ).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if dirty else "")


def or_none(ask: Callable[[], Any]) -> Any:
    """What `ask` returns, or None where MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def prefect() -> dict[str, str]:
    """Which flow run of Prefect this process works for, as tags; the flows say so in the environment."""
    told = {"prefect_flow_run": os.environ.get("ARGAN_PREFECT_RUN"), "prefect_url": os.environ.get("ARGAN_PREFECT_URL")}
    return {key: public(value) for key, value in told.items() if value}
