"""Plants as surfaces: blooms of several families, their leaves and stems.

Petals, leaves and stems are curved surfaces in space, which therefore have relief, hide one another and come with exact depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from argan.meadow.curves import bezier, hue, lobe, ribbon, turned, unit
from argan.meadow.surfaces import RELIEF, Array, Light, Mesh, compiled, dice, join


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
        0.44,
        (0, 50),
        (0.11, 0.13, 0.06),
        (0.07, 0.7, 0.35),
    ),
    "primrose": Family(
        (Ring((5, 6), 0.92, 0.42, 0.08, (28, -4), broadest=1.5, blunt=0.5),),
        0.13,
        (0, 60),
        (0.14, 0.62, 0.7, 0.9, 0.97),
    ),
    "dahlia": Family(
        (
            Ring((13, 16), 0.80, 0.17, 0.20, (5, -6)),
            Ring((12, 14), 0.66, 0.18, 0.16, (28, 14)),
            Ring((9, 11), 0.50, 0.2, 0.10, (50, 38)),
            Ring((6, 8), 0.34, 0.22, 0.04, (72, 66)),
        ),
        0.06,
        (0, 50),
        (0.0, 0.04, 0.08, 0.85, 0.93),
    ),
    "rose": Family(
        (
            Ring((5, 5), 0.82, 0.52, 0.18, (30, 5), broadest=1.3, blunt=0.4),
            Ring((5, 5), 0.72, 0.5, 0.14, (52, 25), broadest=1.3, blunt=0.4),
            Ring((4, 4), 0.62, 0.22, 0.12, (68, 62), True, 1.2, 0.35),
            Ring((3, 4), 0.5, 0.25, 0.07, (78, 80), True, 1.2, 0.35),
            Ring((3, 3), 0.42, 0.3, 0.03, (84, 95), True, 1.2, 0.35),
        ),
        0.10,
        (0, 50),
        (0.0, 0.02, 0.95, 0.11, 0.08),
    ),
    "tulip": Family(
        (
            Ring((3, 3), 1.75, 0.36, 0.06, (10, 62, 88, 98), True, 0.9, 0.5),
            Ring((3, 3), 1.7, 0.34, 0.04, (10, 66, 90, 100), True, 0.9, 0.5),
        ),
        0.0,
        (60, 95),
        (0.0, 0.97, 0.13, 0.8, 0.05),
    ),
    "bell": Family(
        (Ring((5, 6), 1.7, 0.22, 0.05, (0, 75, 84, 30), True, 1.25, 0.4),), 0.0, (60, 130), (0.68, 0.74, 0.8, 0.6)
    ),
    "umbel": Family((), 1.0, (15, 70), (0.15, 0.85, 0.7, 0.95)),
}


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
    turn: Array,
    size: Array,
    lift: Array,
    tone: Array,
    relief: Array,
    rise: Array,
    outline: Array,
    wrapped: bool,
    base: Array,
    tip: Array,
    points: Array,
    albedo: Array,
) -> None:
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
