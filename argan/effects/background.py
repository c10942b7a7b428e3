"""The background continued behind what hides it, compiled: ring by ring from every step of disparity into its nearer side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from argan import jit

Float = NDArray[Any]
Mask = NDArray[np.bool_]

NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0))
SPAN = 3  # pixels around, whose mean is continued
SLACK = 3  # rings beyond the reach of a step
MIRRORED = 0.8  # most that the mirrored background counts, against the mean; a quarter of it in the first ring
PER_RING = 0.2


@jit.compiled()
def extend(
    background: Float, disparity: Float, behind: Float, hidden: Mask, cut: np.float32, reach: np.float32
) -> None:
    """Fills background (H, W, 3) and its disparity, behind (H, W), where `hidden` becomes true.

    Starts as the photo and its disparity. A step is more than `cut` pixels; a ring is at most `reach` times its step away.
    """
    height, width = disparity.shape
    source = np.full((height, width), -1, np.int32)  # the last pixel before the edge
    photo = background.copy()
    queued = np.zeros((height, width), np.bool_)
    ring = _first_ring(disparity, queued, cut)
    distance = 0
    while len(ring) > 0:
        distance += 1
        values = np.empty((len(ring), 4), np.float32)  # disparity and colour of the ring's pixels
        sources = np.empty(len(ring), np.int32)
        for n in range(len(ring)):
            y, x = ring[n]
            limit = disparity[y, x] - cut
            lowest, sources[n] = _nearest_source(y, x, limit, behind, hidden, queued, source)
            if sources[n] < 0 or distance > reach * (disparity[y, x] - lowest) + SLACK:
                sources[n] = -1
                continue
            _mean_around(y, x, limit, lowest + 2 * cut, background, behind, hidden, queued, values[n])
            j, i = 2 * (sources[n] // width) - y, 2 * (sources[n] % width) - x  # mirrored at the edge
            if 0 <= j < height and 0 <= i < width and abs(disparity[j, i] - values[n, 0]) < 2 * cut:  # the same surface
                share = min(MIRRORED, PER_RING * distance)
                for c in range(3):
                    values[n, c + 1] += share * (photo[j, i, c] - values[n, c + 1])
        for n in range(len(ring)):
            y, x = ring[n]
            if sources[n] >= 0:
                hidden[y, x], source[y, x], behind[y, x] = True, sources[n], values[n, 0]
                for c in range(3):
                    background[y, x, c] = values[n, c + 1]
        ring = _next_ring(ring, disparity, behind, hidden, queued, cut)


@jit.compiled()
def _first_ring(disparity: Float, queued: Mask, cut: np.float32) -> list[tuple[int, int]]:
    """The pixels on the nearer side of every step."""
    height, width = disparity.shape
    ring = [(0, 0) for _ in range(0)]
    for y in range(height):
        for x in range(width):
            for dy, dx in NEIGHBOURS:
                j, i = y + dy, x + dx
                if 0 <= j < height and 0 <= i < width and disparity[y, x] - disparity[j, i] > cut and not queued[y, x]:
                    queued[y, x] = True
                    ring.append((y, x))
    return ring


@jit.compiled()
def _next_ring(
    ring: list[tuple[int, int]], disparity: Float, behind: Float, hidden: Mask, queued: Mask, cut: np.float32
) -> list[tuple[int, int]]:
    """The neighbours of a ring that hide the background as well."""
    height, width = disparity.shape
    following = [(0, 0) for _ in range(0)]
    for y, x in ring:
        if not hidden[y, x]:
            continue
        for dy, dx in NEIGHBOURS:
            j, i = y + dy, x + dx
            inside = 0 <= j < height and 0 <= i < width
            if inside and not queued[j, i] and disparity[j, i] - behind[y, x] > cut:
                queued[j, i] = True
                following.append((j, i))
    return following


@jit.compiled()
def _nearest_source(
    y: int, x: int, limit: np.float32, behind: Float, hidden: Mask, queued: Mask, source: NDArray[np.int32]
) -> tuple[np.float32, int]:
    """The lowest disparity around, and the last pixel before the edge of the nearest neighbour on the background; -1 for none."""
    height, width = behind.shape
    lowest, nearest, found = limit, 99, -1
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            j, i = y + dy, x + dx
            if 0 <= j < height and 0 <= i < width and behind[j, i] < limit and (hidden[j, i] or not queued[j, i]):
                lowest = min(lowest, behind[j, i])
                if abs(dy) + abs(dx) < nearest:
                    nearest = abs(dy) + abs(dx)
                    found = source[j, i] if hidden[j, i] else j * width + i
    return lowest, found


@jit.compiled()
def _mean_around(
    y: int,
    x: int,
    limit: np.float32,
    highest: np.float32,
    background: Float,
    behind: Float,
    hidden: Mask,
    queued: Mask,
    out: Float,
) -> None:
    """out (4,) = disparity and colour of the surface around, weighted by the inverse square of the distance."""
    height, width = behind.shape
    total, d, red, green, blue = 0.0, 0.0, 0.0, 0.0, 0.0
    for dy in range(-SPAN, SPAN + 1):
        for dx in range(-SPAN, SPAN + 1):
            j, i = y + dy, x + dx
            inside = 0 <= j < height and 0 <= i < width
            if inside and (hidden[j, i] or not queued[j, i]) and behind[j, i] < limit and behind[j, i] < highest:
                weight = 1.0 / (dy * dy + dx * dx)
                total += weight
                d += weight * behind[j, i]
                red += weight * background[j, i, 0]
                green += weight * background[j, i, 1]
                blue += weight * background[j, i, 2]
    out[0], out[1], out[2], out[3] = d / total, red / total, green / total, blue / total
