"""A trained model becomes a version of `argan-<domain>`: uploaded, judged by the gate, described, and perhaps champion.

The same model is the same version, however often it is registered.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.registry import lineage, manifest, pages
from argan.registry.card import VersionCard, data_facts, gate_rows
from argan.registry.champions import ensure_champion, refresh, replace_champion
from argan.registry.claims import exclusive
from argan.registry.connection import (
    connect,
    none_if_missing,
    redacted_uri,
    sqlite_file,
    tracking_uri,
    translate_errors,
)
from argan.registry.entities import PREFIX
from argan.registry.runs import create_run, is_alive, log_rows
from argan.registry.version_files import local_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from argan.evaluation.gate import Decision

WEIGHTS = ("generator.safetensors", "estimator.safetensors")
IS_CHAMPION = "is the champion already"


@dataclass(frozen=True)
class Candidate:
    """A trained model on its way into the registry: its folder, and what was measured and drawn of it."""

    folder: Path
    plots: Path
    report: Path  # of the evaluation; becomes the version's `evaluation/`
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    digest: str
    lineage: Mapping[str, str]

    @property
    def domain(self) -> str:
        return self.config["domain"]

    @property
    def name(self) -> str:
        return PREFIX + self.domain

    @property
    def artifacts(self) -> str:
        """Where its files lie among the run's artifacts."""
        return f"model/{self.digest}"

    def pictures(self) -> dict[str, str]:
        """What a card shows, by name, as paths among the run's artifacts."""
        files = {name: (self.plots / f"{name}.png", f"plots/{self.digest}/{name}.png") for name in ("scenes", "depth")}
        files["samples"] = (self.folder / "samples" / "samples.png", f"{self.artifacts}/samples/samples.png")
        return {name: path for name, (file, path) in files.items() if file.exists()}

    def history(self) -> list[tuple[int, dict[str, float], int]]:
        """The rows that training wrote down, for a run that lacks them: step, numbers, milliseconds."""
        import pandas as pd

        file, now = self.folder / "history.csv", int(time.time() * 1000)
        rows = pd.read_csv(file).to_dict("records") if file.exists() else []
        return [
            (int(row["images"]), {str(k): v for k, v in row.items() if k != "images" and v == v}, now) for row in rows
        ]


def model_hash(folder: Path) -> str:
    """Of what the model is: its weights and the parameters that shaped them, not when or how fast it was made."""
    digest = hashlib.sha256()
    try:
        for name in WEIGHTS:
            digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        digest.update(json.dumps([config["domain"], config["training"]], sort_keys=True).encode())
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json is damaged ({error}); delete {folder} and run `dvc repro`") from error
    return digest.hexdigest()[:16]


