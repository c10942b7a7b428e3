"""The Fréchet distance against the formula with a matrix square root."""

from __future__ import annotations

import statistics

import numpy as np

from argan.metrics import frechet_distance
from benchmarks import reference_frechet
from benchmarks.timing import Numbers, interleaved

FRECHET = (10_000, 2048, 3)  # photos, features of Inception, rounds


def frechet() -> Numbers:
    """The Fréchet distance after the features, against the formula with scipy's square root of a matrix, in float64."""
    photos, features, rounds = FRECHET
    random = np.random.default_rng(0)
    mix = random.normal(size=(features, features)) * np.exp(
        -np.arange(features) / (features / 10)
    )  # as few matter as do there
    a, b = (((random.normal(size=(photos, features)) + shift) @ mix).astype(np.float32) for shift in (0, 0.1))
    # A ratio between two different things means nothing
    assert abs(frechet_distance(a, b) / reference_frechet.frechet_distance(a, b) - 1) < 1e-6
    times = interleaved(rounds, lambda: frechet_distance(a, b), lambda: reference_frechet.frechet_distance(a, b))
    return {
        "frechet_speedup": statistics.median(plain / ours for ours, plain in times),
        "frechet_seconds": statistics.median(ours for ours, _ in times),
    }
