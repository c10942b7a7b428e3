"""The services started, stopped and looked at as one thing.

Started in order, each when the one before answers; what runs already is left alone, so `start` is also what brings back the one
that died.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import entry_points, version
from typing import Any

from argan.errors import UserError
from argan.files import write_json
from pipelines import storage
from pipelines.services import auth as basic_auth
from pipelines.services import migrations
from pipelines.services.daemon import Daemon
from pipelines.services.postgres import initialise
from pipelines.services.servers import HOST, Services, worker_name
from pipelines.services.settings import AUTH, SETTINGS, write_private
from pipelines.stage import say

RESTART = "make services-stop, then make services"
START_TIMEOUT = 240.0  # seconds for a server to answer; 10 to 35 on a quiet machine, a first start makes the tables
POLL = 0.25  # seconds between two looks whether it answers
STOP_TIMEOUT = 60  # seconds for runs in work to save their state
FIXED = ("database", "passwords", "allowed_hosts", "artifacts")  # settings that what runs cannot change
PRIVATE = ("prefect", "mlflow", "logs", "run")  # folders for databases, artifacts, logs: no other account's business


# ---- Start -----------------------------------------------------------------------------------------------------------


def start(services: Services) -> None:
    """Start what does not run. When one cannot be started, those that this call started are ended again."""
    _make_folders(services)
    daemons = services.daemons()
    # One whose start was cut short before it was noted down is started again: nobody knows with which settings it runs
    running = {name for name, daemon in daemons.items() if (p := daemon.leader()) and p.pid == daemon.note().get("pid")}
    for name, daemon in daemons.items():
        if name in running:
            _check_unchanged(services, name, daemon.note())
        else:
            daemon.stop()  # what a crash left of it would hold the port
            _check_port(services, name)
    if not entry_points(group="mlflow.app", name=basic_auth.APP):
        raise UserError("the servers need the package as this version installs it: run `make setup`")
    if services.settings.artifacts:
        storage.check(services.settings.artifacts)
    new_password = _keep_password(services, bool(running))
    write_json(services.home / SETTINGS, asdict(services.settings))
    if not services.settings.worker:
        Daemon("worker", services.home, patience=60).stop()
    try:
        _start_in_order(services, daemons, running)
    except BaseException:
        for name in reversed(daemons):
            if name not in running:
                daemons[name].stop()
        raise
    _summarize(services, new_password and basic_auth.AUTH not in os.environ)


def _make_folders(services: Services) -> None:
    services.home.mkdir(parents=True, exist_ok=True)
    for name in PRIVATE:
        (services.home / name).mkdir(mode=0o700, exist_ok=True)
        (services.home / name).chmod(0o700)


def _check_unchanged(services: Services, name: str, note: Mapping[str, Any]) -> None:
    """Raises UserError where what runs is not what would be started now. note: of its start."""
    wanted = asdict(services.settings)
    for key in (*FIXED, f"{name}_port"):
        if key in wanted and (actual := note.get("settings", {}).get(key)) != wanted[key]:
            has, wants = ("none" if value in (None, "") else value for value in (actual, wanted[key]))
            raise UserError(f"{name} runs already, with {key} {has} and not {wants}; to change it: {RESTART}")
    package = _package(name)
    if package and note.get("version") != (installed := version(package)):
        raise UserError(f"the {name} that runs is {package} {note.get('version')}, installed is {installed}: {RESTART}")


def _package(name: str) -> str:
    """Of a daemon; empty where it is none of Python's."""
    return {"worker": "prefect", "postgres": ""}.get(name, name)


def _check_port(services: Services, name: str) -> None:
    """Raises UserError where the port of a daemon is not free."""
    port = asdict(services.settings).get(f"{name}_port")
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return
        except OSError as error:
            reason = "is taken by another program" if not isinstance(error, PermissionError) else "may not be used"
    raise UserError(f"port {port} {reason}; choose another: make services {name.upper()}_PORT={port + 1}")


def _keep_password(services: Services, running: bool) -> bool:
    """Write the password down for the next start; whether it is another one than that of the last. Raises UserError."""
    file = services.home / AUTH
    last = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if services.auth != last and services.auth:
        if running and last:
            raise UserError(
                f"the servers run already, with another password than {basic_auth.AUTH}'s; to change it: {RESTART}"
            )
        write_private(file, services.auth)
    return services.auth != last


def _start_in_order(services: Services, daemons: Mapping[str, Daemon], running: set[str]) -> None:
    began = time.monotonic()

    def begin(name: str) -> None:
        if name not in running:
            installed = version(package) if (package := _package(name)) else ""
            daemons[name].start(version=installed, settings=asdict(services.settings), time=time.time())

    def ready(name: str) -> None:
        _wait(services, daemons[name])
        say(f"{name}: {'already running' if name in running else f'up after {time.monotonic() - began:.0f} s'}")

    if "postgres" in daemons:
        initialise(services.home, services.postgres_password)
        begin("postgres")
        ready("postgres")
    services.databases.create()
    migrations.check(services.databases)
    for step in (begin, ready):  # the two start side by side
        for name in ("mlflow", "prefect"):
            step(name)
    services.api.ensure_pool(services.pool_environment())
    services.api.ensure_gpu_limit(services.settings.gpus)
    if "worker" in daemons:
        begin("worker")
        ready("worker")


