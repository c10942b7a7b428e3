"""Depth of field written the plain way: what `argan.effects.bokeh` is measured against, in speed and in truth.

`scatter` is the textbook's: every pixel becomes a disc, from far to near. `many_views` is the definition: a thousand views
through as many points of the aperture, each a picture in which the nearer hides the farther, averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from argan.color import linear_to_srgb, srgb_to_linear

Float = NDArray[Any]


def linear(photo: Float) -> Float:
    """sRGB in 8 or 16 bits -> light, 0..1."""
    light: Float = srgb_to_linear(photo.astype(np.float32) / np.iinfo(photo.dtype).max)
    return light


def encoded(light: Float) -> Float:
    """Light -> sRGB, 0..1."""
    values: Float = linear_to_srgb(light)
    return values


def scatter(light: Float, radius: Float) -> Float:
    """light (H, W, 3), radius (H, W) in pixels, signed, > 0 before the focal plane -> (H, W, 3). Far to near, one by one."""
    height, width = radius.shape
    total, weight = np.zeros_like(light), np.zeros_like(radius)
    for i in np.argsort(radius, axis=None, kind="stable"):
        y, x = divmod(int(i), width)
        r = abs(float(radius[y, x]))
        top, bottom = max(0, int(y - r)), min(height, int(y + r) + 1)
        left, right = max(0, int(x - r)), min(width, int(x + r) + 1)
        rows, columns = np.ogrid[top:bottom, left:right]
        disc = ((rows - y) ** 2 + (columns - x) ** 2 <= max(r, 0.5) ** 2) / max(np.pi * r * r, 1)
        total[top:bottom, left:right] += disc[..., None] * light[y, x]
        weight[top:bottom, left:right] += disc
    return total / np.maximum(weight, 1e-6)[..., None]


def points(count: int) -> Float:
    """Evenly over the unit disc (Vogel's spiral): (count, 2)."""
    i = np.arange(count) + 0.5
    r, angle = np.sqrt(i / count), i * np.pi * (3 - np.sqrt(5))
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1)


def many_planes(planes: list[tuple[Float, Float, float]], count: int = 1000) -> Float:
    """The truth for a scene of planes (light (H, W, 3), opacity (H, W), radius), from far to near: what each hides is known."""
    total = np.zeros_like(planes[0][0])
    for u in points(count):
        view = np.zeros_like(total)
        for light, opacity, radius in planes:
            shift = -u * radius  # the nearer moves against the lens
            a = _moved(opacity[..., None], shift)
            view = view * (1 - a) + _moved(light * opacity[..., None], shift)
        total += view
    return total / count


def _moved(plane: Float, shift: Float) -> Float:
    """Shifted by (x, y) pixels, bilinear, the border replicated."""
    import cv2

    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    size = (plane.shape[1], plane.shape[0])
    moved = cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(plane.shape)


def many_views(light: Float, radius: Float, count: int = 1000) -> Float:
    """The same where a photograph is all there is: pixels moved with a depth buffer; a hole shows the farther of its sides."""
    total = np.zeros_like(light)
    for u in points(count):
        _add_view(light, radius, -u[0], -u[1], total)
    return total / count


@njit(cache=True)
def _add_view(light: Float, radius: Float, ux: float, uy: float, total: Float) -> None:
    height, width = radius.shape
    depth = np.full((height, width), -np.inf, np.float32)
    source = np.full((height, width), -1, np.int64)
    for y in range(height):
        for x in range(width):
            ty, tx = int(np.floor(y + uy * radius[y, x] + 0.5)), int(np.floor(x + ux * radius[y, x] + 0.5))
            if 0 <= ty < height and 0 <= tx < width and radius[y, x] > depth[ty, tx]:
                depth[ty, tx], source[ty, tx] = radius[y, x], y * width + x
    for y in range(height):
        for x in range(width):
            s = source[y, x]
            if s < 0:
                best = np.float32(np.inf)
                for dy, dx in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                    i, j = y + dy, x + dx
                    while 0 <= i < height and 0 <= j < width and source[i, j] < 0:
                        i, j = i + dy, j + dx
                    if 0 <= i < height and 0 <= j < width and depth[i, j] < best:
                        best, s = depth[i, j], source[i, j]
            for c in range(3):
                total[y, x, c] += light[s // width, s % width, c]
