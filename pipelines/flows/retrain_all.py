"""The flow `retrain-all`: many domains, in threads here or on a Dask cluster."""

# No postponed annotations here: Prefect makes its forms from them.

from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from argan.errors import UserError
from pipelines import workspace
from pipelines.driver import Driver
from pipelines.flows.retrain import retrain
from pipelines.flows.shared import HOOKS, PLAIN, Domain, load_settings, one_line_errors


@task(task_run_name="{domain}", **PLAIN)
def domain_run(domain: str) -> Any:
    state: Any = retrain(domain, return_state=True)
    return Completed(message=state.message) if state.is_completed() else Failed(message=state.message)


@flow(name="retrain-all", flow_run_name="retrain-all", **HOOKS)
@one_line_errors
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
        load_settings(domain)
    with runner(at_once, dask) as task_runner:
        try:
            futures = [task_runner.submit(domain_run, {"domain": domain}) for domain in domains]
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
