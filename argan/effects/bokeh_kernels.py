"""The inner loops of `argan.effects.bokeh`, compiled.

Layer k has the radius radius_of(|k|): a pixel apart near focus, a quarter of the radius apart beyond LINEAR, where no eye can
tell. k > 0 lies in front of the focal plane, k < 0 behind it; a pixel's position among them is a real number.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from argan import jit
from argan.color import linear_to_srgb, srgb_to_linear

Pixels = NDArray[Any]  # uint8 or uint16
Float = NDArray[Any]  # float32 throughout

LINEAR = 4.0  # pixels of radius up to which layers are a pixel apart
GROWTH = math.log(1 + 1 / LINEAR)
EDGE_BLUR = 2.0  # pixels of blur within 3 x 3 pixels that tell of an edge
BLOCK = 16  # pixels: blocks of a tile that hold nothing of a layer are skipped
COARSE = 16  # what was hidden is completed at a sixteenth of the size: only blurred edges let it be seen

_compiled = jit.compiled(fastmath={"contract", "nnan", "nsz", "reassoc"}, error_model="numpy")


def radius_of(k: int) -> float:
    """The blur of layer k >= 0, in pixels."""
    return float(k) if k <= LINEAR else LINEAR * math.exp((k - LINEAR) * GROWTH)


@_compiled
def layer_positions(
    disparity: Float, nearest: Float, farthest: Float, focus: float, scale: float, reach: float, out: Float
) -> None:
    """A pixel on an edge shows two surfaces; the disparity between theirs, where nothing lies, becomes that of the closer one."""
    edge = EDGE_BLUR / scale
    for y in range(disparity.shape[0]):
        for x in range(disparity.shape[1]):
            d, near, far = disparity[y, x], nearest[y, x], farthest[y, x]
            if near - far > edge:
                d = near if near - d < d - far else far
            r = (d - focus) * scale
            size = min(abs(r), reach)
            if size > LINEAR:
                size = LINEAR + math.log(size / LINEAR) / GROWTH
            out[y, x] = size if r > 0 else -size


@_compiled
def copy_window(photo: Pixels, level: Float, table: Float, top: int, left: int, light: Float, position: Float) -> None:
    """Light and layer around a tile; beyond the frame, its border."""
    height, width = level.shape
    for y in range(position.shape[0]):
        sy = min(max(top + y, 0), height - 1)
        for x in range(position.shape[1]):
            sx = min(max(left + x, 0), width - 1)
            position[y, x] = level[sy, sx]
            for c in range(3):
                light[y, x, c] = table[photo[sy, sx, c]]


@_compiled
def brighten_highlights(light: Float, highlight: float) -> Float:
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


@_compiled
def block_extents(position: Float) -> Float:
    """The lowest and the highest place in every block."""
    extent = np.empty((-(-position.shape[0] // BLOCK), -(-position.shape[1] // BLOCK), 2), np.float32)
    extent[..., 0], extent[..., 1] = np.inf, -np.inf
    for y in range(position.shape[0]):
        for x in range(position.shape[1]):
            to = extent[y // BLOCK, x // BLOCK]
            to[0], to[1] = min(to[0], position[y, x]), max(to[1], position[y, x])
    return extent


@_compiled
def slice_layer(
    light: Float, position: Float, extent: Float, k: int, cut: int, factor: int, layer: Float
) -> tuple[int, int, int, int]:
    """layer = light and coverage of the pixels' shares in layer k, and how much of them lies before it, averaged over
    factor x factor pixels. What it covers: first and last row, first and last column; the first is the greater for nothing.

    All but `cut` pixels on every side of light and place.
    """
    one, level = np.float32(1), np.float32(k)
    top, end_y, left, end_x = layer.shape[0], -1, layer.shape[1], -1
    share = one / np.float32(factor * factor)
    shift = round(math.log2(factor))
    bottom, end = position.shape[0] - cut, position.shape[1] - cut
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
                    nearer = position[y, x] - level
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
def running_sums(layer: Float) -> None:
    """Running sums along the rows, in place."""
    for y in range(layer.shape[0]):
        row = layer[y].reshape(-1)
        for i in range(5, row.size):
            row[i] += row[i - 5]


@_compiled
def blur(sums: Float, kernel: Float, top: int, left: int, out: Float) -> None:
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
def composite_under(layer: Float, top: int, left: int, factor: int, plate: Float, transmittance: Float) -> None:
    """plate += the layer, enlarged by factor (bilinear), where light comes through from under the nearer layers.

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
            share = transmittance[y, x] / max(
                clear, max(alpha, np.float32(0.02))
            )  # what a fiftieth of the rays saw is seen
            transmittance[y, x] -= share * alpha
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
def fill_gaps(background: Float, foreground: Float, transmittance: Float, hidden: Float, top: int, left: int) -> None:
    """background = both together, and where they leave room, what nobody sees: more of what is seen behind there, else a guess."""
    zero, one = np.float32(0), np.float32(1)
    last_y, last_x = np.float32(hidden.shape[0] - 1), np.float32(hidden.shape[1] - 1)
    for y in range(background.shape[0]):
        py = min(max((np.float32(top + y) + np.float32(0.5)) / np.float32(COARSE) - np.float32(0.5), zero), last_y)
        iy = min(int(py), max(hidden.shape[0] - 2, 0))
        fy = py - np.float32(iy)
        jy = min(iy + 1, hidden.shape[0] - 1)
        for x in range(background.shape[1]):
            seen = background[y, x, 3]
            known = min(one, seen * np.float32(50))  # what a fiftieth of the rays saw is seen
            more = one + transmittance[y, x] * known / max(seen, np.float32(1e-6))
            left_over = transmittance[y, x] * (one - known)
            for c in range(3):
                background[y, x, c] = background[y, x, c] * more + foreground[y, x, c]
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
                    background[y, x, c] += left_over * ((one - fy) * upper + fy * lower)


@_compiled
def collect_background(photo: Pixels, level: Float, table: Float, first: int, plate: Float) -> None:
    height, width = level.shape
    for y in range(first * COARSE, min((first + plate.shape[0]) * COARSE, height)):
        for x in range(width):
            if level[y, x] < 1:
                to = plate[y // COARSE - first, x // COARSE]
                for c in range(3):
                    to[c] += table[photo[y, x, c]]
                to[3] += np.float32(1)


@lru_cache
def decode_table(kind: np.dtype[Any]) -> Float:
    """Light, 0..1, of each value of this type."""
    levels = np.iinfo(kind).max
    light: Float = srgb_to_linear(np.arange(levels + 1) / levels).astype(np.float32)
    return light


_STEPS = 65536
# sRGB values by the square root of light, in which they are nearly linear
ENCODE = linear_to_srgb((np.arange(_STEPS + 2) / _STEPS) ** 2).astype(np.float32)


@_compiled
def encode(light: Float, photo: Pixels, out: Pixels, table: Float, largest: float) -> None:
    """Linear light -> sRGB, rounded to the photo's type."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                root = math.sqrt(min(max(light[y, x, c], np.float32(0)), np.float32(1))) * np.float32(_STEPS)
                i = int(root)
                value = table[i] + (root - np.float32(i)) * (table[i + 1] - table[i])
                out[y, x, c] = int(value * np.float32(largest) + np.float32(0.5))
