"""Interpolation of scenes, truncation, and projection of a photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from argan import networks
from argan.config.schema import training
from argan.errors import UserError
from argan.inference import latents
from argan.inference.model import Model

SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    config = training("quick", SMALL)
    return Model("meadow", config, networks.build_generator(config))


def test_slerp_goes_along_the_sphere_at_constant_speed() -> None:
    a, b = np.float32([3, 0, 0]), np.float32([0, 3, 0])
    points = np.stack([latents.slerp(a, b, t) for t in np.linspace(0, 1, 7)])
    assert np.allclose(np.linalg.norm(points, axis=1), 3, atol=1e-5)
    assert np.allclose(points[[0, -1]], [a, b], atol=1e-5)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.allclose(steps, steps[0], rtol=1e-4)
    assert np.allclose(latents.slerp(a, a, 0.3), a) and np.isfinite(latents.slerp(a, -a, 0.5)).all()
    assert np.allclose(latents.slerp(0 * a, b, 0.5), b / 2)


def test_a_loop_passes_every_key_once_without_a_jump() -> None:
    keys = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    points = latents.trajectory(keys, 20)
    assert points.shape == (60, 16) and np.allclose(points[[0, 20, 40]], keys, atol=1e-5)
    steps = np.linalg.norm(np.diff(np.concatenate([points, points[:1]]), axis=0), axis=1)
    assert steps.max() < np.linalg.norm(keys[0] - keys[1]) / 5
    assert np.allclose(latents.trajectory(keys, 5, loop=False)[-1], keys[-1])
    with pytest.raises(UserError, match="two"):
        latents.trajectory(keys[:1], 5)


def test_truncation_brings_scenes_together(model: Model) -> None:
    spread = [model.sample(8, seed=1, truncation=t).images.std(0).mean() for t in (0.0, 0.5, 1.0)]
    assert spread[0] == 0 and spread[0] < spread[1] < spread[2]
    assert np.array_equal(model.sample(2, seed=1).images, model.scenes(model.latents(range(2), 1)).images)
    with pytest.raises(UserError, match="truncation"):
        model.sample(1, truncation=-1)


def test_projection_recovers_a_generated_photo(model: Model) -> None:
    scene = model.sample(1, seed=5)
    steps: list[int] = []
    projection = latents.project(
        model, scene.photos[0], steps=60, starts=4, progress=lambda done, total: steps.append(done)
    )
    assert steps == list(range(1, 61))
    assert (
        projection.rmse < projection.rmse_start
        and projection.rmse < min(projection.rmse_mean, projection.rmse_flat) / 3
    )
    estimated, exact = projection.disparity.ravel(), scene.disparity[0].ravel()
    assert np.corrcoef(estimated, exact)[0, 1] > 0.9, "and with the photo its depth, which was never shown"
    difference = projection.photo.astype(float) - projection.target
    assert projection.rmse == pytest.approx(np.sqrt((difference**2).mean()), abs=0.5), (
        "the number is that of the picture"
    )
    assert (
        0 <= projection.aperture <= 1 and projection.views.shape == (25, 32, 32, 3) and projection.latent.shape == (8,)
    )


def test_a_photo_too_small_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="20 x 40"):
        latents.project(model, np.zeros((40, 20, 3), np.uint8))
