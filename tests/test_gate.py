"""The gate: the champion moves for the better only, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argan.gate import Scores, judge
from argan.params import Register

CHAMPION = Scores("photos a", depth_spearman=0.60, depth_sign_agreement=0.90, kid=0.10)


@pytest.mark.parametrize(
    ("new", "champion", "moves", "reason"),
    [
        (CHAMPION, None, True, "first healthy"),
        (replace(CHAMPION, degenerate=("constant depth",)), None, False, "degenerate: constant depth"),
        (replace(CHAMPION, depth_spearman=0.61), CHAMPION, True, "0.6100, the champion's 0.6000"),
        (CHAMPION, CHAMPION, False, "not better"),
        (replace(CHAMPION, depth_spearman=0.9, depth_sign_agreement=0.8), CHAMPION, False, "depth_sign_agreement 0.8"),
        (replace(CHAMPION, depth_spearman=0.9, depth_sign_agreement=0.89), CHAMPION, True, "better"),
        (replace(CHAMPION, depth_spearman=0.9, kid=0.12), CHAMPION, False, "kid 0.12"),
        (replace(CHAMPION, depth_spearman=0.9, kid=0.105), CHAMPION, True, "better"),
        (replace(CHAMPION, depth_spearman=0.9, judged_on="photos b"), CHAMPION, False, "not comparable"),
        (Scores("photos a", kid=0.09), Scores("photos a", kid=0.1), True, "kid 0.09"),
        (Scores("photos a", kid=0.11), Scores("photos a", kid=0.1), False, "not better: kid"),
        (Scores("photos a"), CHAMPION, False, "nothing to compare"),
    ],
)
def test_the_champion_moves_for_the_better_only(new: Scores, champion: Scores | None, moves: bool, reason: str) -> None:
    verdict, told = judge(new, champion, Register())
    assert verdict is moves
    assert reason in told


def test_a_gain_can_be_asked_for() -> None:
    assert not judge(replace(CHAMPION, depth_spearman=0.61), CHAMPION, Register(depth_gain=0.02))[0]
    assert judge(replace(CHAMPION, depth_spearman=0.63), CHAMPION, Register(depth_gain=0.02))[0]


def test_scores_come_from_the_numbers_of_evaluation() -> None:
    metrics = {"features": "f", "images": 64, "depth_spearman": None, "kid": 0.1, "degenerate": ["constant depth"]}
    assert Scores.of(metrics, "abc") == Scores("photos abc, f, 64 images", None, None, 0.1, ("constant depth",))