def register(
    folder: Path,
    metrics: Mapping[str, Any],
    plots: Path,
    report: Path,
    settings: Mlflow,
    decide: Callable[[Path | None], Decision],
    say: Callable[[str], None],
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the model in `folder` a version, set the aliases, and return the receipt, which holds no secret.

    decide: the gate; it is given the folder of the champion there is, None without one. tags: more of where the model comes from.
    """
    digest = model_hash(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    origin = {
        "git_revision": config.get("git_revision") or lineage.revision(),
        **lineage.prefect_tags(),
        **(tags or {}),
    }
    candidate = Candidate(folder, plots, report, metrics, config, digest, lineage.printable(origin))
    uri = tracking_uri(settings)
    client = connect(uri)
    with translate_errors(uri):
        _create_model(client, candidate.name, f"AR-GAN trained on the domain '{candidate.domain}'")
        if same := _same_version(client, candidate):
            say(f"already registered as version {same.version} of {candidate.name}")
        else:
            same = _create_version(client, candidate, settings)
        version, run_id = str(same.version), str(same.run_id)
        _upload_evaluation(client, candidate, run_id)
        decision = _judge(client, candidate, version, run_id, uri, decide, say)
        experiment_id = client.get_run(run_id).info.experiment_id
    alias = "champion" if decision.champion else "challenger"
    say(f"{candidate.name} version {version}: {alias} ({decision.reason})")
    return {
        "name": candidate.name,
        "version": version,
        "aliases": ["challenger", *(["champion"] if decision.champion else [])],
        "reason": decision.reason,
        "comparison": {score: asdict(comparison) for score, comparison in decision.comparisons.items()},
        "model_hash": digest,
        "run_id": run_id,
        "experiment_id": experiment_id,
        "tracking_uri": redacted_uri(uri),
    }


def is_registered(receipt: Mapping[str, Any], settings: Mlflow) -> bool:
    """Whether the MLflow in use holds the version a receipt names. Quick for SQLite: MLflow itself is not imported."""
    uri, (name, version) = tracking_uri(settings), (str(receipt.get("name")), str(receipt.get("version")))
    if receipt.get("tracking_uri") != redacted_uri(uri):
        return False
    file = sqlite_file(uri)
    if file is not None:
        query = "select 1 from model_versions where name = ? and version = ? and current_stage != 'Deleted_Internal'"
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                return database.execute(query, (name, version)).fetchone() is not None
        except sqlite3.Error:
            return False
    client = connect(uri)
    with translate_errors(uri):
        return none_if_missing(lambda: client.get_model_version(name, version)) is not None


def tag(name: str, alias: str, tags: Mapping[str, str], settings: Mlflow) -> str:
    """Write tags of the version that an alias names, and return its number. Raises UserError."""
    uri = tracking_uri(settings)
    client = connect(uri)
    with translate_errors(uri):
        version = str(client.get_model_version_by_alias(name, alias).version)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
    return version


def _create_model(client: MlflowClient, name: str, description: str) -> None:
    """Make the registered model where it is not there."""
    from mlflow.exceptions import MlflowException

    if none_if_missing(lambda: client.get_registered_model(name)) is None:
        try:
            client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by another process meanwhile
                raise


def _same_version(client: MlflowClient, candidate: Candidate) -> Any:
    """The version that this very model is already, or None."""
    same = client.search_model_versions(f"name = '{candidate.name}' and tags.model_hash = '{candidate.digest}'")
    return same[0] if same else None


def _create_version(client: MlflowClient, candidate: Candidate, settings: Mlflow) -> Any:
    """Upload the model's files and make them a version."""
    config = candidate.config
    run_id = str((config.get("mlflow") or {}).get("run_id"))
    if not is_alive(client, run_id):  # trained against another MLflow: the curves come along
        run_id = create_run(client, settings, candidate.domain, config["training"], config["data"])
        log_rows(client, run_id, candidate.history())
        client.set_terminated(run_id)
    checksum = manifest.upload(client, run_id, candidate.folder, candidate.artifacts)
    source = f"{client.get_run(run_id).info.artifact_uri}/{candidate.artifacts}"
    with exclusive(client, candidate.name):
        if same := _same_version(client, candidate):  # another process has registered it meanwhile
            return same
        tags = {"model_hash": candidate.digest, manifest.TAG: checksum}
        return client.create_model_version(candidate.name, source, run_id, tags=tags)


def _upload_evaluation(client: MlflowClient, candidate: Candidate, run_id: str) -> None:
    if candidate.report.is_dir():
        client.log_artifacts(run_id, str(candidate.report), f"{candidate.artifacts}/evaluation")
    if candidate.plots.is_dir():
        client.log_artifacts(run_id, str(candidate.plots), f"plots/{candidate.digest}")
    numbers = {f"eval/{k}": v for k, v in candidate.metrics.items() if isinstance(v, int | float)}
    log_rows(client, run_id, [(0, numbers, int(time.time() * 1000))])


def _judge(
    client: MlflowClient,
    candidate: Candidate,
    version: str,
    run_id: str,
    uri: str,
    decide: Callable[[Path | None], Decision],
    say: Callable[[str], None],
) -> Decision:
    """Compare with the champion, write down what came of it, and set the aliases; again where the champion changed meanwhile."""
    while True:
        champion = ensure_champion(client, candidate.name, say)
        decision = _decide(champion, version, uri, decide)
        _update_report(client, candidate, run_id, decision)
        _describe(client, _version_card(client, candidate, version, run_id, champion, decision))
        client.set_registered_model_alias(candidate.name, "challenger", version)
        if not decision.champion:
            refresh(client, candidate.name)
            return decision
        if replace_champion(client, candidate.name, version, champion):
            return decision
        say(f"{candidate.name}: another version became champion meanwhile: judging again, against that one")


def _decide(champion: Any, version: str, uri: str, decide: Callable[[Path | None], Decision]) -> Decision:
    from argan.evaluation import gate  # brings scipy, which no other command of the registry needs

    if champion is not None and str(champion.version) == version:
        return gate.Decision(True, IS_CHAMPION)
    try:
        return decide(local_folder(champion, uri) if champion else None)
    except UserError as error:  # the new version stays, as a challenger
        return gate.Decision(False, f"not comparable: {error}")


def _update_report(client: MlflowClient, candidate: Candidate, run_id: str, decision: Decision) -> None:
    """Put the gate's decision into the report among the version's files."""
    from argan.evaluation.report import with_gate

    page = candidate.report / "report.html"
    if page.exists():
        text = with_gate(page.read_text(encoding="utf-8"), decision.reason, decision.champion, decision.rows())
        client.log_text(run_id, text, f"{candidate.artifacts}/evaluation/report.html")


def _version_card(
    client: MlflowClient, candidate: Candidate, version: str, run_id: str, champion: Any, decision: Decision
) -> VersionCard:
    return VersionCard(
        name=candidate.name,
        number=version,
        run_id=run_id,
        experiment_id=client.get_run(run_id).info.experiment_id,
        config=candidate.config,
        data=data_facts(candidate.folder, candidate.domain),
        scores=candidate.metrics,
        lineage=candidate.lineage,
        pictures=candidate.pictures(),
        reason=decision.reason,
        against=str(champion.version) if champion is not None and decision.comparisons else "",
        comparisons=gate_rows(decision),
    )


def _describe(client: MlflowClient, described: VersionCard) -> None:
    """Write the version's card and tags, and into its run what became of it. What is there already is left alone."""
    name, number = described.name, described.number
    current = client.get_model_version(name, number)
    if described.reason == IS_CHAMPION and "gate" in current.tags:
        return  # registered again: the card keeps the gate's decision of that time
    for key, value in described.tags().items():
        if current.tags.get(key) != value:
            client.set_model_version_tag(name, number, key, value)
    page = pages.version_page(described)
    if current.description != page:
        client.update_model_version(name, number, page)
    client.set_tag(described.run_id, "registered", f"{name} version {number}")
    client.set_tag(described.run_id, "mlflow.note.content", pages.run_page(described))
    for key, value in described.lineage.items():
        client.set_tag(described.run_id, key, value)
