"""The gate: what makes a challenger champion. Pure judgement over numbers; it knows no registry.

Two models are compared on the very same photographs, photo by photo, so that what makes photos differ falls out. They are
photographs of the validation split: choosing by test photos, night after night, would bias the scores that are published of
them. Near duplicates count as one. Chance in training is no part of that: another seed of the same recipe may well come out
better or worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from argan.config.schema import Register
from argan.errors import UserError
from argan.evaluation.bootstrap import Comparison, compare

Values = tuple[float, ...]

GATE_SPLIT = "validation"  # the split whose photos the gate judges on
PRIMARY = ("depth_spearman", "depth_mask_auc", "kid")  # the first that is known of both decides
LOWER_IS_BETTER = ("kid",)


@dataclass(frozen=True)
class Scores:
    """What the gate reads of a model: a value a validation photo, of the kernel distance one a part of the photos. None is what
    cannot be computed on a domain, NaN what cannot on a photo.

    judged_on: split and photographs, extractor, number of images, code; scores compare only where it is the same. groups: of the
    photos, equal numbers are near duplicates; None where each photo is its own.
    """

    judged_on: str
    depth_spearman: Values | None = None
    depth_sign_agreement: Values | None = None
    depth_mask_auc: Values | None = None
    kid: Values | None = None
    degenerate: tuple[str, ...] = ()
    groups: tuple[int, ...] | None = None

    @property
    def split(self) -> str:
        """Whose photographs these are scores of: before the gate judged on validation photos, it did on test photos."""
        return "validation" if self.judged_on.startswith(f"{GATE_SPLIT} photos") else "test"

    def to_json(self) -> dict[str, Any]:
        """Tuples as lists, NaN as None."""

        def plain(value: Any) -> Any:
            if not isinstance(value, tuple):
                return value
            return [None if isinstance(v, float) and math.isnan(v) else v for v in value]

        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scores:
        """From `to_json`. Raises UserError where that makes no sense."""
        try:
            values = {
                name: None
                if content[name] is None
                else tuple(math.nan if v is None else float(v) for v in content[name])
                for name in (*PRIMARY, "depth_sign_agreement")
            }
            groups = content.get("groups")  # scores of versions registered before there were any have none
            return cls(
                str(content["judged_on"]),
                degenerate=tuple(content["degenerate"]),
                groups=None if groups is None else tuple(int(g) for g in groups),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the scores are damaged ({error!r}); run `dvc repro -f evaluate`") from error


@dataclass(frozen=True)
class Decision:
    champion: bool
    reason: str
    comparisons: dict[str, Comparison] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        """The comparisons as a table: score, new, old, gain, its interval, verdict."""
        return [
            [name, f"{c.new:.4f}", f"{c.old:.4f}", f"{c.gain:+.4f}", f"{c.low:+.4f} to {c.high:+.4f}", c.verdict]
            for name, c in self.comparisons.items()
        ]


def decide(new: Scores, champion: Scores | None, gate: Register) -> Decision:
    """Whether a challenger becomes champion, and why.

    It must be healthy, better than the champion in the first of PRIMARY that is known of both, and worse neither in the sign
    of depth nor in its pictures; "cannot tell" is not better, and not worse.
    """
    if new.degenerate:
        return Decision(False, f"degenerate: {', '.join(new.degenerate)}")
    if champion is None:
        return Decision(True, "the first healthy model")
    if new.judged_on != champion.judged_on:
        return Decision(False, f"not comparable: judged on {new.judged_on}; the champion on {champion.judged_on}")
    slack = {"depth_sign_agreement": gate.sign_slack, "kid": gate.kid_slack * abs(mean_score(champion.kid) or 0.0)}
    primary = next((name for name in PRIMARY if getattr(new, name) and getattr(champion, name)), None)
    if primary is None:
        return Decision(False, "nothing to compare: neither depth nor kernel distance is known of both")
    comparisons: dict[str, Comparison] = {}
    for name in (primary, "depth_sign_agreement", "kid"):
        a, b = getattr(new, name), getattr(champion, name)
        if name in comparisons or a is None or b is None:
            continue
        margin = gate.depth_gain if name == primary and primary != "kid" else 0.0 if name == primary else slack[name]
        try:
            comparisons[name] = compare_score(new, champion, name, margin)
        except ValueError as error:
            return Decision(False, f"not comparable in {name}: {error}")
    if comparisons[primary].verdict != "better":
        return Decision(False, f"{primary}: {comparisons[primary].verdict} ({comparisons[primary]})", comparisons)
    for name, comparison in comparisons.items():
        if comparison.verdict == "worse":
            return Decision(False, f"better in {primary}, but worse in {name} ({comparison})", comparisons)
    return Decision(True, f"better in {primary} ({comparisons[primary]})", comparisons)


def compare_score(new: Scores, old: Scores, name: str, margin: float = 0.0) -> Comparison:
    """Two models in the score `name`, judged on the same photos. Raises ValueError where the values do not pair."""
    groups = None if name == "kid" else new.groups  # the parts of the kernel distance are independent already
    a, b = getattr(new, name) or (), getattr(old, name) or ()
    return compare(a, b, groups, lower_is_better=name in LOWER_IS_BETTER, margin=margin)


def mean_score(values: Values | None) -> float | None:
    """Over the photos that have a score; None where none has."""
    known = [v for v in values or () if not math.isnan(v)]
    return sum(known) / len(known) if known else None
