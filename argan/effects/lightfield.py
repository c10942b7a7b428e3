"""The light field of a photograph: what a camera sees from anywhere inside the aperture.

A view from u = (x, y) in [-1, 1]^2 (x right, y down; the same u as in `argan.optics`) shows a point of disparity d, in pixels,
d u away from where the photo shows it: a near point goes left when the camera goes right. Looked up the other way round, one
picture at -u d(x), an edge in front smears over what is behind it; so here every pixel of a view is a ray, followed from the near
end of the scene to the far until it meets a surface: first come, first seen. Rays that pass behind an edge meet the background
as `argan.effects.layers` continues it. There are no holes, and no surface between the two sides of an edge.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan import jit
from argan.effects.layers import CUT, Float, Layers, Pixels, bounded, layers
from argan.errors import UserError

__all__ = ["Field", "aperture_grid", "bounded", "circle", "quilt", "quilt_name", "settled", "sweep", "write_animation"]

Offsets = list[tuple[float, float]]


class Field:
    """A photo and its disparity, prepared once; then any view is one pass of rays. Safe to use from several threads."""

    def __init__(self, photo: Pixels, disparity: Float, strength: float = 1.0) -> None:
        """photo uint8 (H, W, 3); disparity (H, W), fraction of width, larger = nearer; `strength` 1 is the model's full
        aperture. Raises UserError for what does not go together."""
        self.layers: Layers = layers(photo, disparity, strength)
        front = self.layers.disparity
        reach = math.ceil(float(np.abs(front).max()))
        # No ray of a pixel meets anything nearer than what lies within reach of it
        self._nearest = cv2.dilate(front, np.ones((3, 3), np.uint8), iterations=min(reach, max(front.shape)))
        self._farthest = min(float(front.min()), float(self.layers.behind.min()))
        self._cells = _cut_cells(front), _cut_cells(self.layers.behind)

    def view(self, x: float, y: float) -> Pixels:
        """What the camera sees from (x, y), -1 to 1 each; (0, 0) gives the photo exactly. uint8 (H, W, 3)."""
        if not (abs(x) <= 1 and abs(y) <= 1):
            raise UserError(f"a view is within the aperture, -1 to 1; got {x:g}, {y:g}")
        seen = self.layers
        out = seen.photo.copy()
        if x or y:
            _cast(
                seen.photo, seen.disparity, self._cells[0], seen.plate, seen.behind, self._cells[1], self._nearest,
                np.float32(x), np.float32(y), np.float32(self._farthest), np.float32(CUT), out,
            )  # fmt: skip
        return out

    def views(self, offsets: Iterable[tuple[float, float]]) -> Pixels:
        """(V, H, W, 3)."""
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(lambda at: self.view(*at), offsets)))


def settled(disparity: Float, parallax: float = 0.02) -> Float:
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


def write_animation(frames: Pixels, path: Path, milliseconds: int = 50) -> None:
    """frames (F, H, W, 3) as an endless .gif or .webp, or as .mp4 (VP9). Written atomically.

    Raises UserError for another suffix. A GIF has one palette for all frames, so that nothing flickers.
    """
    from argan.files import atomic

    suffix = path.suffix.lower()
    if suffix not in (".gif", ".webp", ".mp4"):
        raise UserError(f"{path}: an animation is .gif, .webp or .mp4")
    if suffix == ".mp4":
        _write_mp4(frames, path, 1000 / milliseconds)
        return
    pages = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    if suffix == ".gif":
        some = frames[:: max(1, len(frames) // 8)]
        sheet = Image.fromarray(np.ascontiguousarray(some.reshape(-1, *frames.shape[2:])))
        palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        pages = [page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for page in pages]
        pages[0].save(content, "GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0, disposal=1)
    else:
        pages[0].save(
            content, "WEBP", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0, quality=85
        )
    with atomic(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _write_mp4(frames: Pixels, path: Path, rate: float) -> None:
    """VP9, the one codec that OpenCV's wheel writes and browsers play. An odd row or column is repeated."""
    import tempfile

    from argan.files import atomic

    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder, atomic(path) as temporary:
        made = Path(folder) / "a.mp4"  # OpenCV tells the container by the name
        size = (frames.shape[2], frames.shape[1])
        writer = cv2.VideoWriter(str(made), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"vp09"), rate, size)
        if not writer.isOpened():
            raise UserError(f"{path}: this OpenCV has no VP9 encoder; write .webp or .gif")
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
        temporary.write_bytes(made.read_bytes())


def _cut_cells(disparity: Float) -> NDArray[np.bool_]:
    """(H, W): whether the square of pixels from here to the lower right lies across an edge."""
    padded = np.pad(disparity, ((0, 1), (0, 1)), mode="edge")
    corners = np.stack([padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]])
    return corners.max(0) - corners.min(0) > CUT


@jit.compiled(fastmath={"contract"})
def _at(plane: Float, cells: NDArray[np.bool_], x: Any, y: Any) -> Any:
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
                d, b = _at(front, front_cells, x, y), _at(back, back_cells, x, y)
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
