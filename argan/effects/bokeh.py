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
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan import jit
from argan.color import linear_to_srgb, srgb_to_linear
from argan.errors import UserError

Pixels = NDArray[Any]  # uint8 or uint16
Float = NDArray[Any]  # float32 throughout

TILE = 256  # pixels; a multiple of every factor a layer is reduced by
SHARPEST = (
    12.0  # radius, in pixels, from which on a layer is drawn at half the size, at a quarter from twice that, and so on
)
COARSE = 16  # what was hidden is completed at a sixteenth of the size: only blurred edges let it be seen
HIGHLIGHT = 4.0  # how bright, white being 1, what a photograph shows as white is taken to be where it is blurred
SHAPES = ("disc", "cat's eye", *(f"{blades} blades" for blades in range(5, 10)))
# The widest blur there is: the radius of a point's image, as a fraction of the frame's diagonal. At aperture 1 a model's whole
# range of disparity (0.3 of the shorter side) stays below it. A point then spreads over a third of the frame or more, so little of
# a picture is left, while time and memory grow with the square of the radius: 2.6 megapixels take 9 s of CPU and 0.5 GB at this
# radius, 28 s and 1.1 GB at twice that.
WIDEST = 0.25
COLLECTION = "collection"  # the iris that a model's own photographs were taken with; `Model.opening` knows it
Shape = (
    str | tuple[float, ...]
)  # one of SHAPES, or an outline: radii in evenly spaced directions, from +x towards +y (down)

_compiled = jit.compiled(fastmath={"contract", "nnan", "nsz", "reassoc"}, error_model="numpy")


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
    spread = _spread_of(disparity, float(disparity[y, x])) * width
    if spread == 0:  # all of it lies in the focal plane
        return photo.copy()
    reach = WIDEST * math.hypot(height, width)
    if aperture * spread > reach:
        raise UserError(
            f"aperture {aperture:g} is too wide: it would blur by {aperture * spread:.3g} pixels, more than {WIDEST:g} of the "
            f"photo's diagonal ({reach:.0f} pixels); the widest for this photo and focus is {_rounded_down(reach / spread):g}"
        )
    level = _levels(disparity, float(disparity[y, x]), aperture * width, reach)
    table, largest = _decoded(photo.dtype), np.iinfo(photo.dtype).max
    hidden = _hidden(photo, level, table)
    result = np.empty_like(photo)
    tiles = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]

    def work(tile: tuple[int, int]) -> None:
        top, left = tile
        view = _tile(photo, level, table, hidden, top, left, shape, highlight)
        part = result[top : top + TILE, left : left + TILE]
        if view is None:  # nothing but what is in focus
            part[...] = photo[top : top + TILE, left : left + TILE]
        else:
            _encode(view, photo[top : top + TILE, left : left + TILE], part, ENCODE, float(largest))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, tiles))
    return result


def _spread_of(disparity: Float, focus: float) -> float:
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


# ---- Layers ----------------------------------------------------------------------------------------------------------
# Layer k has the radius _radius(|k|): a pixel apart near focus, a quarter of the radius apart beyond LINEAR, where no eye can tell.
# k > 0 lies before the focal plane, k < 0 behind it; a pixel's position among them is a real number.

LINEAR = 4.0
GROWTH = math.log(1 + 1 / LINEAR)


def _radius(k: int) -> float:
    return float(k) if k <= LINEAR else LINEAR * math.exp((k - LINEAR) * GROWTH)


MIXED = 2.0  # pixels of blur within 3 x 3 pixels that tell of an edge


def _levels(disparity: Float, focus: float, scale: float, reach: float) -> Float:
    """The place (H, W) of every pixel among the layers."""
    height = len(disparity)
    disparity, level = np.asarray(disparity, np.float32), np.empty(disparity.shape, np.float32)

    def band(y: int) -> None:
        first, last = max(0, y - 1), min(height, y + TILE + 1)
        part, square = disparity[first:last], np.ones((3, 3), np.uint8)
        nearest, farthest = cv2.dilate(part, square), cv2.erode(part, square)
        rows = slice(y - first, min(y + TILE, height) - first)
        _position(part[rows], nearest[rows], farthest[rows], focus, scale, reach, level[y : y + TILE])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(band, range(0, height, TILE)))
    return level


