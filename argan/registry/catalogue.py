"""What the registry holds, read without MLflow, whose import takes longer than all the rest: a few questions to its database,
or to its server's REST interface. Nothing is written here.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from argan.errors import UserError
from argan.registry.card import flat
from argan.registry.place import broken, public, reach, sqlite_file

PREFIX = "argan-"
ARCHIVED = "Archived"
PAGE = 1000  # models or versions in an answer of a server
SECONDS = 30  # for an answer


@dataclass(frozen=True)
class Model:
    """A registered model. stage: of the champion; newest: the highest version there is, None of a model without."""

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    newest: int | None
    stage: str = "None"

    @property
    def domain(self) -> str:
        return self.name.removeprefix(PREFIX)

    @property
    def champion(self) -> int | None:
        return self.aliases.get("champion")


@dataclass(frozen=True)
class Version:
    """A version of it. made: milliseconds since 1970; tags: with what the tag `details` holds."""

    name: str
    number: int
    stage: str
    made: int
    run_id: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Catalogue(Protocol):
    def models(self) -> list[Model]:
        """All models of domains, by name, with their tags and aliases."""
        ...

    def versions(self, name: str, number: int | None = None) -> list[Version]:
        """All versions of a model, or one, the newest first; deleted ones are none."""
        ...

    def deleted(self, run_id: str) -> bool:
        """Whether a run is deleted in MLflow, or not there."""
        ...


def catalogue(uri: str) -> Catalogue:
    """Of the registry at `uri`. Raises UserError when it cannot be reached or is none that we know."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"there is no registry at {file.absolute()}; run `dvc repro` first, or set MLFLOW_TRACKING_URI")
    if uri.startswith("databricks"):
        raise UserError("argan models reads a registry of one's own: a database, or a server's http address")
    reach(uri)
    return Server(uri) if uri.startswith("http") else Database(uri)


