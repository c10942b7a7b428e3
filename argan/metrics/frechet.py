"""How far two sets of features lie apart: the Fréchet and the kernel distance, in float64, exact and deterministic.

Which features they are given is what makes them FID and KID: see `argan.metrics.features`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cholesky, qr, svdvals

Features = NDArray[np.float64]

BLOCK = 1024  # rows of the kernel matrix at a time: 8 MiB for every thousand columns, whatever the number of photos


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (Dowson & Landau 1982; Heusel et al. 2017).

    ||mu_a - mu_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), S with n - 1 below. a (n, F), b (m, F), any n, m >= 2: fewer rows
    than features is fine for the arithmetic, though the estimate is then biased upwards. Raises ValueError on bad input.

    With S = G'G the trace of the root is the sum of the singular values of G_a G_b', so no square root of a matrix is
    taken and no covariance formed: faster than `sqrtm`, and exact where a covariance is singular.
    """
    a, b = _checked(a, b)
    shift = a.mean(0) - b.mean(0)
    g_a, g_b = _factor(a), _factor(b)
    overlap = svdvals(g_a @ g_b.T, overwrite_a=True, check_finite=False).sum()
    return max(0.0, float(shift @ shift + np.square(g_a).sum() + np.square(g_b).sum() - 2 * overlap))


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Unbiased squared MMD under the kernel (x.y / F + 1)^3 (Binkowski et al., 2018): around 0 for equal distributions.

    a (n, F), b (m, F), n, m >= 2. Being unbiased it can come out slightly negative. All pairs are used: the same
    expectation as the usual mean over random subsets, with less variance and nothing drawn. Raises ValueError on bad input.
    """
    a, b = _checked(a, b)
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel(np.square(a).sum(1), a.shape[1]).sum()) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _kernel(np.square(b).sum(1), b.shape[1]).sum()) / (m * (m - 1))
    return float(within_a + within_b - 2 * _kernel_sum(a, b) / (n * m))


def _factor(x: Features) -> Features:
    """G with G'G the covariance of x: its centred rows, or a triangle where there are more rows than features."""
    centred: Features = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred
    try:
        triangle: Features = cholesky(centred.T @ centred, overwrite_a=True, check_finite=False)
    except (
        LinAlgError
    ):  # singular, as with a feature that never changes: the QR does not mind, but takes five times as long
        triangle = qr(centred, mode="r", overwrite_a=True, check_finite=False)[0][: x.shape[1]]
    return triangle


def _kernel(product: Features, features: int) -> Features:
    """(x.y / F + 1)^3 from x.y."""
    base: Features = product / features + 1
    return base * base * base  # ten times as fast as ** 3


def _kernel_sum(a: Features, b: Features) -> float:
    """The kernel summed over all pairs of rows."""
    return sum(float(_kernel(a[i : i + BLOCK] @ b.T, a.shape[1]).sum()) for i in range(0, len(a), BLOCK))


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[Features, Features]:
    """Both as float64 (n, F) with equal F, or ValueError."""
    pair = []
    for name, given in (("a", a), ("b", b)):
        x = np.asarray(given, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"{name} must be (n, features), got shape {x.shape}")
        if len(x) < 2:
            raise ValueError(f"{name} has {len(x)} rows; a covariance needs at least 2")
        if not np.isfinite(x).all():
            raise ValueError(f"{name} holds values that are not finite")
        pair.append(x)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(
            f"a has {pair[0].shape[1]} features and b {pair[1].shape[1]}: they must come from one extractor"
        )
    return pair[0], pair[1]
