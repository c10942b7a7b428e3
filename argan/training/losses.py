"""The objective: adversarial losses, gradient penalties, depth priors. Losses return tensors only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from argan.config.schema import Training

MIN_SLOPE = (
    0.1  # of `sign_loss`: scenes may be flat, or have something in front of the subject, and still not be inverted
)
EDGE_SENSITIVITY = 4.0  # an edge of 1/4 of the image's half range lets the disparity jump at 1/e of the cost


def discriminator_loss(real: Tensor, fake: Tensor, recipe: str) -> Tensor:
    """real, fake (N,): realness of photos and of renderings.

    modern: relativistic, softplus(D(fake) - D(real)) (Jolicoeur-Martineau 2019; R3GAN). paper: non-saturating.
    """
    if recipe == "modern":
        return F.softplus(fake - real).mean()
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def generator_loss(real: Tensor, fake: Tensor, recipe: str) -> Tensor:
    """The mirror of `discriminator_loss`, of every image (N,); the paper's recipe does not use `real`."""
    return F.softplus(real - fake) if recipe == "modern" else F.softplus(-fake)


def gradient_penalty(photos: Tensor, realness: Tensor) -> Tensor:
    """1/2 E ||dD/dphoto||^2: R1 on photographs, R2 on renderings (Mescheder et al., 2018). A scalar."""
    (gradient,) = torch.autograd.grad(realness.sum(), photos, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def center_focus_prior(resolution: int, radius: float, slope: float, below: float = 1.0) -> Tensor:
    """D_p(r) = 0 for r <= r_th, -g (r - r_th) beyond: subjects are in focus at the centre (Kaneko 2021, eq. 9).

    r in image widths from the centre, of which the way down counts `below`: at 1 circles, as in the paper; at 0 what is below the
    subject, its stem or the ground it stands on, is as near as it is. Returns (1, 1, R, R) in disparity.
    """
    line = (torch.arange(resolution) + 0.5) / resolution - 0.5
    down = torch.where(line > 0, below * line, line)
    r = torch.hypot(down[:, None], line[None])
    return (-slope * (r - radius).clamp(min=0))[None, None]


def prior(config: Training) -> Tensor:
    """D_p of a training, (1, 1, R, R)."""
    return center_focus_prior(config.resolution, config.prior_radius, config.prior_slope, config.prior_below)


def prior_weight(images_seen: int, config: Training) -> float:
    """The prior chooses the direction early, then fades linearly to nothing: depth must be the data's."""
    return _fading(config.prior, images_seen, config.prior_fade)


def _fading(weight: float, images_seen: int, over: int) -> float:
    return weight * max(0.0, 1 - images_seen / over) if over else 0.0


def prior_loss(disparity: Tensor, prior: Tensor, disparity_max: float) -> Tensor:
    """||D - D_p||^2, in units of the disparity range, so that its weight means the same in every preset."""
    return ((disparity - prior) / disparity_max).square().mean()


def focus_weight(images_seen: int, config: Training) -> float:
    """Of |D| (`focus_loss`): falls linearly to nothing, as the prior does, but later."""
    return _fading(config.prior_focus, images_seen, config.prior_focus_fade)


def focus_loss(disparity: Tensor, disparity_max: float) -> Tensor:
    """Mean |D| in units of its range: a surface without texture looks the same at any depth, and is in focus for want of evidence.

    It has no sign. disparity (N, 1, R, R); a scalar.
    """
    return disparity.abs().mean() / disparity_max


def sign_loss(disparity: Tensor, prior: Tensor) -> Tensor:
    """What remains of the prior when it has faded: the sign of depth, and nothing of its shape.

    max(0, MIN_SLOPE - a)^2 in every scene, a the slope of the regression of disparity on the prior: 1 where it falls off towards
    the border as steeply as D_p, 0 where middle and border are equally near. disparity (N, 1, R, R), prior (1, 1, R, R); a scalar.
    """
    centred = prior - prior.mean()
    slope = (disparity * centred).sum((1, 2, 3)) / centred.square().sum()
    return (MIN_SLOPE - slope).clamp(min=0).square().mean()


def smoothness(disparity: Tensor, image: Tensor, disparity_max: float) -> Tensor:
    """Edge-aware: depth may jump where the image does (Godard et al., 2017). A smooth petal has no cue of its own."""
    image = image.detach()  # else the image learns edges to excuse the depth
    loss = disparity.new_zeros(())
    for dim in (2, 3):
        edge = image.diff(dim=dim).abs().mean(1, keepdim=True)
        loss = loss + (disparity.diff(dim=dim).abs() / disparity_max * torch.exp(-EDGE_SENSITIVITY * edge)).mean()
    return loss


def expansion_tie(refined: Tensor, rays: Tensor, disparity_max: float) -> Tensor:
    """L1 tie M ~ D~: the expansion network refines the rays' depth, it does not replace it."""
    return (refined - rays).abs().mean() / disparity_max
