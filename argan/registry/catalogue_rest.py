"""The registry read through MLflow's REST interface, without MLflow's client, whose import takes seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from argan.errors import UserError
from argan.registry.connection import connection_error, redacted_uri
from argan.registry.entities import ARCHIVED, ModelVersion, RegisteredModel, expand_details

PAGE = 1000  # models or versions in an answer
TIMEOUT = 30  # seconds for an answer


class RestCatalogue:
    """MLflow's REST interface, logged in as MLflow's own client would be."""

    def __init__(self, uri: str) -> None:
        import requests

        self.uri, self.session = uri.rstrip("/"), requests.Session()
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self.session.headers["Authorization"] = f"Bearer {token}"
        elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            self.session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
            self.session.verify = False
        elif certificate := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
            self.session.verify = certificate

    def models(self) -> list[RegisteredModel]:
        found = []
        for model in self._pages("registered-models/search", "registered_models", filter="name LIKE 'argan-%'"):
            stages = {int(v["version"]): v.get("current_stage", "None") for v in model.get("latest_versions", [])}
            aliases = {alias["alias"]: int(alias["version"]) for alias in model.get("aliases", [])}
            champion = aliases.get("champion")
            if champion not in stages and any(v > (champion or v) for v, s in stages.items() if s == ARCHIVED):
                # the server lists only the newest version of each stage
                stages |= {v.number: v.stage for v in self.versions(model["name"], champion)}
            newest = max(stages, default=None)
            found.append(
                RegisteredModel(model["name"], _tags(model), aliases, newest, stages.get(champion or 0, "None"))
            )
        return sorted(found, key=lambda model: model.name)

    def versions(self, name: str, number: int | None = None) -> list[ModelVersion]:
        if number is None:
            answers = self._pages("model-versions/search", "model_versions", filter=f"name = '{name}'")
        else:
            one = self._get("model-versions/get", name=name, version=str(number))
            answers = [one["model_version"]] if one else []
        found = [
            ModelVersion(
                name,
                int(v["version"]),
                v.get("current_stage", "None"),
                int(v.get("creation_timestamp", 0)),
                v.get("run_id", ""),
                v.get("source", ""),
                expand_details(_tags(v)),
            )
            for v in answers
        ]
        return sorted(found, key=lambda version: -version.number)

    def is_deleted(self, run_id: str) -> bool:
        run = self._get("runs/get", run_id=run_id)
        return not run or run["run"]["info"].get("lifecycle_stage") != "active"

    def _pages(self, path: str, key: str, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = None
        while True:
            page = self._get(path, max_results=str(PAGE), **query, **({"page_token": token} if token else {}))
            found += page.get(key, [])
            if not (token := page.get("next_page_token")):
                return found

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        """The answer; empty where MLflow says that there is no such thing."""
        import requests

        try:
            response = self.session.get(f"{self.uri}/api/2.0/mlflow/{path}", params=query, timeout=TIMEOUT)
            if response.status_code in (401, 403):
                raise UserError(
                    f"MLflow at {redacted_uri(self.uri)} refuses ({response.status_code}): it wants MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD (source services/env)"
                )
            content = response.json()
            if response.status_code == 404 and content.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
                return {}
            if response.ok and isinstance(content, dict):
                return content
            reason = content.get("message") or f"HTTP {response.status_code}"
        except requests.JSONDecodeError:
            reason = f"HTTP {response.status_code} and no JSON"
        except (requests.RequestException, AttributeError) as error:
            raise connection_error(self.uri, error) from error
        reason = " ".join(str(reason).split())[:160]
        raise UserError(
            f"{redacted_uri(self.uri)} does not answer as MLflow of this version does ({reason}); it says "
            f"it is {self._server_version()}; set MLFLOW_TRACKING_URI to another server, or upgrade this one"
        )

    def _server_version(self) -> str:
        import requests

        try:
            response = self.session.get(f"{self.uri}/version", timeout=TIMEOUT)
            if response.ok and re.fullmatch(r"[\w.+-]{1,30}", response.text.strip()):
                return f"MLflow {response.text.strip()}"
        except requests.RequestException:
            pass
        return "no MLflow"


def _tags(entity: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in entity.get("tags", [])}
