"""The space of scenes: ways through it, and the way back from a photograph.

A latent is a standard normal vector of Z numbers, so all of them lie near a sphere of radius sqrt(Z): ways go along it (slerp).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from argan import networks
from argan.errors import UserError

if TYPE_CHECKING:
    from argan.inference.model import Model, Photo

Latents = NDArray[Any]  # float32
Pixels = NDArray[np.uint8]


def slerp(a: Latents, b: Latents, t: float) -> Latents:
    """From latent a (t = 0) to b (t = 1) at constant speed along the great circle (Shoemake, 1985); lengths go linearly."""
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not (length_a and length_b):
        return ((1 - t) * a + t * b).astype(np.float32)
    angle = float(np.arccos(np.clip(a @ b / (length_a * length_b), -1, 1)))
    if np.sin(angle) < 1e-4:
        return ((1 - t) * a + t * b).astype(np.float32)
    direction = (np.sin((1 - t) * angle) * a / length_a + np.sin(t * angle) * b / length_b) / np.sin(angle)
    return (direction * ((1 - t) * length_a + t * length_b)).astype(np.float32)


def path(keys: Latents, frames: int, loop: bool = True) -> Latents:
    """Through all of `keys` (K, Z), `frames` a leg, slowing down at each: (F, Z). A loop goes back to the first and repeats
    no frame; else the last key ends it. Raises UserError for less than two keys."""
    if len(keys) < 2 or frames < 1:
        raise UserError(
            f"a way through scenes needs at least two of them and one frame a leg, got {len(keys)}, {frames}"
        )
    legs = list(zip(keys, np.roll(keys, -1, 0), strict=True))[: None if loop else -1]
    eased = [0.5 - 0.5 * np.cos(np.pi * k / frames) for k in range(frames)]
    points = [slerp(a, b, t) for a, b in legs for t in eased]
    return np.stack(points if loop else [*points, keys[-1]])


@dataclass(frozen=True)
class Projection:
    """The scene nearest to a photograph that was found. R is the model's resolution."""

    latent: Latents  # (Z,)
    aperture: float  # through which its photo is nearest, 0 to 1
    target: Pixels  # (R, R, 3), the photograph's middle, as the model sees it
    photo: Pixels  # (R, R, 3), the scene through that aperture
    image: Pixels  # (R, R, 3), the scene all in focus
    disparity: NDArray[Any]  # (R, R)
    views: Pixels  # (25, R, R, 3), its light field through the full aperture
    rmse: float  # between target and photo, of 0..255
    rmse_start: float  # the same of the best of the random scenes it started from
    rmse_flat: float  # the same of a picture of one colour, the target's mean
    rmse_mean: float  # the same of the mean photo of the scenes it started from: what knowing the domain alone scores


def project(
    model: Model,
    photo: Photo,
    *,
    steps: int = 300,
    starts: int = 8,
    seed: int = 0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Projection:
    """The latent whose photo is nearest to the middle square of `photo`; which aperture it was taken with is found as well.

    Least squares over four scales (so that a petal two pixels off still pulls), from the best `starts` of 32 times as many random
    scenes, by Adam with its rate going to zero; latents are held near the sphere they come from. The model's domain limits
    what can be found: read `rmse` beside `rmse_mean` and `rmse_flat`. Raises UserError for what is no photo or too small a one.
    """
    if steps < 1 or starts < 1:
        raise UserError(f"steps and starts must be at least 1, got {steps} and {starts}")
    target = square(photo, model.config.resolution)
    wanted = networks.from_uint8(torch.from_numpy(target).permute(2, 0, 1)[None])
    random = model.latents(range(32 * starts), seed)
    with torch.no_grad():
        parts = [_photograph(model, z, torch.full((len(z),), 0.5)) for z in torch.from_numpy(random).split(32)]
        first = torch.cat([_difference(part, wanted) for part in parts])
        mean = torch.stack([part.mean(0) for part in parts]).mean(0)[None]
    best = first.argsort()[:starts]
    z = torch.from_numpy(random)[best].requires_grad_()
    opening = torch.zeros(starts, requires_grad=True)  # the aperture is its sigmoid
    start = _rmse(model, z[:1].detach(), torch.full((1,), 0.5), wanted)
    adam = torch.optim.Adam([{"params": [z], "lr": 0.05}, {"params": [opening], "lr": 0.05}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for step in range(steps):
        adam.zero_grad(set_to_none=True)
        # The length of a standard normal vector is known to within a few percent: a point elsewhere is no scene of the domain
        astray = (z.norm(dim=1) / z.shape[1] ** 0.5 - 1).square()
        (_difference(_photograph(model, z, opening.sigmoid()), wanted) + 0.1 * astray).sum().backward()
        adam.step()
        schedule.step()
        watch(step + 1, steps)
    with torch.no_grad():
        scale = opening.sigmoid()
        error = (_photograph(model, z, scale) - wanted).square().mean((1, 2, 3))
        k = int(error.argmin())
        z, scale = z[k : k + 1].detach(), scale[k : k + 1]
        image, disparity = model.generator(z)
        views = networks.to_uint8(model.generator.views(image, disparity, torch.ones(1))[0])
        found = networks.to_uint8(model.generator.photograph(image, disparity, scale))[0]
    flat, average = (float((wanted - x).square().mean().sqrt()) * 127.5 for x in (wanted.mean((2, 3), True), mean))
    return Projection(
        z[0].numpy(), float(scale), target, found, networks.to_uint8(image)[0], disparity[0, 0].numpy(), views,
        _rmse(model, z, scale, wanted), start, flat, average,
    )  # fmt: skip


def square(photo: Photo, resolution: int) -> Pixels:
    """The middle square of a photo as the model sees photos: (R, R, 3)."""
    from argan.inference.model import read_photo

    pixels = read_photo(photo)
    h, w = pixels.shape[:2]
    side = min(h, w)
    if side < resolution:
        raise UserError(f"the photo is {w} x {h} pixels; the model needs at least {resolution} each way")
    top, left = (h - side) // 2, (w - side) // 2
    middle = pixels[top : top + side, left : left + side]
    return cv2.resize(middle, (resolution, resolution), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _photograph(model: Model, z: Tensor, scale: Tensor) -> Tensor:
    image, disparity = model.generator(z)
    photo: Tensor = model.generator.photograph(image, disparity, scale)
    return photo


def _difference(photos: Tensor, wanted: Tensor) -> Tensor:
    """(N,): mean squared differences at full size and at halves, quarters and eighths of it, added up."""
    difference = photos - wanted
    total = difference.square().mean((1, 2, 3))
    for _ in range(3):
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean((1, 2, 3))
    return total


def _rmse(model: Model, z: Tensor, scale: Tensor, wanted: Tensor) -> float:
    with torch.no_grad():
        return float((_photograph(model, z, scale) - wanted).square().mean().sqrt()) * 127.5
