"""`python -m pipelines.services` on real servers: in order, safe to repeat, safe after a crash, clear about what is wrong."""

from __future__ import annotations

import pytest
from servers import Servers

pytestmark = pytest.mark.pipeline


def test_started_servers_have_what_flows_need(servers: Servers) -> None:
    pool = servers.api("GET", "/work_pools/argan").json()
    assert pool["type"] == "process"
    assert pool["base_job_template"]["variables"]["properties"]["env"]["default"]["MLFLOW_TRACKING_URI"] == servers.mlflow
    assert servers.api("GET", "/v2/concurrency_limits/gpu").json()["limit"] == 1
    told = servers.start()
    assert told.count("already running") == 3
    assert "workflowType=machine_learning" in told
