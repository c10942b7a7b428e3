"""Who is champion, who was, and how that changes: by the gate, by hand, back again.

The alias `champion` is what counts. Beside it, on the registered model, tags hold what every list shows of the champion, and
`champions`, the history of the alias. So a champion whose version was deleted or archived in MLflow's own pages is noticed,
and the one before it is known.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from argan.config.params import Mlflow
from argan.errors import UserError
from argan.registry import card
from argan.registry.catalogue import ARCHIVED, PREFIX
from argan.registry.place import connect, or_none, public, speaking, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY = "champions"
KEPT = 100  # changes; a tag holds 5,000 characters
CLAIMS = "claim-"  # begins the tags by which processes wait for each other
CLAIM = (
    60.0  # seconds after which a claim is that of a process that was killed; what is done under one takes less than 1
)
POLL = 0.1  # seconds between two looks at others' claims
BACK = ("rollback", "restored")
HEAD = (  # of the champion's tags, those that the registered model has too
    "resolution", "preset", "photos", "photos_learned_from", "data_title", "data_licence", "degenerate", "features",
    "depth_spearman", "depth_spearman_low", "depth_spearman_high", "depth_spearman_prior", "kid", "kid_se",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """The alias was given to `version`, at `when`. how: gate, promote, rollback, restored, or found
    (it had it already, as given in MLflow's pages)."""

    version: int
    when: str
    how: str


# ---- The history, as it is read --------------------------------------------------------------------------------------


def history(tags: Mapping[str, str]) -> list[Change]:
    """Of a registered model's tags, the oldest change first; what is damaged is none."""
    with suppress(ValueError, TypeError):
        return [Change(int(version), str(when), str(how)) for version, when, how in json.loads(tags.get(HISTORY, "[]"))]
    return []


def line(changes: Collection[Change]) -> list[int]:
    """The champions that led to the one there is, each once for every time; what was rolled back is out of it."""
    stack: list[int] = []
    for change in changes:
        if change.how in BACK and change.version in stack:
            while stack[-1] != change.version:
                stack.pop()
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack


def before(changes: Collection[Change], live: Collection[int], now: int | None) -> int | None:
    """The champion before the one there is, of the versions that still live."""
    stack = line(changes)
    if now in stack:
        while stack[-1] != now:  # given to an older one by hand
            stack.pop()
    return next((v for v in reversed(stack) if v != now and v in live), None)


def trouble(domain: str, champion: int | None, stage: str, changes: Collection[Change], live: Collection[int]) -> str:
    """What is wrong with a domain's champion and the way out, in a line; empty where nothing is. live: not archived versions."""
    former = before(changes, live, champion)
    back = f"`argan models rollback {domain}` makes version {former} champion" if former else ""
    if champion is not None:
        if stage != ARCHIVED:
            return ""
        way = f"{back}, or set its stage back to None there" if back else "set its stage back to None there"
        return f"{domain}: its champion, version {champion}, is archived in MLflow and still in use; {way}"
    if not changes:
        return ""
    last = line(changes)[-1]
    if last in live:
        way = f"`argan models promote {domain} {last}` gives it back"
        return f"{domain}: no champion: the alias was taken from version {last} in MLflow; {way}"
    way = back or f"`argan models promote {domain} VERSION` makes another, or the next healthy model will be"
    return f"{domain}: no champion: version {last} was deleted in MLflow; {way}"


# ---- Changes ---------------------------------------------------------------------------------------------------------


def crown(client: MlflowClient, name: str, version: str, how: str) -> None:
    """Make a version champion: the alias first, which is what counts; then the history, the numbers and the page."""
    model = client.get_registered_model(name)
    changes = history(model.tags)
    now = model.aliases.get("champion")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now is not None and (not changes or changes[-1].version != int(now)):
        changes.append(Change(int(now), when, "found"))
    if str(now) != str(version):
        client.set_registered_model_alias(name, "champion", str(version))
        changes.append(Change(int(version), when, how))
    told = json.dumps([[c.version, c.when, c.how] for c in changes[-KEPT:]], separators=(",", ":"))
    client.set_registered_model_tag(name, HISTORY, told)
    refresh(client, name)


@contextmanager
def exclusive(client: MlflowClient, name: str) -> Iterator[None]:
    """One process at a time changes a model's champion, wherever the processes are: all they share is the registry, which has no
    compare and set. Lamport's one-bit algorithm (The mutual exclusion problem II, 1986): each claims by a tag of its own, gives way
    to lower ones, and waits for higher ones.

    A claim that stays the same for CLAIM seconds was left by a kill and is removed. So what is inside must be shorter: a process
    that was suspended for longer and wakes up in it is the one case in which two may be there.
    """
    mine = f"{CLAIMS}{time.time_ns():020d}-{secrets.token_hex(4)}"
    seen: dict[str, float] = {}

    def others(lower: bool) -> list[str]:
        now, tags = time.monotonic(), client.get_registered_model(name).tags
        found = [tag for tag in tags if tag.startswith(CLAIMS) and tag != mine and (tag < mine) == lower]
        for tag in found:
            if now - seen.setdefault(tag, now) > CLAIM:
                _unclaim(client, name, tag)
        return found

    try:
        while True:
            client.set_registered_model_tag(name, mine, "a version is being made champion")
            if not others(lower=True):
                break
            _unclaim(client, name, mine)
            while others(lower=True):
                time.sleep(POLL)
        while others(lower=False):
            time.sleep(POLL)
        yield
    finally:
        _unclaim(client, name, mine)


def _unclaim(client: MlflowClient, name: str, tag: str) -> None:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is gone already
        client.delete_registered_model_tag(name, tag)


def succeed(client: MlflowClient, name: str, version: str, over: Any) -> bool:
    """Make `version` champion, unless the champion is no more the version `over` (or none) that the gate compared it with."""
    with exclusive(client, name):
        now = client.get_registered_model(name).aliases.get("champion")
        if now is not None and (over is None or str(now) != str(over.version)):
            return False
        crown(client, name, version, "gate")
    return True


def refresh(client: MlflowClient, name: str) -> None:
    """The registered model's tags and page: those of its champion, else of its newest version."""
    model = client.get_registered_model(name)
    champion = model.aliases.get("champion")
    number = champion or max((v.version for v in model.latest_versions), key=int, default=None)
    if number is None:
        return
    version = client.get_model_version(name, str(number))
    tags = card.flat(version.tags)
    wanted = {key: tags[key] for key in HEAD if key in tags and champion}
    wanted |= {"domain": name.removeprefix(PREFIX)} | ({"champion": str(champion)} if champion else {})
    for key, value in wanted.items():
        if model.tags.get(key) != value[:500]:
            client.set_registered_model_tag(name, key, value[:500])
    for key in {"champion", *HEAD} & model.tags.keys() - wanted.keys():
        client.delete_registered_model_tag(name, key)
    told = card.model_card(name, tags, str(champion) if champion else None, version.run_id)
    if model.description != told:
        client.update_registered_model(name, told)


def holder(client: MlflowClient, name: str, say: Callable[[str], None]) -> Any:
    """The champion's version, for the gate, or None. Where it was deleted in MLflow's pages, the one before is champion again."""
    model = client.get_registered_model(name)
    found = _champion(client, name)
    changes, domain = history(model.tags), name.removeprefix(PREFIX)
    if found is None and changes:
        live = _live(client, name)
        last = line(changes)[-1]
        former = last if last in live else before(changes, live, None)
        say(f"warning: {trouble(domain, None, '', changes, live)}")
        if former is not None:
            say(f"{name}: version {former} is champion again, until a new one is better")
            with exclusive(client, name):
                if _champion(client, name) is None:
                    crown(client, name, str(former), "restored")
            found = _champion(client, name)
    elif found is not None and found.current_stage == ARCHIVED:
        say(f"warning: {trouble(domain, int(found.version), ARCHIVED, changes, _live(client, name))}")
    if found is not None and (lost := losing(client, found)):
        say(f"warning: {lost}")
    return found


def _champion(client: MlflowClient, name: str) -> Any:
    return or_none(lambda: client.get_model_version_by_alias(name, "champion"))


def lost(client: MlflowClient, name: str) -> str:
    """A line where a model had a champion and has none any more; else empty."""
    model = or_none(lambda: client.get_registered_model(name))
    changes = history(model.tags) if model else []
    return trouble(name.removeprefix(PREFIX), None, "", changes, _live(client, name)) if changes else ""


def losing(client: MlflowClient, version: Any) -> str:
    """A line where a version's run is deleted, so that its files may soon be; else empty."""
    run = or_none(lambda: client.get_run(version.run_id)) if version.run_id else None
    if run is None or run.info.lifecycle_stage == "active":
        return ""
    return lost_run(version.name, version.version, version.run_id)


def lost_run(name: str, version: object, run_id: str) -> str:
    return (
        f"{name} version {version}: its run is deleted in MLflow, and `mlflow gc` would take its files; "
        f"`mlflow runs restore --run-id {run_id}` brings it back"
    )


def _live(client: MlflowClient, name: str) -> set[int]:
    found, token = set(), None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found |= {int(v.version) for v in page if v.current_stage != ARCHIVED}
        if not (token := page.token):
            return found


def promote(domain: str, version: int, settings: Mlflow | None = None) -> str:
    """Make a version champion by hand; a line of what was done. Raises UserError."""
    return _give(domain, version, "promote", settings)


def rollback(domain: str, settings: Mlflow | None = None) -> str:
    """Make the champion before champion again; a line of what was done. Raises UserError where there is none."""
    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with speaking(uri):
        model = _model(client, name, uri)
        now = model.aliases.get("champion")
        changes = history(model.tags)
        former = before(changes, _live(client, name), int(now) if now else None)
    if former is None:
        raise UserError(
            f"{domain}: no champion before {f'version {now}' if now else 'this'} is left; `argan models list {domain}` shows what "
            f"there is, `argan models promote {domain} VERSION` makes one champion"
        )
    return _give(domain, former, "rollback", settings)


def delete(domain: str, version: int, settings: Mlflow | None = None) -> str:
    """Delete a version that is not the champion; a line of what was done. Raises UserError."""
    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with speaking(uri):
        _model(client, name, uri)
        with exclusive(client, name):
            model = _model(client, name, uri)
            found = _version(client, name, version, uri)
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
        f"{domain}: version {version} is deleted; its files stay with run {found.run_id} until that is deleted in MLflow too and "
        "`mlflow gc` has run"
    )


