"""The gate: the champion moves for the better only, and says why."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from argan.config.schema import Register
from argan.errors import UserError
from argan.evaluation.gate import Scores, decide

PHOTOS = np.random.default_rng(0).normal(0.6, 0.2, 400)
NOISE = np.random.default_rng(1).normal(0, 0.05, 400)
PARTS = 0.1 + 0.01 * np.random.default_rng(2).normal(size=10)


def depth(shift: float = 0.0) -> tuple[float, ...]:
    return tuple(PHOTOS + shift + (NOISE if shift else 0))


def signs(share: float) -> tuple[float, ...]:
    return tuple((np.arange(400) < share * 400).astype(float))


def kid(factor: float) -> tuple[float, ...]:
    return tuple(PARTS * factor)


CHAMPION = Scores("photos a", depth(), signs(0.9), None, kid(1))


@pytest.mark.parametrize(
    ("new", "champion", "moves", "reason"),
    [
        (CHAMPION, None, True, "first healthy"),
        (replace(CHAMPION, degenerate=("constant depth",)), None, False, "degenerate: constant depth"),
        (
            replace(CHAMPION, depth_spearman=depth(0.02)),
            CHAMPION,
            True,
            r"better in depth_spearman \(0\.6.*: \+0\.0.* 400 pairs",
        ),
        (replace(CHAMPION, depth_spearman=depth(0.001)), CHAMPION, False, "depth_spearman: cannot tell"),
        (replace(CHAMPION, depth_spearman=depth(-0.02)), CHAMPION, False, "depth_spearman: worse"),
        (CHAMPION, CHAMPION, False, "depth_spearman: cannot tell"),
        (
            replace(CHAMPION, depth_spearman=depth(0.3), depth_sign_agreement=signs(0.8)),
            CHAMPION,
            False,
            "better in depth_spearman, but worse in depth_sign_agreement",
        ),
        (replace(CHAMPION, depth_spearman=depth(0.3), depth_sign_agreement=signs(0.89)), CHAMPION, True, "better"),
        (replace(CHAMPION, depth_spearman=depth(0.3), kid=kid(1.3)), CHAMPION, False, "but worse in kid"),
        (replace(CHAMPION, depth_spearman=depth(0.3), kid=kid(1.05)), CHAMPION, True, "better"),
        (replace(CHAMPION, depth_spearman=depth(0.3), judged_on="photos b"), CHAMPION, False, "not comparable"),
        (Scores("photos a", kid=kid(0.9)), Scores("photos a", kid=kid(1)), True, "better in kid"),
        (Scores("photos a", kid=kid(1.1)), Scores("photos a", kid=kid(1)), False, "kid: worse"),
        (
            Scores("photos a", depth_mask_auc=depth(0.02), kid=kid(1)),
            Scores("photos a", depth_mask_auc=depth(), kid=kid(1)),
            True,
            "better in depth_mask_auc",
        ),
        (Scores("photos a", depth_spearman=depth()), Scores("photos a", kid=kid(1)), False, "nothing to compare"),
        (replace(CHAMPION, depth_spearman=(0.5, 0.6)), CHAMPION, False, "not comparable in depth_spearman"),
    ],
)
def test_the_champion_moves_for_the_better_only(new: Scores, champion: Scores | None, moves: bool, reason: str) -> None:
    decision = decide(new, champion, Register())
    assert decision.champion is moves
    assert re.search(reason, decision.reason), decision.reason


def test_a_gain_can_be_asked_for() -> None:
    better = replace(CHAMPION, depth_spearman=depth(0.03))
    assert decide(better, CHAMPION, Register(depth_gain=0.01)).champion
    assert not decide(better, CHAMPION, Register(depth_gain=0.04)).champion


def test_scores_survive_json() -> None:
    scores = replace(CHAMPION, depth_spearman=(0.5, float("nan"), 0.25), degenerate=("constant depth",))
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.to_json() == scores.to_json()
    assert decide(replace(again, degenerate=()), replace(scores, degenerate=()), Register()).comparisons
    for broken in ({}, scores.to_json() | {"kid": "many"}, scores.to_json() | {"kid": 3}):
        with pytest.raises(UserError, match="scores are damaged"):
            Scores.from_json(broken)


def test_near_duplicates_ten_times_over_make_nothing_better() -> None:
    """Twelve photos of which the new model is better at some: no evidence, and none if each is there ten times."""
    random = np.random.default_rng(3)
    old, noise = random.normal(0.6, 0.1, 12), random.normal(0.03, 0.08, 12)
    few = [Scores("validation photos a", tuple(values)) for values in (old + noise, old)]
    assert decide(*few, Register()).comparisons["depth_spearman"].verdict == "cannot tell"
    wobble = random.normal(0, 0.001, 120)  # near duplicates differ a little
    many = [
        replace(scores, depth_spearman=tuple(np.repeat(scores.depth_spearman or (), 10) + wobble), groups=groups)
        for scores, groups in zip(few, (tuple(np.repeat(range(12), 10).tolist()),) * 2, strict=True)
    ]
    found = decide(*many, Register()).comparisons["depth_spearman"]
    assert found.verdict == "cannot tell" and found.count == 12
    apart = [replace(scores, groups=None) for scores in many]
    assert decide(*apart, Register()).champion, "counted one by one, chance would have chosen"


def test_scores_say_which_photos_they_are_of() -> None:
    old = {key: value for key, value in CHAMPION.to_json().items() if key != "groups"}  # as versions had them before
    assert Scores.from_json(old).groups is None and Scores.from_json(old).split == "test"
    new = replace(CHAMPION, judged_on="validation photos a", groups=tuple(range(400)))
    assert Scores.from_json(json.loads(json.dumps(new.to_json()))) == new and new.split == "validation"
    decision = decide(replace(new, depth_spearman=depth(0.3)), CHAMPION, Register())
    assert not decision.champion and "not comparable" in decision.reason
    with pytest.raises(UserError, match="scores are damaged"):
        Scores.from_json(old | {"groups": ["a"]})
