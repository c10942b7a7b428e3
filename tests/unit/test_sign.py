"""The sign learned by trying both: what tells them apart, that nothing prefers one, and that it can be killed anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trainings import SMALL, train, train_with_sign

from argan import networks
from argan.config.schema import Training, training
from argan.errors import UserError
from argan.training import sign
from argan.training.job import OnRow, TrainingJob, TrainingResult

SIGN = {"images": 32, "checkpoint_every": 8, "log_every": 8, "prior_fade": 24, "sign": "photographs", "sign_images": 16}


def small(**changes: object) -> Training:
    return training("quick", SMALL | SIGN | changes)


class SyntheticScenes(networks.SceneGenerator):
    """Discs of two tints; `depth` makes disparity of the discs' mask (N, 1, R, R)."""

    def __init__(self, depth: str, turn: float = 1.0) -> None:
        super().__init__(small())
        self.depth, self.turn = depth, turn
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        y, x = (torch.arange(32.0) - 16).view(1, 1, 32, 1), (torch.arange(32.0) - 16).view(1, 1, 1, 32)
        radius = 6 + 2 * latents[:, :1, None, None].tanh()
        inside = (torch.hypot(y, x) < radius).float()
        grain = 0.1 * torch.sin(3 * x + 2 * y)
        image = torch.cat([inside - 0.5, grain + 0 * inside, 0.3 - inside], 1).clamp(-1, 1)
        disparity = {
            "follows": inside - 1,
            "elsewhere": ((y > 0).float() + 0 * inside) * ((x > 0).float() + 0 * y)
            - 1,  # edges where the picture has none
            "flat": 0 * inside,
        }[self.depth]
        return image, 0.1 * self.turn * disparity


def test_edge_alignment_is_high_where_depth_follows_the_picture_whatever_its_sign() -> None:
    scores = {depth: sign.edge_alignment(SyntheticScenes(depth), 64).mean for depth in ("follows", "elsewhere", "flat")}
    spread = {
        depth: SyntheticScenes(depth)(torch.zeros(1, 8))[1].var(correction=0).item() / 0.15**2 for depth in scores
    }
    assert scores["follows"] > 0.9 * spread["follows"], "nearly all of it"
    assert scores["elsewhere"] < 0.7 * spread["elsewhere"]
    assert scores["flat"] == 0, "a flat scene is no answer, let alone the best one"
    for depth, value in scores.items():
        assert sign.edge_alignment(SyntheticScenes(depth, turn=-1.0), 64).mean == pytest.approx(value, abs=1e-6)


def test_the_two_trials_differ_by_the_sign_of_the_prior_alone() -> None:
    config = small()
    behind, before = sign.with_sign(config, "behind"), sign.with_sign(config, "before")
    assert behind == config
    assert before.prior_slope == -config.prior_slope
    assert before.model_copy(update={"prior_slope": config.prior_slope}) == config


