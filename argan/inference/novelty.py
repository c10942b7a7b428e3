"""Out-of-distribution detection: is a photograph of the kind a model was trained on? Its depth means nothing otherwise.

Deep nearest neighbours (Sun et al., ICML 2022): the distance of the photograph to the nearest training photographs, in features
of a network trained on ImageNet, ranked among the distances of the domain's held-out photographs. Training never sees these
features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from argan.metrics.features import Extractor, extractor
from argan.tensors import read_tensors, write_tensors

FEATURES = "efficientnet-lite0"  # in a package, so that it is there wherever a model is used
NEIGHBOUR = 5  # the fifth nearest: a single odd training photograph must not make its like typical
MAX_PHOTOS = 1000  # 2.6 MB; 1,000 of meadow's 8,000 separate other photographs as well as all of them
NOVELTY_THRESHOLD = (
    0.99  # a photograph farther out than this share of the domain's own is called unlike them: 1 % false alarms
)
NOVELTY_FILE = "likeness.safetensors"  # in a model's folder

Photos = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class NoveltyDetector:
    """The features of a domain's training photographs, and how far its held-out ones lie from them."""

    features: NDArray[Any]  # (n, F) float32, unit length, of training photographs
    distances: NDArray[Any]  # (m,) ascending, of held-out photographs of the domain to the training photographs

    @classmethod
    def fit(cls, photos: Photos, training: Rows, held_out: Rows) -> NoveltyDetector:
        """From photos uint8 (N, R, R, 3), a memory map will do, and the row numbers of those trained on and of held-out ones.

        At most MAX_PHOTOS of each are used. Raises ValueError for fewer than NEIGHBOUR trained on, or none held out.
        """
        if len(training) < NEIGHBOUR or len(held_out) == 0:
            raise ValueError(
                f"novelty needs {NEIGHBOUR} photos and one held out, got {len(training)} and {len(held_out)}"
            )
        features = _unit_features(photos[_subset(training)])
        return cls(features, np.sort(_distances(features, photos[_subset(held_out)])))

    def score(self, photo: Photos) -> float:
        """The share of the domain's held-out photographs that lie nearer than this one (R, R, 3): 0 typical, 1 like none."""
        distance = _distances(self.features, photo[None])[0]
        return float(np.searchsorted(self.distances, distance) / len(self.distances))

    def save(self, path: Path) -> None:
        tensors = {"learned": torch.from_numpy(self.features).half(), "distances": torch.from_numpy(self.distances)}
        write_tensors(path, tensors, {"features": _network().name, "neighbour": NEIGHBOUR})

    @classmethod
    def load(cls, path: Path) -> NoveltyDetector | None:
        """None where it was made with other features than these, or never."""
        if not path.exists():
            return None
        tensors, meta = read_tensors(path)
        if (meta.get("features"), meta.get("neighbour")) != (_network().name, NEIGHBOUR):
            return None
        return cls(tensors["learned"].float().numpy(), tensors["distances"].numpy())


@cache
def _network() -> Extractor:
    return extractor(FEATURES)


def _subset(rows: Rows) -> Rows:
    """At most MAX_PHOTOS of them, evenly: sources come sorted."""
    return rows[np.linspace(0, len(rows) - 1, min(MAX_PHOTOS, len(rows))).round().astype(int)]


def _unit_features(photos: Photos) -> NDArray[Any]:
    features = _network()(photos)
    unit: NDArray[Any] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    return unit.astype(np.float16).astype(np.float32)  # as they are stored


def _distances(features: NDArray[Any], photos: Photos) -> NDArray[Any]:
    """(n,): of each photograph, to the NEIGHBOUR-th nearest of `features` (m, F)."""
    squared = np.maximum(2 - 2 * _unit_features(photos) @ features.T, 0)
    nearest: NDArray[Any] = np.sqrt(np.partition(squared, NEIGHBOUR - 1, axis=1)[:, NEIGHBOUR - 1])
    return nearest
