"""The embedded domain's camera: it paints surfaces in space and photographs them through a thin lens, in linear light.

- *Micropolygons* (Cook, Carpenter, Catmull, "The Reyes image rendering architecture", 1987): a surface is diced into small
  quadrilaterals, each shaded once from its own normal and painted far to near, 16 samples a pixel.
- *Thin lens, layer by layer*: each object is cut into thin disparity slices, each slice spread over its own circle of confusion
  (a disc or an iris of 5 to 9 blades, turned by 180 degrees before the focal plane), and the objects are laid over one another
  far to near with their spread opacity. A defocused near leaf spills over what is behind it; what is far is cut off by what
  stands before it.
  This shares no method with the model's renderers (a 5x5-view gather; global layers).

Lengths are fractions of the picture width: x to the right, y down, z towards the camera. Disparity is signed, 0 in focus,
larger = nearer, and is the radius of the circle of confusion at aperture scale 1 as a fraction of the picture width.
A thin lens has disparity = k (1/z - 1/z_focus): affine in inverse depth, so planes in space are planes in (x, y, disparity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.color import linear_to_srgb
from argan.meadow.surfaces import Array, Mesh, compiled

NEAREST, FARTHEST = 0.10, -0.10  # disparity range; at 32 px and aperture 1 the far end is a blur of 3.2 px
WIDEST = 1.14  # circumradius of a pentagonal iris over the radius of the disc with its second moment
OVERSCAN = 1 / 8  # drawn beyond each border, for the blur that comes in: above the widest circle (NEAREST x WIDEST)
LENS = 2  # samples per pixel and axis on which blur and occlusion are worked out
EMPTY = -1.0  # disparity of a sample that nothing covers
COARSEN = 4.0  # samples: circles wider than this are worked out on doubled ones, wider than 4 times this on 4 for 1
SLICE = 2.0  # samples of blur between two slices of a layer: a pixel
SLICES = 6  # slices of a layer at most: those of a deep floor are then 1.1 pixels of blur apart at 64 px


def canvas_size(resolution: int) -> int:
    """Pixels along the overscanned picture."""
    return resolution + 2 * math.ceil(resolution * OVERSCAN)


def samples(resolution: int) -> int:
    """Samples per pixel and axis: 16 a pixel up to 128 px; 4 a pixel above, where four times as many pixels cost enough."""
    return 4 if resolution <= 128 else 2


@dataclass(frozen=True)
class Layer:
    """One painted object. radiance (h, w, 4): premultiplied linear RGBA, and disparity (h, w), on the lens samples from
    (top, left); surface: disparity on the fine samples, EMPTY where nothing is."""

    radiance: Array
    disparity: Array
    surface: Array
    top: int
    left: int


def paint(mesh: Mesh, resolution: int, floor: Array | None = None) -> Layer | None:
    """Fill the quads far to near and average to lens samples; None if all are out of the picture.

    floor (S, S, 4), linear RGB and disparity on the lens samples of the whole canvas: what shows where no quad is.
    """
    fine, size, margin = samples(resolution), canvas_size(resolution), math.ceil(resolution * OVERSCAN)
    place, depth = np.empty((len(mesh.corners), 4, 2), np.float32), np.empty(len(mesh.corners), np.float32)
    box = _project(mesh.corners, resolution, margin, place, depth)
    if floor is None:
        # As much beyond the borders as this object's own circle of confusion can bring in.
        edge = max(0, margin - math.ceil(WIDEST * resolution * max(-depth.min(), depth.max())) - 1)
        left, top, right, bottom = (min(max(side, edge), size - edge) for side in box)
        floor = np.empty((0, 0, 4), np.float32)
        if right <= left or bottom <= top:
            return None
    else:
        left, top, right, bottom = 0, 0, size, size
    h, w = (bottom - top) * LENS, (right - left) * LENS
    visible = np.full((h * fine // LENS, w * fine // LENS), -1, np.int32)
    order = np.argsort(depth, kind="stable")
    _fill(place, left, top, fine, order, visible)
    radiance, disparity = np.empty((h, w, 4), np.float32), np.empty((h, w), np.float32)
    surface = np.empty(visible.shape, np.float32)
    if not _average(visible, mesh.colour, depth, floor, radiance, disparity, surface):
        return None
    return Layer(radiance, disparity, surface, top * LENS, left * LENS)


@compiled
def _project(corners: Array, resolution: int, margin: int, place: Array, depth: Array) -> tuple[int, int, int, int]:
    """place (Q, 4, 2): corners in pixels of the overscanned picture; depth (Q,): the mean of a quad. Returns the box around all."""
    left, top, right, bottom = 1e9, 1e9, -1e9, -1e9
    for number in range(len(corners)):
        total = np.float32(0)
        for corner in range(4):
            x = corners[number, corner, 0] * np.float32(resolution) + np.float32(margin)
            y = corners[number, corner, 1] * np.float32(resolution) + np.float32(margin)
            left, top, right, bottom = min(left, x), min(top, y), max(right, x), max(bottom, y)
            place[number, corner, 0], place[number, corner, 1] = x, y
            total += corners[number, corner, 2]
        depth[number] = total / np.float32(4)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


@compiled
def _fill(place: Array, left_edge: int, top_edge: int, fine: int, order: Array, visible: Array) -> None:
    """Write the number of every quad on the samples whose centres it covers, in this order. place (Q, 4, 2), in pixels.

    A quad is two triangles: bent and twisted ones have no other inside. Their borders belong to both, so that none is bare.
    """
    height, width = visible.shape
    for number in order:
        for half in range(2):
            ax, ay = (place[number, 0, 0] - left_edge) * fine, (place[number, 0, 1] - top_edge) * fine
            bx, by = (place[number, 1 + half, 0] - left_edge) * fine, (place[number, 1 + half, 1] - top_edge) * fine
            cx, cy = (place[number, 2 + half, 0] - left_edge) * fine, (place[number, 2 + half, 1] - top_edge) * fine
            turn = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
            if turn == 0:
                continue
            if turn < 0:
                bx, by, cx, cy = cx, cy, bx, by
            first = max(0, math.ceil(min(ay, by, cy) - 0.5))
            last = min(height - 1, math.floor(max(ay, by, cy) - 0.5))
            for y in range(first, last + 1):
                left, right = 0.0, width - 1.0
                for edge in range(3):
                    if edge == 0:
                        px, py, qx, qy = ax, ay, bx, by
                    elif edge == 1:
                        px, py, qx, qy = bx, by, cx, cy
                    else:
                        px, py, qx, qy = cx, cy, ax, ay
                    if qy == py:
                        continue
                    crossing = px + (qx - px) * (y + 0.5 - py) / (qy - py) - 0.5
                    if qy > py:
                        right = min(right, crossing)
                    else:
                        left = max(left, crossing)
                for x in range(math.ceil(left), math.floor(right) + 1):
                    visible[y, x] = number


@compiled
def _average(
    visible: Array, colour: Array, depth: Array, floor: Array, radiance: Array, disparity: Array, surface: Array
) -> bool:
    """Colours and depths of the visible quads (-1: none), averaged to lens samples. False if there are none at all."""
    height, width = disparity.shape
    ratio, seen = len(visible) // height, False
    share = np.float32(1 / ratio**2)
    for y in range(height):
        for x in range(width):
            red, green, blue, deep, count = np.float32(0), np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(y * ratio, (y + 1) * ratio):
                for i in range(x * ratio, (x + 1) * ratio):
                    number = visible[j, i]
                    if number >= 0:
                        red, green, blue = red + colour[number, 0], green + colour[number, 1], blue + colour[number, 2]
                        surface[j, i] = depth[number]
                    elif len(floor):
                        red, green, blue = red + floor[y, x, 0], green + floor[y, x, 1], blue + floor[y, x, 2]
                        surface[j, i] = floor[y, x, 3]
                    else:
                        surface[j, i] = EMPTY
                        continue
                    deep, count = deep + surface[j, i], count + 1
            if count > 0:
                seen = True
            radiance[y, x, 0], radiance[y, x, 1], radiance[y, x, 2] = red * share, green * share, blue * share
            radiance[y, x, 3] = count * share
            disparity[y, x] = deep / max(count, np.float32(1))
    return seen


@dataclass(frozen=True)
class Lens:
    """aperture: true scale 0..1; blades: 0 for a disc. angle (radians, from +x towards +y, down): from the middle of a side to the
    centre of the iris, as the photographer sees it from behind the camera; with 5, 7 or 9 blades a corner lies there."""

    aperture: float
    blades: int = 0
    angle: float = 0.0


@lru_cache(maxsize=256)  # the slices of a photo's layers share their radii
def iris(radius: float, blades: int, angle: float) -> Array:
    """The kernel of a circle of confusion of this radius in samples: a disc, or a polygon with the disc's second moment; sum 1.

    The coverage of a sample by the shape, taken over a sample's width, itself spreads like one sample (variance 1/12 on each axis);
    taking that off the radius (radius^2 / 4 = variance of a disc on each axis) keeps the second moment right.
    """
    inner = math.sqrt(max(radius * radius - 1 / 3, 0.0))
    reach = math.ceil(inner * 1.1) + 1
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    if blades:
        rim = inner * math.sqrt(3 / (2 + math.cos(2 * math.pi / blades)))
        apothem = rim * math.cos(math.pi / blades)
        turns = angle + np.arange(blades) * (2 * math.pi / blades)
        c, s = np.cos(turns, dtype=np.float32)[:, None, None], np.sin(turns, dtype=np.float32)[:, None, None]
        outside = (x * c + y * s).max(0) - apothem
    else:
        outside = np.sqrt(x * x + y * y) - inner
    kernel = np.clip(0.5 - outside, 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def spread(image: Array, radius: float, lens: Lens, near: bool) -> tuple[Array, int]:
    """A layer (h, w, 4) over its circle of confusion: (h + 2g, w + 2g, 4) and g. Behind the focal plane a point becomes the iris
    upright, before it turned by 180 degrees.

    Wide circles are worked out on coarser samples: what is blurred over 8 samples holds nothing that doubled ones would lose.
    """
    coarse = 1
    while radius > COARSEN * coarse**2:  # a doubled sample may lie half a sample off: ever less of the circle
        coarse *= 2
    # Averaging to coarse samples and interpolating back spread by this variance on each axis: take it off the circle (r^2 / 4).
    extra = (coarse**2 - 1) / 12 + (coarse**2 - 1) / 6
    # Of the iris turned by 180 degrees, whose sides lie at `angle`: filter2D correlates, a point becomes the kernel turned
    kernel = iris(math.sqrt(radius * radius - 4 * extra) / coarse, lens.blades, lens.angle + (math.pi if near else 0))
    if kernel.size == 1:
        return image, 0
    height, width = image.shape[:2]
    reach = (kernel.shape[0] // 2 + (coarse > 1)) * coarse
    below, right = reach + -height % coarse, reach + -width % coarse  # whole coarse samples
    image = cv2.copyMakeBorder(image, reach, below, reach, right, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    full = (image.shape[1], image.shape[0])
    if coarse > 1:
        image = cv2.resize(image, (full[0] // coarse, full[1] // coarse), interpolation=cv2.INTER_AREA)
    image = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    if coarse > 1:
        image = cv2.resize(image, full, interpolation=cv2.INTER_LINEAR)
    return image[: height + 2 * reach, : width + 2 * reach], reach


def defocus(layer: Layer, lens: Lens, resolution: int) -> tuple[Array, int]:
    """A layer as the lens shows it, (h + 2g, w + 2g, 4) and g: slices of disparity, each over its own circle of confusion.

    The slices of one object are parts of one surface, so they add up; where they belong to two (a petal before its stem)
    the sum may exceed opaque. A slice fades into the next, so that no seam shows.
    """
    low, high, middle = _range(layer.radiance, layer.disparity)
    blur = lens.aperture * resolution * LENS  # radius in samples per unit of disparity
    if blur * (high - low) < SLICE / 2 or blur * max(abs(low), abs(high)) < 0.5:  # one circle fits all, or none is seen
        return spread(layer.radiance, blur * abs(middle), lens, middle > 0)
    step = max(SLICE / blur, (high - low) / SLICES)
    parts = []
    for k in range(math.floor(low / step), math.ceil(high / step) + 1):
        part = np.empty_like(layer.radiance)
        top, bottom, left, right = _slice(layer.radiance, layer.disparity, k, step, part)
        if bottom > top:
            parts.append((top, left, *spread(part[top:bottom, left:right], blur * abs(k * step), lens, k > 0)))
    grow = max(reach for *_, reach in parts)
    out = np.zeros((layer.radiance.shape[0] + 2 * grow, layer.radiance.shape[1] + 2 * grow, 4), np.float32)
    for y, x, image, reach in parts:
        y, x = y + grow - reach, x + grow - reach
        out[y : y + image.shape[0], x : x + image.shape[1]] += image
    return out, grow


@compiled
def _range(radiance: Array, disparity: Array) -> tuple[float, float, float]:
    """Least, greatest and mean disparity of what is there."""
    low, high, total, count = 1e9, -1e9, 0.0, 0
    for y in range(disparity.shape[0]):
        for x in range(disparity.shape[1]):
            if radiance[y, x, 3] > 0:
                here = disparity[y, x]
                low, high, total, count = min(low, here), max(high, here), total + here, count + 1
    return low, high, total / count


@compiled
def _slice(radiance: Array, disparity: Array, level: int, step: float, out: Array) -> tuple[int, int, int, int]:
    """out: the radiance, by how near its disparity is to level x step (a hat function). Returns the box of what is in it."""
    height, width = disparity.shape
    top, bottom, left, right = height, 0, width, 0
    for y in range(height):
        for x in range(width):
            weight = np.float32(max(1 - abs(disparity[y, x] / step - level), 0.0))
            for k in range(4):
                out[y, x, k] = weight * radiance[y, x, k]
            if out[y, x, 3] > 0:
                top, bottom, left, right = min(top, y), y + 1, min(left, x), max(right, x + 1)
    return top, bottom, left, right


def expose(layers: list[Layer], lens: Lens, resolution: int) -> Array:
    """The linear picture (R, R, 3): layers far to near, each over its circle of confusion, laid 'over' one another."""
    size, margin = canvas_size(resolution) * LENS, math.ceil(resolution * OVERSCAN) * LENS
    film: Array = np.zeros((size, size, 4), np.float32)
    for layer in layers:
        image, grow = defocus(layer, lens, resolution)
        _over(film, image, layer.top - grow, layer.left - grow)
    film = film[margin : size - margin, margin : size - margin]
    film = cv2.resize(film, (resolution, resolution), interpolation=cv2.INTER_AREA)
    return film[..., :3] / np.maximum(film[..., 3:], 1e-3)  # slices of the far surface sum to opaque but for its steps


@compiled
def _over(film: Array, image: Array, top: int, left: int) -> None:
    """image (h, w, 4), premultiplied, over the film at (top, left); what exceeds opaque is brought back to it."""
    height, width = film.shape[:2]
    for y in range(max(0, -top), min(image.shape[0], height - top)):
        for x in range(max(0, -left), min(image.shape[1], width - left)):
            opacity = image[y, x, 3]
            share = 1 / max(opacity, np.float32(1))
            clear = 1 - opacity * share
            for k in range(4):
                film[top + y, left + x, k] = film[top + y, left + x, k] * clear + image[y, x, k] * share


def develop(linear: Array, gain: float) -> NDArray[np.uint8]:
    """Linear radiance to 8-bit sRGB, through a film-like shoulder that keeps highlights from clipping hard."""
    exposed = 1 - np.exp(-gain * np.maximum(linear, 0))
    pixels: NDArray[np.uint8] = np.rint(255 * linear_to_srgb(exposed)).astype(np.uint8)
    return pixels


def surface(layers: list[Layer], resolution: int) -> Array:
    """Exact disparity (R, R) of the nearest surface from the centre of the lens: the mean over a pixel's samples."""
    fine = samples(resolution)
    size, margin = canvas_size(resolution) * fine, math.ceil(resolution * OVERSCAN) * fine
    film: Array = np.empty((size, size), np.float32)
    for layer in layers:
        a, c = layer.top * fine // LENS, layer.left * fine // LENS
        part = film[a : a + layer.surface.shape[0], c : c + layer.surface.shape[1]]
        np.copyto(part, layer.surface, where=layer.surface > EMPTY)
    film = np.ascontiguousarray(film[margin : size - margin, margin : size - margin])
    return cv2.resize(film, (resolution, resolution), interpolation=cv2.INTER_AREA)
