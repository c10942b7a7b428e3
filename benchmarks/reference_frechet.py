"""The Fréchet distance as it is written down: covariances, and scipy's square root of their product."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm


def frechet_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Features (n, F) and (m, F)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b - 2 * root))
