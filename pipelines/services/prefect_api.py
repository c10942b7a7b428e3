"""Requests to Prefect's server: its work pool, the limit of trainings, the runs in work."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from argan.errors import UserError

POOL = "argan"
GPU = "gpu"  # the concurrency limit: trainings at a time
CSRF_CLIENT = str(uuid.uuid4())  # tokens are kept by client: each process asks for its own
ACTIVE = ("RUNNING", "PENDING", "CANCELLING")


@dataclass(frozen=True)
class PrefectApi:
    """Prefect's interface at `url`. auth: user:password, or empty; credentials: where to read it, for messages."""

    url: str
    auth: str
    credentials: str

    def request(self, method: str, path: str, content: Any = None, none: tuple[int, ...] = ()) -> Any:
        """The answer; None for a status in `none`. Raises UserError."""
        import httpx

        user, _, password = self.auth.partition(":")
        try:
            with httpx.Client(auth=(user, password) if user else None, timeout=30, trust_env=False) as client:
                headers = {} if method == "GET" else self._csrf_headers(client)
                response = client.request(method, f"{self.url}/api{path}", json=content, headers=headers)
        except httpx.HTTPError as error:
            raise UserError(f"Prefect at {self.url} does not answer ({type(error).__name__}); make services") from error
        if response.status_code in none:
            return None
        if response.status_code == 401:
            raise UserError(f"Prefect at {self.url} wants another password; see {self.credentials}")
        if response.is_error:
            raise UserError(f"Prefect at {self.url} refuses {path} ({response.status_code}: {response.text[:200]})")
        return response.json() if response.content else None

    def _csrf_headers(self, client: Any) -> dict[str, str]:
        response = client.get(f"{self.url}/api/csrf-token", params={"client": CSRF_CLIENT})
        if not response.is_success:  # a server that was started by an earlier version gives none
            return {}
        return {"Prefect-Csrf-Token": response.json()["token"], "Prefect-Csrf-Client": CSRF_CLIENT}

    def ensure_pool(self, environment: Mapping[str, str]) -> None:
        """The work pool; stages get their environment from it, whichever worker takes the run."""
        pool = self.request("GET", f"/work_pools/{POOL}", none=(404,))
        if pool is None:
            from prefect.workers.process import ProcessWorker

            template = ProcessWorker.get_default_base_job_template()
        else:
            template = pool["base_job_template"]
        variable = template["variables"]["properties"]["env"]
        if pool is not None and variable.get("default") == environment:
            return
        variable["default"] = dict(environment)
        content = {
            "base_job_template": template,
            "description": "Trainings and all other flows of AR-GAN, as processes",
        }
        if pool is None:
            self.request("POST", "/work_pools/", {"name": POOL, "type": "process", **content})
        else:
            self.request("PATCH", f"/work_pools/{POOL}", content)

    def ensure_gpu_limit(self, gpus: int) -> None:
        """The limit that lets one training at a time onto a GPU."""
        limit = self.request("GET", f"/v2/concurrency_limits/{GPU}", none=(404,))
        if limit is None:
            self.request("POST", "/v2/concurrency_limits/", {"name": GPU, "limit": gpus})
        elif limit["limit"] != gpus:
            self.request("PATCH", f"/v2/concurrency_limits/{GPU}", {"limit": gpus})

    def workers(self) -> list[dict[str, Any]]:
        return self.request("POST", f"/work_pools/{POOL}/workers/filter", {}) or []

    def active_runs(self) -> list[dict[str, Any]]:
        """Flow runs of the pool that are in work."""
        states = {"flow_runs": {"state": {"type": {"any_": list(ACTIVE)}}}}
        return self.request("POST", "/flow_runs/filter", states | {"work_pools": {"name": {"any_": [POOL]}}})

    def set_state(self, runs: Sequence[Mapping[str, Any]], state: str, message: str) -> None:
        for run in runs:
            content = {"type": state, "name": state.capitalize(), "message": message}
            self.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": content, "force": True})
