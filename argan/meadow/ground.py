"""The far surface: its shape, its texture, and what lies on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from argan.meadow.camera import FARTHEST, LENS, OVERSCAN, canvas_size
from argan.meadow.curves import bezier, lobe, ribbon, unit
from argan.meadow.flowers import diamonds
from argan.meadow.surfaces import Array, Light, Mesh, compiled, dice, join

FINEST_GRAIN = 61  # cells of the finest texture across the picture: each blurs away at a circle of 1/60 of the width


def noise(rng: Generator, cells: tuple[int, ...], size: int, flat: float = 1.0) -> Array:
    """Value noise (size, size) in about -1..1: random grids of so many cells, each finer one half as strong."""
    out = np.zeros((size, size), np.float32)
    for octave, cell in enumerate(cells):
        grid = rng.uniform(-1, 1, (max(2, round(cell * flat)), cell)).astype(np.float32)
        out += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return out


@dataclass(frozen=True)
class Ground:
    """Disparity of the far surface: a backdrop plane, and below the horizon a slanted floor that crosses focus at row `focus`."""

    backdrop: float
    horizon: float  # rows, 0 = top, 1 = bottom; 2 = no floor to be seen
    focus: float
    slope: tuple[float, float]  # tilt of the backdrop, disparity per width in x and y

    def disparity(self, x: Array, y: Array) -> Array:
        """Disparity at columns x and rows y that broadcast together. A plane in space is a plane in disparity."""
        wall = np.clip(self.backdrop + self.slope[0] * (x - 0.5) + self.slope[1] * (y - 0.5), FARTHEST, -0.02)
        if self.horizon > 1:
            return wall.astype(np.float32)
        floor = self.backdrop * (self.focus - y) / (self.focus - self.horizon)
        return np.clip(np.where(y > self.horizon, np.maximum(floor, wall), wall), FARTHEST, 0.025).astype(np.float32)

    def row(self, disparity: float) -> float:
        """The row where something rooted at this disparity leaves the floor (below the picture without a floor)."""
        if self.horizon > 1:
            return 1.3
        return self.focus - disparity / self.backdrop * (self.focus - self.horizon)


def sunlight(rng: Generator) -> Light:
    """The sun anywhere in the upper half of the sky, in front of or a little behind the flowers; warm to neutral."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1, -0.1), rng.uniform(-0.15, 1)])
    warm = rng.uniform(0, 0.12)
    return Light(
        (direction / np.linalg.norm(direction)).astype(np.float32),
        rng.uniform(0.25, 0.6),
        np.array([1 + warm, 1, 1 - warm], np.float32),
    )


def litter(rng: Generator, ground: Ground, light: Light, resolution: int, greens: list[Array], bed: bool) -> Mesh:
    """What the far surface carries: leaves or grass all over (the texture whose loss tells of defocus), and highlights."""
    count = int(rng.integers(70, 110))
    at = rng.uniform(-OVERSCAN, 1 + OVERSCAN, (count, 2))
    upright = ~np.full(count, bed) & (at[:, 1] > ground.horizon)
    turn = np.where(upright, rng.normal(-math.pi / 2, 0.4, count), rng.uniform(0, 2 * math.pi, count))
    length = rng.uniform(0.06, 0.2, count) * (1.3 if bed else 1.0)
    width = length * np.where(upright, rng.uniform(0.03, 0.10, count), rng.uniform(0.12, 0.3, count))
    lift = rng.uniform(-0.1, 0.5, count) * length
    foot = np.stack((at[:, 0], at[:, 1], np.zeros(count)), -1).astype(np.float32)
    ahead = np.stack((np.cos(turn), np.sin(turn), lift / length), -1) * length[:, None]
    across = np.stack((-np.sin(turn), np.cos(turn), np.zeros(count)), -1).astype(np.float32)
    rows = 3 if resolution <= 96 else 6
    path = bezier(
        foot, foot + ahead * 0.5 + across * (rng.normal(0, 0.15, count) * length)[:, None], foot + ahead, rows
    )
    u = unit(rows)
    half = width[:, None] * np.maximum(lobe(u, 0.8, 1.0), 0.1 * (1 - u))
    points = ribbon(path.astype(np.float32), half.astype(np.float32), 0.5, 2, across)
    tone = rng.uniform(0.35, 1.5, count) ** 1.5
    colour = np.array(greens)[rng.integers(0, len(greens), count)] * tone[:, None]
    leaves = dice(points, colour[:, None, None], light, ground.disparity(foot[:, 0], foot[:, 1]) + 0.001)

    sparks = (
        int(rng.integers(5, 40)) if rng.random() < 0.5 else 0
    )  # the sky through leaves, dew: they become bokeh discs
    at = rng.uniform(-OVERSCAN, 1 + OVERSCAN, (40, 2))[:sparks]
    size = rng.uniform(0.003, 0.010, 40)[:sparks]
    radiance = (rng.uniform(2.0, 9.0, (40, 1)) * np.array([1.0, 0.97, 0.85]))[:sparks]
    if not sparks:
        return leaves
    along = np.stack((size, size * 0, size * 0), -1)
    corners = diamonds(np.stack((at[:, 0], at[:, 1], at[:, 0] * 0), -1), along, 1.0).reshape(-1, 4, 3)
    corners[:, :, 2] = ground.disparity(at[:, 0], at[:, 1])[:, None] + 0.002
    return join([leaves, Mesh(corners.astype(np.float32), radiance.astype(np.float32))])


def across_picture(resolution: int, count: int) -> Array:
    """Centres of `count` samples along the overscanned picture, in picture widths: 0 and 1 are the borders."""
    extent = canvas_size(resolution) / resolution
    return ((np.arange(count, dtype=np.float32) + 0.5) * (extent / count) - (extent - 1) / 2).astype(np.float32)


def floor(rng: Generator, ground: Ground, resolution: int, colours: list[Array], sky: Array) -> Array:
    """Colour and disparity (S, S, 4) of the far surface on the lens samples: patches at every scale; upwards, more sky."""
    size = canvas_size(resolution) * LENS
    count = max(size, 2 * FINEST_GRAIN)  # the grain is drawn as finely at 32 px, then averaged
    patches, grain = noise(rng, (4, 11, 31), count), noise(rng, (24, FINEST_GRAIN), count)
    fade, hazy = rng.uniform(0.5, 2.0), rng.random() < 0.6
    haze = 0.8 * np.clip((min(ground.horizon, 0.75) - across_picture(resolution, count)) * fade, 0, 1) * hazy
    colour: Array = np.empty((count, count, 3), np.float32)
    _ground(patches, grain, haze, colours[0], colours[1], sky, colour)
    if count > size:
        colour = cv2.resize(colour, (size, size), interpolation=cv2.INTER_AREA)
    axis = across_picture(resolution, size)
    return np.concatenate((colour, ground.disparity(axis[None, :], axis[:, None])[..., None]), -1)


@compiled
def _ground(patches: Array, grain: Array, haze: Array, dark: Array, light: Array, sky: Array, colour: Array) -> None:
    for y in range(len(haze)):
        for x in range(colour.shape[1]):
            mix = min(max(0.5 + 0.6 * patches[y, x], 0.0), 1.0)
            for k in range(3):
                leafy = (dark[k] + (light[k] - dark[k]) * mix) * (1 + 0.45 * grain[y, x])
                colour[y, x, k] = max(leafy + (sky[k] - leafy) * haze[y], 0.0)
