"""Where the registry is, and the connection to it: whatever MLflow, its database or its server raise becomes a UserError."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from argan.config.schema import Mlflow
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


def redacted_uri(uri: str) -> str:
    """The URI without user, password and query: fit for a receipt that goes into Git."""
    return redacted(uri).split("?")[0].rstrip("/")


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def check_reachable(uri: str) -> None:
    """Raises UserError at once where MLflow would retry for minutes."""
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
        raise connection_error(uri, error) from error


def connection_error(uri: str, error: Exception) -> UserError:
    """The error of a registry that cannot be used, in one line without its secrets."""
    message = re.sub(r"\(Background on this error[^)]*\)", "", str(error))  # SQLAlchemy's link to its manual
    message = message.replace(uri, redacted_uri(uri))
    reason = redacted(" ".join(message.split()))[:300]
    if isinstance(error, ModuleNotFoundError):
        reason += "; for PostgreSQL: pip install 'argan[postgres]', and a URI that starts with postgresql+psycopg://"
    return UserError(
        f"MLflow at {redacted_uri(uri)} cannot be used ({reason}); start it, or set mlflow.tracking_uri or MLFLOW_TRACKING_URI"
    )


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Whatever MLflow, its database or its server raise becomes a UserError."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ModuleNotFoundError) as error:
        raise connection_error(uri, error) from error


def connect(uri: str) -> MlflowClient:
    """A client of the registry at `uri`. Raises UserError."""
    check_reachable(uri)
    from mlflow import MlflowClient

    with translate_errors(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def none_if_missing(request: Callable[[], Any]) -> Any:
    """What `request` returns, or None where MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return request()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
