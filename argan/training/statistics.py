"""Metrics of a batch that is computed in parts, and the spread of photographs they are compared with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MAX_PHOTOS = 512  # of which `photo_spread` is measured


class MetricAccumulator:
    """Means over a batch, accumulated from its parts, which are equal in size."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, **values: Tensor) -> None:
        """The metrics of one part: scalars, maps, or (n,) values of its images, which are averaged."""
        for name, value in values.items():
            self._parts.setdefault(name, []).append((value.mean() if value.ndim == 1 else value).detach())

    def take(self) -> dict[str, Tensor]:
        """The means of all that was added since the last call; they stay in `means`."""
        fresh = {name: torch.stack(parts).mean(0) for name, parts in self._parts.items()}
        self._parts.clear()
        self.means |= fresh
        return fresh


def moments(image: Tensor) -> dict[str, Tensor]:
    """First and second moment of every pixel over the batch, for `std_from_moments`."""
    image = image.detach()
    return {"moment_1": image.mean(0), "moment_2": image.square().mean(0)}


def std_from_moments(first: Tensor, second: Tensor, count: int) -> Tensor:
    """The standard deviation over `count` images."""
    return ((second - first.square()).clamp(min=0) * (count / (count - 1))).sqrt()


def photo_spread(photos: np.ndarray, rows: np.ndarray | None = None) -> float:
    """How much the photographs `rows` differ: the mean standard deviation of a pixel, in [-1, 1] units, as `image_std`."""
    rows = np.arange(len(photos)) if rows is None else rows
    sample = photos[rows[:: max(1, len(rows) // MAX_PHOTOS)]].astype(np.float32)
    return float(sample.std(0, ddof=1).mean() / 127.5)
