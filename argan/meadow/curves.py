"""Curves, ribbons and colours that plants are made of."""

from __future__ import annotations

import math

import numpy as np

from argan.meadow.surfaces import Array


def hue(h: float, saturation: float, value: float) -> Array:
    """Linear RGB (3,) of a colour picked as hue, saturation, value in display space, each 0..1."""
    ramp = (min(max(abs((6 * h + shift) % 6 - 3) - 1, 0), 1) for shift in (0, 4, 2))
    return np.array([(value * (1 - saturation + saturation * x)) ** 2.2 for x in ramp], np.float32)


def unit(steps: int) -> Array:
    """0, 1/steps, ... 1."""
    return np.arange(steps + 1, dtype=np.float32) / np.float32(steps)


def lobe(u: Array, broadest: float, blunt: float) -> Array:
    """Outline of a petal or leaf, half width 0..1 at u along it: widest past the middle for broadest > 1, round for blunt < 1."""
    return np.maximum(np.sin(np.float32(math.pi) * u**broadest), 0) ** blunt


def turned(points: Array, tilt: float, towards: float) -> Array:
    """Points of a plant whose axis was +z, with the axis now `tilt` radians from the viewer, leaning `towards` an angle."""
    c, s = math.cos(tilt), math.sin(tilt)
    a, b = math.cos(towards), math.sin(towards)
    matrix = np.array(
        [[a * a * c + b * b, a * b * (c - 1), a * s], [a * b * (c - 1), b * b * c + a * a, b * s], [-a * s, -b * s, c]]
    )
    return (points.reshape(-1, 3) @ matrix.T.astype(np.float32)).reshape(points.shape)


def ribbon(path: Array, width: Array, fold: float, columns: int, across: Array) -> Array:
    """Surfaces (P, U, columns+1, 3) along paths (P, U, 3), half as wide as width (P, U); `across` (P, 3) is the sideways direction.

    `fold` lifts the edges above the midrib, as a share of the half width: a leaf or a blade of grass is a gutter.
    """
    v = 2 * unit(columns) - 1
    out = path[:, :, None, :] + (width[:, :, None] * v)[..., None] * across[:, None, None, :]
    out[..., 2] += fold * width[:, :, None] * np.abs(v)
    return out


def bezier(start: Array, middle: Array, end: Array, steps: int) -> Array:
    """Quadratic curves (P, steps+1, 3) from three control points (P, 3)."""
    t = unit(steps)[None, :, None]
    return (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * middle[:, None] + t**2 * end[:, None]
