"""What generated scenes are like, and the degenerate answers by name. docs/method.md, section Evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from argan.color import luminance
from argan.config.schema import Training
from argan.metrics.depth import correlation, rank_correlation
from argan.training import losses as objective
from argan.training.health import ALIKE, COPIED, FLAT

# The degenerate answers that training cannot see; docs/method.md says what exact scenes have.
UNSHARP = 0.5  # defocus gap: exact meadow scenes have 1.1 to 1.8, with all blur painted into the image 0.25 to 0.43
CHANCE = 3.0  # standard errors by which the inverted must exceed half of the photos to be no accident


@dataclass
class SceneStatistics:
    """Running statistics of generated scenes; memory does not grow with their number beyond a few floats a scene."""

    disparity_max: float
    prior: NDArray[np.float32]  # (H, W)
    total: NDArray[np.float64]  # sum of the scenes' standardised disparities (H, W)
    columns: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Training) -> SceneStatistics:
        prior = objective.prior(config)[0, 0].numpy()
        return cls(config.disparity_max, prior, np.zeros(prior.shape))

    def add(self, image: Tensor, disparity: Tensor, photo: Tensor) -> None:
        """image, photo (N, 3, H, W) in [-1, 1]; disparity (N, 1, H, W)."""
        depth = disparity[:, 0].double().cpu().numpy()
        spread = depth.std((1, 2))
        blurred = disparity.abs()
        self.total += ((depth - depth.mean((1, 2), keepdims=True)) / np.maximum(spread, 1e-9)[:, None, None]).sum(0)
        row = {
            "std": spread / self.disparity_max,
            "prior_correlation": correlation(depth, np.broadcast_to(self.prior, depth.shape)),
            "luminance_correlation": np.abs(rank_correlation(depth, luminance(image).double().cpu().numpy())),
            "sharpness_gap": (log_sharpness(image) - log_sharpness(photo)).cpu().numpy(),
            "defocus_gap": (log_sharpness(image, blurred) - log_sharpness(photo, blurred)).cpu().numpy(),
        }
        for name, values in row.items():
            self.columns.setdefault(name, []).append(values)

    @property
    def count(self) -> int:
        return sum(len(part) for part in self.columns.get("std", ()))

    def values(self, name: str) -> NDArray[np.float64]:
        """A number a scene."""
        return np.concatenate(self.columns[name])

    def metrics(self) -> dict[str, float]:
        mean = {name: float(np.concatenate(parts).mean()) for name, parts in self.columns.items()}
        count = self.count
        pairs = np.square(self.total).mean() - count  # of scenes, each with another: sum of their correlations
        return {
            "sharpness_gap": mean["sharpness_gap"],
            "scene_defocus_gap": mean["defocus_gap"],
            "scene_depth_std": mean["std"],
            "scene_depth_alike": max(-1.0, float(pairs / (count * (count - 1)))),
            "scene_prior_correlation": mean["prior_correlation"],
            "scene_luminance_correlation": mean["luminance_correlation"],
        }


def log_sharpness(images: Tensor, weight: Tensor | None = None) -> Tensor:
    """log of the mean squared Laplacian of luminance, the high-frequency energy: (N, 3, H, W) in [-1, 1] -> (N,).

    weight (N, 1, H, W), >= 0, says how much each pixel counts; by default all count alike.
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=images.device)[None, None]
    energy = F.conv2d(F.pad(luminance(images)[:, None], [1] * 4, mode="replicate"), kernel).double().square()
    weight = torch.ones_like(energy) if weight is None else weight.double()
    mean = (energy * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-9)
    return (mean + QUANTISATION).log()


# Energy that rounding to 8 bits alone puts into a picture, 20 (the kernel's squares) * (2/255)^2 / 12: below it is no detail.
QUANTISATION = 20 * (2 / 255) ** 2 / 12


def degenerate_answers(metrics: Mapping[str, Any]) -> list[str]:
    """The degenerate answers that these metrics show, by name; empty when healthy."""
    flat = metrics["scene_depth_std"] < FLAT  # then nothing else about the shape of depth means anything
    inverted = metrics.get("depth_inverted")
    photos = metrics.get("depth_photos_independent", metrics.get("depth_photos"))  # near duplicates agree by nature
    signs = {
        "constant_depth": flat,
        "prior_depth": not flat and metrics["scene_depth_alike"] > ALIKE,
        "baked_blur": not flat and metrics["scene_defocus_gap"] < UNSHARP,
        "inverted_depth": photos and inverted > 0.5 + CHANCE * 0.5 / photos**0.5,
        "luminance_depth": not flat and metrics["scene_luminance_correlation"] > COPIED,
    }
    return [name for name, shows in signs.items() if shows]
