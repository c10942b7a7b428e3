"""A meadow: what stands before the camera, composed at random from a seed.

`flowers` and `ground` have the surfaces, `camera` photographs them and defines lengths and disparities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from argan.meadow.camera import Lens
from argan.meadow.curves import hue
from argan.meadow.flowers import FAMILIES, bloom, leaf, stem
from argan.meadow.ground import Ground, floor, litter, sunlight
from argan.meadow.surfaces import Array, Light, Mesh, join


@dataclass(frozen=True)
class MeadowScene:
    """floor (S, S, 4): linear RGB and disparity of what lies behind everything, on the overscanned lens samples;
    litter: leaves and highlights lying on it; plants: far to near; gain: exposure."""

    floor: Array
    litter: Mesh
    plants: tuple[Mesh, ...]
    gain: float


@dataclass(frozen=True)
class Subjects:
    """The blooms in focus: heads (n, 2), their centres; radii (n,); disparities (n,)."""

    heads: Array
    radii: Array
    disparities: Array

    @property
    def lowest(self) -> float:
        """The lowest row they reach."""
        return float((self.heads[:, 1] + self.radii).max())


def draw_lens(rng: Generator) -> Lens:
    """Apertures from deep to shallow. Most are shallow: blur must still show at 32 px, where a deep one blurs by half a pixel."""
    shallow, middling = rng.uniform(0.6, 1.0), math.exp(rng.uniform(math.log(0.2), math.log(0.6)))
    scale = float(rng.choice([shallow, middling, rng.uniform(0.05, 0.2)], p=[0.55, 0.27, 0.18]))
    return Lens(scale, int(rng.choice([0, 0, 0, 5, 6, 7, 8, 9])), rng.uniform(0, 2 * math.pi))


def scene(rng: Generator, resolution: int) -> MeadowScene:
    """Everything in front of the camera. The random draws do not depend on the resolution; only the dicing does."""
    light = sunlight(rng)
    greens, sky = foliage_colours(rng)
    subjects = frame_subjects(rng)  # first: what they cover limits where the floor may come forward
    kind = str(rng.choice(["floor", "bed", "wall"], p=[0.35, 0.30, 0.35]))
    ground = draw_ground(rng, kind, subjects.lowest)
    garden = Garden(rng, resolution, light, ground, greens, str(rng.choice(list(FAMILIES))))
    plants = [*garden.subjects(subjects), *garden.midground(), *garden.grasses(), *garden.foreground()]
    plants.sort(key=lambda plant: plant[0])
    on_floor = litter(rng, ground, light, resolution, greens, kind == "bed")
    colours = [greens[0] * rng.uniform(0.2, 0.7), greens[1] * rng.uniform(0.5, 1.2)]
    background = floor(rng, ground, resolution, colours, sky)
    return MeadowScene(background, on_floor, tuple(mesh for _, mesh in plants), rng.uniform(1.1, 2.2))


def foliage_colours(rng: Generator) -> tuple[list[Array], Array]:
    """Four greens of one season, sometimes a fifth colour of dry leaves or far blossom; the sky."""
    season = rng.normal(0.27, 0.05)  # hue of the greens
    greens = [hue(season + rng.normal(0, 0.03), rng.uniform(0.35, 0.85), rng.uniform(0.3, 0.75)) for _ in range(4)]
    if rng.random() < 0.3:
        greens.append(hue(rng.uniform(0, 1), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.8)))
    return greens, hue(rng.uniform(0.5, 0.65), rng.uniform(0.0, 0.5), rng.uniform(0.7, 1.0))


def frame_subjects(rng: Generator) -> Subjects:
    """One to three blooms, mostly one: the depth is then mostly theirs.

    The main subject as photographers frame it: large, about the middle, yet some 12 % of the width off it. The others are smaller
    and anywhere.
    """
    many = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    radii = np.array([rng.uniform(0.26, 0.50), *rng.uniform(0.13, 0.28, 2)])[:many] * (1.0, 0.9, 0.8)[many - 1]
    heads = np.vstack((np.clip(rng.normal(0.5, 0.10, 2), 0.08, 0.92), rng.uniform(0.05, 0.95, (2, 2))))[:many]
    return Subjects(heads, radii, rng.uniform(-0.005, 0.005, 3)[:many])


def draw_ground(rng: Generator, kind: str, lowest: float) -> Ground:
    """The far surface. Nearly a third of the photos look down on a bed of leaves; of the rest half have a slanted floor, which
    comes into focus below the `lowest` row of the subjects."""
    tilt = rng.uniform(-0.02, 0.02, 2) if kind == "bed" else rng.uniform(-0.012, 0.012, 2)
    backdrop = rng.uniform(-0.075, -0.045) if kind == "bed" else rng.uniform(-0.095, -0.06)
    horizon = rng.uniform(0.0, 0.6)
    focus = max(lowest + 0.03, horizon + 0.25, rng.uniform(0.75, 1.3))
    return Ground(backdrop, horizon if kind == "floor" else 2.0, focus, (tilt[0], tilt[1]))


Plant = tuple[float, Mesh]  # disparity, surfaces


@dataclass(frozen=True)
class Garden:
    """Plants at their depths in one light, over one ground. `favourite`: the family of most of its blooms."""

    rng: Generator
    resolution: int
    light: Light
    ground: Ground
    greens: list[Array]
    favourite: str

    def subjects(self, subjects: Subjects) -> list[Plant]:
        return [
            self._flower(self._family(0.6), at, float(radius), float(disparity))
            for at, radius, disparity in zip(subjects.heads, subjects.radii, subjects.disparities, strict=True)
        ]

    def midground(self) -> list[Plant]:
        """Blooms between the subject and what is behind it."""
        rng, plants = self.rng, []
        for _ in range(int(rng.integers(1, 5))):
            disparity = rng.uniform(max(self.ground.backdrop + 0.012, -0.07), -0.02)
            at = np.array([rng.uniform(-0.05, 1.05), rng.uniform(0.0, 0.95)])
            if self.ground.horizon < 1:
                at[1] = min(at[1], self.ground.row(disparity) - 0.08)
            plants.append(self._flower(self._family(0.5), at, rng.uniform(0.06, 0.16), disparity))
        return plants

    def grasses(self) -> list[Plant]:
        """Leaves and blades of grass around, at any depth behind the subject."""
        rng, plants = self.rng, []
        for _ in range(int(rng.integers(1, 5))):
            disparity = rng.uniform(max(self.ground.backdrop + 0.012, -0.06), -0.010)
            root = np.array([rng.uniform(-0.1, 1.1), min(self.ground.row(disparity), 1.1), 0])
            reach = np.array([rng.normal(0, 0.25), -rng.uniform(0.3, 0.9), rng.uniform(-0.1, 0.1)])
            plants.append(self._blade(disparity, root, reach, rng.uniform(0.012, 0.06)))
        return plants

    def foreground(self) -> list[Plant]:
        """In a quarter of the photos, something out of focus in front: blooms and blades that reach in from the edges."""
        rng, plants = self.rng, []
        if rng.random() >= 0.28:
            return []
        for _ in range(int(rng.integers(1, 4))):
            disparity = rng.uniform(0.035, 0.085)
            edge = rng.uniform(0, 2 * math.pi)
            foot = np.array([0.5 + 0.75 * math.cos(edge), 0.5 + 0.75 * math.sin(edge), 0])
            if rng.random() < 0.35:
                at = np.array([0.5 + 0.5 * math.cos(edge), 0.5 + 0.5 * abs(math.sin(edge))])
                radius = rng.uniform(0.1, 0.25)
                head = bloom(rng, self.favourite, at, radius, self.light, disparity, self.resolution)
                plants.append((disparity, head))
            else:
                aim = edge + math.pi + rng.normal(0, 0.45)
                reach = np.array([math.cos(aim), math.sin(aim), 0]) * rng.uniform(0.4, 1.1)
                plants.append(self._blade(disparity, foot, reach, rng.uniform(0.02, 0.10)))
        return plants

    def _family(self, favoured: float) -> str:
        """The favourite with this probability, else any."""
        return self.favourite if self.rng.random() < favoured else str(self.rng.choice(list(FAMILIES)))

    def _green(self) -> Array:
        return self.greens[int(self.rng.integers(0, 4))]

    def _flower(self, family: str, at: Array, radius: float, disparity: float) -> Plant:
        """A bloom on its stem, with up to two leaves."""
        rng, light, resolution = self.rng, self.light, self.resolution
        green = self._green()
        root = np.array([at[0] + rng.normal(0, 0.08), max(self.ground.row(disparity), at[1] + 0.2)])
        width = rng.uniform(0.010, 0.018) * (0.4 + 2 * radius)
        parts = [stem(rng, at, root, width, light, disparity - 0.002, disparity - 0.003, resolution, green)]
        for _ in range(int(rng.integers(0, 3))):
            along = rng.uniform(0.4, 0.95)
            foot = np.array([*(at + (root - at) * along), -0.08 * radius / 0.25])
            side = rng.choice([-1, 1]) * rng.uniform(0.35, 1.2)
            reach = np.array([math.sin(side), -math.cos(side), rng.uniform(-0.2, 0.3)]) * rng.uniform(0.5, 1.3) * radius
            parts.append(leaf(rng, foot, reach, rng.uniform(0.1, 0.2) * radius, light, disparity, resolution, green))
        parts.append(bloom(rng, family, at, radius, light, disparity, resolution))
        return disparity, join(parts)

    def _blade(self, disparity: float, root: Array, reach: Array, width: float) -> Plant:
        green = self._green()
        return disparity, leaf(self.rng, root, reach, width, self.light, disparity, self.resolution, green)
