"""The champion of a registered model: made, put back where it was deleted in MLflow's pages, and shown on the model's page.

The alias is set first, for it is what counts; then the history of it, and the tags that every list shows of the champion.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from argan.registry import pages
from argan.registry.claims import exclusive
from argan.registry.connection import none_if_missing
from argan.registry.entities import ARCHIVED, PREFIX, expand_details
from argan.registry.history import HISTORY, Change, diagnose, encode_history, predecessor, read_history, succession

if TYPE_CHECKING:
    from mlflow import MlflowClient

COPIED_TAGS = (  # of the champion, to the registered model
    "resolution",
    "preset",
    "photos",
    "photos_learned_from",
    "data_title",
    "data_licence",
    "degenerate",
    "features",
    "depth_spearman",
    "depth_spearman_low",
    "depth_spearman_high",
    "depth_spearman_prior",
    "kid",
    "kid_se",
)
LONGEST = 500  # characters of a copied tag


def set_champion(client: MlflowClient, name: str, version: str, how: str) -> None:
    """Make a version champion; `how` is explained by `Change`. The caller holds `exclusive`."""
    model = client.get_registered_model(name)
    changes = read_history(model.tags)
    current = model.aliases.get("champion")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if current is not None and (not changes or changes[-1].version != int(current)):
        changes.append(Change(int(current), when, "found"))
    if str(current) != str(version):
        client.set_registered_model_alias(name, "champion", str(version))
        changes.append(Change(int(version), when, how))
    client.set_registered_model_tag(name, HISTORY, encode_history(changes))
    refresh(client, name)


def replace_champion(client: MlflowClient, name: str, version: str, compared_with: Any) -> bool:
    """Make `version` champion by the gate; False where the champion is not the one (or none) that it was compared with."""
    with exclusive(client, name):
        current = client.get_registered_model(name).aliases.get("champion")
        if current is not None and (compared_with is None or str(current) != str(compared_with.version)):
            return False
        set_champion(client, name, version, "gate")
    return True


def refresh(client: MlflowClient, name: str) -> None:
    """The registered model's tags and page: those of its champion, else of its newest version."""
    model = client.get_registered_model(name)
    champion = model.aliases.get("champion")
    number = champion or max((v.version for v in model.latest_versions), key=int, default=None)
    if number is None:
        return
    version = client.get_model_version(name, str(number))
    tags = expand_details(version.tags)
    wanted = {key: tags[key] for key in COPIED_TAGS if key in tags and champion}
    wanted |= {"domain": name.removeprefix(PREFIX)} | ({"champion": str(champion)} if champion else {})
    for key, value in wanted.items():
        if model.tags.get(key) != value[:LONGEST]:
            client.set_registered_model_tag(name, key, value[:LONGEST])
    for key in {"champion", *COPIED_TAGS} & model.tags.keys() - wanted.keys():
        client.delete_registered_model_tag(name, key)
    page = pages.model_page(name, tags, str(champion) if champion else None, version.run_id)
    if model.description != page:
        client.update_registered_model(name, page)


def ensure_champion(client: MlflowClient, name: str, say: Callable[[str], None]) -> Any:
    """The champion's version, for the gate, or None. Where it was deleted in MLflow's pages, the one before is champion again."""
    model = client.get_registered_model(name)
    champion = _champion(client, name)
    changes, domain = read_history(model.tags), name.removeprefix(PREFIX)
    if champion is None and changes:
        live = live_versions(client, name)
        last = succession(changes)[-1]
        previous = last if last in live else predecessor(changes, live, None)
        say(f"warning: {diagnose(domain, None, '', changes, live)}")
        if previous is not None:
            say(f"{name}: version {previous} is champion again, until a new one is better")
            with exclusive(client, name):
                if _champion(client, name) is None:
                    set_champion(client, name, str(previous), "restored")
            champion = _champion(client, name)
    elif champion is not None and champion.current_stage == ARCHIVED:
        say(f"warning: {diagnose(domain, int(champion.version), ARCHIVED, changes, live_versions(client, name))}")
    if champion is not None and (warning := deleted_run_warning(client, champion)):
        say(f"warning: {warning}")
    return champion


def missing_champion(client: MlflowClient, name: str) -> str:
    """A line where a model had a champion and has none any more; else empty."""
    model = none_if_missing(lambda: client.get_registered_model(name))
    changes = read_history(model.tags) if model else []
    return diagnose(name.removeprefix(PREFIX), None, "", changes, live_versions(client, name)) if changes else ""


def deleted_run_warning(client: MlflowClient, version: Any) -> str:
    """A line where a version's run is deleted, so that its files may soon be; else empty."""
    run = none_if_missing(lambda: client.get_run(version.run_id)) if version.run_id else None
    if run is None or run.info.lifecycle_stage == "active":
        return ""
    return deleted_run(version.name, version.version, version.run_id)


def deleted_run(name: str, version: object, run_id: str) -> str:
    """That a version's run is deleted, and the way out."""
    return (
        f"{name} version {version}: its run is deleted in MLflow, and `mlflow gc` would take its files; "
        f"`mlflow runs restore --run-id {run_id}` brings it back"
    )


def live_versions(client: MlflowClient, name: str) -> set[int]:
    """Numbers of a model's versions that are neither deleted nor archived."""
    numbers: set[int] = set()
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        numbers |= {int(v.version) for v in page if v.current_stage != ARCHIVED}
        if not (token := page.token):
            return numbers


def _champion(client: MlflowClient, name: str) -> Any:
    return none_if_missing(lambda: client.get_model_version_by_alias(name, "champion"))
