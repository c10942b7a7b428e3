"""Deploy: what prefect.yaml says, to the Prefect server in use, and the two automations that bring back runs that were killed.

`python -m pipelines.deploy [--notice SECONDS]`, or `make deploy`; again whenever prefect.yaml or `domains` changed. It ends
well only when runs are scheduled: a scheduler that never schedules looks the same from everywhere else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import pipelines.flows  # noqa: F401  (Prefect's settings, before it is imported)
from argan.errors import UserError
from pipelines import arrivals, workspace
from pipelines.stage import run_command, say

TAG = "argan"
FLOWS = ["retrain", "retrain-all", "ingest", "reevaluate"]
NOTICE = 180  # seconds without a sign of life; they come every 30, and a server may be restarted meanwhile
SCHEDULE_TIMEOUT = 60  # seconds for the server to schedule the first runs


def automations(notice: int) -> list[dict[str, Any]]:
    """Killed runs, noticed and resumed. A run's signs of life are events; their absence is what a kill leaves behind."""
    ended = [
        f"prefect.flow-run.{state}"
        for state in ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Unchanged")
    ]
    lost = {
        "type": "event",
        "posture": "Proactive",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.heartbeat", *ended],
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": notice,
    }
    crashed = {
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "match_related": {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
        "expect": ["prefect.flow-run.Crashed"],
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": 0,
    }
    to = {"type": "change-flow-run-state"}
    return [
        {
            "name": "argan: no sign of life",
            "description": "A run whose machine or worker is gone is marked as crashed.",
            "trigger": lost,
            "actions": [to | {"state": "CRASHED", "message": f"no sign of life for {notice} s: its worker is gone"}],
        },
        {
            "name": "argan: resume",
            "description": "A crashed run goes on where it was, on whichever worker is there.",
            "trigger": crashed,
            "actions": [to | {"state": "SCHEDULED", "name": "AwaitingRetry", "message": "resumed after a crash"}],
        },
    ]


def deploy(notice: int) -> None:
    """Deploy, and wait until runs are scheduled. Raises UserError."""
    workspace.prepare()
    wanted = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    for each in wanted:
        arrivals.checked_source(str((each.get("parameters") or {}).get("source", "")))
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("no Prefect server is in use: `make services`, then `source services/env`")
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        request = _requests(client)
        pools = {pool["name"] for pool in request("POST", "/work_pools/filter", {})}
        if lacking := {each["work_pool"]["name"] for each in wanted} - pools:
            raise UserError(f"there is no work pool '{lacking.pop()}': make services, or prefect work-pool create")
        if "gpu" not in [limit["name"] for limit in request("POST", "/v2/concurrency_limits/filter", {})]:
            raise UserError("there is no concurrency limit 'gpu': make services, or prefect gcl create gpu --limit 1")
        if subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False).returncode:
            raise UserError("prefect deploy failed: its message is above")
        existing = {each["name"]: each["id"] for each in request("POST", "/automations/filter", {})}
        for automation in automations(notice):
            if known := existing.get(automation["name"]):
                request("PUT", f"/automations/{known}", automation)
            else:
                request("POST", "/automations/", automation)
        if not any(s.get("active", True) for each in wanted for s in each.get("schedules", ())):
            return
        filters = {"flow_runs": {"tags": {"all_": [TAG]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
        deadline = time.monotonic() + SCHEDULE_TIMEOUT
        while not (count := request("POST", "/flow_runs/count", filters)):
            if time.monotonic() > deadline:
                raise UserError("deployed, but the server schedules nothing: see its log (SQLAlchemy 2.1 does that)")
            time.sleep(0.5)
    say(f"{len(wanted)} deployments; {count} runs are scheduled")


def _requests(client: Any) -> Callable[..., Any]:
    import httpx

    def request(method: str, path: str, content: Any = None) -> Any:
        try:
            response = client.request(method, path, json=content)
            return response.json() if response.content else None
        except httpx.HTTPError as error:
            message = " ".join(str(error).split())[:200]
            raise UserError(
                f"Prefect at {os.environ['PREFECT_API_URL']} cannot be used ({message}): make services"
            ) from error

    return request


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipelines.deploy", description=__doc__)
    parser.add_argument("--notice", type=int, default=NOTICE, metavar="SECONDS", help="without a sign of life: killed")
    options = parser.parse_args()
    run_command(lambda: deploy(options.notice))