class Database:
    """MLflow's tables, read by SQL."""

    def __init__(self, uri: str) -> None:
        self.uri, self.file = uri, sqlite_file(uri)
        self.workspace = os.environ.get("MLFLOW_WORKSPACE") or "default"

    def models(self) -> list[Model]:
        where = "workspace = :workspace and name like 'argan-%'"
        names, tags, aliases, versions = self._ask(
            f"select name from registered_models where {where} order by name",
            f"select name, key, value from registered_model_tags where {where}",
            f"select name, alias, version from registered_model_aliases where {where}",
            f"select name, version, current_stage from model_versions where {where} and current_stage != 'Deleted_Internal'",
        )
        told: dict[str, dict[str, Any]] = {name: {"tags": {}, "aliases": {}, "stages": {}} for (name,) in names}
        for name, key, value in tags:
            told[name]["tags"][key] = value or ""
        for name, alias, version in aliases:
            told[name]["aliases"][alias] = int(version)
        for name, version, stage in versions:
            told[name]["stages"][int(version)] = stage
        return [
            Model(
                name,
                of["tags"],
                of["aliases"],
                max(of["stages"], default=None),
                of["stages"].get(of["aliases"].get("champion"), "None"),
            )
            for name, of in told.items()
        ]

    def versions(self, name: str, number: int | None = None) -> list[Version]:
        where = "workspace = :workspace and name = :name" + ("" if number is None else " and version = :version")
        given = {"name": name} | ({} if number is None else {"version": number})
        columns = "version, current_stage, creation_time, run_id, source"
        rows, tags = self._ask(
            f"select {columns} from model_versions where {where} and current_stage != 'Deleted_Internal' order by version desc",
            f"select version, key, value from model_version_tags where {where}",
            **given,
        )
        told: dict[int, dict[str, str]] = {}
        for version, key, value in tags:
            told.setdefault(int(version), {})[key] = value or ""
        return [
            Version(name, int(v), stage, int(made or 0), run or "", source or "", flat(told.get(int(v), {})))
            for v, stage, made, run, source in rows
        ]

    def deleted(self, run_id: str) -> bool:
        (rows,) = self._ask("select lifecycle_stage from runs where run_uuid = :run", run=run_id)
        return [stage for (stage,) in rows] != ["active"]

    def _ask(self, *questions: str, **given: Any) -> list[list[Any]]:
        """The rows that answer each question, all of one moment."""
        given |= {"workspace": self.workspace}
        if self.file is not None:  # half a second sooner than with SQLAlchemy
            with closing(sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro", uri=True, timeout=20)) as database:
                try:
                    database.execute("begin")
                    return [database.execute(question, given).fetchall() for question in questions]
                except sqlite3.Error as error:
                    raise self._refused(error) from error
        from sqlalchemy import create_engine, pool, text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            engine = create_engine(self.uri, poolclass=pool.NullPool, isolation_level="REPEATABLE READ")
            with engine.connect() as connection:
                return [[tuple(row) for row in connection.execute(text(question), given)] for question in questions]
        except (SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UserError:
        told = " ".join(str(getattr(error, "orig", error)).split())
        if not re.search("no such (table|column)|(relation|column) .* does not exist", told):
            return broken(self.uri, error)
        return UserError(
            f"the database {public(self.uri)} is not that of an MLflow of this version ({told[:100]}): after a backup, "
            "`python -m pipelines.services migrate` or `mlflow db upgrade URI`; or set MLFLOW_TRACKING_URI"
        )


class Server:
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

    def models(self) -> list[Model]:
        found = []
        for told in self._pages("registered-models/search", "registered_models", filter="name LIKE 'argan-%'"):
            stages = {int(v["version"]): v.get("current_stage", "None") for v in told.get("latest_versions", [])}
            aliases = {alias["alias"]: int(alias["version"]) for alias in told.get("aliases", [])}
            champion = aliases.get("champion")
            if champion not in stages and any(v > (champion or v) for v, s in stages.items() if s == ARCHIVED):
                # of each stage only the newest version is told
                stages |= {v.number: v.stage for v in self.versions(told["name"], champion)}
            newest = max(stages, default=None)
            found.append(Model(told["name"], _tags(told), aliases, newest, stages.get(champion or 0, "None")))
        return sorted(found, key=lambda model: model.name)

    def versions(self, name: str, number: int | None = None) -> list[Version]:
        if number is None:
            told = self._pages("model-versions/search", "model_versions", filter=f"name = '{name}'")
        else:
            one = self._ask("model-versions/get", name=name, version=str(number))
            told = [one["model_version"]] if one else []
        found = [
            Version(
                name,
                int(v["version"]),
                v.get("current_stage", "None"),
                int(v.get("creation_timestamp", 0)),
                v.get("run_id", ""),
                v.get("source", ""),
                flat(_tags(v)),
            )
            for v in told
        ]
        return sorted(found, key=lambda version: -version.number)

    def deleted(self, run_id: str) -> bool:
        told = self._ask("runs/get", run_id=run_id)
        return not told or told["run"]["info"].get("lifecycle_stage") != "active"

    def _pages(self, path: str, key: str, **given: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = None
        while True:
            told = self._ask(path, max_results=str(PAGE), **given, **({"page_token": token} if token else {}))
            found += told.get(key, [])
            if not (token := told.get("next_page_token")):
                return found

    def _ask(self, path: str, **given: str) -> dict[str, Any]:
        """The answer; empty where MLflow says that there is no such thing."""
        import requests

        try:
            answer = self.session.get(f"{self.uri}/api/2.0/mlflow/{path}", params=given, timeout=SECONDS)
            if answer.status_code in (401, 403):
                raise UserError(
                    f"MLflow at {public(self.uri)} refuses ({answer.status_code}): it wants MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD (source services/env)"
                )
            told = answer.json()
            if answer.status_code == 404 and told.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
                return {}
            if answer.ok and isinstance(told, dict):
                return told
            reason = told.get("message") or f"HTTP {answer.status_code}"
        except requests.JSONDecodeError:
            reason = f"HTTP {answer.status_code} and no JSON"
        except (requests.RequestException, AttributeError) as error:
            raise broken(self.uri, error) from error
        raise UserError(
            f"{public(self.uri)} does not answer as MLflow of this version does ({' '.join(str(reason).split())[:160]}); it says "
            f"it is {self._version()}; set MLFLOW_TRACKING_URI to another server, or upgrade this one"
        )

    def _version(self) -> str:
        import requests

        try:
            answer = self.session.get(f"{self.uri}/version", timeout=SECONDS)
            if answer.ok and re.fullmatch(r"[\w.+-]{1,30}", answer.text.strip()):
                return f"MLflow {answer.text.strip()}"
        except requests.RequestException:
            pass
        return "no MLflow"


def _tags(told: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in told.get("tags", [])}
