"""How sure a number is: an interval over photos, and whether one model is better than another on the same photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

Verdict = Literal["better", "worse", "cannot tell"]

LEVEL = 0.95
DRAWS = 2000  # of the bootstrap: the ends of the interval are then known to a fortieth of its length
CHUNK = 2_000_000  # numbers drawn at a time: 16 MB


def interval(values: ArrayLike) -> tuple[float, float] | None:
    """95 % interval of the mean of values (n,) by the bootstrap over them (percentiles); None of fewer than two.

    The photos are drawn anew with replacement; what is not finite is no value. The same values give the same interval.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return None
    random, means = np.random.default_rng(0), []
    at_once = max(1, CHUNK // len(known))
    for start in range(0, DRAWS, at_once):
        rows = random.integers(0, len(known), (min(at_once, DRAWS - start), len(known)))
        means.append(known[rows].mean(1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Of a new model with an old one in one score: means over the photos that have a score of both. gain: new less old (old less
    new where lower is better); low and high: its 95 % interval."""

    verdict: Verdict
    new: float
    old: float
    gain: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        spread = f"95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.count} pairs"
        return f"{self.new:.4f}, the champion's {self.old:.4f}: {self.gain:+.4f}, {spread}"


def compare(new: ArrayLike, old: ArrayLike, *, lower_is_better: bool = False, margin: float = 0.0) -> Comparison:
    """Paired: values (n,) of both models on the very same photos, in the same order (Student's t of the differences).

    "better" where the whole interval of the gain lies above `margin`, "worse" where it lies below -margin, else "cannot tell".
    Pairs in which either is not finite do not count. Raises ValueError where lengths differ or fewer than two pairs are left.
    """
    a, b = np.asarray(new, np.float64), np.asarray(old, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"values of the same photos must be (n,) and (n,), got {a.shape} and {b.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    difference = (b - a) if lower_is_better else (a - b)
    n = len(difference)
    if n < 2:
        raise ValueError(f"{n} photos have a score of both; a comparison needs at least 2")
    gain = float(difference.mean())
    reach = float(student.ppf((1 + LEVEL) / 2, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    low, high = gain - reach, gain + reach
    verdict: Verdict = "better" if low > margin else "worse" if high < -margin else "cannot tell"
    return Comparison(verdict, float(a.mean()), float(b.mean()), gain, low, high, n)
