"""The gather of `argan.optics.rendering` on a CPU, compiled: a view at a time, forward and backward, and nothing kept between.

torch builds a grid of positions for every view and looks it up anew; here loops simple enough to become vector instructions do
both at once. An image is worked on by one thread, in one order: the result does not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from argan import jit
from argan.optics import lanes
from argan.optics.lanes import LANES

Array = NDArray[Any]

# A product may be fused with a sum; nothing else is reordered, and NaN and infinity keep their meaning.
_compiled = jit.compiled(fastmath={"contract"}, error_model="numpy")

BAND = 2048  # pixels, in whole rows, that all views look up before the next: what is noted of them stays in the cache

# An index is unsigned all through: numba would count a negative one from the end, and asking costs more than looking up.


@_compiled
def _place(u: Array, shift: Array, top: int, width: int, height: int, at: Array, right: Array, down: Array) -> None:
    """Where every pixel looks, x + u shift(x): the index of the upper left tap, the parts towards its neighbours.

    shift: of whole rows from `top` on. u: pixels per unit of shift, (2,). A position outside is brought to the border; one
    that is no number, to the first.
    """
    real = shift.dtype.type
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    stride, last_column, last_line = np.int32(width), np.int32(max(width - 2, 0)), np.int32(max(height - 2, 0))
    u_x, u_y = u[0], u[1]
    for y in range(shift.size // width):
        row, start = real(top + y), np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], row + u_y * shift[k]
            px, py = px if px > zero else zero, py if py > zero else zero
            px, py = px if px < last_x else last_x, py if py < last_y else last_y
            column, line = min(np.int32(px), last_column), min(np.int32(py), last_line)
            at[k] = line * stride + column
            right[k], down[k] = px - real(column), py - real(line)


@_compiled
def _freedom(u: Array, shift: Array, top: int, width: int, height: int, free_x: Array, free_y: Array) -> None:
    """d position / d shift of `_place`: u, and 0 in a direction in which the position was brought to the border."""
    real = shift.dtype.type
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    u_x, u_y = u[0], u[1]
    for y in range(shift.size // width):
        row, start = real(top + y), np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], row + u_y * shift[k]
            free_x[k] = u_x if (px > zero) and (px < last_x) else zero
            free_y[k] = u_y if (py > zero) and (py < last_y) else zero


@_compiled
def _look_up(
    plane: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array, scale: float, out: Array
) -> None:
    """out = scale times the plane, bilinear, at these places. next_x, next_y: how far on the neighbouring taps lie."""
    for k in range(out.size):
        a = np.uint64(at[k])
        upper = plane[a] + right[k] * (plane[a + next_x] - plane[a])
        lower = plane[a + next_y] + right[k] * (plane[a + next_y + next_x] - plane[a + next_y])
        out[k] = scale * (upper + down[k] * (lower - upper))


@_compiled
def _look_back(
    plane: Array, values: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array,
    free_x: Array, free_y: Array, scale: float, first: int, out: Array,
) -> None:  # fmt: skip
    """out += the gradients of `_look_up` where the plane is its own shift: to the taps by their shares, and to the place."""
    for k in range(values.size):
        a, value = np.uint64(at[k]), scale * values[k]
        upper, lower = plane[a + next_x] - plane[a], plane[a + next_y + next_x] - plane[a + next_y]
        left, twist = plane[a + next_y] - plane[a], lower - upper
        below = value * down[k]
        above = value - below
        out[a] += above - above * right[k]
        out[a + next_x] += above * right[k]
        out[a + next_y] += below - below * right[k]
        out[a + next_y + next_x] += below * right[k]
        out[np.uint64(first + k)] += value * (
            free_x[k] * (upper + down[k] * twist) + free_y[k] * (left + right[k] * twist)
        )


@_compiled
def _together(planes: Array) -> Array:
    """(C, H W) -> (ceil(C / 4), H W 4): four channels of a pixel side by side, those that are lacking 0."""
    channels, size = planes.shape
    packed = np.zeros((-(-channels // LANES), size * LANES), planes.dtype)
    for c in range(channels):
        packed[c // LANES, c % LANES :: LANES] = planes[c]
    return packed


@_compiled
def _apart(packed: Array, planes: Array) -> None:
    """planes += what `_together` put together."""
    for c in range(len(planes)):
        planes[c] += packed[c // LANES, c % LANES :: LANES]


@_compiled
def _look_up_together(
    plane: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array, out: Array
) -> None:
    """out += four channels of an image, bilinear, at these places."""
    four = np.uint64(LANES)
    for i in range(at.size):
        k = np.uint64(i)
        a = np.uint64(at[k]) * four
        lanes.look_up(out, k * four, plane, a, next_x * four, next_y * four, right[k], down[k])


@_compiled
def _look_back_together(
    d_plane: Array, plane: Array, values: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array,
    free_x: Array, free_y: Array, out: Array,
) -> None:  # fmt: skip
    """The gradients of `_look_up_together`: to the taps of d_plane by their shares; out += those of the shift."""
    four = np.uint64(LANES)
    for i in range(out.size):
        k = np.uint64(i)
        a = np.uint64(at[k]) * four
        out[k] += lanes.look_back(
            d_plane, plane, values, k * four, a, next_x * four, next_y * four, right[k], down[k], free_x[k], free_y[k]
        )


@_compiled
def _shift(
    rays: Array,
    v: int,
    u: Array,
    top: int,
    width: int,
    scale: float,
    at: Array,
    right: Array,
    down: Array,
    shift: Array,
) -> None:
    """shift = scale M(x, u) for whole rows from `top` on. Where rays are D alone, at, right and down are where it was looked up."""
    size, first = rays.shape[1], top * width
    end = first + shift.size
    if len(rays) == 1:
        _place(u, rays[0, first:end], top, width, size // width, at, right, down)
        _look_up(rays[0], np.uint64(width > 1), np.uint64(width * (size > width)), at, right, down, scale, shift)
    else:
        shift[:] = scale * rays[v, first:end]


@_compiled
def _forward(image: Array, rays: Array, width: int, views: Array, scale: float, photo: Array) -> None:
    """photo += sum_u image(x + scale u M(x, u)). image, photo (C, H W); rays (1, H W): D, or (V, H W): M; views (V, 2)."""
    size = rays.shape[1]
    height, rows = size // width, max(1, BAND // width)
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (size > width))
    all_at, all_shift = np.empty(rows * width, np.int32), np.empty(rows * width, rays.dtype)
    all_right, all_down = np.empty(rows * width, rays.dtype), np.empty(rows * width, rays.dtype)
    pixels, sums = _together(image), _together(np.zeros_like(photo))
    for top in range(0, height, rows):
        first, end = top * width, min(top + rows, height) * width
        n = end - first
        at, shift, right, down = all_at[:n], all_shift[:n], all_right[:n], all_down[:n]
        for v in range(len(views)):
            _shift(rays, v, views[v], top, width, scale, at, right, down, shift)
            _place(views[v], shift, top, width, height, at, right, down)
            for c in range(len(pixels)):
                to = sums[c, first * LANES : end * LANES]
                _look_up_together(pixels[c], next_x, next_y, at, right, down, to)
    _apart(sums, photo)


@_compiled
def _backward(
    grad: Array, image: Array, rays: Array, width: int, views: Array, scale: float, d_image: Array, d_rays: Array
) -> None:
    """d_image and d_rays += the gradients of `_forward`; what it looked up is looked up again."""
    size = rays.shape[1]
    height, rows = size // width, max(1, BAND // width)
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (size > width))
    all_at, all_at_ray = np.empty(rows * width, np.int32), np.empty(rows * width, np.int32)
    scratch = np.empty((8, rows * width), rays.dtype)
    pixels, values, d_pixels = _together(image), _together(grad), _together(np.zeros_like(image))
    for top in range(0, height, rows):
        first, end = top * width, min(top + rows, height) * width
        n = end - first
        at, at_ray, shift, d_shift = all_at[:n], all_at_ray[:n], scratch[0, :n], scratch[1, :n]
        right, down, free_x, free_y = scratch[2, :n], scratch[3, :n], scratch[4, :n], scratch[5, :n]
        right_ray, down_ray = scratch[6, :n], scratch[7, :n]
        for v in range(len(views)):
            _shift(rays, v, views[v], top, width, scale, at_ray, right_ray, down_ray, shift)
            _place(views[v], shift, top, width, height, at, right, down)
            _freedom(views[v], shift, top, width, height, free_x, free_y)
            d_shift[:] = 0
            for c in range(len(pixels)):
                given = values[c, first * LANES : end * LANES]
                _look_back_together(
                    d_pixels[c], pixels[c], given, next_x, next_y, at, right, down, free_x, free_y, d_shift
                )
            if len(rays) == 1:
                _freedom(views[v], rays[0, first:end], top, width, height, free_x, free_y)
                _look_back(
                    rays[0],
                    d_shift,
                    next_x,
                    next_y,
                    at_ray,
                    right_ray,
                    down_ray,
                    free_x,
                    free_y,
                    scale,
                    first,
                    d_rays[0],
                )
            else:
                d_rays[v, first:end] += scale * d_shift
    _apart(d_pixels, d_image)


def forward(image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> Tensor:
    """The mean over the views and the centre: image (N, C, H, W), rays (N, 1 or V, H, W), views (V, 2) pixels per unit of
    disparity, scale (N,) -> (N, C, H, W). An image whose scale is 0 is given back as it is, at no cost."""
    photo = torch.empty_like(image, memory_format=torch.contiguous_format)
    of, along, u, to = flat(image), flat(rays), views.numpy(), flat(photo)

    def work(i: int, by: float) -> None:
        to[i] = of[i]
        if by:
            _forward(of[i], along[i], image.shape[3], u, by, to[i])
            to[i] /= len(u) + 1

    over(scale, work)
    return photo


def backward(grad: Tensor, image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` with respect to image and rays."""
    d_image = torch.empty_like(image, memory_format=torch.contiguous_format)
    d_rays = torch.empty_like(rays, memory_format=torch.contiguous_format)
    given, of, along, u = flat(grad), flat(image), flat(rays), views.numpy()
    to_image, to_rays = flat(d_image), flat(d_rays)

    def work(i: int, by: float) -> None:
        to_image[i], to_rays[i] = given[i], 0
        if by:
            _backward(given[i], of[i], along[i], image.shape[3], u, by, to_image[i], to_rays[i])
            to_image[i] /= len(u) + 1
            to_rays[i] /= len(u) + 1

    over(scale, work)
    return d_image, d_rays


def flat(planes: Tensor) -> Array:
    """(N, C, H, W) -> (N, C, H W), the same memory if it lies in planes."""
    return planes.detach().contiguous().flatten(2).numpy()


def over(scale: Tensor, work: Callable[[int, Any], None]) -> None:
    """work(i, scale of i) on every image, in this thread and as many more as torch would use.

    In threads of its own: those of torch belong to torch, and once woken keep a core busy for milliseconds, waiting for more.
    """
    scales = scale.detach().numpy()
    images = iter(range(len(scales)))  # whoever is free takes the next; a closed aperture takes no time

    def some() -> None:
        for i in images:
            work(i, scales[i])

    threads = min(torch.get_num_threads(), len(scales))
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        others = [pool.submit(some) for _ in range(threads - 1)]
        some()
        for other in others:
            other.result()
