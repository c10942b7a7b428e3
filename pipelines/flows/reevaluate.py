"""The flow `reevaluate`: champions judged anew on the photos of today; nothing is trained."""

# No postponed annotations here: Prefect makes its forms from them.

import json
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed, Failed

from pipelines import REEVALUATED, workspace
from pipelines.driver import Driver
from pipelines.flows.shared import HOOKS, PLAIN, Domain, gpu, load_settings, one_line_errors
from pipelines.flows.stages import is_transient, lineage, step


@task(
    retries=2,
    retry_delay_seconds=[60, 300],
    retry_condition_fn=is_transient,
    timeout_seconds=12 * 3600,
    **PLAIN,
)
def champion(domain: str, dvc: Driver) -> Any:
    """Judge the champion, and put its scores of today beside those it was registered with."""
    done = dvc(["-m", "pipelines.reevaluate", domain], get_run_logger().info)
    if done.reason:
        return Failed(message=done.reason)
    scores = json.loads((REEVALUATED / f"{domain}.json").read_text(encoding="utf-8"))
    table = [{"score": name, **pair} for name, pair in scores["scores"].items()]
    where = "the same photos" if scores["same_photos"] else "other photos than when registered"
    line = f"argan-{domain} version {scores['version']}, on {scores['split']} photos, {where}"
    create_table_artifact(key=f"champion-{domain}", table=table, description=line)
    return Completed(message=line)


@flow(name="reevaluate", flow_run_name="reevaluate", **HOOKS)
@one_line_errors
def reevaluate(domains: list[Domain] = []) -> Any:  # noqa: B006
    """Judge the champions of the registry on the validation photos as they are today: drift shows before anybody complains.

    Args:
        domains: Which; none chosen: all of `domains` in params.yaml.
    """
    domains = list(dict.fromkeys(domains or workspace.prepare().domains))
    failed = {}
    for domain in domains:
        load_settings(domain)
        with Driver(domain, get_run_logger().info, **lineage()) as dvc:
            states: list[Any] = []
            for name in ("fetch", "crop"):
                states.append(step(name, domain, dvc, states))
                if not states[-1].is_completed():
                    break
            else:
                with gpu():
                    judged = champion.with_options(task_run_name=f"champion@{domain}")
                    states.append(judged(domain, dvc, return_state=True, wait_for=states[-1:]))
        if not states[-1].is_completed():
            failed[domain] = states[-1].message
    if failed:
        return Failed(message="; ".join(f"{domain}: {why}" for domain, why in failed.items()))
    return Completed(message=f"champions judged: {', '.join(domains)}")