@_compiled
def _position(
    disparity: Float, nearest: Float, farthest: Float, focus: float, scale: float, reach: float, out: Float
) -> None:
    """A pixel on an edge shows two surfaces; the disparity between theirs, where nothing lies, becomes that of the closer one."""
    mixed = MIXED / scale
    for y in range(disparity.shape[0]):
        for x in range(disparity.shape[1]):
            d, near, far = disparity[y, x], nearest[y, x], farthest[y, x]
            if near - far > mixed:
                d = near if near - d < d - far else far
            r = (d - focus) * scale
            size = min(abs(r), reach)
            if size > LINEAR:
                size = LINEAR + math.log(size / LINEAR) / GROWTH
            out[y, x] = size if r > 0 else -size


def _tile(
    photo: Pixels, level: Float, table: Float, hidden: Float, top: int, left: int, shape: Shape, highlight: float
) -> Float | None:
    """Linear light (h, w, 3) of one tile, or None where nothing in it or near it is out of focus."""
    height, width = level.shape
    h, w = min(TILE, height - top), min(TILE, width - left)
    reach = _reach(level, top, left, h, w)
    if reach == 0:
        return None
    factor = _factor(_radius(reach))
    margin = factor * (math.ceil(_radius(reach) / factor) + 3)
    light = np.empty((h + 2 * margin, w + 2 * margin, 3), np.float32)
    place = np.empty(light.shape[:2], np.float32)
    _window(photo, level, table, top - margin, left - margin, light, place)
    bright = light if highlight == 1 else _brightened(light, highlight)
    extent = _extent(place)
    before, behind = (np.zeros((h, w, 4), np.float32) for _ in range(2))
    room = np.ones((h, w), np.float32)
    lowest, highest = math.floor(float(place.min())), math.ceil(float(place.max()))
    for k in range(highest, lowest - 1, -1):
        spread = _spread(bright if k else light, place, extent, k, margin, h, w, (top, left), (height, width), shape)
        if spread is not None:
            _under(*spread, before if k > 0 else behind, room)
    _finish(behind, before, room, hidden, top, left)
    return behind


def _reach(level: Float, top: int, left: int, h: int, w: int) -> int:
    """The largest |k| of a layer whose blur, from in or around the tile, comes into it; 0 when none does."""
    within = np.abs(level[top : top + h, left : left + w]).max()
    k = math.ceil(float(within) - 1e-3)
    while True:  # what is further off must be blurred the more to matter
        m = math.ceil(_radius(k + 1)) + 3
        around = level[max(0, top - m) : top + h + m, left - m if left > m else 0 : left + w + m]
        found = math.ceil(float(max(around.max(), -around.min())) - 1e-3)
        if found <= k:
            return k
        k = min(found, k + 4)


def _factor(radius: float) -> int:
    """By what a layer of this blur is reduced."""
    return 2 << math.floor(math.log2(radius / SHARPEST)) if radius >= SHARPEST else 1


