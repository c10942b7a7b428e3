"""Prefect's server and a worker, MLflow's server, and what they need, as one thing that is started, stopped and looked at.

Started in order, each when the one before answers; what runs already is left alone, so `start` is also what brings back the one
that died. Whoever can talk to Prefect's server has its worker run any command, so both servers want a password and refuse foreign
pages and names (auth.py), though they listen on 127.0.0.1 alone: other accounts of the machine and web pages reach that
too. Where others are to reach them, put a proxy with TLS before them (docs/operations.md).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from argan.errors import UserError
from argan.files import atomic, write_json
from pipelines import storage
from pipelines.services import auth as guard
from pipelines.services.daemon import Daemon
from pipelines.services.databases import Databases, embedded, initialise
from pipelines.stage import say

POOL = "argan"
GPU = "gpu"
HOST = "127.0.0.1"
AGAIN = "make services-stop, then make services"
PATIENCE = 240.0  # seconds for a server to answer; 10 to 35 on a quiet machine, a first start makes the tables


@dataclass(frozen=True)
class Settings:
    """What `start` was told, kept in <home>/settings.json for the next start; nothing secret."""

    prefect_port: int = 4200
    mlflow_port: int = 5000
    postgres_port: int = 5433  # of the embedded PostgreSQL, if that is used
    gpus: int = 1  # trainings at a time: the limit `gpu`
    passwords: bool = True
    allowed_hosts: str = ""  # host[:port],...: names that proxies before the servers go by
    worker: bool = True  # False where other machines work for this one
    artifacts: str = ""  # s3://bucket/prefix for MLflow's artifacts; empty: a folder in home
    database: str = "sqlite"  # the URL without user and password, "embedded", or "sqlite"


@dataclass(frozen=True)
class Services:
    """All of them, in one folder."""

    home: Path
    settings: Settings = field(default_factory=Settings)
    auth: str = ""  # user:password

    # ---- What they are

    @property
    def prefect(self) -> str:
        return f"http://{HOST}:{self.settings.prefect_port}"

    @property
    def mlflow(self) -> str:
        return f"http://{HOST}:{self.settings.mlflow_port}"

    @property
    def databases(self) -> Databases:
        if self.settings.database == "embedded":
            password = secret(self.home / "postgres-password")
            return Databases(self.home, f"postgresql://argan:{password}@{HOST}:{self.settings.postgres_port}/")
        if self.settings.database == "sqlite":
            return Databases(self.home)
        # To stop and to look needs no password
        return Databases(
            self.home, os.environ.get("ARGAN_DATABASE_URL") or self.settings.database.replace("://", "://unknown@")
        )

    @property
    def guarding(self) -> dict[str, str]:
        """The environment of the guard in front of both servers; their pages may show each other's pictures."""
        public = [host for host in self.settings.allowed_hosts.split(",") if host]
        return guard.environment(*guard.allowed((self.settings.prefect_port, self.settings.mlflow_port), public))

    @property
    def artifacts(self) -> str:
        return self.settings.artifacts or str(self.home / "mlflow" / "artifacts")

    def client(self) -> dict[str, str]:
        """The environment of whoever talks to the servers: flows, stages, a shell."""
        made = {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_HOME": str(self.home / "prefect"),
            "MLFLOW_TRACKING_URI": self.mlflow,
        }
        if self.auth:
            user, _, password = self.auth.partition(":")
            made |= {"PREFECT_API_AUTH_STRING": self.auth}
            made |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        return made

    def daemons(self) -> list[Daemon]:
        """In the order in which they start."""
        foreign = ("PREFECT_", "MLFLOW_", "_MLFLOW", "ARGAN_DATABASE_URL", guard.AUTH)
        base = {k: v for k, v in os.environ.items() if not k.startswith(foreign) or k in KEPT}
        base |= QUIET | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{base.get('PATH', os.defpath)}"}
        # The servers have no business outside; what they ask for all the same (Prefect: a list of integrations) fails at once.
        nowhere = {
            "HTTPS_PROXY": os.environ.get("HTTPS_PROXY", "http://127.0.0.1:9"),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        python, databases = [sys.executable, "-m"], self.databases
        prefect = base | nowhere | self.guarding
        prefect |= {
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_DATABASE_CONNECTION_URL": databases.connection("prefect"),
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.guarding[guard.ORIGINS],
            "PREFECT_UI_API_URL": "/api",  # of whatever name and port the page was opened by: a tunnel's, a proxy's
            # In memory, its default, a restart of the server would leak the slots of runs that hold one
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        }
        mlflow = base | self.guarding | ({} if self.settings.artifacts else nowhere)
        mlflow |= {
            "MLFLOW_BACKEND_STORE_URI": databases.connection("mlflow"),  # not on the command line, which all users see
            "MLFLOW_ARTIFACTS_DESTINATION": self.artifacts,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers take 2 GB
        }
        if self.auth:
            prefect["PREFECT_SERVER_API_AUTH_STRING"] = self.auth
            mlflow[guard.AUTH] = self.auth
        port = str(self.settings.mlflow_port)
        server = ["mlflow", "server", "--host", HOST, "--port", port, "--workers", "1", "--app-name", guard.APP]
        port, level = str(self.settings.prefect_port), prefect.get("PREFECT_SERVER_LOGGING_LEVEL", "warning").lower()
        api = [
            "uvicorn",
            "--factory",
            "pipelines.services.auth:prefect",
            "--host",
            HOST,
            "--port",
            port,
            "--log-level",
            level,
        ]
        work = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", _worker()]
        all_ = [
            Daemon("mlflow", self.home, [*python, *server], mlflow),
            Daemon("prefect", self.home, [*python, *api], prefect),
        ]
        if self.settings.worker:
            all_.append(Daemon("worker", self.home, [*python, *work], base | self.client(), patience=60))
        if self.settings.database == "embedded":
            all_.insert(0, embedded(self.home, self.settings.postgres_port))
        return all_

    def daemon(self, name: str) -> Daemon:
        return next(d for d in self.daemons() if d.name == name)

    # ---- Start, stop, status

    def start(self) -> None:
        """Start what does not run. When one cannot be started, those that this call started are ended again."""
        self.home.mkdir(parents=True, exist_ok=True)
        for name in ("prefect", "mlflow", "logs", "run"):  # databases, artifacts, logs: no other account's business
            (self.home / name).mkdir(mode=0o700, exist_ok=True)
            (self.home / name).chmod(0o700)
        daemons = {d.name: d for d in self.daemons()}
        # One whose start was cut short before it was noted down is started again: nobody knows with which settings it runs
        running = {
            name for name, daemon in daemons.items() if (p := daemon.leader()) and p.pid == daemon.note().get("pid")
        }
        for name, daemon in daemons.items():
            if name in running:
                self._as_wanted(name, daemon.note())
            else:
                daemon.stop()  # what a crash left of it would hold the port
                if port := self._ports().get(name):
                    self._free(name, port)
        if not entry_points(group="mlflow.app", name=guard.APP):
            raise UserError("the servers need the package as this version installs it: run `make setup`")
        if self.settings.artifacts:
            storage.check(self.settings.artifacts)
        file = self.home / "auth"
        known = file.read_text(encoding="utf-8").strip() if file.exists() else ""
        if self.auth != known and self.auth:
            if running and known:
                raise UserError(
                    f"the servers run already, with another password than {guard.AUTH}'s; to change it: {AGAIN}"
                )
            _private(file, self.auth)
        write_json(self.home / "settings.json", asdict(self.settings))
        if not self.settings.worker:
            Daemon("worker", self.home, patience=60).stop()
        fresh = [daemon for name, daemon in daemons.items() if name not in running]
        try:
            self._start(daemons, running)
        except BaseException:
            for daemon in reversed(fresh):
                daemon.stop()
            raise
        self._tell(self.auth != known and guard.AUTH not in os.environ)

    def _start(self, daemons: Mapping[str, Daemon], running: set[str]) -> None:
        began = time.monotonic()

        def begin(name: str) -> None:
            if name not in running:
                package = _version("prefect" if name == "worker" else name) if name != "postgres" else ""
                daemons[name].start(version=package, settings=asdict(self.settings), time=time.time())

        def ready(name: str) -> None:
            self._wait(daemons[name])
            say(f"{name}: {'already running' if name in running else f'up after {time.monotonic() - began:.0f} s'}")

        if "postgres" in daemons:
            initialise(self.home, secret(self.home / "postgres-password"))
            begin("postgres")
            ready("postgres")
        self.databases.create()
        self.databases.check()
        for step in (begin, ready):  # the two start side by side
            for name in ("mlflow", "prefect"):
                step(name)
        self._pool()
        self._gpu()
        if "worker" in daemons:
            begin("worker")
            ready("worker")

    def _ports(self) -> dict[str, int]:
        s = self.settings
        return {"mlflow": s.mlflow_port, "prefect": s.prefect_port, "postgres": s.postgres_port}

    def _free(self, name: str, port: int) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return
            except OSError as error:
                reason = "is taken by another program" if not isinstance(error, PermissionError) else "may not be used"
        raise UserError(f"port {port} {reason}; choose another: make services {name.upper()}_PORT={port + 1}")

    def _as_wanted(self, name: str, note: Mapping[str, Any]) -> None:
        """Raises UserError where what runs is not what would be started now."""
        package, now = "prefect" if name == "worker" else name, asdict(self.settings)
        for key in ("database", "passwords", "allowed_hosts", "artifacts", f"{name}_port"):
            if key in now and (before := note.get("settings", {}).get(key)) != now[key]:
                has, wants = ("none" if value in (None, "") else value for value in (before, now[key]))
                raise UserError(f"{name} runs already, with {key} {has} and not {wants}; to change it: {AGAIN}")
        if name != "postgres" and note.get("version") != (installed := _version(package)):
            raise UserError(
                f"the {name} that runs is {package} {note.get('version')}, installed is {installed}: {AGAIN}"
            )

    def _wait(self, daemon: Daemon) -> None:
        until = time.monotonic() + PATIENCE
        while not self._answers(daemon):
            if not daemon.leader():
                raise UserError(f"{daemon.name} ended while it started: {_hidden(daemon.said())}; see {daemon.log}")
            if time.monotonic() > until:
                raise UserError(f"{daemon.name} does not answer after {PATIENCE:.0f} s; see {daemon.log}")
            time.sleep(0.25)

    def stop(self, drain: bool = False) -> None:
        """End all, last started first. Runs in work are interrupted, so that training saves its state; or waited for."""
        ended = []
        for daemon in reversed(self.daemons()):
            if daemon.name == "worker":
                runs = self._finish_runs(drain) if daemon.leader() else []
                if daemon.stop(everything=True):
                    ended.append(daemon.name)
                self._cancel(runs, "CANCELLED")  # those that heard nothing: their processes are gone
            elif daemon.stop():
                ended.append(daemon.name)
        (self.home / "env").unlink(missing_ok=True)
        say(f"stopped: {', '.join(ended)}" if ended else "nothing was running")

    def _finish_runs(self, drain: bool) -> list[dict[str, Any]]:
        """Wait until no run is in work, having asked each to end unless `drain`; those that are left after a minute."""
        states = ["RUNNING", "PENDING", "CANCELLING"]
        ask = {"flow_runs": {"state": {"type": {"any_": states}}}, "work_pools": {"name": {"any_": [POOL]}}}
        runs: list[dict[str, Any]] = []
        with suppress(UserError):
            for waited in range(10**9 if drain else 60):
                runs = self.ask("POST", "/flow_runs/filter", ask)
                if runs and waited == 0:
                    names = ", ".join(run["name"] for run in runs)
                    say(f"{'waiting for' if drain else 'interrupting; a new run resumes from the checkpoint'}: {names}")
                    if not drain:
                        self._cancel(runs, "CANCELLING")
                if not runs:
                    break
                time.sleep(1)
        return runs

    def _cancel(self, runs: list[dict[str, Any]], state: str) -> None:
        with suppress(UserError):
            for run in runs:
                told = {"type": state, "name": state.capitalize(), "message": "the services were stopped"}
                self.ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": told, "force": True})

    def status(self) -> bool:
        """Print a line for each; whether all run and answer."""
        well = True
        for daemon in self.daemons():
            leader = daemon.leader()
            state = "not running" if leader is None else "running" if self._answers(daemon) else "does not answer"
            well &= state == "running"
            since = "" if leader is None else f", pid {leader.pid}, {daemon.memory() / 2**20:.0f} MiB"
            say(f"{daemon.name:9}{state}{since}, log {daemon.log}")
        say(f"{'data':9}{self.home} ({self.databases.public}; artifacts in {self.artifacts})")
        return well

    def _answers(self, daemon: Daemon) -> bool:
        import httpx

        with suppress(UserError, httpx.HTTPError):
            match daemon.name:
                case "postgres":
                    self.databases.connect(None).close()
                    return True
                case "mlflow":
                    return httpx.get(f"{self.mlflow}/health", timeout=5, trust_env=False).status_code == 200
                case "prefect":
                    return self.ask("GET", "/health") is True
                case "worker":  # its sign of life must be younger than itself: the one before it had the same name
                    workers = self.ask("POST", f"/work_pools/{POOL}/workers/filter", {}) or []
                    mine = [w for w in workers if w["name"] == _worker() and w["status"] == "ONLINE"]
                    seen = [datetime.fromisoformat(w["last_heartbeat_time"]).timestamp() for w in mine]
                    return max(seen, default=0.0) > daemon.note().get("time", 0.0)
        return False

    @contextmanager
    def own_postgres(self) -> Iterator[None]:
        """The embedded PostgreSQL, if that is used, for the length of a `with`; where it runs already it goes on."""
        daemon = next((d for d in self.daemons() if d.name == "postgres" and not d.leader()), None)
        if daemon is not None:
            daemon.stop()
            self._free("postgres", self.settings.postgres_port)
            initialise(self.home, secret(self.home / "postgres-password"))
            daemon.start(settings=asdict(self.settings))
        try:
            if daemon is not None:
                self._wait(daemon)
            yield
        finally:
            if daemon is not None:
                daemon.stop()

    # ---- Prefect's interface

    def ask(self, method: str, path: str, content: Any = None, none: tuple[int, ...] = ()) -> Any:
        """A request to Prefect; None for a status in `none`. Raises UserError."""
        import httpx

        user, _, password = self.auth.partition(":")
        try:
            with httpx.Client(auth=(user, password) if user else None, timeout=30, trust_env=False) as client:
                headers = {}
                if method != "GET":
                    answer = client.get(f"{self.prefect}/api/csrf-token", params={"client": CSRF_CLIENT})
                    if answer.is_success:  # a server that was started by an earlier version gives none
                        headers = {"Prefect-Csrf-Token": answer.json()["token"], "Prefect-Csrf-Client": CSRF_CLIENT}
                answer = client.request(method, f"{self.prefect}/api{path}", json=content, headers=headers)
        except httpx.HTTPError as error:
            raise UserError(
                f"Prefect at {self.prefect} does not answer ({type(error).__name__}); make services"
            ) from error
        if answer.status_code in none:
            return None
        if answer.status_code == 401:
            raise UserError(f"Prefect at {self.prefect} wants another password; see {self.home}/env")
        if answer.is_error:
            raise UserError(f"Prefect at {self.prefect} refuses {path} ({answer.status_code}: {answer.text[:200]})")
        return answer.json() if answer.content else None

    def _pool(self) -> None:
        """The work pool; stages get their environment from it, whichever worker takes the run. Nothing secret is in it."""
        secret = ("PASSWORD", "USERNAME", "AUTH", "HOME")
        environment = QUIET | {k: v for k, v in self.client().items() if not k.endswith(secret) and "AUTH" not in k}
        pool = self.ask("GET", f"/work_pools/{POOL}", none=(404,))
        if pool is None:
            from prefect.workers.process import ProcessWorker

            template = ProcessWorker.get_default_base_job_template()
        else:
            template = pool["base_job_template"]
        given = template["variables"]["properties"]["env"]
        if pool is not None and given.get("default") == environment:
            return
        given["default"] = environment
        told = {"base_job_template": template, "description": "Trainings and all other flows of AR-GAN, as processes"}
        if pool is None:
            self.ask("POST", "/work_pools/", {"name": POOL, "type": "process", **told})
        else:
            self.ask("PATCH", f"/work_pools/{POOL}", told)

    def _gpu(self) -> None:
        """The limit that lets one training at a time onto a GPU."""
        limit = self.ask("GET", f"/v2/concurrency_limits/{GPU}", none=(404,))
        if limit is None:
            self.ask("POST", "/v2/concurrency_limits/", {"name": GPU, "limit": self.settings.gpus})
        elif limit["limit"] != self.settings.gpus:
            self.ask("PATCH", f"/v2/concurrency_limits/{GPU}", {"limit": self.settings.gpus})

    # ---- What is told

    def _tell(self, new_password: bool) -> None:
        lines = "".join(f"export {name}='{value}'\n" for name, value in self.client().items())
        _private(self.home / "env", lines)
        say(f"\nFlows, runs, schedules:  {self.prefect}/runs")
        say(f"Registered models:       {self.mlflow}/#/models?workflowType=machine_learning")
        say(f"Training runs:           {self.mlflow}/#/experiments?workflowType=machine_learning")
        say(f"Your shell:              source {self.home}/env")
        if self.auth:
            if new_password:
                say(
                    f"Both servers want this from now on (PASSWORDS=0 turns it off); it is shown this once: {self.auth}"
                )
            say(
                f"User:password:           cat {self.home}/auth (Prefect's page asks for both in one line, MLflow's for each)"
            )
        else:
            say("No passwords: every account of this machine can run commands as you, through Prefect's worker")
        say(f"Data: {self.home} ({self.databases.public}; artifacts in {self.artifacts}). Stop: make services-stop")


CSRF_CLIENT = str(uuid.uuid4())  # tokens are kept by client: each process asks for its own
KEPT = ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL", "MLFLOW_LOGGING_LEVEL", "MLFLOW_S3_ENDPOINT_URL")
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


def _worker() -> str:
    return f"{POOL}-{socket.gethostname()}"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _hidden(told: str) -> str:
    return re.sub(r"://[^\s/@]*@", "://", told)


def _private(path: Path, text: str) -> None:
    with atomic(path, 0o600) as temporary:
        temporary.write_text(text, encoding="utf-8")


def secret(path: Path, made: Callable[[], str] = lambda: secrets.token_urlsafe(18)) -> str:
    """The secret in a file that only its owner can read; made once."""
    if not path.exists():
        _private(path, made())
    return path.read_text(encoding="utf-8").strip()


def kept_settings(folder: Path) -> dict[str, Any]:
    """What the last start wrote down; empty before the first. Raises UserError."""
    file = folder / "settings.json"
    if not file.exists():
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if "allowed_hosts" not in told:  # of a version whose servers had no passwords unless they were asked for
            told.pop("passwords", None)
        return {f.name: told[f.name] for f in fields(Settings) if f.name in told}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and start again") from error
