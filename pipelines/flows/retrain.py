"""The flows `retrain` and `retrain-all`: the five stages of a domain, run by DVC, each a task with its log."""

# No postponed annotations here: Prefect makes its forms from them.

import importlib
import os
import re
import threading
from contextlib import ExitStack
from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from argan import params
from argan.errors import UserError
from argan.params import STAGES
from pipelines import workspace
from pipelines.driver import Driver
from pipelines.flows import shown
from pipelines.flows.shared import HOOKS, PLAIN, Domain, clear, command, gpu, settings_of

HOURS = {"fetch": 12, "crop": 12, "train": 14 * 24, "evaluate": 12, "register": 1}  # beyond these something hangs
PASSING = re.compile(r"again later|cannot be used \(|cannot be reached|is busy|[Uu]nable to acquire lock")
ATTEMPTS = 5  # of a run whose machine or worker was killed under it; one that kills its worker each time ends here


def passes(task: Any, run: Any, state: Any) -> bool:
    """Whether a failure may be gone in a while: a network, a server that restarts, a lock."""
    return bool(PASSING.search(state.message or ""))


@task(retries=3, retry_delay_seconds=[10, 60, 300], retry_condition_fn=passes, **PLAIN)
def stage(name: str, domain: str, dvc: Driver) -> Any:
    """One stage; called directly, never submitted: a submitted task hears nothing of a cancellation."""
    try:
        lost = name == "register" and workspace.forgotten(domain, params.load())
    except UserError as error:
        return Failed(message=str(error))
    done = dvc(["repro", "--single-item", *(["--force"] if lost else []), f"{name}@{domain}"], get_run_logger().info)
    if done.reason:
        return Failed(message=done.reason)
    return Completed(message=f"{name}@{domain}", name="Completed" if done.changed else "Unchanged")


def step(name: str, domain: str, dvc: Driver, before: list[Any]) -> Any:
    """The state in which a stage ends, run as a task after those `before` it."""
    task = stage.with_options(name=name, task_run_name=f"{name}@{domain}", timeout_seconds=HOURS[name] * 3600)
    return task(name, domain, dvc, return_state=True, wait_for=before[-1:])


@task(**PLAIN)
def summary(domain: str) -> Any:
    return Completed(message=shown.show(domain))


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


@flow(name="retrain", flow_run_name="retrain-{domain}", timeout_seconds=sum(HOURS.values()) * 3600, **HOOKS)
@clear
def retrain(domain: Domain) -> Any:
    """Fetch, crop, train, evaluate and register one domain; what is up to date is left alone.

    Runs of one domain wait for each other. Cancelled or killed in training, the next run resumes from the checkpoint.

    Args:
        domain: Of `domains` in params.yaml; a new one is offered here after `make deploy`.
    """
    settings_of(domain)
    if runtime.flow_run.run_count > ATTEMPTS:
        return Failed(
            message=f"given up: {ATTEMPTS} attempts; see the worker's log and the machine's memory, then start a new run"
        )
    # It takes seconds, is needed at the end, and DVC works meanwhile in a process of its own
    threading.Thread(target=importlib.import_module, args=("mlflow",), daemon=True).start()
    with Driver(domain, get_run_logger().info, **lineage()) as dvc:
        return stages(domain, dvc)


def lineage() -> dict[str, str]:
    """For whatever a stage writes into MLflow: which run of Prefect it belongs to."""
    return {"ARGAN_PREFECT_RUN": str(runtime.flow_run.id), "ARGAN_PREFECT_URL": str(runtime.flow_run.ui_url or "")}


@task(task_run_name="{domain}", **PLAIN)
def whole(domain: str) -> Any:
    state: Any = retrain(domain, return_state=True)
    return Completed(message=state.message) if state.is_completed() else Failed(message=state.message)


@flow(name="retrain-all", flow_run_name="retrain-all", **HOOKS)
@clear
def retrain_all(
    domains: list[Domain] = [],  # noqa: B006
    at_once: Annotated[int, Field(ge=1, le=64)] = 2,
    dask: str = "",
) -> Any:
    """Retrain many domains, each a `retrain` run of its own; one that fails does not stop the others.

    Args:
        domains: Which; none chosen: all of `domains` in params.yaml.
        at_once: Domains worked on at a time. However many, trainings wait for a GPU.
        dask: Address of a Dask scheduler (tcp://host:8786) whose workers do the work, in this folder on a shared disk.
    """
    domains = list(dict.fromkeys(domains or workspace.prepare().domains))
    for domain in domains:
        settings_of(domain)
    with runner(at_once, dask) as crowd:
        try:
            futures = [crowd.submit(whole, {"domain": domain}) for domain in domains]
            for future in futures:
                future.wait()
        except BaseException:
            for dvc in list(Driver.running):
                dvc.interrupt()
            raise
    states = {domain: future.state for domain, future in zip(domains, futures, strict=True)}
    table = [{"domain": domain, "state": state.name, "": state.message} for domain, state in states.items()]
    create_table_artifact(key="retrained", table=table)
    failed = [domain for domain, state in states.items() if not state.is_completed()]
    if failed:
        return Failed(
            message=f"{len(failed)} of {len(domains)} failed: {', '.join(failed)} ({states[failed[0]].message})"
        )
    return Completed(message=f"all {len(domains)} are up to date: {', '.join(domains)}")


def runner(at_once: int, dask: str) -> TaskRunner[Any]:
    """Threads here, each driving a process of DVC; or the workers of a Dask cluster, in this workspace on a shared disk."""
    if not dask:
        return ThreadPoolTaskRunner(max_workers=at_once)
    try:
        from distributed import Client
        from prefect_dask.task_runners import DaskTaskRunner

        Client(dask, timeout=20).close()
    except ImportError as error:
        raise UserError(f"Dask needs packages ({error}): pip install 'argan[dask]'") from error
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {dask} ({' '.join(str(error).split())[:200]})") from error
    return DaskTaskRunner(address=dask)


def retrain_command(domain: str) -> None:
    """What `argan retrain DOMAIN` does. Raises UserError for a domain that is not built here, or with the failed stage's line."""
    settings = settings_of(domain)
    if not os.environ.get("PREFECT_API_URL"):  # Prefect's own server takes 10 s to start: not for nothing
        with Driver(domain, print) as dvc:
            told = dvc(["status", "--quiet", *(f"{name}@{domain}" for name in STAGES)], print)
        if not told.reason and not workspace.forgotten(domain, settings):
            print(f"{domain}: nothing to do, all is up to date")
            return
    command(retrain, domain=domain)
