"""Is a photograph of the kind a model learned from? Its depth means nothing otherwise, however sure the estimator is.

Deep nearest neighbours (Sun et al., ICML 2022): how far the photograph lies from the nearest photographs learned from, in
features of a network that has seen the whole world, against how far photographs of the domain that were *not* learned from lie.
Training never sees these features.
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
NEIGHBOUR = 5  # the fifth nearest: one odd photograph among those learned from excuses nothing
PHOTOS = 1000  # kept at most, 2.6 MB; of meadow's 8,000, 1,000 tell other photographs apart as well as all
UNLIKE = 0.99  # beyond this share of the domain's own photographs a photograph is called unlike them: one in a hundred is, wrongly

Photos = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Likeness:
    """What a domain's photographs look like."""

    learned: NDArray[Any]  # (n, F) float32 of length 1: features of photographs learned from
    distances: NDArray[Any]  # (m,) rising: how far photographs of the domain that were held out lie from them

    @classmethod
    def of(cls, photos: Photos, learned: Rows, held_out: Rows) -> Likeness:
        """From photos uint8 (N, R, R, 3), a memory map will do, by the row numbers of those learned from and of others.

        At most PHOTOS of each are looked at. Raises ValueError for fewer than NEIGHBOUR learned from, or none held out.
        """
        if len(learned) < NEIGHBOUR or len(held_out) == 0:
            raise ValueError(
                f"likeness needs {NEIGHBOUR} photos and one held out, got {len(learned)} and {len(held_out)}"
            )
        features = _unit(photos[_some(learned)])
        return cls(features, np.sort(_distances(features, photos[_some(held_out)])))

    def unlike(self, photo: Photos) -> float:
        """The share of the domain's held-out photographs that lie nearer than this one (R, R, 3): 0 typical, 1 like none."""
        distance = _distances(self.learned, photo[None])[0]
        return float(np.searchsorted(self.distances, distance) / len(self.distances))

    def save(self, path: Path) -> None:
        tensors = {"learned": torch.from_numpy(self.learned).half(), "distances": torch.from_numpy(self.distances)}
        write_tensors(path, tensors, {"features": _network().name, "neighbour": NEIGHBOUR})

    @classmethod
    def load(cls, path: Path) -> Likeness | None:
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


def _some(rows: Rows) -> Rows:
    """PHOTOS of them, evenly: sources come sorted."""
    return rows[np.linspace(0, len(rows) - 1, min(PHOTOS, len(rows))).round().astype(int)]


def _unit(photos: Photos) -> NDArray[Any]:
    features = _network()(photos)
    unit: NDArray[Any] = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    return unit.astype(np.float16).astype(np.float32)  # as they are stored


def _distances(learned: NDArray[Any], photos: Photos) -> NDArray[Any]:
    """Of each photograph, to its NEIGHBOUR-th nearest."""
    squared = np.maximum(2 - 2 * _unit(photos) @ learned.T, 0)
    nearest: NDArray[Any] = np.sqrt(np.partition(squared, NEIGHBOUR - 1, axis=1)[:, NEIGHBOUR - 1])
    return nearest
