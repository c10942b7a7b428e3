"""Losses, priors and the aperture mixture."""

from __future__ import annotations

import math

import pytest
import torch

from argan.config.schema import training
from argan.training import losses


def test_center_focus_prior_is_flat_inside_and_a_cone_outside() -> None:
    prior = losses.center_focus_prior(64, radius=0.25, slope=0.2)[0, 0]
    line = [(i + 0.5) / 64 - 0.5 for i in range(64)]
    r = torch.tensor([[math.hypot(x, y) for x in line] for y in line])
    assert torch.all(prior[r <= 0.25] == 0)
    assert torch.allclose(prior[r > 0.25], -0.2 * (r[r > 0.25] - 0.25))
    assert prior.max() == 0, "nothing is nearer than the focal plane in the prior"


def test_what_is_below_the_subject_may_be_as_near_as_it() -> None:
    circles, ground = (losses.center_focus_prior(32, 0.12, 0.18, below)[0, 0] for below in (1.0, 0.0))
    assert torch.equal(ground[:16], circles[:16]), "above the centre nothing changes"
    assert torch.equal(ground[16:], ground[16].expand(16, -1)), "below it only the distance sideways counts"
    assert (ground[16:, 13:19] == 0).all()
    assert torch.equal(losses.center_focus_prior(32, 0.12, 0.18)[0, 0], circles), "the paper's by default"


def test_prior_fades_linearly_to_nothing() -> None:
    config = training("quick", {"prior": 2.0, "prior_fade": 1000})
    assert losses.prior_weight(0, config) == 2.0
    assert losses.prior_weight(500, config) == pytest.approx(1.0)
    assert losses.prior_weight(1000, config) == losses.prior_weight(10**9, config) == 0
    assert losses.prior_weight(0, config.model_copy(update={"prior_fade": 0})) == 0


def test_what_is_smooth_is_drawn_to_the_focal_plane_for_a_while_and_to_neither_side() -> None:
    config = training("quick", {"prior_focus": 0.2, "prior_focus_fade": 1000})
    assert losses.focus_weight(0, config) == 0.2
    assert losses.focus_weight(500, config) == pytest.approx(0.1)
    assert losses.focus_weight(1000, config) == losses.focus_weight(10**9, config) == 0
    assert losses.focus_weight(0, config.model_copy(update={"prior_focus_fade": 0})) == 0
    disparity = torch.tensor([-0.15, 0.15, 0.0, 0.03]).view(1, 1, 2, 2).requires_grad_()
    loss = losses.focus_loss(disparity, 0.15)
    assert loss.item() == pytest.approx((1 + 1 + 0 + 0.2) / 4)
    assert losses.focus_loss(-disparity, 0.15).item() == pytest.approx(loss.item())
    (gradient,) = torch.autograd.grad(loss, disparity)
    assert (gradient.sign() == disparity.detach().sign()).all()


def test_the_sign_is_held_and_the_shape_is_left_alone() -> None:
    prior = losses.center_focus_prior(32, 0.12, 0.18)
    ramp = torch.linspace(-0.05, 0.05, 32).expand(1, 1, 32, 32)  # as near in the middle as at the border
    for right in (prior, 0.2 * prior, 3 * prior - 0.05, prior + ramp):
        disparity = right.clone().requires_grad_()
        loss = losses.sign_loss(disparity, prior)
        (gradient,) = torch.autograd.grad(loss, disparity)
        assert loss == 0 and not gradient.any()
    assert losses.sign_loss(-prior, prior).item() == pytest.approx((losses.MIN_SLOPE + 1) ** 2, rel=1e-5)
    assert losses.sign_loss(ramp, prior).item() == pytest.approx(losses.MIN_SLOPE**2, rel=1e-4)
    disparity = torch.cat([-prior, prior, prior]).requires_grad_()  # the one inside out is turned, no other is touched
    (gradient,) = torch.autograd.grad(losses.sign_loss(disparity, prior), disparity)
    assert not gradient[1:].any()
    assert losses.sign_loss(disparity - gradient, prior) < losses.sign_loss(disparity, prior)


@pytest.mark.parametrize("level", [-0.1, 0.0, 0.1])
def test_a_flat_scene_has_no_sign_however_far_it_is(level: float) -> None:
    prior = losses.center_focus_prior(32, 0.12, 0.18)
    assert losses.sign_loss(torch.full((1, 1, 32, 32), level), prior).item() == pytest.approx(
        losses.MIN_SLOPE**2, rel=1e-3
    )


@pytest.mark.parametrize("recipe", ["modern", "paper"])
def test_the_players_pull_realness_apart(recipe: str) -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    losses.discriminator_loss(real, fake, recipe).backward()
    assert real.grad is not None and fake.grad is not None
    assert torch.all(real.grad < 0) and torch.all(fake.grad > 0), "descent raises real and lowers fake"
    again = torch.zeros(4, requires_grad=True)
    losses.generator_loss(torch.zeros(4), again, recipe).sum().backward()
    assert again.grad is not None and torch.all(again.grad < 0), "the generator raises fake"


def test_relativistic_loss_at_a_draw_is_log_two() -> None:
    assert losses.discriminator_loss(torch.ones(3), torch.ones(3), "modern").item() == pytest.approx(math.log(2))


def test_gradient_penalty_of_a_linear_critic_is_its_squared_norm() -> None:
    photos = torch.randn(5, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4, requires_grad=True)
    penalty = losses.gradient_penalty(photos, (photos * weight).sum((1, 2, 3)))
    assert penalty.item() == pytest.approx(weight.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    assert weight.grad is not None and torch.allclose(weight.grad, weight.detach(), rtol=1e-4)


def test_smoothness_spares_depth_edges_that_the_image_shares() -> None:
    disparity = torch.zeros(1, 1, 8, 8)
    disparity[..., 4:] = 0.05
    flat, edge = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert losses.smoothness(disparity, edge, 0.1) < 0.1 * losses.smoothness(disparity, flat, 0.1)
    assert losses.smoothness(torch.full_like(disparity, 0.03), flat, 0.1) == 0


def test_smoothness_never_teaches_the_image() -> None:
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    disparity = torch.randn(1, 1, 8, 8, requires_grad=True)
    losses.smoothness(disparity, image, 0.1).backward()
    assert image.grad is None and disparity.grad is not None
