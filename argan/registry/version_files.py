"""The files of a version: where they are, whether they are there, fetched once from elsewhere and kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.registry import manifest
from argan.registry.champions import missing_champion
from argan.registry.connection import (
    connect,
    none_if_missing,
    redacted_uri,
    sqlite_file,
    tracking_uri,
    translate_errors,
)

if TYPE_CHECKING:
    from argan.evaluation.gate import Scores
    from argan.registry.entities import ModelVersion

SCORES = "evaluation/scores.json"  # among a version's files: what it scored, photo by photo


def download(reference: str, settings: Mlflow | None = None) -> Path:
    """The folder of `models:/<name>@<alias>` or `models:/<name>/<version>`; fetched once, then kept in the user's cache."""
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if match is None:
        raise UserError(
            f"'{reference}' is no registry reference; write models:/argan-<domain>@champion or models:/argan-<domain>/3"
        )
    name, alias, number = match.groups()
    uri = tracking_uri(settings)
    if (file := sqlite_file(uri)) is not None and not file.exists():
        raise UserError(f"there is no registry at {file.absolute()}; run `dvc repro` first, or set MLFLOW_TRACKING_URI")
    client = connect(uri)
    with translate_errors(uri):
        if alias:
            version = none_if_missing(lambda: client.get_model_version_by_alias(name, alias))
        else:
            version = none_if_missing(lambda: client.get_model_version(name, number))
        if version is None:
            if alias == "champion" and (reason := missing_champion(client, name)):
                raise UserError(reason)
            raise UserError(
                f"{reference} is not in the MLflow at {redacted_uri(uri)}; `argan models list` shows what there is"
            )
        return local_folder(version, uri)


def local_folder(version: Any, uri: str) -> Path:
    """The folder of a version's files; from elsewhere they are fetched once, then kept in the user's cache. Raises UserError."""
    if (folder := _folder_here(version.source)) is not None:
        if not folder.is_dir():
            raise UserError(
                f"models:/{version.name}/{version.version}: its files are gone from {folder}; register it again (dvc repro -s -f "
                "register), restore a backup, or argan models rollback"
            )
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argan"
    key = hashlib.sha256(f"{uri} {version.source}".encode()).hexdigest()[:16]
    return manifest.fetch(version, uri, cache / f"{version.name}-{version.version}-{key}")


def check_files(version: Any, uri: str) -> None:
    """Raises UserError where a version's files are gone."""
    if _folder_here(version.source) is not None:
        local_folder(version, uri)
        return
    if version.source.startswith("mlflow-artifacts:") and not uri.startswith("http"):
        return  # only the server knows; this is its database
    import mlflow.artifacts

    if not mlflow.artifacts.list_artifacts(artifact_uri=version.source, tracking_uri=uri):
        raise UserError(
            f"models:/{version.name}/{version.version}: its files are gone from {version.source}; restore a backup"
        )


def load_scores(version: ModelVersion, uri: str) -> Scores | None:
    """What a version scored, photo by photo, when it was registered; None where that is not with its files."""
    from argan.evaluation.gate import Scores

    with TemporaryDirectory() as temporary, suppress(ValueError, UserError):
        if (folder := _folder_here(version.source)) is not None:
            file = folder / SCORES
        else:
            import mlflow.artifacts
            from mlflow.exceptions import MlflowException

            source = f"{version.source}/{SCORES}"
            try:
                fetched = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=uri)
            except (MlflowException, OSError):
                return None
            file = Path(fetched)
        if file.exists():
            return Scores.from_json(json.loads(file.read_text(encoding="utf-8")))
    return None


def _folder_here(source: str) -> Path | None:
    """The folder that a version's source names on this machine; None where it is elsewhere."""
    parts = urlsplit(source)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
