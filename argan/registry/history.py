"""The history of a model's champions: who was, who is next when one goes, and what is wrong where there is none.

Pure functions of a registered model's tags. The alias `champion` is what counts; beside it the tag `champions` keeps each change
of it. So a champion whose version was deleted or archived in MLflow's own pages is noticed, and the one before it is known.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass

from argan.registry.entities import ARCHIVED

HISTORY = "champions"  # the tag
KEPT = 100  # newest changes; a tag holds 5,000 characters
REVERSALS = ("rollback", "restored")


@dataclass(frozen=True)
class Change:
    """The alias was given to `version`, at `when`. how: gate, promote, rollback, restored, or found
    (it had it already, as given in MLflow's pages)."""

    version: int
    when: str
    how: str


def read_history(tags: Mapping[str, str]) -> list[Change]:
    """Of a registered model's tags, the oldest change first; what is damaged is none."""
    with suppress(ValueError, TypeError):
        return [Change(int(version), str(when), str(how)) for version, when, how in json.loads(tags.get(HISTORY, "[]"))]
    return []


def encode_history(changes: Sequence[Change]) -> str:
    """The value of the tag HISTORY: the newest KEPT changes."""
    return json.dumps([astuple(change) for change in changes[-KEPT:]], separators=(",", ":"))


def succession(changes: Collection[Change]) -> list[int]:
    """The champions that led to the one there is, each once for every time; what was rolled back is out of it."""
    stack: list[int] = []
    for change in changes:
        if change.how in REVERSALS and change.version in stack:
            while stack[-1] != change.version:
                stack.pop()
        elif not stack or stack[-1] != change.version:
            stack.append(change.version)
    return stack


def predecessor(changes: Collection[Change], live: Collection[int], now: int | None) -> int | None:
    """The champion before the one there is, of the versions that still live."""
    stack = succession(changes)
    if now in stack:
        while stack[-1] != now:  # given to an older one by hand
            stack.pop()
    return next((v for v in reversed(stack) if v != now and v in live), None)


def diagnose(domain: str, champion: int | None, stage: str, changes: Collection[Change], live: Collection[int]) -> str:
    """What is wrong with a domain's champion and the way out, in a line; empty where nothing is. live: not archived versions."""
    previous = predecessor(changes, live, champion)
    back = f"`argan models rollback {domain}` makes version {previous} champion" if previous else ""
    if champion is not None:
        if stage != ARCHIVED:
            return ""
        way = f"{back}, or set its stage back to None there" if back else "set its stage back to None there"
        return f"{domain}: its champion, version {champion}, is archived in MLflow and still in use; {way}"
    if not changes:
        return ""
    last = succession(changes)[-1]
    if last in live:
        way = f"`argan models promote {domain} {last}` gives it back"
        return f"{domain}: no champion: the alias was taken from version {last} in MLflow; {way}"
    way = back or f"`argan models promote {domain} VERSION` makes another, or the next healthy model will be"
    return f"{domain}: no champion: version {last} was deleted in MLflow; {way}"
