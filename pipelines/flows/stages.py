"""The five stages of a domain as tasks of Prefect, run by DVC, each with its log."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

from prefect import get_run_logger, runtime, task
from prefect.states import Completed, Failed

from argan.config import params
from argan.config.schema import STAGES
from argan.errors import UserError
from pipelines import workspace
from pipelines.driver import Driver
from pipelines.flows import artifacts
from pipelines.flows.shared import PLAIN, gpu

HOURS = {"fetch": 12, "crop": 12, "train": 14 * 24, "evaluate": 12, "register": 1}  # beyond these something hangs
TRANSIENT = re.compile(r"again later|cannot be used \(|cannot be reached|is busy|[Uu]nable to acquire lock")


def is_transient(task: Any, run: Any, state: Any) -> bool:
    """Whether a failure may be gone in a while: a network, a server that restarts, a lock."""
    return bool(TRANSIENT.search(state.message or ""))


@task(retries=3, retry_delay_seconds=[10, 60, 300], retry_condition_fn=is_transient, **PLAIN)
def stage(name: str, domain: str, dvc: Driver) -> Any:
    """One stage; called directly, never submitted: a submitted task hears nothing of a cancellation."""
    try:
        lost = name == "register" and workspace.is_unregistered(domain, params.load())
    except UserError as error:
        return Failed(message=str(error))
    done = dvc(["repro", "--single-item", *(["--force"] if lost else []), f"{name}@{domain}"], get_run_logger().info)
    if done.reason:
        return Failed(message=done.reason)
    return Completed(message=f"{name}@{domain}", name="Completed" if done.changed else "Unchanged")


def step(name: str, domain: str, dvc: Driver, earlier: list[Any]) -> Any:
    """The state in which a stage ends, run as a task after the `earlier` ones."""
    task = stage.with_options(name=name, task_run_name=f"{name}@{domain}", timeout_seconds=HOURS[name] * 3600)
    return task(name, domain, dvc, return_state=True, wait_for=earlier[-1:])


@task(**PLAIN)
def summary(domain: str) -> Any:
    return Completed(message=artifacts.publish_retraining(domain))


def stages(domain: str, dvc: Driver) -> Any:
    """Run all stages, each after the one before. A state: of the stage that failed, or what came of it."""
    states: list[Any] = []
    log = get_run_logger()
    with ExitStack() as place:
        for name in STAGES:
            if (
                name == "train"
                and dvc(["status", "--quiet", f"train@{domain}", f"evaluate@{domain}"], log.debug).reason
            ):
                place.enter_context(gpu())
            if name == "register":
                place.close()
            states.append(step(name, domain, dvc, states))
            if not states[-1].is_completed():
                return Failed(message=f"{name}@{domain}: {states[-1].message}")
    if all(state.name == "Unchanged" for state in states):
        return Completed(message=f"{domain}: nothing to do, all is up to date", name="Unchanged")
    state = summary.with_options(task_run_name=f"summary@{domain}")(domain, return_state=True, wait_for=states[-1:])
    return Completed(message=state.message)


def lineage() -> dict[str, str]:
    """For whatever a stage writes into MLflow: which run of Prefect it belongs to."""
    return {"ARGAN_PREFECT_RUN": str(runtime.flow_run.id), "ARGAN_PREFECT_URL": str(runtime.flow_run.ui_url or "")}
