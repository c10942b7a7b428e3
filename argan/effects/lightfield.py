"""The light field of a photograph: what a camera sees from anywhere inside the aperture.

A view from u = (x, y) in [-1, 1]^2 (x right, y down; the same u as in `argan.optics`) shows a point of disparity d, in pixels,
d u away from where the photo shows it: a near point goes left when the camera goes right. Looked up the other way round, one
picture at -u d(x), an edge in front smears over what is behind it; so here every pixel of a view is a ray, followed from the near
end of the scene to the far until it meets a surface: first come, first seen. Rays that pass behind an edge meet the background
as `argan.effects.layered_depth_image` continues it. There are no holes, and no surface between the two sides of an edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan import jit
from argan.effects.layered_depth_image import CUT, Float, LayeredDepthImage, Pixels, layered_depth_image
from argan.errors import UserError

Offsets = list[tuple[float, float]]


class LightField:
    """A photo and its disparity, prepared once; then any view is one pass of rays. Safe to use from several threads."""

    def __init__(self, photo: Pixels, disparity: Float, strength: float = 1.0) -> None:
        """photo uint8 (H, W, 3); disparity (H, W), fraction of width, larger = nearer; `strength` 1 is the model's full
        aperture. Raises UserError for what does not go together."""
        self.layers: LayeredDepthImage = layered_depth_image(photo, disparity, strength)
        front = self.layers.disparity
        reach = math.ceil(float(np.abs(front).max()))
        # No ray of a pixel meets anything nearer than what lies within reach of it
        self._nearest = cv2.dilate(front, np.ones((3, 3), np.uint8), iterations=min(reach, max(front.shape)))
        self._farthest = min(float(front.min()), float(self.layers.background_disparity.min()))
        self._cells = _edge_cells(front), _edge_cells(self.layers.background_disparity)

    def view(self, x: float, y: float) -> Pixels:
        """What the camera sees from (x, y), -1 to 1 each; (0, 0) gives the photo exactly. uint8 (H, W, 3)."""
        if not (abs(x) <= 1 and abs(y) <= 1):
            raise UserError(f"a view is within the aperture, -1 to 1; got {x:g}, {y:g}")
        seen = self.layers
        out = seen.photo.copy()
        if x or y:
            _cast(
                seen.photo,
                seen.disparity,
                self._cells[0],
                seen.background,
                seen.background_disparity,
                self._cells[1],
                self._nearest,
                np.float32(x),
                np.float32(y),
                np.float32(self._farthest),
                np.float32(CUT),
                out,
            )
        return out

    def views(self, offsets: Iterable[tuple[float, float]]) -> Pixels:
        """(V, H, W, 3)."""
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(lambda at: self.view(*at), offsets)))


def scale_parallax(disparity: Float, parallax: float = 0.02) -> Float:
    """The same scene for looking at: focused on the middle of its depth, and as deep as eyes find pleasant.

    disparity (H, W); afterwards 98 % of it is within +-`parallax`, a fraction of width. A flat scene stays flat.
    """
    if not (math.isfinite(parallax) and 0 <= parallax <= 0.25):
        raise UserError(f"parallax must be between 0 and 0.25 of the width, got {parallax:g}")
    low, high = np.percentile(disparity, [1, 99])
    factor = 2 * parallax / (high - low) if high - low > 1e-4 else 0
    return ((disparity - (low + high) / 2) * factor).astype(np.float32)


def aperture_grid(size: int = 5) -> Offsets:
    """The views of `argan.optics.Aperture`, row by row from the top left."""
    line = np.linspace(-1, 1, size).tolist() if size > 1 else [0.0]
    return [(x, y) for y in line for x in line]


def circle(frames: int = 24) -> Offsets:
    """Once round the rim of the aperture."""
    return [(math.cos(2 * math.pi * k / frames), math.sin(2 * math.pi * k / frames)) for k in range(frames)]


def sweep(views: int) -> Offsets:
    """From the left end of the aperture to the right, as displays without glasses want it."""
    return [(x, 0.0) for x in (np.linspace(-1, 1, views).tolist() if views > 1 else [0.0])]


def quilt(views: Pixels, columns: int, rows: int) -> Pixels:
    """Views (V, H, W, 3), leftmost first, as one picture: the first at the bottom left, the last at the top right.

    Looking Glass's convention (https://docs.lookingglassfactory.com/keyconcepts/quilts).
    """
    v, h, w, c = views.shape
    if v != columns * rows:
        raise UserError(f"a quilt of {columns} x {rows} needs {columns * rows} views, got {v}")
    tiles = views.reshape(rows, columns, h, w, c)[::-1]
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c))


def quilt_name(stem: str, columns: int, rows: int, aspect: float) -> str:
    """The name by which viewers know how a quilt is cut: `aspect` is a view's width over its height."""
    return f"{stem}_qs{columns}x{rows}a{aspect:.4g}.png"


