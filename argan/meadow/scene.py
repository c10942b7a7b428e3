"""The embedded domain: flower photographs made from a seed, with exact depth that training never sees.

What is before the camera: petals, leaves and stems as curved surfaces in space, which therefore really have relief, hide one
another and come with exact depth; a far surface, flat or slanted, and what lies on it. `camera` photographs it, and says
what lengths and disparities mean.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from argan.meadow.camera import (  # fmt: skip
    FARTHEST,
    LENS,
    OVERSCAN,
    RELIEF,
    Array,
    Lens,
    Light,
    Mesh,
    canvas_size,
    compiled,
    develop,
    dice,
    expose,
    join,
    paint,
    surface,
)

RESOLUTIONS = (32, 256)  # inclusive; below, a petal is less than a pixel; above, nobody has asked
CHUNK = 64  # photos a worker makes at a time: about a second of work, so that cores finish together
FINEST_GRAIN = 61  # cells of the finest texture across the picture: each blurs away at a circle of 1/60 of the width
SMALL = 256  # below this many photos, starting workers takes longer than they save


# ---------------------------------------------------------------------------------------------------------- geometry


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


# ------------------------------------------------------------------------------------------------------------ plants


@dataclass(frozen=True)
class Ring:
    """A whorl of petals. Lengths in flower radii; lift = elevation of the petal above the flower's plane, base to tip, degrees."""

    petals: tuple[int, int]  # fewest, most
    length: float
    width: float  # half width over length; for a wrapped petal, the share of the full turn that it spans
    start: float  # distance of its foot from the axis
    lift: tuple[float, ...]
    wrapped: bool = False  # bent around the axis (a cup) instead of flat across
    broadest: float = 1.0  # 1 = widest in the middle, above = nearer the tip
    blunt: float = 0.6  # below 1 = a round tip


@dataclass(frozen=True)
class Family:
    """Shape of a flower. disc: radius of its heart in flower radii; tilt: least and most, degrees from facing the camera."""

    rings: tuple[Ring, ...]
    disc: float
    tilt: tuple[float, float]
    hues: tuple[float, ...]
    heart: tuple[float, float, float] = (0.13, 0.9, 0.85)  # hue, saturation, value of the disc


FAMILIES: dict[str, Family] = {
    "daisy": Family((Ring((13, 21), 0.75, 0.15, 0.24, (12, -10)),), 0.27, (0, 55), (0.0, 0.12, 0.75, 0.83, 0.92)),
    "sunflower": Family(
        (Ring((15, 19), 0.60, 0.19, 0.40, (8, -8), blunt=0.9), Ring((13, 17), 0.52, 0.19, 0.38, (28, 8), blunt=0.9)),
        0.44, (0, 50), (0.11, 0.13, 0.06), (0.07, 0.7, 0.35),
    ),
    "primrose": Family(
        (Ring((5, 6), 0.92, 0.42, 0.08, (28, -4), broadest=1.5, blunt=0.5),), 0.13, (0, 60), (0.14, 0.62, 0.7, 0.9, 0.97)
    ),
    "dahlia": Family(
        (
            Ring((13, 16), 0.80, 0.17, 0.20, (5, -6)), Ring((12, 14), 0.66, 0.18, 0.16, (28, 14)),
            Ring((9, 11), 0.50, 0.2, 0.10, (50, 38)), Ring((6, 8), 0.34, 0.22, 0.04, (72, 66)),
        ),
        0.06, (0, 50), (0.0, 0.04, 0.08, 0.85, 0.93),
    ),
    "rose": Family(
        (
            Ring((5, 5), 0.82, 0.52, 0.18, (30, 5), broadest=1.3, blunt=0.4),
            Ring((5, 5), 0.72, 0.5, 0.14, (52, 25), broadest=1.3, blunt=0.4),
            Ring((4, 4), 0.62, 0.22, 0.12, (68, 62), True, 1.2, 0.35), Ring((3, 4), 0.5, 0.25, 0.07, (78, 80), True, 1.2, 0.35),
            Ring((3, 3), 0.42, 0.3, 0.03, (84, 95), True, 1.2, 0.35),
        ),
        0.10, (0, 50), (0.0, 0.02, 0.95, 0.11, 0.08),
    ),
    "tulip": Family(
        (Ring((3, 3), 1.75, 0.36, 0.06, (10, 62, 88, 98), True, 0.9, 0.5),
         Ring((3, 3), 1.7, 0.34, 0.04, (10, 66, 90, 100), True, 0.9, 0.5)),
        0.0, (60, 95), (0.0, 0.97, 0.13, 0.8, 0.05),
    ),
    "bell": Family((Ring((5, 6), 1.7, 0.22, 0.05, (0, 75, 84, 30), True, 1.25, 0.4),), 0.0, (60, 130), (0.68, 0.74, 0.8, 0.6)),
    "umbel": Family((), 1.0, (15, 70), (0.15, 0.85, 0.7, 0.95)),
}  # fmt: skip


