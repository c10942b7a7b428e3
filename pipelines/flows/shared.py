"""What the flows share: their parameters' types, how a run ends, one training per GPU, what a hook says."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from prefect import get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.logging.loggers import flow_run_logger
from prefect.states import Failed
from pydantic import Field

from argan.config import params
from argan.config.schema import Params
from argan.errors import UserError
from argan.redact import redacted
from pipelines import workspace

GPU = "gpu"  # the concurrency limit: as many trainings as there are GPUs
# Seconds after which the place of a run that was killed is free again; a server may be away for as long
LEASE = float(os.environ.get("ARGAN_GPU_LEASE", "300"))
HOW_TO_RESUME = (
    "To go on: 'Retry' on this run's page, or `argan {flow} {arguments}`. What is finished is not done again, "
    "and training resumes from its checkpoint."
)


def _known() -> list[str]:
    """What the forms offer. A workspace that is broken says so when a flow runs, not when it is imported."""
    with suppress(UserError):
        return params.load().domains
    return []


# `make deploy` writes into the forms which domains there are. A value that is not among them fails with a line of ours.
Domain = Annotated[str, Field(json_schema_extra={"enum": list(_known())} if _known() else None)]


def load_settings(domain: str) -> Params:
    """The parameters of a workspace that builds `domain`. Raises UserError."""
    settings = workspace.prepare()
    settings.domain(domain)
    if domain not in settings.domains:
        raise UserError(
            f"'{domain}' is not built here; add it to `domains` in params.yaml ({', '.join(settings.domains)})"
        )
    return settings


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a user can fix fails a run in one line, without a traceback."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except UserError as error:
            get_run_logger().error(str(error))
            return Failed(message=str(error))

    return run


@contextmanager
def gpu() -> Iterator[None]:
    """A place on a GPU: of the limit `gpu` where a server is in use; by hand without one, nobody else is there to wait for.

    A limit that does not exist is an error. Waits in pieces, so that a cancellation is heard.
    """
    if not os.environ.get("PREFECT_API_URL"):
        yield
        return
    log, tried, waited = get_run_logger(), 0, 0
    while True:
        place = concurrency(
            GPU, strict=True, timeout_seconds=5, lease_duration=LEASE, raise_on_lease_renewal_failure=False
        )
        try:
            place.__enter__()
            break
        except TimeoutError:
            if (waited := waited + 5) % 300 == 5:
                log.info(f"waiting for a GPU: all places of the limit '{GPU}' are taken")
        except Exception as error:
            if "must be created" in str(error):
                raise UserError(f"there is no concurrency limit '{GPU}': prefect gcl create {GPU} --limit 1") from error
            if (tried := tried + 1) > 30:
                raise
            log.warning(f"{error}; trying again")  # a server that restarts
            time.sleep(10)
    try:
        yield
    finally:
        place.__exit__(None, None, None)


def report_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """The hook of runs that did not end well: what it was, and how to go on."""
    arguments = redacted(" ".join(str(value) for value in flow_run.parameters.values() if value not in (None, "")))
    reason = redacted(" ".join((state.message or "no reason was given").split()))
    flow_run_logger(flow_run, flow).error(f"{flow_run.name} {state.name}: {reason}")
    flow_run_logger(flow_run, flow).error(HOW_TO_RESUME.format(flow=flow.name, arguments=arguments))


# Tasks whose results are files of DVC: nothing of them is kept or looked up
PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
HOOKS: dict[str, Any] = {
    "on_failure": [report_failure],
    "on_crashed": [report_failure],
    "on_cancellation": [report_failure],
}


def run_flow(flow: Any, **named: Any) -> None:
    """Run a flow from the command line. Raises UserError with the line it failed with."""
    try:
        state: Any = flow(**named, return_state=True)
    except KeyboardInterrupt:
        print(
            f"interrupted; argan {flow.name} {' '.join(map(str, named.values()))} goes on where it was", file=sys.stderr
        )
        sys.exit(130)
    except (RuntimeError, OSError) as error:
        raise UserError(f"Prefect cannot run here: {' '.join(str(error).split())}") from error
    if not state.is_completed():
        raise UserError(state.message or f"the run ended {state.name}")
    print(state.message)
