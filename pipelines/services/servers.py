"""Prefect's server and a worker, MLflow's server, and what they need: where they are and how each is run.

Whoever can talk to Prefect's server has its worker run any command, so both servers want a password and refuse foreign pages and
names (auth.py), though they listen on 127.0.0.1 alone: other accounts of the machine and web pages reach that too. Where others
are to reach them, put a proxy with TLS before them (docs/operations.md).
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.services import auth as basic_auth
from pipelines.services.daemon import Daemon
from pipelines.services.databases import Databases
from pipelines.services.postgres import embedded
from pipelines.services.prefect_api import POOL, PrefectApi
from pipelines.services.settings import Settings, auth_of, database_of, read_settings, secret

HOST = "127.0.0.1"
# Variables that a server's environment gets from the shell although their prefix is filtered
PASSED_ON = ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL", "MLFLOW_LOGGING_LEVEL", "MLFLOW_S3_ENDPOINT_URL")
FILTERED = ("PREFECT_", "MLFLOW_", "_MLFLOW", "ARGAN_DATABASE_URL", basic_auth.AUTH)
QUIET = {  # nothing phones home
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "SHELL": "/bin/sh",
    "PYTHONUNBUFFERED": "1",
}
SECRET = ("PASSWORD", "USERNAME", "AUTH", "HOME")  # ends of variables that no work pool holds


@dataclass(frozen=True)
class Services:
    """All of them, in one folder."""

    home: Path
    settings: Settings = field(default_factory=Settings)
    auth: str = ""  # user:password

    @classmethod
    def load(cls, home: Path, need_database: bool = True, **changed: Any) -> Services:
        """The services in a folder, with settings of the last start, or changed where given. Raises UserError.

        need_database: False to stop them or to see how they are, which needs no password of the database.
        """
        home = home.absolute()
        last = read_settings(home)
        settings = replace(Settings(**last), **{k: v for k, v in changed.items() if v is not None})
        if need_database:
            settings = replace(settings, database=database_of(home, last))
        return cls(home, settings, auth_of(home) if settings.passwords else "")

    @property
    def prefect(self) -> str:
        return f"http://{HOST}:{self.settings.prefect_port}"

    @property
    def mlflow(self) -> str:
        return f"http://{HOST}:{self.settings.mlflow_port}"

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(self.prefect, self.auth, f"{self.home}/env")

    @property
    def artifacts(self) -> str:
        return self.settings.artifacts or str(self.home / "mlflow" / "artifacts")

    @property
    def postgres_password(self) -> str:
        """Of the embedded PostgreSQL."""
        return secret(self.home / "postgres-password")

    @property
    def databases(self) -> Databases:
        if self.settings.database == "embedded":
            return Databases(
                self.home, f"postgresql://argan:{self.postgres_password}@{HOST}:{self.settings.postgres_port}/"
            )
        if self.settings.database == "sqlite":
            return Databases(self.home)
        # To stop and to look needs no password
        without_password = self.settings.database.replace("://", "://unknown@")
        return Databases(self.home, os.environ.get("ARGAN_DATABASE_URL") or without_password)

    @property
    def guard(self) -> dict[str, str]:
        """The environment of the guard in front of both servers; their pages may show each other's pictures."""
        proxies = [host for host in self.settings.allowed_hosts.split(",") if host]
        return basic_auth.environment(
            *basic_auth.allowed((self.settings.prefect_port, self.settings.mlflow_port), proxies)
        )

    def client(self) -> dict[str, str]:
        """The environment of whoever talks to the servers: flows, stages, a shell."""
        variables = {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_HOME": str(self.home / "prefect"),
            "MLFLOW_TRACKING_URI": self.mlflow,
        }
        if self.auth:
            user, _, password = self.auth.partition(":")
            variables |= {"PREFECT_API_AUTH_STRING": self.auth}
            variables |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        return variables

    def pool_environment(self) -> dict[str, str]:
        """The environment that the work pool gives to flow runs; nothing secret is in it."""
        return QUIET | {k: v for k, v in self.client().items() if not k.endswith(SECRET) and "AUTH" not in k}

    def daemons(self) -> dict[str, Daemon]:
        """By name, in the order in which they start."""
        daemons = [_mlflow(self), _prefect(self)]
        if self.settings.worker:
            daemons.append(_worker(self))
        if self.settings.database == "embedded":
            daemons.insert(0, embedded(self.home, self.settings.postgres_port))
        return {daemon.name: daemon for daemon in daemons}


def worker_name() -> str:
    return f"{POOL}-{socket.gethostname()}"


def _mlflow(services: Services) -> Daemon:
    environment = _base() | services.guard | ({} if services.settings.artifacts else _nowhere())
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": services.databases.connection(
            "mlflow"
        ),  # not on the command line: all users see that
        "MLFLOW_ARTIFACTS_DESTINATION": services.artifacts,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers take 2 GB
    }
    if services.auth:
        environment[basic_auth.AUTH] = services.auth
    options = ["--host", HOST, "--port", str(services.settings.mlflow_port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *options, "--app-name", basic_auth.APP]
    return Daemon("mlflow", services.home, command, environment)


def _prefect(services: Services) -> Daemon:
    environment = _base() | _nowhere() | services.guard
    environment |= {
        "PREFECT_HOME": str(services.home / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": services.databases.connection("prefect"),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": services.guard[basic_auth.ORIGINS],
        "PREFECT_UI_API_URL": "/api",  # of whatever name and port the page was opened by: a tunnel's, a proxy's
        # In memory, its default, a restart of the server would leak the slots of runs that hold one
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    if services.auth:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = services.auth
    level = environment.get("PREFECT_SERVER_LOGGING_LEVEL", "warning").lower()
    options = ["--host", HOST, "--port", str(services.settings.prefect_port), "--log-level", level]
    command = [sys.executable, "-m", "uvicorn", "--factory", "pipelines.services.auth:prefect", *options]
    return Daemon("prefect", services.home, command, environment)


def _worker(services: Services) -> Daemon:
    options = ["--pool", POOL, "--type", "process", "--name", worker_name()]
    command = [sys.executable, "-m", "prefect", "worker", "start", *options]
    return Daemon("worker", services.home, command, _base() | services.client(), patience=60)


def _base() -> dict[str, str]:
    """What every server's environment begins with."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(FILTERED) or k in PASSED_ON}
    path = f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', os.defpath)}"
    return variables | QUIET | {"PATH": path}


def _nowhere() -> dict[str, str]:
    """For servers that have no business outside: what they ask for all the same (Prefect: a list of integrations) fails at once."""
    return {"HTTPS_PROXY": os.environ.get("HTTPS_PROXY", "http://127.0.0.1:9"), "NO_PROXY": "127.0.0.1,localhost"}
