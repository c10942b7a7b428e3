"""Versions of the registered models: made, gated, found again, and fetched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from argan.config.params import Mlflow
from argan.errors import UserError
from argan.registry import card, champions, manifest
from argan.registry.place import connect, or_none, prefect, public, revision, speaking, sqlite_file, tracking_uri
from argan.registry.runs import alive, create_run, log_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from argan.evaluation.gate import Decision, Scores
    from argan.registry.catalogue import Version

MODEL_FILES = ("generator.safetensors", "estimator.safetensors", "config.json")


def model_hash(folder: Path) -> str:
    """Of what the model is: its weights and the parameters that shaped them, not when or how fast it was made."""
    told = hashlib.sha256()
    try:
        for name in MODEL_FILES[:2]:
            told.update(hashlib.sha256((folder / name).read_bytes()).digest())
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        told.update(json.dumps([config["domain"], config["training"]], sort_keys=True).encode())
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json is damaged ({error}); delete {folder} and run `dvc repro`") from error
    return told.hexdigest()[:16]


def register(
    folder: Path,
    metrics: Mapping[str, Any],
    plots: Path,
    report: Path,
    settings: Mlflow,
    decide: Callable[[Path | None], Decision],
    say: Callable[[str], None],
    lineage: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the model in `folder` a version of `argan-<domain>`, set the aliases, and return the receipt.

    `report`, the folder with the report and the scores, becomes the version's `evaluation/`. `decide` is asked whether it
    becomes champion, and given the folder of the champion there is, None without one. The same model is the same version,
    however often it is registered. lineage: tags that tell where it comes from. The receipt holds no secret.
    """
    from argan.evaluation.gate import Decision as Decided  # brings scipy, which no other command of the registry needs
    from argan.evaluation.page import with_gate

    digest = model_hash(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    domain, data = config["domain"], config["data"]
    name, uri = f"argan-{domain}", tracking_uri(settings)
    client = connect(uri)
    with speaking(uri):
        _create(client, name, f"AR-GAN trained on the domain '{domain}'")
        same = f"name = '{name}' and tags.model_hash = '{digest}'"
        if found := client.search_model_versions(same):
            version, run_id = str(found[0].version), str(found[0].run_id)
            say(f"already registered as version {version} of {name}")
        else:
            run_id = str((config.get("mlflow") or {}).get("run_id"))
            if not alive(client, run_id):  # trained against another MLflow: the curves come along
                run_id = create_run(client, settings, domain, config["training"], data)
                log_rows(client, run_id, _history(folder))
                client.set_terminated(run_id)
            tags = {"model_hash": digest, manifest.TAG: manifest.upload(client, run_id, folder, f"model/{digest}")}
            source = f"{client.get_run(run_id).info.artifact_uri}/model/{digest}"
            with champions.exclusive(client, name):
                if found := client.search_model_versions(same):  # another process has registered it meanwhile
                    version, run_id = str(found[0].version), str(found[0].run_id)
                else:
                    version = str(client.create_model_version(name, source, run_id, tags=tags).version)
        if report.is_dir():
            client.log_artifacts(run_id, str(report), f"model/{digest}/evaluation")
        if plots.is_dir():
            client.log_artifacts(run_id, str(plots), f"plots/{digest}")
        numbers = {f"eval/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
        log_rows(client, run_id, [(0, numbers, int(time.time() * 1000))])
        while True:
            champion = champions.holder(client, name, say)
            if champion is not None and str(champion.version) == version:
                decision = Decided(True, "is the champion already")
            else:
                try:
                    decision = decide(_files(champion, uri) if champion else None)
                except UserError as error:  # the new version stays, as a challenger
                    decision = Decided(False, f"not comparable: {error}")
            reason = decision.reason
            page = report / "report.html"
            if page.exists():
                told = with_gate(page.read_text(encoding="utf-8"), reason, decision.champion, decision.rows())
                client.log_text(run_id, told, f"model/{digest}/evaluation/report.html")
            run = client.get_run(run_id)
            made = card.Version(
                name=name,
                number=version,
                run_id=run_id,
                experiment_id=run.info.experiment_id,
                config=config,
                data=card.facts(folder, domain),
                scores=metrics,
                lineage=card.clean(
                    {"git_revision": config.get("git_revision") or revision(), **prefect(), **(lineage or {})}
                ),
                pictures=_pictures(folder, plots, digest),
                reason=reason,
                against=str(champion.version) if champion is not None and decision.comparisons else "",
                comparisons=card.gate_rows(decision),
            )
            _tell(client, made)
            client.set_registered_model_alias(name, "challenger", version)
            if not decision.champion:
                champions.refresh(client, name)
                break
            if champions.succeed(client, name, version, champion):
                break
            say(f"{name}: another version became champion meanwhile: judging again, against that one")
    say(f"{name} version {version}: {'champion' if decision.champion else 'challenger'} ({reason})")
    return {
        "name": name,
        "version": version,
        "aliases": ["challenger", *(["champion"] if decision.champion else [])],
        "reason": reason,
        "comparison": {name: asdict(comparison) for name, comparison in decision.comparisons.items()},
        "model_hash": digest,
        "run_id": run_id,
        "experiment_id": run.info.experiment_id,
        "tracking_uri": public(uri),
    }


def _create(client: MlflowClient, name: str, description: str) -> None:
    """Make the registered model where it is not there."""
    from mlflow.exceptions import MlflowException

    if or_none(lambda: client.get_registered_model(name)) is None:
        try:
            client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by another process meanwhile
                raise


def _tell(client: MlflowClient, made: card.Version) -> None:
    """Write the version's card and tags, and into its run what became of it. What is there already is left alone."""
    there = client.get_model_version(made.name, made.number)
    told = card.version_card(made)
    if made.reason == "is the champion already" and "gate" in there.tags:
        return  # registered again: the card says what the gate said then
    for key, value in made.tags().items():
        if there.tags.get(key) != value:
            client.set_model_version_tag(made.name, made.number, key, value)
    if there.description != told:
        client.update_model_version(made.name, made.number, told)
    client.set_tag(made.run_id, "registered", f"{made.name} version {made.number}")
    client.set_tag(made.run_id, "mlflow.note.content", card.run_note(made))
    for key, value in made.lineage.items():
        client.set_tag(made.run_id, key, value)


def _pictures(folder: Path, plots: Path, digest: str) -> dict[str, str]:
    """What a card shows, by name, as paths among the run's artifacts."""
    found = {name: (plots / f"{name}.png", f"plots/{digest}/{name}.png") for name in ("scenes", "depth")}
    found["samples"] = (folder / "samples" / "samples.png", f"model/{digest}/samples/samples.png")
    return {name: path for name, (file, path) in found.items() if file.exists()}


def _history(folder: Path) -> list[tuple[int, dict[str, float], int]]:
    import pandas as pd

    file, now = folder / "history.csv", int(time.time() * 1000)
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    return [(int(row["images"]), {str(k): v for k, v in row.items() if k != "images" and v == v}, now) for row in rows]


def registered(receipt: Mapping[str, Any], settings: Mlflow) -> bool:
    """Whether the MLflow in use holds the version a receipt names. Quick for SQLite: MLflow itself is not imported."""
    uri, (name, version) = tracking_uri(settings), (str(receipt.get("name")), str(receipt.get("version")))
    if receipt.get("tracking_uri") != public(uri):
        return False
    file = sqlite_file(uri)
    if file is not None:
        ask = "select 1 from model_versions where name = ? and version = ? and current_stage != 'Deleted_Internal'"
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                return database.execute(ask, (name, version)).fetchone() is not None
        except sqlite3.Error:
            return False
    client = connect(uri)
    with speaking(uri):
        return or_none(lambda: client.get_model_version(name, version)) is not None


def tag(name: str, alias: str, tags: Mapping[str, str], settings: Mlflow) -> str:
    """Write tags of the version that an alias names, and return its number. Raises UserError."""
    uri = tracking_uri(settings)
    client = connect(uri)
    with speaking(uri):
        version = str(client.get_model_version_by_alias(name, alias).version)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
    return version


def download(reference: str, settings: Mlflow | None = None) -> Path:
    """The folder of `models:/<name>@<alias>` or `models:/<name>/<version>`; fetched once, then kept in the user's cache."""
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if match is None:
        raise UserError(
            f"'{reference}' is no registry reference; write models:/argan-<domain>@champion or models:/argan-<domain>/3"
        )
    name, alias, version = match.groups()
    uri = tracking_uri(settings)
    if (file := sqlite_file(uri)) is not None and not file.exists():
        raise UserError(f"there is no registry at {file.absolute()}; run `dvc repro` first, or set MLFLOW_TRACKING_URI")
    client = connect(uri)
    with speaking(uri):
        if alias:
            found = or_none(lambda: client.get_model_version_by_alias(name, alias))
        else:
            found = or_none(lambda: client.get_model_version(name, version))
        if found is None:
            if alias == "champion" and (lost := champions.lost(client, name)):
                raise UserError(lost)
            raise UserError(
                f"{reference} is not in the MLflow at {public(uri)}; `argan models list` shows what there is"
            )
        return _files(found, uri)


def _files(version: Any, uri: str) -> Path:
    """The folder of a model version; from elsewhere it is fetched once, then kept in the user's cache."""
    if urlsplit(version.source).scheme in ("", "file"):
        local = Path(unquote(urlsplit(version.source).path))
        if not local.is_dir():
            raise UserError(
                f"models:/{version.name}/{version.version}: its files are gone from {local}; register it again (dvc repro -s -f "
                "register), restore a backup, or argan models rollback"
            )
        return local
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argan"
    key = hashlib.sha256(f"{uri} {version.source}".encode()).hexdigest()[:16]
    return manifest.fetched(version, uri, cache / f"{version.name}-{version.version}-{key}")


def check_files(version: Any, uri: str) -> None:
    """Raises UserError where a version's files are gone."""
    if urlsplit(version.source).scheme in ("", "file"):
        _files(version, uri)
        return
    if version.source.startswith("mlflow-artifacts:") and not uri.startswith("http"):
        return  # only the server knows; this is its database
    import mlflow.artifacts

    if not mlflow.artifacts.list_artifacts(artifact_uri=version.source, tracking_uri=uri):
        raise UserError(
            f"models:/{version.name}/{version.version}: its files are gone from {version.source}; restore a backup"
        )


def scores(version: Version, uri: str) -> Scores | None:
    """What a version scored, photo by photo, when it was registered; None where that is not with its files."""
    from argan.evaluation.gate import Scores

    inner = "evaluation/scores.json"
    with TemporaryDirectory() as folder, suppress(ValueError, UserError):
        if urlsplit(version.source).scheme in ("", "file"):
            file = Path(unquote(urlsplit(version.source).path)) / inner
        else:
            import mlflow.artifacts
            from mlflow.exceptions import MlflowException

            try:
                found = f"{version.source}/{inner}"
                file = Path(mlflow.artifacts.download_artifacts(artifact_uri=found, dst_path=folder, tracking_uri=uri))
            except (MlflowException, OSError):
                return None
        if file.exists():
            return Scores.of(json.loads(file.read_text(encoding="utf-8")))
    return None
