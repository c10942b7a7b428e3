"""A version's page and tags: its scores, its data, its provenance, and the gate's decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argan.evaluation.gate import Decision

UNKNOWN_LICENCE = (
    "The photographer's own; unknown to this registry. Ask whoever took the photographs before you share the model."
)
TAGGED_SCORES = (
    "depth_spearman",
    "depth_side",
    "depth_sign_agreement",
    "depth_mask_auc",
    "kid",
    "fid",
    "precision",
    "recall",
    "sharpness_gap",
)
SUFFIXES = (
    "",
    "_low",
    "_high",
    "_prior",
    "_mean",
    "_se",
)  # of a score: itself, its interval, baselines, standard error
GATE_SCORES = {  # how the gate's rows name them
    "depth_spearman": "depth, rank correlation",
    "depth_sign_agreement": "near and far the right way round",
    "depth_mask_auc": "subject before background",
    "kid": "kernel distance, lower is better",
}


@dataclass(frozen=True)
class VersionCard:
    """All that a version's page and tags tell. scores: the flat metrics; pictures: name -> path among the run's artifacts."""

    name: str
    number: str
    run_id: str
    experiment_id: str
    config: Mapping[str, Any]
    data: Mapping[str, str]  # facts of the data card
    scores: Mapping[str, Any]
    lineage: Mapping[str, str]
    pictures: Mapping[str, str]
    reason: str = ""  # of the gate
    against: str = ""  # the champion that was compared with
    comparisons: Sequence[Sequence[str]] = field(default=())  # rows of `argan.evaluation.gate.Decision`

    @property
    def training(self) -> Mapping[str, Any]:
        return self.config.get("training", {})

    @property
    def photos(self) -> Mapping[str, Any]:
        return self.config.get("photos", {})

    def tags(self) -> dict[str, str]:
        """What is searched for and listed; the tag `details` holds the rest as JSON, see `expand_details`."""
        searched: dict[str, Any] = {
            "domain": self.config["domain"],
            "preset": self.training.get("preset"),
            "resolution": self.training.get("resolution"),
            "photos": self.photos.get("count"),
            "data_title": self.data.get("title"),
            "data_licence": self.data["Licence"],
            "data_revision": self.config["data"],
            **self.lineage,
            "gate": self.reason,
            "degenerate": ", ".join(self.scores.get("degenerate") or []) or "no",
            **{key: self.scores.get(key) for key in ("depth_spearman", "kid")},
        }
        rest: dict[str, Any] = {
            **{key: self.training.get(key) for key in ("recipe", "renderer", "seed")},
            "images_seen": self.config.get("summary", {}).get("images_seen"),
            "photos_learned_from": self.photos.get("train"),
            "data_source": self.data.get("Source"),
            "gate_against": self.against,
            "features": self.scores.get("features"),
            "picture": self.pictures.get("scenes") or self.pictures.get("samples"),
            **{key + suffix: self.scores.get(key + suffix) for key in TAGGED_SCORES for suffix in SUFFIXES},
        }
        details = {key: _text(value) for key, value in rest.items() if value not in (None, "") and key not in searched}
        searched["details"] = json.dumps(details, separators=(",", ":"))
        return {key: _text(value) for key, value in searched.items() if value not in (None, "")}


def data_facts(folder: Path, domain: str) -> dict[str, str]:
    """What is known of the photographs a model learned from, out of the data card that goes with it."""
    from argan.evaluation.report import data_card

    title, rows = data_card(folder / "data" / "card.md")
    facts = {row[0]: row[1] for row in rows} | {"title": title.removeprefix("Data: ") or domain}
    if not facts.get("Licence") or facts["Licence"].startswith("Not stated"):
        facts["Licence"] = UNKNOWN_LICENCE
    return facts


def gate_rows(decision: Decision) -> list[list[str]]:
    """The gate's comparisons as rows of text, named as the report names the scores."""
    return [[GATE_SCORES.get(row[0], row[0]), *row[1:]] for row in decision.rows()]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
