"""What the registry holds, as it is read: registered models, and versions of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

PREFIX = "argan-"  # of the names of registered models; the domain follows
ARCHIVED = "Archived"  # a stage of MLflow's


@dataclass(frozen=True)
class RegisteredModel:
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
class ModelVersion:
    """A version of a registered model. created: milliseconds since 1970; tags: with those that `details` holds."""

    name: str
    number: int
    stage: str
    created: int
    run_id: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Catalogue(Protocol):
    """Questions to a registry; nothing is written."""

    def models(self) -> list[RegisteredModel]:
        """All models of domains, by name, with their tags and aliases."""
        ...

    def versions(self, name: str, number: int | None = None) -> list[ModelVersion]:
        """All versions of a model, or one, the newest first, without the deleted ones."""
        ...

    def is_deleted(self, run_id: str) -> bool:
        """Whether a run is deleted in MLflow, or not there."""
        ...


def expand_details(tags: Mapping[str, str]) -> dict[str, str]:
    """A version's tags with those that the tag `details` holds as JSON; a damaged one is left out."""
    with suppress(ValueError, AttributeError):
        return {key: str(value) for key, value in json.loads(tags.get("details", "{}")).items()} | dict(tags)
    return dict(tags)