@pytest.mark.parametrize("right", sign.SIDES)
def test_the_sign_with_the_better_edge_alignment_is_kept(
    tmp_path: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    """Which it is decides nothing else: the training kept is the same as with that sign given."""
    answers = iter([0.04, 0.01] if right == "behind" else [0.01, 0.04])
    monkeypatch.setattr(sign, "edge_alignment", lambda generator: sign.Evidence(next(answers), 0.001))
    config, rows, messages = small(), [], []
    remembered: list[int] = []
    trained, verdict = train_with_sign(
        config, photos, tmp_path, say=messages.append,
        on_row=lambda images, row: rows.append(images),
        on_resume=lambda history: remembered.extend(int(row["images"]) for row in history),
    )  # fmt: skip
    assert verdict is not None and verdict.side == right and verdict.clear
    assert remembered == [8, 16] and rows == [24, 32]
    assert any(f"lies {right} the subject" in line for line in messages)
    (tmp_path / "given").mkdir()
    given = train(sign.with_sign(config, right), photos, tmp_path / "given")
    assert all(
        torch.equal(a, b) for a, b in zip(trained.generator.parameters(), given.generator.parameters(), strict=True)
    )


@pytest.mark.parametrize("right", sign.SIDES)
def test_the_seconds_of_the_other_trial_are_added(
    tmp_path: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    """Those of the trial that is continued are in the training's own."""
    seconds = {"behind": 3.0, "before": 5.0}

    def timed(job: TrainingJob, folder: Path, stop_at: int | None = None) -> TrainingResult:
        taken = seconds[folder.name] if stop_at else 100.0
        return TrainingResult(SyntheticScenes("flat"), [], taken, 32, [])

    answers = iter([0.04, 0.01] if right == "behind" else [0.01, 0.04])
    monkeypatch.setattr(sign, "edge_alignment", lambda generator: sign.Evidence(next(answers), 0.001))
    monkeypatch.setattr(sign.loop, "train", timed)
    result, verdict = train_with_sign(small(), photos, tmp_path)
    other = seconds["before" if right == "behind" else "behind"]
    assert verdict is not None and (verdict.side, verdict.seconds) == (right, other)
    assert result.seconds == 100.0 + other


def test_a_stalled_trial_loses_and_ends_nothing(tmp_path: Path, photos: np.ndarray) -> None:
    """One of the two has the wrong prior; `stop_when_hopeless` is for what is kept."""
    flat = {"smoothness": 1e4, "prior_fade": 0, "images": 80, "stop_when_hopeless": True, "sign": "prior"}
    (tmp_path / "given").mkdir()
    with pytest.raises(UserError, match="hopeless"):
        train_with_sign(small(**flat), photos, tmp_path / "given", say=lambda line: None)
    both = small(**flat | {"sign": "photographs", "sign_images": 80})
    (tmp_path / "both").mkdir()
    _, verdict = train_with_sign(both, photos, tmp_path / "both", say=lambda line: None)
    assert verdict is not None


@pytest.mark.parametrize(
    ("behind", "before", "error", "clear"),
    [
        (0.03, 0.01, 0.001, True),
        (0.01, 0.03, 0.001, True),
        (0.03, -0.01, 0.001, True),
        (0.03, 0.025, 0.001, False),  # beyond chance among scenes, within chance among trainings
        (0.03, 0.01, 0.005, False),  # 2.8 standard errors of the difference
        (-0.0100, -0.0101, 1e-6, False),  # neither is positive
        (-0.01, -0.1, 0.001, False),
        (0.0, -0.1, 0.001, False),
        (0.001, -0.001, 0.001, False),
        (float("nan"), 0.03, 0.001, False),
    ],
)
def test_a_verdict_is_clear_where_one_side_is_better_beyond_chance(
    behind: float, before: float, error: float, clear: bool
) -> None:
    verdict = sign.Verdict("behind", behind, before, 1.0, error, error)
    assert verdict.clear is clear and ("too near" in str(verdict)) is not clear


def test_the_standard_error_is_the_spread_of_the_mean_over_other_scenes() -> None:
    """Over disjoint sets of scenes the mean spreads as its standard error says."""

    class Other(SyntheticScenes):
        def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(torch.randn(latents.shape, generator=self.random))

        random = torch.Generator().manual_seed(1)

    evidences = [sign.edge_alignment(Other("follows"), 32) for _ in range(100)]
    spread = float(np.std([evidence.mean for evidence in evidences], ddof=1))
    assert spread == pytest.approx(np.mean([evidence.error for evidence in evidences]), rel=0.25)


def test_a_verdict_of_before_standard_errors_were_kept_is_read_and_not_clear(
    tmp_path: Path, photos: np.ndarray
) -> None:
    old = {"side": "before", "behind": 0.01, "before": 0.04, "seconds": 7.0}
    (tmp_path / "before").mkdir()
    (tmp_path / "sign.json").write_text(json.dumps(old))
    _, verdict = train_with_sign(small(), photos, tmp_path, say=lambda line: None)
    assert verdict is not None and (verdict.side, verdict.before, verdict.before_se) == ("before", 0.04, None)
    assert not verdict.clear and "0.0400 for before; the two are too near" in str(verdict)


@pytest.mark.parametrize("killed_at", [("behind", 16), ("before", 8), ("kept", 24)])
def test_killed_anywhere_and_resumed_it_is_the_same_training(
    tmp_path: Path, photos: np.ndarray, killed_at: tuple[str, int]
) -> None:
    class Killed(Exception): ...

    remembered: list[dict[str, float]] = []

    def run(folder: Path, kill: tuple[str, int] | None) -> tuple[TrainingResult, sign.Verdict | None]:
        remembered.clear()

        def watched(phase: str) -> OnRow:
            def watch(images: int, row: dict[str, float]) -> None:
                if (phase, images) == kill:
                    raise Killed

            return watch

        return train_with_sign(
            small(), photos, folder, say=lambda line: None, on_row=watched("kept"), on_trial=watched,
            on_resume=remembered.extend,
        )  # fmt: skip

    whole, verdict = run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_at)
    resumed, again = run(tmp_path / "killed", None)
    assert verdict is not None and again is not None
    assert (verdict.side, verdict.behind, verdict.before) == (again.side, again.behind, again.before)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.generator.parameters(), resumed.generator.parameters(), strict=True)
    )
    assert json.dumps(whole.history) == json.dumps(resumed.history)
    assert json.dumps(remembered) == json.dumps(whole.history[:2]), (
        "the rows of what is kept, once, and none of what is not"
    )


def test_once_known_the_trials_are_not_made_again(
    tmp_path: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = train_with_sign(small(), photos, tmp_path, say=lambda line: None)
    monkeypatch.setattr(sign, "edge_alignment", lambda generator: pytest.fail("asked again"))
    second, _ = train_with_sign(small(), photos, tmp_path, say=lambda line: None)
    assert all(
        torch.equal(a, b) for a, b in zip(first.generator.parameters(), second.generator.parameters(), strict=True)
    )
    (tmp_path / "sign.json").write_text("{")
    with pytest.raises(UserError, match=r"sign\.json is damaged"):
        train_with_sign(small(), photos, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"renderer": "gather"}, "needs renderer: occlusion"), ({"sign_images": 33}, "no more than images 32")],
)
def test_what_cannot_be_learned_is_refused_before_training(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)