def _spread(
    light: Float,
    place: Float,
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

    The whole would have one pixel more than the tile on every side; only as much of it is made as is not empty.
    """
    radius = _radius(abs(k))
    factor = _factor(radius)
    around = factor * (math.ceil(radius / factor) + 2) if k else 1
    layer = np.zeros((-(-(h + 2 * around) // factor), -(-(w + 2 * around) // factor), 5), np.float32)
    first_row, last_row, first_column, last_column = _cut_out(light, place, extent, k, margin - around, factor, layer)
    if first_row > last_row:
        return None
    if k == 0:
        return layer, 0, 0, 1
    kernels = _kernels(shape, radius / factor, at, (h, w), frame, turned=k < 0)
    half = len(kernels[0][0]) // 2
    skip = around // factor - 1
    size = -(-h // factor) + 2, -(-w // factor) + 2  # and one on every side, to interpolate towards
    (top, bottom), (left, right) = (
        (max(low - half - skip - 1, 0), min(high + half - skip + 2, n))
        for low, high, n in ((first_row, last_row, size[0]), (first_column, last_column, size[1]))
    )
    if top >= bottom or left >= right:
        return None
    _run(layer[top + skip - half : bottom + skip + half])
    blurred = np.zeros((bottom - top, right - left, 5), np.float32)
    if len(kernels) == 1:
        _blur(layer, kernels[0][0], top + skip, left + skip, blurred)
    else:  # the shape changes across the frame: between the four kernels around each place
        down, along = (
            (np.clip((np.arange(low, high) - 0.5) / (n - 2), 0, 1) * (count - 1)).astype(np.float32)
            for low, high, n, count in (
                (top, bottom, size[0], len(kernels)),
                (left, right, size[1], len(kernels[0])),
            )
        )
        for i, row in enumerate(kernels):
            y, share_y = _share(down, i)
            for j, kernel in enumerate(row):
                x, share_x = _share(along, j)
                part = np.zeros((len(share_y), len(share_x), 5), np.float32)
                if part.size:
                    _blur(layer, kernel, top + skip + y, left + skip + x, part)
                    blurred[y : y + len(share_y), x : x + len(share_x)] += (
                        part * share_y[:, None, None] * share_x[:, None]
                    )
    return blurred, top, left, factor


def _share(place: Float, node: int) -> tuple[int, Float]:
    """Of places in ascending order, the first whose neighbour `node` is, and what each from there on has of it, linearly."""
    share = 1 - np.abs(place - node)
    first, end = np.searchsorted(place, [node - 1, node + 1], side="right")
    return int(first), np.maximum(share[first:end], 0)


@_compiled
def _window(photo: Pixels, level: Float, table: Float, top: int, left: int, light: Float, place: Float) -> None:
    """Light and layer around a tile; beyond the frame, its border."""
    height, width = level.shape
    for y in range(place.shape[0]):
        sy = min(max(top + y, 0), height - 1)
        for x in range(place.shape[1]):
            sx = min(max(left + x, 0), width - 1)
            place[y, x] = level[sy, sx]
            for c in range(3):
                light[y, x, c] = table[photo[sy, sx, c]]


@_compiled
def _brightened(light: Float, highlight: float) -> Float:
    """Clipped highlights as bright as they may have been: a curve that leaves all below 0.8 of white alone."""
    most_gain = np.float32(highlight) - np.float32(1)
    bright = np.empty_like(light)
    for y in range(light.shape[0]):
        for x in range(light.shape[1]):
            least = min(light[y, x, 0], min(light[y, x, 1], light[y, x, 2]))
            most = max(light[y, x, 0], max(light[y, x, 1], light[y, x, 2]))
            t = max(np.float32(0), (np.float32(0.5) * (least + most) - np.float32(0.8)) * np.float32(5))
            gain = np.float32(1) + most_gain * t * t
            for c in range(3):
                bright[y, x, c] = light[y, x, c] * gain
    return bright


BLOCK = 16  # pixels: what of a tile holds nothing of a layer is passed over in such squares


@_compiled
def _extent(place: Float) -> Float:
    """The lowest and the highest place in every block."""
    extent = np.empty((-(-place.shape[0] // BLOCK), -(-place.shape[1] // BLOCK), 2), np.float32)
    extent[..., 0], extent[..., 1] = np.inf, -np.inf
    for y in range(place.shape[0]):
        for x in range(place.shape[1]):
            to = extent[y // BLOCK, x // BLOCK]
            to[0], to[1] = min(to[0], place[y, x]), max(to[1], place[y, x])
    return extent


@_compiled
def _cut_out(
    light: Float, place: Float, extent: Float, k: int, cut: int, factor: int, layer: Float
) -> tuple[int, int, int, int]:
    """layer = light and coverage of the pixels' shares in layer k, and how much of them lies before it, averaged over
    factor x factor pixels. What it covers: first and last row, first and last column; the first is the greater for nothing.

    All but `cut` pixels on every side of light and place.
    """
    one, level = np.float32(1), np.float32(k)
    top, end_y, left, end_x = layer.shape[0], -1, layer.shape[1], -1
    share = one / np.float32(factor * factor)
    shift = round(math.log2(factor))
    bottom, end = place.shape[0] - cut, place.shape[1] - cut
    for by in range(extent.shape[0]):
        for bx in range(extent.shape[1]):
            if extent[by, bx, 1] <= level - one:
                continue
            first, last = max(bx * BLOCK, cut), min(bx * BLOCK + BLOCK, end)
            for y in range(max(by * BLOCK, cut), min(by * BLOCK + BLOCK, bottom)):
                row = layer[(y - cut) >> shift]
                if extent[by, bx, 0] >= level + one:  # wholly before it
                    for x in range(first, last):
                        row[(x - cut) >> shift, 4] += share
                    continue
                for x in range(first, last):
                    nearer = place[y, x] - level
                    if nearer <= -one:
                        continue
                    to = row[(x - cut) >> shift]
                    if nearer > 0:
                        to[4] += share * min(nearer, one)
                    weight = one - abs(nearer)
                    if weight > 0:
                        top, end_y = min(top, (y - cut) >> shift), max(end_y, (y - cut) >> shift)
                        left, end_x = min(left, (x - cut) >> shift), max(end_x, (x - cut) >> shift)
                        weight *= share
                        to[0] += weight * light[y, x, 0]
                        to[1] += weight * light[y, x, 1]
                        to[2] += weight * light[y, x, 2]
                        to[3] += weight
    return top, end_y, left, end_x


@_compiled
def _run(layer: Float) -> None:
    """Running sums along the rows, in place."""
    for y in range(layer.shape[0]):
        row = layer[y].reshape(-1)
        for i in range(5, row.size):
            row[i] += row[i - 5]


@_compiled
def _blur(sums: Float, kernel: Float, top: int, left: int, out: Float) -> None:
    """out += the sums' layer under the kernel, a row (from, to, weight) for every line of it; out's corner is (top, left).

    A correlation: a point of light becomes the kernel turned by 180 degrees.
    The sum from a to b, both inclusive and real, is S(b) - S(a - 1), S interpolated.
    """
    half = len(kernel) // 2
    size = out.shape[1] * 5
    for y in range(out.shape[0]):
        to = out[y].reshape(-1)
        for j in range(len(kernel)):
            start, end, weight = kernel[j, 0], kernel[j, 1], kernel[j, 2]
            if weight == 0:
                continue
            row = sums[y + top + j - half].reshape(-1)
            a, b = math.floor(start), math.floor(end)
            fa, fb = np.float32(start - a), np.float32(end - b)
            wb1, wb0 = weight * fb, weight * (np.float32(1) - fb)
            wa1, wa0 = weight * fa, weight * (np.float32(1) - fa)
            ia, ib = (left + a) * 5, (left + b) * 5
            ra0, ra1 = row[ia : ia + size], row[ia + 5 : ia + 5 + size]
            rb0, rb1 = row[ib : ib + size], row[ib + 5 : ib + 5 + size]
            for i in range(size):
                to[i] += wb0 * rb0[i] + wb1 * rb1[i] - wa0 * ra0[i] - wa1 * ra1[i]


@_compiled
def _under(layer: Float, top: int, left: int, factor: int, plate: Float, room: Float) -> None:
    """plate += the layer, enlarged by factor (bilinear), where there is room under what lies before it.

    How opaque a layer is, is asked of those pixels alone that nothing before it hides: a surface goes on behind the edge in
    front of it, and one that leans through many layers stays closed (their coverages alone, laid `over` one another, would let a
    quarter of what is behind them through).
    """
    zero, one = np.float32(0), np.float32(1)
    part = one / np.float32(factor)
    rows, columns = layer.shape[:2]
    first_y, last_y = _enlarged(top, rows, factor, plate.shape[0])
    first_x, last_x = _enlarged(left, columns, factor, plate.shape[1])
    line = np.empty(columns * 5, np.float32)
    for y in range(first_y, last_y):
        py = (np.float32(y) + np.float32(0.5)) * part + np.float32(0.5)
        iy = int(py)
        fy = py - np.float32(iy)
        upper, lower = layer[iy - top].reshape(-1), layer[iy - top + 1].reshape(-1)
        covered = zero
        for i in range(line.size):
            line[i] = max(zero, upper[i] + fy * (lower[i] - upper[i]))
        for i in range(3, line.size, 5):
            covered += line[i]
        if covered == zero:
            continue
        to = plate[y].reshape(-1)
        for x in range(first_x, last_x):
            px = (np.float32(x) + np.float32(0.5)) * part + np.float32(0.5)
            ix = int(px)
            fx = px - np.float32(ix)
            i, k = (ix - left) * 5, x * 4
            alpha = line[i + 3] + fx * (line[i + 8] - line[i + 3])
            clear = one - line[i + 4] - fx * (line[i + 9] - line[i + 4])
            share = room[y, x] / max(clear, max(alpha, np.float32(0.02)))  # what a fiftieth of the rays saw is seen
            room[y, x] -= share * alpha
            to[k] += share * (line[i] + fx * (line[i + 5] - line[i]))
            to[k + 1] += share * (line[i + 1] + fx * (line[i + 6] - line[i + 1]))
            to[k + 2] += share * (line[i + 2] + fx * (line[i + 7] - line[i + 2]))
            to[k + 3] += share * alpha


@_compiled
def _enlarged(first: int, count: int, factor: int, size: int) -> tuple[int, int]:
    """The pixels, of `size`, that lie between `count` reduced ones from `first` on; a reduced tile begins one outside."""
    low = math.ceil(factor * (first - 0.5) - 0.5)
    return max(low, 0), min(low + factor * (count - 1), size)


@_compiled
def _finish(behind: Float, before: Float, room: Float, hidden: Float, top: int, left: int) -> None:
    """behind = both together, and where they leave room, what nobody sees: more of what is seen behind there, else a guess."""
    zero, one = np.float32(0), np.float32(1)
    last_y, last_x = np.float32(hidden.shape[0] - 1), np.float32(hidden.shape[1] - 1)
    for y in range(behind.shape[0]):
        py = min(max((np.float32(top + y) + np.float32(0.5)) / np.float32(COARSE) - np.float32(0.5), zero), last_y)
        iy = min(int(py), max(hidden.shape[0] - 2, 0))
        fy = py - np.float32(iy)
        jy = min(iy + 1, hidden.shape[0] - 1)
        for x in range(behind.shape[1]):
            seen = behind[y, x, 3]
            known = min(one, seen * np.float32(50))  # what a fiftieth of the rays saw is seen
            more = one + room[y, x] * known / max(seen, np.float32(1e-6))
            left_over = room[y, x] * (one - known)
            for c in range(3):
                behind[y, x, c] = behind[y, x, c] * more + before[y, x, c]
            if left_over > zero:
                px = min(
                    max((np.float32(left + x) + np.float32(0.5)) / np.float32(COARSE) - np.float32(0.5), zero), last_x
                )
                ix = min(int(px), max(hidden.shape[1] - 2, 0))
                fx = px - np.float32(ix)
                jx = min(ix + 1, hidden.shape[1] - 1)
                for c in range(3):
                    upper = (one - fx) * hidden[iy, ix, c] + fx * hidden[iy, jx, c]
                    lower = (one - fx) * hidden[jy, ix, c] + fx * hidden[jy, jx, c]
                    behind[y, x, c] += left_over * ((one - fy) * upper + fy * lower)


def _hidden(photo: Pixels, level: Float, table: Float) -> Float:
    """What lies in and behind the focal plane, completed where something before it hides it: (H/16, W/16, 3) linear light."""
    height, width = level.shape
    plate = np.zeros((-(-height // COARSE), -(-width // COARSE), 4), np.float32)
    rows = range(0, len(plate), 16)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda y: _backdrop(photo, level, table, y, plate[y : y + 16]), rows))
    plate /= max(float(plate[..., 3].max()), 1e-6)
    return _complete(plate)[..., :3]


@_compiled
def _backdrop(photo: Pixels, level: Float, table: Float, first: int, plate: Float) -> None:
    height, width = level.shape
    for y in range(first * COARSE, min((first + plate.shape[0]) * COARSE, height)):
        for x in range(width):
            if level[y, x] < 1:
                to = plate[y // COARSE - first, x // COARSE]
                for c in range(3):
                    to[c] += table[photo[y, x, c]]
                to[3] += np.float32(1)


def _complete(plate: Float) -> Float:
    """Fill what is uncovered from around it, coarser the wider the hole: push and pull over a pyramid.

    (H, W, 4) premultiplied -> the same, fully covered wherever anything is.
    """
    h, w = plate.shape[:2]
    covered = plate / np.maximum(plate[..., 3:], 1e-3)
    if min(h, w) == 1 or float(covered[..., 3].min()) > 0.999:
        return covered
    half = cv2.resize(covered, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(_complete(half), (w, h), interpolation=cv2.INTER_LINEAR)
    return covered + (1 - covered[..., 3:]) * coarse


# ---- Apertures -------------------------------------------------------------------------------------------------------


def _kernels(
    shape: Shape, radius: float, at: tuple[int, int], tile: tuple[int, int], frame: tuple[int, int], turned: bool
) -> list[list[Float]]:
    """The aperture at a tile: one kernel, or a grid of them, from corner to corner, where the shape changes across the frame."""
    if shape != "cat's eye":
        return [[_kernel(shape, radius, (0.0, 0.0), turned)]]
    (top, left), (h, w), (height, width) = at, tile, frame
    half = math.hypot(height, width) / 2
    # Of two neighbours the rim of the barrel lies a sixth of the radius apart at most: mixed, they look like the one between them
    down, along = (max(1, math.ceil(4 * length / half)) for length in (h, w))
    places = [[(left + w * j / along, top + h * i / down) for j in range(along + 1)] for i in range(down + 1)]
    return [
        [_kernel(shape, radius, ((x - width / 2) / half, (y - height / 2) / half), turned) for x, y in row]
        for row in places
    ]


@lru_cache(4096)
def _kernel(shape: Shape, radius: float, field: tuple[float, float], turned: bool) -> Float:
    """Its lines from top to bottom, (first column - 1, last column, weight), the weights such that the whole sums to 1.

    field: where in the frame, the corners at a distance of 1. The aperture as the photographer sees it, or turned by 180 degrees.
    `_blur` correlates, so `turned` belongs behind the focal plane, where a point of light is the aperture upright.
    """
    fine = 8  # lines of a line
    half = math.ceil(radius)
    v = ((np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5) / radius
    starts, ends = _chords(shape, -v if turned else v, field)
    if turned:
        starts, ends = -ends, -starts
    length = np.maximum(ends - starts, 0).reshape(-1, fine)
    middle = ((starts + ends) / 2).reshape(-1, fine)
    # A line that the aperture covers in part, as at a straight side, is as long as where it is covered, and weighs less
    covered = (length > 0).mean(1)
    reach = length.sum(1) / np.maximum(covered * fine, 1) / 2
    centre = (middle * length).sum(1) / np.maximum(length.sum(1), 1e-9)
    kernel = np.stack([(centre - reach) * radius - 0.5, (centre + reach) * radius - 0.5, covered], 1)
    return (kernel * [1, 1, 1 / max((2 * reach * covered * radius).sum(), 1e-9)]).astype(np.float32)


def _chords(shape: Shape, v: Float, field: tuple[float, float]) -> tuple[Float, Float]:
    """Where the lines at heights v (down) enter and leave the aperture, which fits into the unit circle, as the photographer
    sees it from behind the camera."""
    if not isinstance(shape, str) or shape.endswith("blades"):
        if isinstance(shape, str):
            n = int(shape.split()[0])
            angle, far = (
                2 * np.pi * (np.arange(n + 1) + 0.5) / n + np.pi / 2,
                np.ones(n + 1),
            )  # a side lies at the bottom
        else:
            angle = 2 * np.pi * np.arange(len(shape) + 1) / len(shape)
            far = np.array([*shape, shape[0]]) / max(shape)
        px, py = far * np.cos(angle), far * np.sin(angle)
        starts, ends = np.full_like(v, np.inf), np.full_like(v, -np.inf)
        for x0, y0, x1, y1 in zip(px[:-1], py[:-1], px[1:], py[1:], strict=True):
            crossed = (np.minimum(y0, y1) <= v) & (v <= np.maximum(y0, y1)) & (y0 != y1)
            x = x0 + (v - y0) / (y1 - y0 if y0 != y1 else 1.0) * (x1 - x0)
            starts = np.where(crossed, np.minimum(starts, x), starts)
            ends = np.where(crossed, np.maximum(ends, x), ends)
        return np.where(starts < ends, starts, 0), np.where(starts < ends, ends, 0)
    half = np.sqrt(np.maximum(1 - v**2, 0))
    if shape == "disc":
        return -half, half
    # The barrel's front rim, the same circle: from the direction of `field` it is seen shifted to the other side, so it cuts
    # the outer side of the aperture
    x, y = (-0.7 * f for f in field)
    other = np.sqrt(np.maximum(1 - (v - y) ** 2, 0))
    starts, ends = np.maximum(-half, x - other), np.minimum(half, x + other)
    within = (abs(v) <= 1) & (abs(v - y) <= 1) & (starts < ends)
    return np.where(within, starts, 0), np.where(within, ends, 0)


# ---- Light -----------------------------------------------------------------------------------------------------------


@lru_cache
def _decoded(kind: np.dtype[Any]) -> Float:
    """Light, 0..1, of each value of this type."""
    levels = np.iinfo(kind).max
    light: Float = srgb_to_linear(np.arange(levels + 1) / levels).astype(np.float32)
    return light


_STEPS = 65536
# sRGB values by the square root of light, in which they are nearly linear
ENCODE = linear_to_srgb((np.arange(_STEPS + 2) / _STEPS) ** 2).astype(np.float32)


@_compiled
def _encode(light: Float, photo: Pixels, out: Pixels, table: Float, largest: float) -> None:
    """Linear light -> sRGB, rounded to the photo's type."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                root = math.sqrt(min(max(light[y, x, c], np.float32(0)), np.float32(1))) * np.float32(_STEPS)
                i = int(root)
                value = table[i] + (root - np.float32(i)) * (table[i + 1] - table[i])
                out[y, x, c] = int(value * np.float32(largest) + np.float32(0.5))