def _edge_cells(disparity: Float) -> NDArray[np.bool_]:
    """(H, W): whether the square of pixels from here to the lower right lies across an edge."""
    padded = np.pad(disparity, ((0, 1), (0, 1)), mode="edge")
    corners = np.stack([padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]])
    return corners.max(0) - corners.min(0) > CUT


@jit.compiled(fastmath={"contract"})
def _disparity_at(plane: Float, cells: NDArray[np.bool_], x: Any, y: Any) -> Any:
    """A disparity map between its pixels: bilinear on a surface, the nearest pixel's at an edge."""
    j, i = int(y), int(x)
    fy, fx = y - np.float32(j), x - np.float32(i)
    if cells[j, i]:
        return plane[j + int(fy > 0.5), i + int(fx > 0.5)]
    j1, i1 = min(j + 1, plane.shape[0] - 1), min(i + 1, plane.shape[1] - 1)
    upper = plane[j, i] + fx * (plane[j, i1] - plane[j, i])
    lower = plane[j1, i] + fx * (plane[j1, i1] - plane[j1, i])
    return upper + fy * (lower - upper)


@jit.compiled(fastmath={"contract"})
def _mirrored(x: Any, last: Any) -> Any:
    """A coordinate brought into 0..last as if the frame went on as its mirror image."""
    x = -x if x < 0 else x
    x = 2 * last - x if x > last else x
    return min(max(x, np.float32(0)), last)


@jit.compiled(fastmath={"contract"})
def _cast(
    photo: Pixels,
    front: Float,
    front_cells: NDArray[np.bool_],
    plate: Pixels,
    back: Float,
    back_cells: NDArray[np.bool_],
    nearest: Float,
    ux: np.float32,
    uy: np.float32,
    farthest: np.float32,
    cut: np.float32,
    out: Pixels,
) -> None:
    """One view. Along the ray of pixel p at disparity t lies the photo's place p + u t, mirrored at the frame."""
    height, width = front.shape
    last_x, last_y, zero = np.float32(width - 1), np.float32(height - 1), np.float32(0)
    step = np.float32(1) / max(abs(ux), abs(uy))  # a pixel at a time
    for row in range(height):
        for column in range(width):
            t = nearest[row, column]
            hit, behind, on_plate, first = t, False, False, True
            g0, h0, d0, b0 = zero, zero, zero, zero
            while True:
                x = _mirrored(np.float32(column) + ux * t, last_x)
                y = _mirrored(np.float32(row) + uy * t, last_y)
                d, b = _disparity_at(front, front_cells, x, y), _disparity_at(back, back_cells, x, y)
                g, h = t - d, t - b
                if g > 0:
                    behind = False
                elif not behind:
                    if first or abs(d - d0) <= cut:  # through a surface, and not past the end of one
                        hit = t if first else t + step * (-g) / (g0 - g)
                        break
                    behind = True
                if behind and h <= 0:
                    on_plate = True
                    hit = t + step * (-h) / (h0 - h) if h0 > 0 and abs(b - b0) <= cut else t
                    break
                if t <= farthest:
                    hit = t
                    break
                g0, h0, d0, b0, first = g, h, d, b, False
                t -= step
            x = _mirrored(np.float32(column) + ux * hit, last_x)
            y = _mirrored(np.float32(row) + uy * hit, last_y)
            j, i = int(y), int(x)
            j1, i1 = min(j + 1, height - 1), min(i + 1, width - 1)
            fy, fx = y - np.float32(j), x - np.float32(i)
            for c in range(3):
                if on_plate:
                    upper = plate[j, i, c] * (1 - fx) + plate[j, i1, c] * fx
                    lower = plate[j1, i, c] * (1 - fx) + plate[j1, i1, c] * fx
                else:
                    upper = photo[j, i, c] * (1 - fx) + photo[j, i1, c] * fx
                    lower = photo[j1, i, c] * (1 - fx) + photo[j1, i1, c] * fx
                out[row, column, c] = np.uint8(upper + fy * (lower - upper) + 0.5)
