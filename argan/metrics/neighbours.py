"""Precision and recall of generated photos by nearest neighbours in feature space (Kynkäänniemi et al., NeurIPS 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from argan.metrics.frechet import BLOCK, Features, blocks, check_features, fixed_permutation

NEIGHBOUR = 3  # the k-th neighbour whose distance is a photo's radius: the paper's
MAX_PHOTOS = 10_000  # photos of each kind that are looked at: all pairs of them are


def precision_recall(generated: ArrayLike, real: ArrayLike) -> tuple[float, float]:
    """Share of generated photos within the reach of a real one, and of real photos within that of a generated one.

    Features (n, F) and (m, F). As many of each are taken as there are of the fewer, drawn by chance once for all, since the
    scores depend on the numbers. 1 and 1 is ideal; two halves of the real photos have about that, or what their spread leaves
    of it. Raises ValueError on bad input and where there are no more than NEIGHBOUR photos of a kind.
    """
    x, y = check_features(generated, real)
    count = min(len(x), len(y), MAX_PHOTOS)
    if count <= NEIGHBOUR:
        raise ValueError(f"{count} photos of a kind; precision and recall need at least {NEIGHBOUR + 1}")
    x, y = (each if len(each) == count else each[np.sort(fixed_permutation(len(each))[:count])] for each in (x, y))
    return _coverage(x, y), _coverage(y, x)


def _coverage(points: Features, centres: Features) -> float:
    """Share of points no farther from some centre than that centre is from its NEIGHBOUR-th neighbour."""
    reach = np.concatenate(
        [
            np.partition(_squared(block, centres), NEIGHBOUR, axis=1)[:, NEIGHBOUR]  # the nearest is the centre itself
            for block in blocks(centres)
        ]
    )
    return sum(int((_squared(block, centres) <= reach).any(1).sum()) for block in blocks(points)) / len(points)


def _squared(a: Features, b: Features) -> NDArray[np.float64]:
    """Squared distances of every row of a (at most BLOCK) and every row of b; those of equal rows are exactly 0."""
    norm_a = np.square(a).sum(1)[:, None]
    out = np.empty((len(a), len(b)))
    for i, block in enumerate(blocks(b)):
        part = norm_a + np.square(block).sum(1) - 2 * (a @ block.T)
        out[:, i * BLOCK : i * BLOCK + len(block)] = np.where(part < 1e-9 * norm_a, 0, part)  # rounding
    return out
