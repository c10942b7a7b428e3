"""What goes wrong in training is named: numbers that are none before the step, the rest from the history."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import SMALL, train

from argan.config.schema import Training, training
from argan.errors import UserError
from argan.training import health
from argan.training.statistics import MetricAccumulator, photo_spread
from argan.training.step import Trainer

SPREAD = 0.35  # of the photographs of meadow at 32 px, about
# As the quick preset has it on meadow, every eighth row of a training with a good end
HEALTHY = {
    "loss_d": [0.42, 0.41, 0.52, 0.53, 0.53, 0.55, 0.56, 0.57, 0.58, 0.59, 0.60],
    "loss_g": [2.19, 1.46, 1.10, 1.08, 1.07, 1.04, 1.00, 0.96, 0.95, 0.92, 0.92],
    "disparity_std": [0.21, 0.20, 0.26, 0.25, 0.25, 0.24, 0.25, 0.24, 0.26, 0.25, 0.26],
    "image_std": [0.38, 0.32, 0.33, 0.34, 0.34, 0.35, 0.35, 0.34, 0.35, 0.34, 0.34],
    "depth_alike": [0.9, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    "luminance_correlation": [0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
}
# What a row looks like when it has gone wrong
SICK = {
    "diverged": {"loss_g": 40.0},
    "discriminator_won": {"loss_d": 0.09, "loss_g": 7.9},
    "discriminator_blind": {"loss_d": 0.692, "loss_g": 0.694},
    "mode_collapse": {"image_std": 0.05},
    "constant_depth": {"disparity_std": 0.01},
    "prior_depth": {"depth_alike": 0.97},
    "luminance_depth": {"luminance_correlation": 0.95},
}
CONFIG = training("quick", {})


def planted(config: Training = CONFIG, since: int = 10**9, **sick: float) -> list[dict[str, float]]:
    """A healthy history, and from `since` images on an unhealthy one."""
    rows = []
    for images in range(config.log_every, config.images + 1, config.log_every):
        at = np.linspace(0, config.images, 11)
        row = {name: float(np.interp(images, at, values)) for name, values in HEALTHY.items()}
        rows.append({"images": images, **row, **(sick if images >= since else {})})
    return rows


def test_a_healthy_training_raises_no_warning_at_any_time() -> None:
    history = planted()
    assert [health.warnings(history[:n], CONFIG, SPREAD) for n in range(len(history) + 1)] == [[]] * (len(history) + 1)


@pytest.mark.parametrize("name", SICK)
def test_every_failure_is_named_and_given_up_after_a_tenth_of_the_training(name: str) -> None:
    history = planted(CONFIG, 30_000, **SICK[name])
    names_at = {row["images"]: health.warnings(history[: n + 1], CONFIG, SPREAD) for n, row in enumerate(history)}
    begins = [images for images, names in names_at.items() if names]
    first = math.ceil(30_000 / CONFIG.log_every) * CONFIG.log_every  # the first sick row
    assert begins[0] == first + (health.WINDOW - 1) * CONFIG.log_every
    assert all(names_at[images] == [name] for images in begins)
    given_up = [r["images"] for n, r in enumerate(history) if health.stalled(history[: n + 1], CONFIG, SPREAD)]
    assert abs(given_up[0] - begins[0] - health.STALLED_AFTER * CONFIG.images) <= CONFIG.log_every
    assert health.stalled(history, CONFIG, SPREAD) == name and name in health.MEANING


def test_a_moment_of_weakness_and_the_time_of_the_prior_are_no_failures() -> None:
    weak = planted()
    for row in weak[40 : 40 + health.WINDOW - 1]:
        row |= SICK["discriminator_won"]
    early = planted()
    for row in early:
        if row["images"] < CONFIG.prior_fade:
            row |= SICK["prior_depth"]
    for history in (weak, early):
        assert not any(health.warnings(history[:n], CONFIG, SPREAD) for n in range(len(history)))


def test_what_a_warning_rests_on_is_measured_on_scenes() -> None:
    random = torch.Generator().manual_seed(0)
    light = torch.rand(64, 1, 16, 16, generator=random)
    own, shared = torch.randn(64, 1, 16, 16, generator=random), torch.randn(1, 1, 16, 16, generator=random)

    def seen(disparity: torch.Tensor) -> tuple[float, float]:
        means = MetricAccumulator()
        for part in (slice(0, 32), slice(32, 64)):
            means.add(**health.depth_statistics(light[part].expand(-1, 3, -1, -1), disparity[part]))
        statistics = means.take()
        return health.depth_similarity(statistics["depth_map"], 64).item(), statistics["luminance_correlation"].item()

    assert seen(own) == (pytest.approx(0, abs=0.02), pytest.approx(0, abs=0.1))
    assert seen(shared.expand(64, -1, -1, -1))[0] == pytest.approx(1, abs=1e-4)
    assert seen(shared + own)[0] == pytest.approx(0.5, abs=0.1)
    assert seen(-light)[1] == pytest.approx(1, abs=1e-3)


SHORT = SMALL | {"images": 160, "checkpoint_every": 16, "log_every": 8, "samples_every": 80, "prior_fade": 0}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_what_is_no_number_stops_the_step_that_has_it(photos: np.ndarray, player: str, deferred: bool) -> None:
    """As on a CPU, which asks at once, and as on a GPU, which asks later and must not have taken the step meanwhile."""
    trainer = Trainer(training("quick", SHORT), photos, torch.device("cpu"))
    trainer.finite_check.deferred = deferred
    trainer.step()
    network = getattr(trainer.state, player)
    poisoned = next(name for name, _ in network.named_parameters() if name.endswith("weight"))
    network.get_parameter(poisoned).register_hook(lambda gradient: gradient * float("nan"))
    before = [p.clone() for p in network.parameters()]
    words = rf"the gradient of {player}\.{poisoned} is not finite in the step at 8 images"
    if deferred:
        for _ in range(2):  # the first is named, not the last
            trainer.step()
        assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))
        with pytest.raises(UserError, match=words):
            trainer.finite_check.raise_if_bad()
    else:
        with pytest.raises(UserError, match=words):
            trainer.step()
        assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


def test_a_hopeless_training_ends_by_name_when_asked_and_warns_otherwise(tmp_path: Path, photos: np.ndarray) -> None:
    flat = SHORT | {"smoothness": 1e4}  # depth has nothing to gain but to be flat
    rows: list[dict[str, float]] = []
    messages: list[str] = []
    trained = train(
        training("quick", flat),
        photos,
        tmp_path / "on",
        say=messages.append,
        on_row=lambda i, row: rows.append(row),
    )
    assert "constant_depth" in trained.health
    assert sum("warning: constant_depth" in line for line in messages) == 1, "printed once, not with every row"
    assert rows[-1]["warning_constant_depth"] == 1.0 and "warning_constant_depth" not in rows[0]
    with pytest.raises(UserError, match=r"hopeless at \d+ images: constant_depth.*train\.smoothness"):
        train(training("quick", flat | {"stop_when_hopeless": True}), photos, tmp_path / "off", say=messages.append)
    assert list((tmp_path / "off").glob("*.safetensors")), "what there is of it stays"
    assert json.dumps(trained.history)  # plain numbers all


def test_the_spread_of_photographs_is_in_the_generators_units(photos: np.ndarray) -> None:
    assert photo_spread(photos) == pytest.approx(2 / 12**0.5, rel=0.03)  # even between -1 and 1
    assert photo_spread(photos, np.array([3, 3])) == 0
