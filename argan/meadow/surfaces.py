"""Surfaces in space, diced into shaded micropolygons (Cook, Carpenter, Catmull, "The Reyes image rendering architecture", 1987).

Lengths are fractions of the picture width: x to the right, y down, z towards the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from argan import jit

Array = NDArray[Any]  # float32; OpenCV's type hints promise less

RELIEF = 0.035  # disparity per width of depth: a bloom half a frame wide, tilted 45 degrees, spans +-0.006

compiled = jit.compiled(error_model="numpy")


@dataclass(frozen=True)
class Mesh:
    """Micropolygons. corners (Q, 4, 3): x, y, disparity; colour (Q, 3): linear radiance, white = 1."""

    corners: Array
    colour: Array


@dataclass(frozen=True)
class Light:
    """Sunlight from one direction (unit vector, towards the sun) and a share of even skylight; colour of the sun (3,)."""

    direction: Array
    sky: float
    colour: Array


def join(meshes: list[Mesh]) -> Mesh:
    return Mesh(np.concatenate([m.corners for m in meshes]), np.concatenate([m.colour for m in meshes]))


def dice(points: Array, albedo: Array, light: Light, disparity: float | Array) -> Mesh:
    """Shaded quads of a stack of surfaces: points (P, U, V, 3), albedo broadcasting to (P, U-1, V-1, 3), disparity of z = 0.

    Petals and leaves are thin: from the side away from the sun they show what shines through, about half.
    """
    count, rows, columns = points.shape[0], points.shape[1] - 1, points.shape[2] - 1
    corners, colour = (
        np.empty((count, rows, columns, 4, 3), np.float32),
        np.empty((count, rows, columns, 3), np.float32),
    )
    colour[:] = albedo
    level = np.empty(count, np.float32)
    level[:] = disparity
    _dice(points, level, light.direction, light.sky, light.colour, corners, colour)
    return Mesh(corners.reshape(-1, 4, 3), colour.reshape(-1, 3))


@compiled
def _dice(points: Array, level: Array, sun: Array, sky: float, tint: Array, corners: Array, colour: Array) -> None:
    """Writes the corners, and turns colour from albedo into radiance."""
    surfaces, rows, columns = colour.shape[:3]
    for s in range(surfaces):
        for i in range(rows):
            for j in range(columns):
                quad = corners[s, i, j]
                for axis in range(3):
                    quad[0, axis], quad[1, axis] = points[s, i, j, axis], points[s, i + 1, j, axis]
                    quad[2, axis], quad[3, axis] = points[s, i + 1, j + 1, axis], points[s, i, j + 1, axis]
                px, py, pz = quad[2, 0] - quad[0, 0], quad[2, 1] - quad[0, 1], quad[2, 2] - quad[0, 2]  # the diagonals
                qx, qy, qz = quad[3, 0] - quad[1, 0], quad[3, 1] - quad[1, 1], quad[3, 2] - quad[1, 2]
                nx, ny, nz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
                facing = (nx * sun[0] + ny * sun[1] + nz * sun[2]) / (math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
                lit = abs(facing) * (1.0 if facing * nz > 0 else 0.5)
                shade = sky + (1 - sky) * 1.3 * lit
                for k in range(3):
                    colour[s, i, j, k] *= shade * tint[k]
                for corner in range(4):
                    quad[corner, 2] = level[s] + RELIEF * quad[corner, 2]
