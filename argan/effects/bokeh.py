"""Depth of field for a real photograph: at its own size, in linear light, with occlusion.

The scene is cut into layers of equal blur, each pixel shared by its two nearest; a layer's light and coverage are spread by the
shape of the aperture and composited from near to far. A blurred edge in front lets what is behind it be seen; that, hidden from
the camera, is completed from around it. Method: layered depth of field (Scofield 1992; Kraus and Strengert 2007).

The photograph is worked on in tiles, so that memory does not grow with it beyond the photo itself, and a layer is drawn as coarse
as its blur allows, so that a wide blur costs no more than a narrow one. A blur is a sum over the rows of the aperture, each
of which is the difference of two running sums.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.effects.aperture_shape import SHAPES, Shape, tile_kernels
from argan.effects.bokeh_kernels import (
    COARSE,
    ENCODE,
    block_extents,
    blur,
    brighten_highlights,
    collect_background,
    composite_under,
    copy_window,
    decode_table,
    encode,
    fill_gaps,
    layer_positions,
    radius_of,
    running_sums,
    slice_layer,
)
from argan.errors import UserError

Pixels = NDArray[Any]  # uint8 or uint16
Float = NDArray[Any]  # float32 throughout

TILE = 256  # pixels; a multiple of every factor a layer is reduced by
SHARPEST = (
    12.0  # pixels of radius from which a layer is drawn at half the size, at a quarter from twice that, and so on
)
HIGHLIGHT = 4.0  # how bright, white being 1, what a photograph shows as white is taken to be where it is blurred
# The widest blur there is: the radius of a point's image, as a fraction of the frame's diagonal. At aperture 1 a model's whole
# range of disparity (0.3 of the shorter side) stays below it. A point then spreads over a third of the frame or more, so little of
# a picture is left, while time and memory grow with the square of the radius: 2.6 megapixels take 9 s of CPU and 0.5 GB at this
# radius, 28 s and 1.1 GB at twice that.
WIDEST = 0.25


def refocus(
    photo: Pixels,
    disparity: Float,
    aperture: float,
    focus: tuple[float, float] | None = None,
    shape: Shape = "disc",
    highlight: float = HIGHLIGHT,
) -> Pixels:
    """photo uint8 or uint16 (H, W, 3) as an aperture would see it, focused on the pixel `focus` = (x, y) -> the same type.

    disparity (H, W): larger = nearer, fraction of width. A point at disparity d becomes the aperture's shape with a radius of
    aperture * |d - d(focus)| * width pixels. aperture 0 gives the photo itself. focus None is the centre; both numbers within
    0..1 are fractions of width and height. shape: one of SHAPES; a cat's eye is a disc that the lens barrel cuts towards the
    corners; or a convex outline whose farthest corner lies at that radius. Behind the focal plane a point becomes the shape
    upright, as the photographer sees the iris from behind the camera; before it, turned by 180 degrees. highlight: how bright
    clipped white is where it is blurred, 1 for no brighter than it looks. The values are read by sRGB's curve, whatever the
    profile. Raises UserError for an aperture below 0 or not finite, one that blurs by more than WIDEST of the diagonal, a focus
    outside the frame or no such shape.
    """
    height, width = photo.shape[:2]
    if not (math.isfinite(aperture) and aperture >= 0):
        raise UserError(f"aperture must be 0 (closed) or more, got {aperture:g}")
    if isinstance(shape, str) and shape not in SHAPES:
        raise UserError(f"there is no aperture shape '{shape}'; there is: {', '.join(SHAPES)}")
    x, y = focus_pixel(focus, width, height)
    if aperture == 0:
        return photo.copy()
    spread = _defocus_range(disparity, float(disparity[y, x])) * width
    if spread == 0:  # all of it lies in the focal plane
        return photo.copy()
    reach = WIDEST * math.hypot(height, width)
    if aperture * spread > reach:
        raise UserError(
            f"aperture {aperture:g} is too wide: it would blur by {aperture * spread:.3g} pixels, more than {WIDEST:g} of the "
            f"photo's diagonal ({reach:.0f} pixels); the widest for this photo and focus is {_rounded_down(reach / spread):g}"
        )
    level = _layer_map(disparity, float(disparity[y, x]), aperture * width, reach)
    table, largest = decode_table(photo.dtype), np.iinfo(photo.dtype).max
    hidden = _complete_background(photo, level, table)
    result = np.empty_like(photo)
    tiles = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]

    def work(tile: tuple[int, int]) -> None:
        top, left = tile
        view = _render_tile(photo, level, table, hidden, top, left, shape, highlight)
        part = result[top : top + TILE, left : left + TILE]
        if view is None:  # nothing but what is in focus
            part[...] = photo[top : top + TILE, left : left + TILE]
        else:
            encode(view, photo[top : top + TILE, left : left + TILE], part, ENCODE, float(largest))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, tiles))
    return result


def _defocus_range(disparity: Float, focus: float) -> float:
    """The largest difference of disparity from that in focus. Raises UserError for disparity that is not finite."""
    spread = max(float(np.max(disparity)) - focus, focus - float(np.min(disparity)))
    if not math.isfinite(spread):
        raise UserError("disparity must be finite everywhere; it holds NaN or infinity")
    return spread


def _rounded_down(value: float) -> float:
    """To three digits, so that what a message offers is not refused in its turn."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / step) * step


