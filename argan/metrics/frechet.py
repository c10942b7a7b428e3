"""How far two sets of features lie apart, in float64, exact and deterministic; memory does not grow with the number of photos.

Which features they are given is what makes them FID and KID: see `argan.metrics.features`. They may be memory maps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cholesky, qr, svdvals
from scipy.linalg.blas import dsyrk

Features = NDArray[np.float64]

BLOCK = 1024  # rows at a time: 8 MiB for every thousand columns
MAX_PAIRED = (
    10_000  # photos of which all pairs are taken: 1e8 of them, seconds; of more, the mean over parts of so many
)
PARTS = (
    10  # for the standard error of the kernel distance: enough for one good to a quarter, and few enough to be large
)


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (Dowson & Landau 1982; Heusel et al. 2017).

    ||mu_a - mu_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), S with n - 1 below. a (n, F), b (m, F), any n, m >= 2: fewer rows
    than features is fine for the arithmetic, though the estimate is then biased upwards. Raises ValueError on bad input.

    With S = G'G the trace of the root is the sum of the singular values of G_a G_b', so no square root of a matrix is
    taken and no covariance formed: faster than `sqrtm`, and exact where a covariance is singular.
    """
    x, y = check_features(a, b)
    mean_a, mean_b = _mean(x), _mean(y)
    g_a, g_b = _factor(x, mean_a), _factor(y, mean_b)
    overlap = svdvals(g_a @ g_b.T, overwrite_a=True, check_finite=False).sum()
    trace = float(np.square(g_a).sum() + np.square(g_b).sum())
    return max(0.0, float(np.square(mean_a - mean_b).sum()) + trace - 2 * float(overlap))


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Unbiased squared MMD under the kernel (x.y / F + 1)^3 (Binkowski et al., 2018): around 0 for equal distributions.

    a (n, F), b (m, F), n, m >= 2. Being unbiased it can come out slightly negative. All pairs are used, of up to PAIRED
    photos at a time: the same expectation as the usual mean over random subsets, with less variance and nothing drawn.
    Raises ValueError on bad input.
    """
    x, y = check_features(a, b)
    return float(_parts(x, y, -(-max(len(x), len(y)) // MAX_PAIRED)).mean())


def kernel_distance_parts(
    a: ArrayLike, b: ArrayLike, parts: int = PARTS, groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """The kernel distance of `parts` disjoint parts of the photos, drawn by chance once for all.

    Fewer parts where one would lack two photos. Independent estimates: their spread over the root of their number is the
    standard error of the kernel distance, slightly too large, since all pairs tell more than those within parts. The parts of
    two models on the same photos pair. groups (m,): rows of b with equal numbers are near duplicates and go into one part, else
    parts would share photographs and not be independent.
    """
    x, y = check_features(a, b)
    if groups is None:
        return _parts(x, y, min(parts, len(x) // 2, len(y) // 2))
    _, first, member = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    member = np.argsort(np.argsort(first))[
        member
    ]  # numbered as they first come: what groups are called decides nothing
    count = max(1, min(parts, len(x) // 2, len(first) // 2))
    part = np.empty(len(first), np.int64)
    for i, some in enumerate(np.array_split(fixed_permutation(len(first)), count)):
        part[some] = i
    theirs = [np.flatnonzero(part[member] == i) for i in range(count)]
    ours = np.array_split(fixed_permutation(len(x)), count)
    return np.array([_mmd(x[np.sort(rows)], y[others]) for rows, others in zip(ours, theirs, strict=True)])


def _parts(a: Features, b: Features, parts: int) -> NDArray[np.float64]:
    if parts == 1:
        return np.array([_mmd(a, b)])
    pairs = zip(*(np.array_split(fixed_permutation(len(each)), parts) for each in (a, b)), strict=True)
    return np.array([_mmd(a[np.sort(rows)], b[np.sort(others)]) for rows, others in pairs])


def fixed_permutation(count: int) -> NDArray[np.int64]:
    """Row numbers in an order of chance, always the same: published photos come sorted by what they show."""
    return np.random.default_rng(count).permutation(count)


def _mmd(a: Features, b: Features) -> float:
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _diagonal(a)) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _diagonal(b)) / (m * (m - 1))
    return float(within_a + within_b - 2 * _kernel_sum(a, b) / (n * m))


def blocks(x: NDArray[np.generic]) -> Iterator[Features]:
    """Rows as float64, BLOCK at a time."""
    for i in range(0, len(x), BLOCK):
        yield np.asarray(x[i : i + BLOCK], np.float64)


def _mean(x: Features) -> Features:
    total: Features = np.sum([block.sum(0) for block in blocks(x)], axis=0)
    return total / len(x)


def _factor(x: Features, mean: Features) -> Features:
    """G with G'G the covariance of x: its centred rows, or a triangle where there are more rows than features."""
    scale = 1 / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return (np.asarray(x, np.float64) - mean) * scale
    gram = np.zeros((x.shape[1], x.shape[1]), order="F")
    for block in blocks(x):  # its upper triangle alone, added to in place: half the work of a product
        gram = dsyrk(1.0, ((block - mean) * scale).T, beta=1.0, c=gram, overwrite_c=True)
    try:
        triangle: Features = cholesky(gram, overwrite_a=True, check_finite=False)
    except (
        LinAlgError
    ):  # singular, as with a feature that never changes: the QR does not mind, but takes five times as long
        triangle = np.zeros((0, x.shape[1]))
        for block in blocks(x):
            rows = np.concatenate([triangle, (block - mean) * scale])
            triangle = qr(rows, mode="r", overwrite_a=True, check_finite=False)[0][: x.shape[1]]
    return triangle


def _kernel(product: Features, features: int) -> Features:
    """(x.y / F + 1)^3 from x.y."""
    base: Features = product / features + 1
    return base * base * base  # ten times as fast as ** 3


def _kernel_sum(a: Features, b: Features) -> float:
    """The kernel summed over all pairs of rows."""
    return sum(float(_kernel(x @ y.T, a.shape[1]).sum()) for x in blocks(a) for y in blocks(b))


def _diagonal(a: Features) -> float:
    return sum(float(_kernel(np.square(x).sum(1), a.shape[1]).sum()) for x in blocks(a))


def check_features(a: ArrayLike, b: ArrayLike) -> tuple[Features, Features]:
    """Both as (n, F) of any floating type, with equal F, or ValueError."""
    pair = []
    for name, given in (("a", a), ("b", b)):
        x = np.asanyarray(given)
        x = x if x.dtype.kind == "f" else np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"{name} must be (n, features), got shape {x.shape}")
        if len(x) < 2:
            raise ValueError(f"{name} has {len(x)} rows; a covariance needs at least 2")
        if not all(np.isfinite(block).all() for block in blocks(x)):
            raise ValueError(f"{name} holds values that are not finite")
        pair.append(x)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(
            f"a has {pair[0].shape[1]} features and b {pair[1].shape[1]}: they must come from one extractor"
        )
    return pair[0], pair[1]
