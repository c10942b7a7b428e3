"""The gate: what makes a challenger champion. Pure judgement over numbers; it knows no registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from argan.params import Register


@dataclass(frozen=True)
class Scores:
    """What the gate reads of a model. None is what cannot be computed on a domain."""

    judged_on: str  # photographs, extractor and number of images: scores compare only where it is the same
    depth_spearman: float | None = None
    depth_sign_agreement: float | None = None
    kid: float | None = None
    degenerate: tuple[str, ...] = ()

    @classmethod
    def of(cls, metrics: Mapping[str, Any], data: str) -> Scores:
        """From the numbers of evaluation and the fingerprint of the photographs."""
        return cls(
            f"photos {data}, {metrics.get('features')}, {metrics.get('images')} images",
            metrics.get("depth_spearman"),
            metrics.get("depth_sign_agreement"),
            metrics.get("kid"),
            tuple(metrics.get("degenerate") or ()),
        )


def judge(new: Scores, champion: Scores | None, gate: Register) -> tuple[bool, str]:
    """Whether a challenger becomes champion, and why.

    It must be healthy and better than the champion in depth (in kernel distance where depth is not known), and pay for that
    neither with the sign of depth nor with its pictures.
    """
    if new.degenerate:
        return False, f"degenerate: {', '.join(new.degenerate)}"
    if champion is None:
        return True, "the first healthy model"
    if new.judged_on != champion.judged_on:
        where = f"judged on {new.judged_on}, the champion on {champion.judged_on}"
        return False, f"not comparable: {where}; set the alias by hand to replace it"
    if new.depth_spearman is not None and champion.depth_spearman is not None:
        gain = new.depth_spearman - champion.depth_spearman
        better = gain > 0 and gain >= gate.depth_gain
        name, ours, theirs = "depth_spearman", new.depth_spearman, champion.depth_spearman
    elif new.kid is not None and champion.kid is not None:
        better = new.kid < champion.kid
        name, ours, theirs = "kid", new.kid, champion.kid
    else:
        return False, "nothing to compare: neither depth_spearman nor kid is known of both"
    told = f"{name} {ours:.4f}, the champion's {theirs:.4f}"
    if not better:
        return False, f"not better: {told}"
    sign, old_sign = new.depth_sign_agreement, champion.depth_sign_agreement
    if sign is not None and old_sign is not None and sign < old_sign - gate.sign_slack:
        return (
            False,
            f"depth_sign_agreement {sign:.3f}, more than {gate.sign_slack:g} below the champion's {old_sign:.3f}",
        )
    if new.kid is not None and champion.kid is not None and new.kid > champion.kid + gate.kid_slack * abs(champion.kid):
        return False, f"kid {new.kid:.4f}, more than {gate.kid_slack:.0%} above the champion's {champion.kid:.4f}"
    return True, f"better: {told}"