def focus_pixel(focus: tuple[float, float] | None, width: int, height: int) -> tuple[int, int]:
    """The pixel (x, y) that `focus` names. Raises UserError when it is outside the frame."""
    if focus is None:
        return width // 2, height // 2
    x, y = focus
    if 0 <= x <= 1 and 0 <= y <= 1:
        return min(int(x * width), width - 1), min(int(y * height), height - 1)
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"focus {x:g},{y:g} is outside the photo, which is {width} x {height} pixels")
    return int(x), int(y)


def _layer_map(disparity: Float, focus: float, scale: float, reach: float) -> Float:
    """The place (H, W) of every pixel among the layers."""
    height = len(disparity)
    disparity, level = np.asarray(disparity, np.float32), np.empty(disparity.shape, np.float32)

    def band(y: int) -> None:
        first, last = max(0, y - 1), min(height, y + TILE + 1)
        part, square = disparity[first:last], np.ones((3, 3), np.uint8)
        nearest, farthest = cv2.dilate(part, square), cv2.erode(part, square)
        rows = slice(y - first, min(y + TILE, height) - first)
        layer_positions(part[rows], nearest[rows], farthest[rows], focus, scale, reach, level[y : y + TILE])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(band, range(0, height, TILE)))
    return level


def _render_tile(
    photo: Pixels, level: Float, table: Float, hidden: Float, top: int, left: int, shape: Shape, highlight: float
) -> Float | None:
    """Linear light (h, w, 3) of one tile, or None where nothing in it or near it is out of focus."""
    height, width = level.shape
    h, w = min(TILE, height - top), min(TILE, width - left)
    reach = _farthest_layer(level, top, left, h, w)
    if reach == 0:
        return None
    factor = _reduction(radius_of(reach))
    margin = factor * (math.ceil(radius_of(reach) / factor) + 3)
    light = np.empty((h + 2 * margin, w + 2 * margin, 3), np.float32)
    position = np.empty(light.shape[:2], np.float32)
    copy_window(photo, level, table, top - margin, left - margin, light, position)
    bright = light if highlight == 1 else brighten_highlights(light, highlight)
    extent = block_extents(position)
    foreground, background = (np.zeros((h, w, 4), np.float32) for _ in range(2))
    transmittance = np.ones((h, w), np.float32)
    lowest, highest = math.floor(float(position.min())), math.ceil(float(position.max()))
    for k in range(highest, lowest - 1, -1):
        spread = _blur_layer(
            bright if k else light, position, extent, k, margin, h, w, (top, left), (height, width), shape
        )
        if spread is not None:
            composite_under(*spread, foreground if k > 0 else background, transmittance)
    fill_gaps(background, foreground, transmittance, hidden, top, left)
    return background


def _farthest_layer(level: Float, top: int, left: int, h: int, w: int) -> int:
    """The largest |k| of a layer whose blur, from in or around the tile, comes into it; 0 when none does."""
    within = np.abs(level[top : top + h, left : left + w]).max()
    k = math.ceil(float(within) - 1e-3)
    while True:  # what is further off must be blurred the more to matter
        m = math.ceil(radius_of(k + 1)) + 3
        around = level[max(0, top - m) : top + h + m, left - m if left > m else 0 : left + w + m]
        found = math.ceil(float(max(around.max(), -around.min())) - 1e-3)
        if found <= k:
            return k
        k = min(found, k + 4)


