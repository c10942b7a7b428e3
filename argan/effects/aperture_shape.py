"""Shapes of an aperture, as the lines of a blur's kernel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[Any]  # float32 throughout

SHAPES = ("disc", "cat's eye", *(f"{blades} blades" for blades in range(5, 10)))
COLLECTION = "collection"  # the iris that a model's own photographs were taken with; `Model.opening` knows it
# One of SHAPES, or an outline: radii in evenly spaced directions, from +x towards +y (down)
Shape = str | tuple[float, ...]
FINE = 8  # lines in a line of the kernel, of which it is averaged
BARREL = 0.7  # how far the rim of a cat's eye's barrel is shifted in the corner, of the aperture's radius


def tile_kernels(
    shape: Shape, radius: float, at: tuple[int, int], tile: tuple[int, int], frame: tuple[int, int], turned: bool
) -> list[list[Float]]:
    """The aperture at a tile: one kernel, or a grid of them, from corner to corner, where the shape changes across the frame."""
    if shape != "cat's eye":
        return [[kernel(shape, radius, (0.0, 0.0), turned)]]
    (top, left), (h, w), (height, width) = at, tile, frame
    half = math.hypot(height, width) / 2
    # Of two neighbours the rim of the barrel lies a sixth of the radius apart at most: mixed, they look like the one between them
    down, along = (max(1, math.ceil(4 * length / half)) for length in (h, w))
    places = [[(left + w * j / along, top + h * i / down) for j in range(along + 1)] for i in range(down + 1)]
    return [
        [kernel(shape, radius, ((x - width / 2) / half, (y - height / 2) / half), turned) for x, y in row]
        for row in places
    ]


@lru_cache(4096)
def kernel(shape: Shape, radius: float, field: tuple[float, float], turned: bool) -> Float:
    """Its lines from top to bottom, (first column - 1, last column, weight), the weights summing to 1 over the shape.

    field: where in the frame, the corners at a distance of 1. The aperture as the photographer sees it, or turned by 180 degrees.
    `bokeh_kernels.blur` correlates, so `turned` belongs behind the focal plane, where a point of light is the aperture upright.
    """
    half = math.ceil(radius)
    v = ((np.arange((2 * half + 1) * FINE) + 0.5) / FINE - half - 0.5) / radius
    starts, ends = _chords(shape, -v if turned else v, field)
    if turned:
        starts, ends = -ends, -starts
    length = np.maximum(ends - starts, 0).reshape(-1, FINE)
    middle = ((starts + ends) / 2).reshape(-1, FINE)
    # A line that the aperture covers in part, as at a straight side, is as long as where it is covered, and weighs less
    covered = (length > 0).mean(1)
    reach = length.sum(1) / np.maximum(covered * FINE, 1) / 2
    centre = (middle * length).sum(1) / np.maximum(length.sum(1), 1e-9)
    lines = np.stack([(centre - reach) * radius - 0.5, (centre + reach) * radius - 0.5, covered], 1)
    return (lines * [1, 1, 1 / max((2 * reach * covered * radius).sum(), 1e-9)]).astype(np.float32)


def _chords(shape: Shape, v: Float, field: tuple[float, float]) -> tuple[Float, Float]:
    """Where the lines at heights v (down) enter and leave the aperture, which fits into the unit circle, as the photographer
    sees it from behind the camera."""
    if not isinstance(shape, str) or shape.endswith("blades"):
        if isinstance(shape, str):
            n = int(shape.split()[0])
            angle = 2 * np.pi * (np.arange(n + 1) + 0.5) / n + np.pi / 2  # a side lies at the bottom
            far = np.ones(n + 1)
        else:
            angle = 2 * np.pi * np.arange(len(shape) + 1) / len(shape)
            far = np.array([*shape, shape[0]]) / max(shape)
        px, py = far * np.cos(angle), far * np.sin(angle)
        starts, ends = np.full_like(v, np.inf), np.full_like(v, -np.inf)
        for x0, y0, x1, y1 in zip(px[:-1], py[:-1], px[1:], py[1:], strict=True):
            crossed = (np.minimum(y0, y1) <= v) & (v <= np.maximum(y0, y1)) & (y0 != y1)
            x = x0 + (v - y0) / (y1 - y0 if y0 != y1 else 1.0) * (x1 - x0)
            starts = np.where(crossed, np.minimum(starts, x), starts)
            ends = np.where(crossed, np.maximum(ends, x), ends)
        return np.where(starts < ends, starts, 0), np.where(starts < ends, ends, 0)
    half = np.sqrt(np.maximum(1 - v**2, 0))
    if shape == "disc":
        return -half, half
    # The barrel's front rim, the same circle: from the direction of `field` it is seen shifted to the other side, so it cuts
    # the outer side of the aperture
    x, y = (-BARREL * f for f in field)
    other = np.sqrt(np.maximum(1 - (v - y) ** 2, 0))
    starts, ends = np.maximum(-half, x - other), np.minimum(half, x + other)
    within = (abs(v) <= 1) & (abs(v - y) <= 1) & (starts < ends)
    return np.where(within, starts, 0), np.where(within, ends, 0)