def steps(length: float, resolution: int, most: int) -> int:
    """How many quads along a length: one every two and a half pixels, an even number, at least two."""
    return 2 * min(max(round(length * resolution / 5), 1), most // 2)


def petals(rng: Generator, ring: Ring, base: Array, tip: Array, radius: float, resolution: int) -> tuple[Array, Array]:
    """Points (P, U, V, 3) and albedo (P, U-1, V-1, 3) of one whorl around +z. Draws the same numbers at every resolution."""
    count = int(rng.integers(ring.petals[0], ring.petals[1] + 1))
    turn = (np.arange(count) + rng.normal(0, 0.10, count) + rng.random()) * (2 * math.pi / count)
    size = ring.length * radius * rng.normal(1, 0.06, count).clip(0.8, 1.15)
    lift = rng.normal(0, math.radians(5), count)
    tone = rng.normal(1, 0.07, count).clip(0.8, 1.2)
    relief = rng.uniform([0.10, 0.0, 1.0, 0.0, 0], [0.3, 0.5, 2.5, 0.08, 2 * math.pi])
    rows = steps(ring.length * radius, resolution, 24)
    columns = steps(2 * ring.width * ring.length * radius, resolution, 16)
    rise = np.interp(unit(rows), unit(len(ring.lift) - 1), np.radians(ring.lift))
    outline = np.array((ring.width, ring.start * radius, ring.broadest, ring.blunt))
    points = np.empty((count, rows + 1, columns + 1, 3), np.float32)
    albedo = np.empty((count, rows, columns, 3), np.float32)
    _petals(turn, size, lift, tone, relief, rise, outline, ring.wrapped, base, tip, points, albedo)
    return points, albedo


@compiled
def _petals(
    turn: Array, size: Array, lift: Array, tone: Array, relief: Array, rise: Array, outline: Array, wrapped: bool,
    base: Array, tip: Array, points: Array, albedo: Array,
) -> None:  # fmt: skip
    """turn, size, lift, tone (P,) of each petal; rise (U,): its elevation on the way; the rest as `petals` draws it."""
    count, rows, columns = albedo.shape[:3]
    twist, cup, veins, ruffle, phase = relief
    width, start, broadest, blunt = outline
    for p in range(count):
        c, s = math.cos(turn[p]), math.sin(turn[p])
        out, up = start, 0.0
        for i in range(rows + 1):
            u = i / rows
            if i:  # along the midrib, by the mean of the two elevations
                before, now = rise[i - 1] + lift[p], rise[i] + lift[p]
                out += size[p] * (math.cos(before) + math.cos(now)) / (2 * rows)
                up += size[p] * (math.sin(before) + math.sin(now)) / (2 * rows)
            profile = max(
                max(math.sin(math.pi * u**broadest), 0.0) ** blunt, 0.3 * (1 - u)
            )  # never a point at the foot
            for j in range(columns + 1):
                v = 2 * j / columns - 1
                if wrapped:
                    bend = turn[p] + math.pi * width * (0.55 + 0.45 * profile) * (1 - 0.75 * u**6) * v
                    far = out * (1 + 0.10 * v * abs(v))  # one edge outside its neighbour, the other inside
                    points[p, i, j, 0], points[p, i, j, 1] = far * math.cos(bend), far * math.sin(bend)
                    points[p, i, j, 2] = up
                else:
                    side = size[p] * width * profile * v
                    wave = ruffle * size[p] * u**2 * math.sin(phase + 5 * v + 3 * turn[p])
                    points[p, i, j, 0], points[p, i, j, 1] = out * c - side * s, out * s + side * c
                    points[p, i, j, 2] = up + twist * side + cup * abs(side * v) + wave
        for i in range(rows):
            along = (i + 0.5) / rows
            mix = along**1.3
            for j in range(columns):
                beside = (2 * j + 1) / columns - 1
                vein = 1 + 0.10 * math.cos(2 * math.pi * veins * beside) * (1 - 0.5 * along)
                for k in range(3):
                    albedo[p, i, j, k] = (base[k] + (tip[k] - base[k]) * mix) * vein * tone[p]


def diamonds(centre: Array, along: Array, width: float | Array) -> Array:
    """One-quad leaves, florets and grains: (P, 2, 2, 3) with long half axis `along` (P, 3), `width` as wide."""
    side = np.stack((-along[:, 1], along[:, 0], along[:, 2] * 0), -1) * np.asarray(width, dtype=np.float32)[..., None]
    return np.stack(
        (np.stack((centre - along, centre + side), 1), np.stack((centre - side, centre + along), 1)), 1
    ).astype(np.float32)


def heart(rng: Generator, radius: float, colour: Array, resolution: int) -> tuple[Array, Array]:
    """The disc of a composite flower: a dome of grains on Vogel's spiral (sunflower phyllotaxis), points and albedo as quads."""
    count = 70
    k = np.arange(count)[::-1] + 0.5
    r, t = radius * np.sqrt(k / count), k * 2.399963  # the golden angle
    z = 0.35 * radius * (1 - (r / radius) ** 2) + 0.02 * radius
    grain = np.stack((r * np.cos(t), r * np.sin(t), z), -1)
    size = radius * 0.21
    along = np.stack((np.cos(t) * size, np.sin(t) * size, -0.6 * r / radius * size), -1)
    tone = (rng.uniform(0.65, 1.25, count) * (0.75 + 0.35 * r / radius))[:, None, None, None]
    return diamonds(grain, along, 0.8), (colour * tone).astype(np.float32)


def florets(rng: Generator, radius: float, colour: Array) -> tuple[Array, Array]:
    """An umbel: small five-petalled flowers over a dome, one quad a petal."""
    count = int(rng.integers(18, 34))
    k = np.arange(count) + 0.5
    r, t = radius * 0.92 * np.sqrt(k / count), k * 2.399963 + rng.normal(0, 0.15, count)
    z = 0.5 * radius * (1 - (r / radius) ** 2) + rng.normal(0, 0.05, count) * radius
    centre = np.repeat(np.stack((r * np.cos(t), r * np.sin(t), z), -1), 5, axis=0)
    size = radius * 0.13 * rng.uniform(0.8, 1.2, (count, 1)).repeat(5, axis=0).ravel()
    turn = np.tile(np.arange(5) * (2 * math.pi / 5), count) + rng.random(count).repeat(5) * 6.3
    along = np.stack((np.cos(turn), np.sin(turn), np.full_like(turn, 0.25)), -1) * size[:, None]
    tone = rng.uniform(0.7, 1.15, (count * 5, 1, 1, 1))
    return diamonds(centre + along, along, 0.62), (colour * tone).astype(np.float32)


def bloom(rng: Generator, name: str, at: Array, radius: float, light: Light, disparity: float, resolution: int) -> Mesh:
    """A flower head of a family at (x, y) with its radius, its axis tilted at random within the family's range."""
    family = FAMILIES[name]
    shade = float(rng.choice(family.hues)) + rng.normal(0, 0.015)
    pale = rng.random() < 0.25  # a quarter of flowers are white or cream
    saturation = rng.uniform(0.03, 0.2) if pale else rng.uniform(0.45, 0.95)
    value = rng.uniform(0.8, 1.0)
    tip = hue(shade, saturation, value)
    base = hue(shade + rng.normal(0, 0.05), min(1.0, saturation * rng.uniform(0.7, 1.4)), value * rng.uniform(0.6, 1.0))
    parts = [petals(rng, ring, base, tip, radius, resolution) for ring in family.rings]
    if name == "umbel":
        parts.append(florets(rng, radius, tip))
    elif family.disc:
        h, s, v = family.heart
        parts.append(
            heart(rng, family.disc * radius, hue(h + rng.normal(0, 0.02), s, v * rng.uniform(0.8, 1.1)), resolution)
        )
    tilt = math.radians(rng.uniform(*family.tilt))
    # Side-on families stand up (or hang, beyond a right angle); the others look anywhere.
    towards = -math.pi / 2 + rng.normal(0, 0.3) if family.tilt[0] >= 60 else rng.uniform(0, 2 * math.pi)
    shift = np.array([at[0], at[1], 0], dtype=np.float32)
    if family.tilt[0] >= 60:  # a cup is placed by its middle, not by its foot
        height = 0.75 * radius
        shift -= turned(np.array([0, 0, height], dtype=np.float32), tilt, towards)
    meshes = [dice(turned(p, tilt, towards) + shift, a, light, disparity) for p, a in parts]
    return join(meshes)


def leaf(
    rng: Generator,
    foot: Array,
    reach: Array,
    width: float,
    light: Light,
    disparity: float,
    resolution: int,
    colour: Array,
) -> Mesh:
    """A lance-shaped leaf from foot (3,) along reach (3,), arched and folded along its midrib."""
    length = float(np.hypot(reach[0], reach[1])) + 1e-6
    sag = rng.uniform(-0.3, 0.3) * length
    across = np.array([-reach[1], reach[0], 0], dtype=np.float32) / length
    middle = foot + 0.5 * reach + sag * across + np.array([0, 0, rng.uniform(0, 0.4) * length])
    rows = steps(length, resolution, 16)
    path = bezier(foot[None], middle[None], (foot + reach)[None], rows)
    u = unit(rows)
    half = (width * np.maximum(lobe(u, 0.8, 0.9), 0.3 * (1 - u)))[None]
    columns = steps(2 * width, resolution, 8)
    points = ribbon(path.astype(np.float32), half, rng.uniform(0.1, 0.6), columns, across[None])
    ribs = 1 + 0.10 * np.cos(np.arange(rows) * (2 * math.pi * 3.5 / rows))[:, None, None] + rng.normal(0, 0.04)
    return dice(points.astype(np.float32), (colour * ribs).astype(np.float32), light, disparity)


def stem(
    rng: Generator,
    head: Array,
    foot: Array,
    width: float,
    light: Light,
    disparity: float,
    end: float,
    resolution: int,
    colour: Array,
) -> Mesh:
    """A round stalk from head (x, y) to foot (x, y); its disparity goes from `disparity` to `end`."""
    a = np.array([head[0], head[1], 0], dtype=np.float32)
    b = np.array([foot[0], foot[1], (end - disparity) / RELIEF], dtype=np.float32)
    middle = (a + b) / 2 + np.array([rng.normal(0, 0.04), 0, 0])
    rows = steps(float(np.hypot(*(b - a)[:2])), resolution // 2, 12)  # nearly straight
    path = bezier(a[None], middle[None], b[None], rows).astype(np.float32)
    points = ribbon(path, np.full((1, rows + 1), width, np.float32), -0.8, 2, np.array([[1, 0, 0]], dtype=np.float32))
    return dice(points, colour * np.array([1.0, 0.75], dtype=np.float32)[:, None], light, disparity - 0.001)


# ------------------------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Scene:
    """floor (S, S, 4): linear RGB and disparity of what lies behind everything, on the overscanned lens samples;
    litter: leaves and highlights lying on it; plants: far to near; gain: exposure."""

    floor: Array
    litter: Mesh
    plants: tuple[Mesh, ...]
    gain: float


def lens(rng: Generator) -> Lens:
    """Apertures from deep to shallow. Most are shallow: blur must still show at 32 px, where a deep one blurs by half a pixel."""
    shallow, middling = rng.uniform(0.6, 1.0), math.exp(rng.uniform(math.log(0.2), math.log(0.6)))
    scale = float(rng.choice([shallow, middling, rng.uniform(0.05, 0.2)], p=[0.55, 0.27, 0.18]))
    return Lens(scale, int(rng.choice([0, 0, 0, 5, 6, 7, 8, 9])), rng.uniform(0, 2 * math.pi))


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
    whole = canvas_size(resolution) / resolution
    return ((np.arange(count, dtype=np.float32) + 0.5) * (whole / count) - (whole - 1) / 2).astype(np.float32)


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


def scene(rng: Generator, resolution: int) -> Scene:
    """Everything before the camera. The random draws do not depend on the resolution; only the dicing does."""
    light = sunlight(rng)
    season = rng.normal(0.27, 0.05)  # hue of the greens
    greens = [hue(season + rng.normal(0, 0.03), rng.uniform(0.35, 0.85), rng.uniform(0.3, 0.75)) for _ in range(4)]
    if rng.random() < 0.3:
        greens.append(hue(rng.uniform(0, 1), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.8)))  # dry leaves, far blossom
    sky = hue(rng.uniform(0.5, 0.65), rng.uniform(0.0, 0.5), rng.uniform(0.7, 1.0))

    # Subjects first: what they cover tells where the floor may come forward.
    many = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    # The main subject as photographers frame it: large, about the middle, yet some 12 % of the width off it.
    # The others are smaller and anywhere. Most subjects are alone: the depth is then mostly theirs.
    radii = np.array([rng.uniform(0.26, 0.50), *rng.uniform(0.13, 0.28, 2)])[:many] * (1.0, 0.9, 0.8)[many - 1]
    heads = np.vstack((np.clip(rng.normal(0.5, 0.10, 2), 0.08, 0.92), rng.uniform(0.05, 0.95, (2, 2))))[:many]
    depths = rng.uniform(-0.005, 0.005, 3)[:many]
    lowest = float((heads[:, 1] + radii).max())

    # Nearly a third of the photos look down on a bed of leaves; the rest are divided between a slanted floor and none in sight.
    kind = rng.choice(["floor", "bed", "wall"], p=[0.35, 0.30, 0.35])
    tilt = rng.uniform(-0.02, 0.02, 2) if kind == "bed" else rng.uniform(-0.012, 0.012, 2)
    backdrop = rng.uniform(-0.075, -0.045) if kind == "bed" else rng.uniform(-0.095, -0.06)
    horizon = rng.uniform(0.0, 0.6)
    focus = max(lowest + 0.03, horizon + 0.25, rng.uniform(0.75, 1.3))
    ground = Ground(backdrop, horizon if kind == "floor" else 2.0, focus, (tilt[0], tilt[1]))

    plants: list[tuple[float, Mesh]] = []

    def flower(name: str, at: Array, radius: float, disparity: float) -> None:
        green = greens[int(rng.integers(0, 4))]
        root = np.array([at[0] + rng.normal(0, 0.08), max(ground.row(disparity), at[1] + 0.2)])
        parts = [
            stem(
                rng,
                at,
                root,
                rng.uniform(0.010, 0.018) * (0.4 + 2 * radius),
                light,
                disparity - 0.002,
                disparity - 0.003,
                resolution,
                green,
            )
        ]
        for _ in range(int(rng.integers(0, 3))):
            along = rng.uniform(0.4, 0.95)
            foot = np.array([*(at + (root - at) * along), -0.08 * radius / 0.25])
            side = rng.choice([-1, 1]) * rng.uniform(0.35, 1.2)
            reach = np.array([math.sin(side), -math.cos(side), rng.uniform(-0.2, 0.3)]) * rng.uniform(0.5, 1.3) * radius
            parts.append(leaf(rng, foot, reach, rng.uniform(0.1, 0.2) * radius, light, disparity, resolution, green))
        parts.append(bloom(rng, name, at, radius, light, disparity, resolution))
        plants.append((disparity, join(parts)))

    def blade(disparity: float, root: Array, reach: Array, width: float) -> None:
        green = greens[int(rng.integers(0, 4))]
        plants.append((disparity, leaf(rng, root, reach, width, light, disparity, resolution, green)))

    names = list(FAMILIES)
    favourite = str(rng.choice(names))
    for at, radius, depth in zip(heads, radii, depths, strict=True):
        flower(favourite if rng.random() < 0.6 else str(rng.choice(names)), at, float(radius), float(depth))
    for _ in range(int(rng.integers(1, 5))):  # mid-ground blooms, between the subject and what is behind it
        disparity = rng.uniform(max(backdrop + 0.012, -0.07), -0.02)
        at = np.array([rng.uniform(-0.05, 1.05), rng.uniform(0.0, 0.95)])
        if ground.horizon < 1:
            at[1] = min(at[1], ground.row(disparity) - 0.08)
        flower(favourite if rng.random() < 0.5 else str(rng.choice(names)), at, rng.uniform(0.06, 0.16), disparity)
    for _ in range(int(rng.integers(1, 5))):  # leaves and blades of grass around, at any depth behind the subject
        disparity = rng.uniform(max(backdrop + 0.012, -0.06), -0.010)
        root = np.array([rng.uniform(-0.1, 1.1), min(ground.row(disparity), 1.1), 0])
        reach = np.array([rng.normal(0, 0.25), -rng.uniform(0.3, 0.9), rng.uniform(-0.1, 0.1)])
        blade(disparity, root, reach, rng.uniform(0.012, 0.06))
    if rng.random() < 0.28:  # something out of focus in front
        for _ in range(int(rng.integers(1, 4))):
            disparity = rng.uniform(0.035, 0.085)
            edge = rng.uniform(0, 2 * math.pi)
            foot = np.array([0.5 + 0.75 * math.cos(edge), 0.5 + 0.75 * math.sin(edge), 0])
            if rng.random() < 0.35:
                at = np.array([0.5 + 0.5 * math.cos(edge), 0.5 + 0.5 * abs(math.sin(edge))])
                plants.append(
                    (disparity, bloom(rng, favourite, at, rng.uniform(0.1, 0.25), light, disparity, resolution))
                )
            else:
                aim = edge + math.pi + rng.normal(0, 0.45)
                reach = np.array([math.cos(aim), math.sin(aim), 0]) * rng.uniform(0.4, 1.1)
                blade(disparity, foot, reach, rng.uniform(0.02, 0.10))
    plants.sort(key=lambda plant: plant[0])
    lit = litter(rng, ground, light, resolution, greens, kind == "bed")
    back = floor(rng, ground, resolution, [greens[0] * rng.uniform(0.2, 0.7), greens[1] * rng.uniform(0.5, 1.2)], sky)
    return Scene(back, lit, tuple(mesh for _, mesh in plants), rng.uniform(1.1, 2.2))


# --------------------------------------------------------------------------------------------------------- photographs


def rngs(index: int, seed: int) -> tuple[Generator, Generator]:
    """Two streams of a photo, from (seed, index) alone: for its lens and for its scene."""
    return tuple(np.random.Generator(np.random.PCG64([seed, index, k])) for k in (0, 1))  # type: ignore[return-value]


def photograph(
    index: int, resolution: int, seed: int, pinhole: bool = False, depth: bool = True
) -> tuple[NDArray[np.uint8], Array | None]:
    """One photo (R, R, 3) and its exact disparity (R, R), or None without `depth`."""
    for_lens, for_scene = rngs(index, seed)
    camera, view = Lens(0.0) if pinhole else lens(for_lens), scene(for_scene, resolution)
    painted = [paint(view.litter, resolution, view.floor), *(paint(plant, resolution) for plant in view.plants)]
    layers = [layer for layer in painted if layer is not None]
    return develop(expose(layers, camera, resolution), view.gain), surface(layers, resolution) if depth else None


def all_in_focus(index: int, resolution: int, seed: int) -> NDArray[np.uint8]:
    """The pinhole picture (R, R, 3) of the same scene, for judging only."""
    check(resolution)
    with one_thread():
        return photograph(index, resolution, seed, pinhole=True, depth=False)[0]


def aperture(index: int, seed: int) -> float:
    """The true aperture scale of a photo, for judging only."""
    return lens(rngs(index, seed)[0]).aperture


def check(resolution: int, count: int = 0) -> None:
    if not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise ValueError(f"meadow: resolution {resolution} is outside {RESOLUTIONS[0]}..{RESOLUTIONS[1]}")
    if count < 0:
        raise ValueError(f"meadow: count {count} is negative")


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread: its pool costs more than it gives on pictures this small, and forks badly."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def chunk(first: int, count: int, resolution: int, seed: int, depth: bool) -> tuple[NDArray[np.uint8], Array | None]:
    """Photos first .. first + count, in this process."""
    photos = np.empty((count, resolution, resolution, 3), np.uint8)
    disparity = np.empty((count, resolution, resolution), np.float32) if depth else None
    with one_thread():
        for i in range(count):
            photos[i], exact = photograph(first + i, resolution, seed, depth=depth)
            if disparity is not None:
                disparity[i] = exact
    return photos, disparity


def photographs(
    count: int, resolution: int, seed: int, *, start: int = 0, depth: bool = True, processes: int | None = None
) -> tuple[NDArray[np.uint8], Array | None]:
    """photos (count, R, R, 3) uint8 sRGB and disparity (count, R, R) float32, or None without `depth`.

    Photo i depends on (seed, start + i) alone, whatever the chunking or the number of processes.
    """
    check(resolution, count)
    workers = min(processes or os.cpu_count() or 1, -(-count // CHUNK), 32)
    if workers <= 1 or (count < SMALL and processes is None):
        return chunk(start, count, resolution, seed, depth)
    photos = np.empty((count, resolution, resolution, 3), np.uint8)
    disparity = np.empty((count, resolution, resolution), np.float32) if depth else None
    firsts = range(0, count, CHUNK)
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to answer
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=quiet) as pool:
        jobs = [pool.submit(chunk, start + a, min(CHUNK, count - a), resolution, seed, depth) for a in firsts]
        try:
            for a, job in zip(firsts, jobs, strict=True):
                part, truth = job.result()
                photos[a : a + len(part)] = part
                if disparity is not None and truth is not None:
                    disparity[a : a + len(part)] = truth
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else it would first make all the others
            raise
    return photos, disparity