def _wait(services: Services, daemon: Daemon) -> None:
    """Until it answers. Raises UserError where it ends, or does not in time."""
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(services, daemon):
        if not daemon.leader():
            raise UserError(f"{daemon.name} ended while it started: {daemon.last_words()}; see {daemon.log}")
        if time.monotonic() > deadline:
            raise UserError(f"{daemon.name} does not answer after {START_TIMEOUT:.0f} s; see {daemon.log}")
        time.sleep(POLL)


def _answers(services: Services, daemon: Daemon) -> bool:
    import httpx

    with suppress(UserError, httpx.HTTPError):
        match daemon.name:
            case "postgres":
                services.databases.connect(None).close()
                return True
            case "mlflow":
                return httpx.get(f"{services.mlflow}/health", timeout=5, trust_env=False).status_code == 200
            case "prefect":
                return services.api.request("GET", "/health") is True
            case "worker":  # its sign of life must be younger than itself: the one before it had the same name
                online = [w for w in services.api.workers() if w["name"] == worker_name() and w["status"] == "ONLINE"]
                heartbeats = [datetime.fromisoformat(w["last_heartbeat_time"]).timestamp() for w in online]
                return max(heartbeats, default=0.0) > daemon.note().get("time", 0.0)
    return False


def _summarize(services: Services, show_password: bool) -> None:
    """Write the file `env` and print where everything is."""
    lines = "".join(f"export {name}='{value}'\n" for name, value in services.client().items())
    write_private(services.home / "env", lines)
    say(f"\nFlows, runs, schedules:  {services.prefect}/runs")
    say(f"Registered models:       {services.mlflow}/#/models?workflowType=machine_learning")
    say(f"Training runs:           {services.mlflow}/#/experiments?workflowType=machine_learning")
    say(f"Your shell:              source {services.home}/env")
    if services.auth:
        if show_password:
            say(
                f"Both servers want this from now on (PASSWORDS=0 turns it off); it is shown this once: {services.auth}"
            )
        say(
            f"User:password:           cat {services.home}/auth (Prefect's page asks for both in one line, MLflow's for each)"
        )
    else:
        say("No passwords: every account of this machine can run commands as you, through Prefect's worker")
    say(f"Data: {_data(services)}. Stop: make services-stop")


def _data(services: Services) -> str:
    return f"{services.home} ({services.databases.description}; artifacts in {services.artifacts})"


# ---- Stop, status ----------------------------------------------------------------------------------------------------


def stop(services: Services, drain: bool = False) -> None:
    """End all, last started first. Runs in work are interrupted, so that training saves its state; or waited for."""
    ended = []
    for name, daemon in reversed(services.daemons().items()):
        if name == "worker":
            runs = _finish_runs(services, drain) if daemon.leader() else []
            if daemon.stop(everything=True):
                ended.append(name)
            _cancel(services, runs, "CANCELLED")  # those that heard nothing: their processes are gone
        elif daemon.stop():
            ended.append(name)
    (services.home / "env").unlink(missing_ok=True)
    say(f"stopped: {', '.join(ended)}" if ended else "nothing was running")


def _finish_runs(services: Services, drain: bool) -> list[dict[str, Any]]:
    """Wait until no run is in work, having asked each to end unless `drain`; those that are left after a minute."""
    runs: list[dict[str, Any]] = []
    waited = 0
    with suppress(UserError):
        while (runs := services.api.active_runs()) and (drain or waited < STOP_TIMEOUT):
            if waited == 0:
                names = ", ".join(run["name"] for run in runs)
                say(f"{'waiting for' if drain else 'interrupting; a new run resumes from the checkpoint'}: {names}")
                if not drain:
                    _cancel(services, runs, "CANCELLING")
            time.sleep(1)
            waited += 1
    return runs


def _cancel(services: Services, runs: list[dict[str, Any]], state: str) -> None:
    with suppress(UserError):
        services.api.set_state(runs, state, "the services were stopped")


def status(services: Services) -> bool:
    """Print a line for each; whether all run and answer."""
    well = True
    for name, daemon in services.daemons().items():
        leader = daemon.leader()
        state = "not running" if leader is None else "running" if _answers(services, daemon) else "does not answer"
        well &= state == "running"
        since = "" if leader is None else f", pid {leader.pid}, {daemon.memory() / 2**20:.0f} MiB"
        say(f"{name:9}{state}{since}, log {daemon.log}")
    say(f"{'data':9}{_data(services)}")
    return well


@contextmanager
def running_postgres(services: Services) -> Iterator[None]:
    """The embedded PostgreSQL, if that is used, for the length of a `with`; where it runs already it goes on."""
    daemon = services.daemons().get("postgres")
    if daemon is None or daemon.leader():
        yield
        return
    daemon.stop()
    _check_port(services, "postgres")
    initialise(services.home, services.postgres_password)
    daemon.start(settings=asdict(services.settings))
    try:
        _wait(services, daemon)
        yield
    finally:
        daemon.stop()
