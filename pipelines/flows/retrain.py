"""The flow `retrain`: the five stages of one domain."""

# No postponed annotations here: Prefect makes its forms from them.

import importlib
import os
import threading
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.states import Failed

from argan.config.schema import STAGES
from pipelines import workspace
from pipelines.driver import Driver
from pipelines.flows.shared import HOOKS, Domain, load_settings, one_line_errors, run_flow
from pipelines.flows.stages import HOURS, lineage, stages

ATTEMPTS = 5  # of a run whose machine or worker was killed under it; one that kills its worker each time ends here


@flow(name="retrain", flow_run_name="retrain-{domain}", timeout_seconds=sum(HOURS.values()) * 3600, **HOOKS)
@one_line_errors
def retrain(domain: Domain) -> Any:
    """Fetch, crop, train, evaluate and register one domain; what is up to date is left alone.

    Runs of one domain wait for each other. Cancelled or killed in training, the next run resumes from the checkpoint.

    Args:
        domain: Of `domains` in params.yaml; a new one is offered here after `make deploy`.
    """
    load_settings(domain)
    if runtime.flow_run.run_count > ATTEMPTS:
        return Failed(
            message=f"given up: {ATTEMPTS} attempts; see the worker's log and the machine's memory, then start a new run"
        )
    # It takes seconds, is needed at the end, and DVC works meanwhile in a process of its own
    threading.Thread(target=importlib.import_module, args=("mlflow",), daemon=True).start()
    with Driver(domain, get_run_logger().info, **lineage()) as dvc:
        return stages(domain, dvc)


def retrain_command(domain: str) -> None:
    """What `argan retrain DOMAIN` does. Raises UserError for a domain that is not built here, or with the failed stage's line."""
    settings = load_settings(domain)
    if not os.environ.get("PREFECT_API_URL"):  # Prefect's own server takes 10 s to start: not for nothing
        with Driver(domain, print) as dvc:
            outcome = dvc(["status", "--quiet", *(f"{name}@{domain}" for name in STAGES)], print)
        if not outcome.reason and not workspace.is_unregistered(domain, settings):
            print(f"{domain}: nothing to do, all is up to date")
            return
    run_flow(retrain, domain=domain)
