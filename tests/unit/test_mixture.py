"""The aperture scales that scenes are photographed with in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from argan.config.schema import training
from argan.networks.mixture import BINS, GAIN, ApertureMixture, aperture_noise
from argan.training.step import Trainer

COUNT = 40_000


def mixture(**overrides: Any) -> ApertureMixture:
    return ApertureMixture(training("quick", {"aperture_zero": 0.25, "aperture_min": 0.2, **overrides}))


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("kind", "least", "mean"),
    [
        ("uniform", 0.2, 0.5),
        ("bernoulli", 1.0, 1.0),
        # of |N(0, 1/2)| below 1: sqrt(2/pi) sigma (1 - exp(-2)) / erf(sqrt 2)
        ("half-normal", 0.2, math.sqrt(2 / math.pi) * 0.5 * (1 - math.exp(-2)) / math.erf(math.sqrt(2))),
        ("learned", 0.2, 0.5),  # before it has learned anything
    ],
)
def test_every_distribution_holds_zero_and_stays_in_range(kind: str, least: float, mean: float) -> None:
    scale = mixture(apertures=kind).draw(COUNT, random())
    closed = scale == 0
    assert closed.float().mean().item() == pytest.approx(0.25, abs=0.01)
    opened = scale[~closed]
    assert opened.min() >= 0.2
    assert opened.max() <= 1
    assert opened.min().item() == pytest.approx(least, abs=0.01)
    assert opened.max().item() == pytest.approx(1, abs=0.01)
    assert opened.mean().item() == pytest.approx(0.2 + 0.8 * mean, abs=0.01)


def test_learned_shares_are_what_is_drawn() -> None:
    learned = mixture(apertures="learned", aperture_zero=0.0, aperture_min=0.0)
    assert learned.logits is not None
    with torch.no_grad():
        learned.logits.copy_(torch.randn(BINS, generator=random()) / GAIN)
    drawn = torch.histc(learned.draw(COUNT, random()), BINS, 0, 1) / COUNT
    assert torch.allclose(drawn, torch.tensor(learned.shares), atol=0.01)


def test_the_learned_shares_descend_the_expected_cost() -> None:
    """The score function's gradient, over many draws, is the gradient of the cost that a share would have."""
    learned = mixture(apertures="learned")
    assert learned.logits is not None
    chance = aperture_noise(400_000, random())
    scale = learned(chance)
    (output,) = torch.autograd.grad(learned.choice_loss(chance, (scale - 0.4).square() + math.log(2)), learned.logits)
    middle = 0.2 + 0.8 * (torch.arange(BINS) + 0.5) / BINS
    within = (0.8 / BINS) ** 2 / 12  # mean squares of a uniform part about its middle
    share = torch.softmax(GAIN * learned.logits, 0)
    (exact,) = torch.autograd.grad(0.75 * (share * ((middle - 0.4).square() + within)).sum(), learned.logits)
    assert torch.allclose(output, exact, atol=0.01), (output, exact)
    assert exact.abs().max() > 0.1


def test_training_learns_the_shares() -> None:
    """The generator's own and the average's: they are weights like any other."""
    config = training(
        "quick", {"apertures": "learned", "batch": 2, "generator_channels": 4, "discriminator_channels": 8}
    )
    trainer = Trainer(
        config, np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), torch.device("cpu")
    )
    before = trainer.state.generator.mixture.shares
    for _ in range(4):
        trainer.step()
    for scene in (trainer.state.generator, trainer.state.ema):
        assert sum(scene.mixture.shares) == pytest.approx(1)
        assert scene.mixture.shares != before


def test_only_the_learned_distribution_is_part_of_the_weights() -> None:
    for kind in ("uniform", "bernoulli", "half-normal"):
        assert not mixture(apertures=kind).state_dict()
    assert mixture(apertures="learned").state_dict()


def test_the_choice_loss_does_not_train_what_the_cost_came_from() -> None:
    """The score function's gradient goes to the shares alone; the cost reaches the generator by its own way."""
    learned, cost = mixture(apertures="learned"), torch.rand(16, generator=random()).requires_grad_()
    learned.choice_loss(aperture_noise(16, random()), cost).backward()
    assert cost.grad is None
    assert learned.logits is not None and learned.logits.grad is not None and learned.logits.grad.abs().sum() > 0
