"""The Prefect flow `retrain`: the same five stages, run by DVC, each a task with its log.

No server need be set up: without PREFECT_API_URL Prefect starts one for the length of the run. Its database lies in
.prefect/ here unless PREFECT_HOME says otherwise. DVC runs in a process group of its own: whatever ends a task interrupts
that group, so that training saves its state and the next run resumes.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_HOME", str(Path(".prefect").absolute()))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
os.environ.setdefault(
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"
)  # 10 s when quiet; a busy machine takes its time
os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")

from prefect import flow, get_run_logger, task
from prefect.states import Completed, Failed

from argan import params
from argan.errors import UserError
from argan.params import STAGES
from pipelines import alone, workspace

HOURS = {"fetch": 12, "crop": 12, "train": 14 * 24, "evaluate": 12, "register": 1}  # beyond these something hangs
LOCK = Path(".dvc/tmp/retrain.lock")


def dvc(*arguments: str) -> str | None:
    """Run dvc, its lines going to the run's log as they come. None, or why it failed: the stage's own `error:` line."""
    logger, lines = get_run_logger(), queue.Queue[str | None]()
    environment = (
        os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # `python` in dvc.yaml is this one
            "SHELL": "/bin/sh",
            "PYTHONUNBUFFERED": "1",
        }
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment, start_new_session=True,
    )  # fmt: skip
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    reason = f"dvc {' '.join(arguments)} failed"
    try:
        while (line := _next(lines)) is not None:
            if line.strip():
                logger.info(line.rstrip())
            if line.startswith("error: "):
                reason = line.removeprefix("error: ").strip()
        return reason if process.wait() else None
    except BaseException:
        for number, patience in ((signal.SIGINT, 60), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(patience)
                break
        raise


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _next(lines: queue.Queue[str | None]) -> str | None:
    """Waits in short pieces, so that a cancellation or a timeout is heard between them."""
    while True:
        with suppress(queue.Empty):
            return lines.get(timeout=0.2)


@task
def stage(name: str, domain: str, after: str | None) -> Any:
    """One stage; called directly, never submitted: a submitted task hears nothing of a cancellation."""
    lost = name == "register" and workspace.forgotten(domain, params.load())
    reason = dvc("repro", "--single-item", *(["--force"] if lost else []), f"{name}@{domain}")
    return Failed(message=reason) if reason else f"{name}@{domain}"


@flow(name="retrain", flow_run_name="retrain-{domain}", timeout_seconds=sum(HOURS.values()) * 3600)
def retrain(domain: str) -> Any:
    """Fetch, crop, train, evaluate and register one domain. Two runs on one workspace wait for each other."""
    after = None
    with alone(LOCK, get_run_logger().info, "another run works in this workspace; waiting for it to end"):
        for name in STAGES:
            named = stage.with_options(name=name, task_run_name=f"{name}@{domain}", timeout_seconds=HOURS[name] * 3600)
            state = named(name, domain, after, return_state=True)
            if not state.is_completed():
                return Failed(message=f"{name}@{domain}: {state.message}")
            after = f"{name}@{domain}"
    return Completed(message=f"{domain} is made and registered")


def retrain_command(domain: str) -> None:
    """What `argan retrain DOMAIN` does. Raises UserError for a domain that is not built here, or with the failed stage's line."""
    settings = workspace.prepare()
    settings.domain(domain)
    if domain not in settings.domains:
        raise UserError(
            f"'{domain}' is not built here; add it to `domains` in params.yaml ({', '.join(settings.domains)})"
        )
    try:
        state: Any = retrain(domain, return_state=True)
    except KeyboardInterrupt:
        print(f"interrupted; argan retrain {domain} goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, OSError) as error:
        raise UserError(f"Prefect cannot run here: {' '.join(str(error).split())}") from error
    if not state.is_completed():
        raise UserError(state.message or f"the run ended {state.name}")
