"""How sure a number is: an interval over photos, and whether one model is better than another on the same photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Outcome = Literal["better", "worse", "cannot tell"]

LEVEL = 0.95
RESAMPLES = 2000  # of the bootstrap: the ends of the interval are then known to a fortieth of its length
CHUNK = 2_000_000  # numbers drawn at a time: 16 MB


def interval(values: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, float] | None:
    """95 % interval of the mean of values (n,) by the bootstrap (percentiles); None of fewer than two groups.

    groups (n,): equal numbers mark photos that are not independent, such as near duplicates; by default every photo is its own
    group. Whole groups are drawn with replacement (the cluster bootstrap) and the mean is taken over all their photos. What is
    not finite is no value. The same values give the same interval.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    total, count = _by_group(values[known], None if groups is None else np.asarray(groups)[known])
    n = len(total)
    if n < 2:
        return None
    random, means = np.random.default_rng(0), []
    at_once = max(1, CHUNK // n)
    for start in range(0, RESAMPLES, at_once):
        rows = random.integers(0, n, (min(at_once, RESAMPLES - start), n))
        means.append(total[rows].sum(1) / count[rows].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def effective_sample_size(groups: ArrayLike) -> float:
    """How many independent photos those of groups (n,) are worth where those of a group are all alike: (sum n_g)^2 / sum n_g^2
    (Kish 1965), n where each is its own, 1 where all are one group. 0 of none."""
    sizes = np.unique(np.asarray(groups), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0


def _by_group(
    values: NDArray[np.float64], groups: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each group, (g,) and (g,), the groups in the order of their first value."""
    if groups is None:
        return values, np.ones(len(values))
    if groups.shape != values.shape:
        raise ValueError(f"groups must be (n,) as the values are, got {groups.shape} and {values.shape}")
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    member = np.argsort(np.argsort(first))[member]
    total = np.bincount(member, values, len(first)).astype(np.float64)
    return total, np.bincount(member, minlength=len(first)).astype(np.float64)


@dataclass(frozen=True)
class Comparison:
    """Of a new model with an old one in one score, over the photos that have a score of both: means over groups of near duplicates,
    each of which counts once. gain: new less old (old less new where lower is better); low and high: its 95 % interval; count:
    the number of groups."""

    verdict: Outcome
    new: float
    old: float
    gain: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        spread = f"95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.count} pairs"
        return f"{self.new:.4f}, the champion's {self.old:.4f}: {self.gain:+.4f}, {spread}"


def compare(
    new: ArrayLike,
    old: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    lower_is_better: bool = False,
    margin: float = 0.0,
) -> Comparison:
    """Paired: values (n,) of both models on the very same photos, in the same order (Student's t of the differences).

    groups (n,): equal numbers mark near duplicates, whose mean counts as one pair; by default every photo is a pair of its own.
    "better" where the whole interval of the gain lies above `margin`, "worse" where it lies below -margin, else "cannot tell".
    Pairs in which either is not finite do not count. Raises ValueError where lengths differ or fewer than two pairs are left.
    """
    a, b = np.asarray(new, np.float64), np.asarray(old, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"values of the same photos must be (n,) and (n,), got {a.shape} and {b.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != a.shape:
            raise ValueError(f"groups must be (n,) as the values are, got {groups.shape} and {a.shape}")
        groups = groups[both]
    (a, count), (b, _) = _by_group(a[both], groups), _by_group(b[both], groups)
    a, b = a / count, b / count
    difference = (b - a) if lower_is_better else (a - b)
    n = len(difference)
    if n < 2:
        raise ValueError(f"{n} independent photos have a score of both; a comparison needs at least 2")
    gain = float(difference.mean())
    half_width = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    low, high = gain - half_width, gain + half_width
    verdict: Outcome = "better" if low > margin else "worse" if high < -margin else "cannot tell"
    return Comparison(verdict, float(a.mean()), float(b.mean()), gain, low, high, n)