def _reduction(radius: float) -> int:
    """By what a layer of this blur is reduced."""
    return 2 << math.floor(math.log2(radius / SHARPEST)) if radius >= SHARPEST else 1


def _blur_layer(
    light: Float,
    position: Float,
    extent: Float,
    k: int,
    margin: int,
    h: int,
    w: int,
    at: tuple[int, int],
    frame: tuple[int, int],
    shape: Shape,
) -> tuple[Float, int, int, int] | None:
    """What layer k puts into a tile: premultiplied light, coverage, and what hides it; its first row and column, reduced as it is;
    by what it is reduced. None for nothing.

    The full canvas would have one pixel more than the tile on every side; only as much of it is made as is not empty.
    """
    radius = radius_of(abs(k))
    factor = _reduction(radius)
    around = factor * (math.ceil(radius / factor) + 2) if k else 1
    layer = np.zeros((-(-(h + 2 * around) // factor), -(-(w + 2 * around) // factor), 5), np.float32)
    first_row, last_row, first_column, last_column = slice_layer(
        light, position, extent, k, margin - around, factor, layer
    )
    if first_row > last_row:
        return None
    if k == 0:
        return layer, 0, 0, 1
    kernels = tile_kernels(shape, radius / factor, at, (h, w), frame, turned=k < 0)
    half = len(kernels[0][0]) // 2
    skip = around // factor - 1
    size = -(-h // factor) + 2, -(-w // factor) + 2  # and one on every side, to interpolate towards
    (top, bottom), (left, right) = (
        (max(low - half - skip - 1, 0), min(high + half - skip + 2, n))
        for low, high, n in ((first_row, last_row, size[0]), (first_column, last_column, size[1]))
    )
    if top >= bottom or left >= right:
        return None
    running_sums(layer[top + skip - half : bottom + skip + half])
    blurred = np.zeros((bottom - top, right - left, 5), np.float32)
    if len(kernels) == 1:
        blur(layer, kernels[0][0], top + skip, left + skip, blurred)
    else:  # the shape changes across the frame: between the four kernels around each place
        down, along = (
            (np.clip((np.arange(low, high) - 0.5) / (n - 2), 0, 1) * (count - 1)).astype(np.float32)
            for low, high, n, count in (
                (top, bottom, size[0], len(kernels)),
                (left, right, size[1], len(kernels[0])),
            )
        )
        for i, row in enumerate(kernels):
            y, share_y = _node_weights(down, i)
            for j, kernel in enumerate(row):
                x, share_x = _node_weights(along, j)
                part = np.zeros((len(share_y), len(share_x), 5), np.float32)
                if part.size:
                    blur(layer, kernel, top + skip + y, left + skip + x, part)
                    blurred[y : y + len(share_y), x : x + len(share_x)] += (
                        part * share_y[:, None, None] * share_x[:, None]
                    )
    return blurred, top, left, factor


def _node_weights(position: Float, node: int) -> tuple[int, Float]:
    """Of places in ascending order, the first whose neighbour `node` is, and what each from there on has of it, linearly."""
    share = 1 - np.abs(position - node)
    first, end = np.searchsorted(position, [node - 1, node + 1], side="right")
    return int(first), np.maximum(share[first:end], 0)


def _complete_background(photo: Pixels, level: Float, table: Float) -> Float:
    """What lies in and behind the focal plane, completed where something before it hides it: (H/16, W/16, 3) linear light."""
    height, width = level.shape
    plate = np.zeros((-(-height // COARSE), -(-width // COARSE), 4), np.float32)
    rows = range(0, len(plate), 16)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda y: collect_background(photo, level, table, y, plate[y : y + 16]), rows))
    plate /= max(float(plate[..., 3].max()), 1e-6)
    return _fill_holes(plate)[..., :3]


def _fill_holes(plate: Float) -> Float:
    """Fill what is uncovered from around it, coarser the wider the hole: push and pull over a pyramid.

    (H, W, 4) premultiplied -> the same, fully covered wherever anything is.
    """
    h, w = plate.shape[:2]
    covered = plate / np.maximum(plate[..., 3:], 1e-3)
    if min(h, w) == 1 or float(covered[..., 3].min()) > 0.999:
        return covered
    half = cv2.resize(covered, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(_fill_holes(half), (w, h), interpolation=cv2.INTER_LINEAR)
    return covered + (1 - covered[..., 3:]) * coarse