def _give(domain: str, version: int, how: str, settings: Mlflow | None) -> str:
    from argan.registry.versions import check_files

    uri, name = tracking_uri(settings), PREFIX + domain
    client = connect(uri)
    with speaking(uri):
        model = _model(client, name, uri)
        found = _version(client, name, version, uri)
        now = model.aliases.get("champion")
        check_files(found, uri)
        with exclusive(client, name):
            crown(client, name, str(version), how)
        told = [f"{domain}: version {version} is champion" + (f", version {now} was" if now else "")]
        if str(now) == str(version):
            told = [f"{domain}: version {version} is the champion already"]
        if found.tags.get("degenerate", "no") != "no":
            told.append(f"it is degenerate: {found.tags['degenerate']}")
        if found.current_stage == ARCHIVED:
            told.append("it is archived in MLflow: set its stage back to None there")
        if lost := losing(client, found):
            told.append(lost)
    return "; ".join(told)


def _model(client: MlflowClient, name: str, uri: str) -> Any:
    if (model := or_none(lambda: client.get_registered_model(name))) is None:
        raise UserError(f"{name} is not in the MLflow at {public(uri)}; `argan models list` shows what there is")
    return model


def _version(client: MlflowClient, name: str, version: int, uri: str) -> Any:
    if (found := or_none(lambda: client.get_model_version(name, str(version)))) is None:
        raise UserError(
            f"{name} has no version {version} in the MLflow at {public(uri)}; see `argan models list {name.removeprefix(PREFIX)}`"
        )
    return found
