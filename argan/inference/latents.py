"""The latent space: interpolation between scenes, and projection of a photograph (GAN inversion).

A latent is a standard normal vector of Z numbers, so all of them lie near a sphere of radius sqrt(Z), and interpolation goes
along it (slerp).
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
from argan.inference.photo import Photo, Pixels, read_photo

if TYPE_CHECKING:
    from argan.inference.model import Model

Latents = NDArray[Any]  # float32

PYRAMID = 4  # scales of the distance between photos: full size, halves, quarters, eighths
CANDIDATES = 32  # random scenes per start of a projection
LEARNING_RATE = 0.05  # of latents and apertures in a projection
NORM_WEIGHT = 0.1  # of the penalty on latents away from the sphere


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


def trajectory(keys: Latents, frames: int, loop: bool = True) -> Latents:
    """Through all of `keys` (K, Z) with `frames` points a segment, slowing down at each key: (F, Z).

    A loop goes back to the first key and repeats no point; else the last key ends it. Raises UserError for less than two keys.
    """
    if len(keys) < 2 or frames < 1:
        raise UserError(
            f"a way through scenes needs at least two of them and one frame a leg, got {len(keys)}, {frames}"
        )
    segments = list(zip(keys, np.roll(keys, -1, 0), strict=True))[: None if loop else -1]
    eased = [0.5 - 0.5 * np.cos(np.pi * k / frames) for k in range(frames)]
    points = [slerp(a, b, t) for a, b in segments for t in eased]
    return np.stack(points if loop else [*points, keys[-1]])


@dataclass(frozen=True)
class Projection:
    """The generated scene nearest to a photograph. R is the model's resolution."""

    latent: Latents  # (Z,)
    aperture: float  # through which its photo is nearest, 0 to 1
    target: Pixels  # (R, R, 3), the photograph's middle, as the model sees it
    photo: Pixels  # (R, R, 3), the scene through that aperture
    image: Pixels  # (R, R, 3), the scene all in focus
    disparity: NDArray[Any]  # (R, R)
    views: Pixels  # (25, R, R, 3), its light field through the full aperture
    rmse: float  # between target and photo, of 0..255
    rmse_start: float  # of the best of the random scenes it started from
    rmse_flat: float  # of a picture of one colour, the target's mean
    rmse_mean: float  # of the mean photo of the scenes it started from: the score of the domain alone


def project(
    model: Model,
    photo: Photo,
    *,
    steps: int = 300,
    starts: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Projection:
    """The latent whose photo is nearest to the middle square of `photo`, and the aperture it was taken with.

    Least squares over PYRAMID scales (so that a petal two pixels off still has a gradient), from the best `starts` of CANDIDATES
    times as many random scenes, by Adam with cosine annealing; a penalty keeps latents near the sphere they come from. The model's
    domain limits the result: read `rmse` beside `rmse_mean` and `rmse_flat`. Raises UserError for what is no photo or too small.
    """
    if steps < 1 or starts < 1:
        raise UserError(f"steps and starts must be at least 1, got {steps} and {starts}")
    target = center_square(photo, model.config.resolution)
    target_tensor = networks.from_uint8(torch.from_numpy(target).permute(2, 0, 1)[None])
    candidates = torch.from_numpy(model.latents(range(CANDIDATES * starts), seed))
    with torch.no_grad():
        parts = [_photograph(model, z, torch.full((len(z),), 0.5)) for z in candidates.split(32)]
        distances = torch.cat([_distance(part, target_tensor) for part in parts])
        mean = torch.stack([part.mean(0) for part in parts]).mean(0)[None]
    z = candidates[distances.argsort()[:starts]].requires_grad_()
    aperture_logit = torch.zeros(starts, requires_grad=True)
    rmse_start = _rmse(model, z[:1].detach(), torch.full((1,), 0.5), target_tensor)
    groups = [{"params": [z], "lr": LEARNING_RATE}, {"params": [aperture_logit], "lr": LEARNING_RATE}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        # The norm of a standard normal vector varies by a few percent: a point elsewhere is no scene of the domain
        norm_error = (z.norm(dim=1) / z.shape[1] ** 0.5 - 1).square()
        distance = _distance(_photograph(model, z, aperture_logit.sigmoid()), target_tensor)
        (distance + NORM_WEIGHT * norm_error).sum().backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)
    with torch.no_grad():
        scale = aperture_logit.sigmoid()
        error = (_photograph(model, z, scale) - target_tensor).square().mean((1, 2, 3))
        best = int(error.argmin())
        z, scale = z[best : best + 1].detach(), scale[best : best + 1]
        image, disparity = model.generator(z)
        views = model.generator.views(image, disparity, torch.ones(1))[0]
        photo_tensor = model.generator.photograph(image, disparity, scale)
    flat = target_tensor.mean((2, 3), keepdim=True)
    rmse_flat, rmse_mean = (float((target_tensor - x).square().mean().sqrt()) * 127.5 for x in (flat, mean))
    return Projection(
        latent=z[0].numpy(),
        aperture=float(scale),
        target=target,
        photo=networks.to_uint8(photo_tensor)[0],
        image=networks.to_uint8(image)[0],
        disparity=disparity[0, 0].numpy(),
        views=networks.to_uint8(views),
        rmse=_rmse(model, z, scale, target_tensor),
        rmse_start=rmse_start,
        rmse_flat=rmse_flat,
        rmse_mean=rmse_mean,
    )


def center_square(photo: Photo, resolution: int) -> Pixels:
    """The middle square of a photo as the model sees photos: (R, R, 3)."""
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


def _distance(photos: Tensor, target: Tensor) -> Tensor:
    """(N,): the mean squared difference, summed over PYRAMID scales."""
    difference = photos - target
    total = difference.square().mean((1, 2, 3))
    for _ in range(PYRAMID - 1):
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean((1, 2, 3))
    return total


def _rmse(model: Model, z: Tensor, scale: Tensor, target: Tensor) -> float:
    with torch.no_grad():
        return float((_photograph(model, z, scale) - target).square().mean().sqrt()) * 127.5
