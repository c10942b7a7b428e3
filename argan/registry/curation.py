"""Changes to the registry by hand: promote, roll back, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.registry.champions import deleted_run_warning, live_versions, refresh, set_champion
from argan.registry.claims import exclusive
from argan.registry.connection import connect, none_if_missing, redacted_uri, tracking_uri, translate_errors
from argan.registry.entities import ARCHIVED, PREFIX
from argan.registry.history import predecessor, read_history
from argan.registry.version_files import check_files

if TYPE_CHECKING:
    from mlflow import MlflowClient


def promote(domain: str, version: int, settings: Mlflow | None = None) -> str:
    """Make a version champion by hand; a line of what was done. Raises UserError."""
    return _make_champion(domain, version, "promote", settings)


def rollback(domain: str, settings: Mlflow | None = None) -> str:
    """Make the champion before champion again; a line of what was done. Raises UserError where there is none."""
    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with translate_errors(uri):
        model = _model(client, name, uri)
        current = model.aliases.get("champion")
        changes = read_history(model.tags)
        previous = predecessor(changes, live_versions(client, name), int(current) if current else None)
    if previous is None:
        raise UserError(
            f"{domain}: no champion before {f'version {current}' if current else 'this'} is left; `argan models list {domain}` "
            f"shows what there is, `argan models promote {domain} VERSION` makes one champion"
        )
    return _make_champion(domain, previous, "rollback", settings)


def delete(domain: str, version: int, settings: Mlflow | None = None) -> str:
    """Delete a version that is not the champion; a line of what was done. Raises UserError."""
    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with translate_errors(uri):
        _model(client, name, uri)
        with exclusive(client, name):
            model = _model(client, name, uri)
            deleted = _version(client, name, version, uri)
            if str(model.aliases.get("champion")) == str(version):
                raise UserError(
                    f"{domain}: version {version} is the champion, and a champion is not deleted; first `argan models rollback "
                    f"{domain}` or `argan models promote {domain} VERSION`"
                )
            client.delete_model_version(name, str(version))
            left = client.get_registered_model(name)
            if "challenger" in model.aliases and "challenger" not in left.aliases and left.latest_versions:
                newest = max(left.latest_versions, key=lambda v: int(v.version))
                client.set_registered_model_alias(name, "challenger", str(newest.version))
            refresh(client, name)
    return (
        f"{domain}: version {version} is deleted; its files stay with run {deleted.run_id} until that is deleted in MLflow too "
        "and `mlflow gc` has run"
    )


def _make_champion(domain: str, number: int, how: str, settings: Mlflow | None) -> str:
    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with translate_errors(uri):
        model = _model(client, name, uri)
        version = _version(client, name, number, uri)
        current = model.aliases.get("champion")
        check_files(version, uri)
        with exclusive(client, name):
            set_champion(client, name, str(number), how)
        parts = [f"{domain}: version {number} is champion" + (f", version {current} was" if current else "")]
        if str(current) == str(number):
            parts = [f"{domain}: version {number} is the champion already"]
        if version.tags.get("degenerate", "no") != "no":
            parts.append(f"it is degenerate: {version.tags['degenerate']}")
        if version.current_stage == ARCHIVED:
            parts.append("it is archived in MLflow: set its stage back to None there")
        if warning := deleted_run_warning(client, version):
            parts.append(warning)
    return "; ".join(parts)


def _model(client: MlflowClient, name: str, uri: str) -> Any:
    if (model := none_if_missing(lambda: client.get_registered_model(name))) is None:
        raise UserError(f"{name} is not in the MLflow at {redacted_uri(uri)}; `argan models list` shows what there is")
    return model


def _version(client: MlflowClient, name: str, number: int, uri: str) -> Any:
    if (version := none_if_missing(lambda: client.get_model_version(name, str(number)))) is None:
        raise UserError(
            f"{name} has no version {number} in the MLflow at {redacted_uri(uri)}; see `argan models list "
            f"{name.removeprefix(PREFIX)}`"
        )
    return version
