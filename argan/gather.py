"""The gather of `argan.optics` on a CPU, compiled: a view at a time, forward and backward, and nothing kept between.

torch builds a grid of positions for every view and looks it up anew; here loops simple enough to become vector instructions do
both at once. An image is worked on by one thread, in one order: the result does not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

# A product may be fused with a sum; nothing else is reordered, and NaN and infinity keep their meaning.
_compiled = njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")

# An index is unsigned all through: numba would count a negative one from the end, and asking costs more than looking up.


@_compiled
def _place(u: Array, shift: Array, width: int, at: Array, right: Array, down: Array) -> None:
    """Where every pixel looks, x + u shift(x): the index of the upper left tap, the parts towards its neighbours.

    u: pixels per unit of shift, (2,). A position outside is brought to the border; one that is no number, to the first.
    """
    real, height = shift.dtype.type, shift.size // width
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    stride, last_column, last_line = np.int32(width), np.int32(max(width - 2, 0)), np.int32(max(height - 2, 0))
    u_x, u_y = u[0], u[1]
    for y in range(height):
        row, start = real(y), np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], row + u_y * shift[k]
            px, py = px if px > zero else zero, py if py > zero else zero
            px, py = px if px < last_x else last_x, py if py < last_y else last_y
            column, line = min(np.int32(px), last_column), min(np.int32(py), last_line)
            at[k] = line * stride + column
            right[k], down[k] = px - real(column), py - real(line)


@_compiled
def _freedom(u: Array, shift: Array, width: int, free_x: Array, free_y: Array) -> None:
    """d position / d shift of `_place`: u, and 0 in a direction in which the position was brought to the border."""
    real, height = shift.dtype.type, shift.size // width
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    u_x, u_y = u[0], u[1]
    for y in range(height):
        row, start = real(y), np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], row + u_y * shift[k]
            free_x[k] = u_x if (px > zero) and (px < last_x) else zero
            free_y[k] = u_y if (py > zero) and (py < last_y) else zero


@_compiled
def _look_up(
    plane: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array, out: Array
) -> None:
    """out += the plane, bilinear, at these places. next_x, next_y: how far on the neighbouring taps lie."""
    for k in range(out.size):
        a = np.uint64(at[k])
        upper = plane[a] + right[k] * (plane[a + next_x] - plane[a])
        lower = plane[a + next_y] + right[k] * (plane[a + next_y + next_x] - plane[a + next_y])
        out[k] += upper + down[k] * (lower - upper)


@_compiled
def _scatter(
    plane: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array, values: Array
) -> None:
    """The transpose of `_look_up`: values go to the taps by their shares."""
    one = values.dtype.type(1)
    for k in range(values.size):
        a = np.uint64(at[k])
        lower = values[k] * down[k]
        upper = values[k] - lower
        plane[a] += upper * (one - right[k])
        plane[a + next_x] += upper * right[k]
        plane[a + next_y] += lower * (one - right[k])
        plane[a + next_y + next_x] += lower * right[k]


@_compiled
def _slope(
    plane: Array, next_x: np.uint64, next_y: np.uint64, at: Array, right: Array, down: Array,
    free_x: Array, free_y: Array, values: Array, out: Array,
) -> None:  # fmt: skip
    """out += values times the derivative of `_look_up` with respect to the shift."""
    for k in range(out.size):
        a = np.uint64(at[k])
        upper, lower = plane[a + next_x] - plane[a], plane[a + next_y + next_x] - plane[a + next_y]
        left, twist = plane[a + next_y] - plane[a], lower - upper
        out[k] += values[k] * (free_x[k] * (upper + down[k] * twist) + free_y[k] * (left + right[k] * twist))


@_compiled
def _forward(image: Array, rays: Array, width: int, views: Array, scale: float, photo: Array) -> None:
    """photo += sum_u image(x + scale u M(x, u)). image, photo (C, H W); rays (1, H W): D, or (V, H W): M; views (V, 2)."""
    size = rays.shape[1]
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (size > width))
    at, shift = np.empty(size, np.int32), np.empty(size, rays.dtype)
    right, down = np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    for v in range(len(views)):
        if len(rays) == 1:
            _place(views[v], rays[0], width, at, right, down)
            shift[:] = 0
            _look_up(rays[0], next_x, next_y, at, right, down, shift)
        else:
            shift[:] = rays[v]
        shift *= scale
        _place(views[v], shift, width, at, right, down)
        for c in range(len(image)):
            _look_up(image[c], next_x, next_y, at, right, down, photo[c])


@_compiled
def _backward(
    grad: Array, image: Array, rays: Array, width: int, views: Array, scale: float, d_image: Array, d_rays: Array
) -> None:
    """d_image and d_rays += the gradients of `_forward`; what it looked up is looked up again."""
    size = rays.shape[1]
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (size > width))
    at, at_ray = np.empty(size, np.int32), np.empty(size, np.int32)
    shift, d_shift = np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    right, down = np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    right_ray, down_ray = np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    free_x, free_y = np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    for v in range(len(views)):
        if len(rays) == 1:
            _place(views[v], rays[0], width, at_ray, right_ray, down_ray)
            shift[:] = 0
            _look_up(rays[0], next_x, next_y, at_ray, right_ray, down_ray, shift)
        else:
            shift[:] = rays[v]
        shift *= scale
        _place(views[v], shift, width, at, right, down)
        _freedom(views[v], shift, width, free_x, free_y)
        d_shift[:] = 0
        for c in range(len(image)):
            _slope(image[c], next_x, next_y, at, right, down, free_x, free_y, grad[c], d_shift)
            _scatter(d_image[c], next_x, next_y, at, right, down, grad[c])
        d_shift *= scale
        if len(rays) == 1:
            _freedom(views[v], rays[0], width, free_x, free_y)
            _slope(rays[0], next_x, next_y, at_ray, right_ray, down_ray, free_x, free_y, d_shift, d_rays[0])
            _scatter(d_rays[0], next_x, next_y, at_ray, right_ray, down_ray, d_shift)
        else:
            d_rays[v] += d_shift


def forward(image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> Tensor:
    """The mean over the views and the centre: image (N, C, H, W), rays (N, 1 or V, H, W), views (V, 2) pixels per unit of
    disparity, scale (N,) -> (N, C, H, W). An image whose scale is 0 is given back as it is, at no cost."""
    photo = torch.empty_like(image, memory_format=torch.contiguous_format)
    of, along, u, to = _flat(image), _flat(rays), views.numpy(), _flat(photo)

    def work(i: int, by: float) -> None:
        to[i] = of[i]
        if by:
            _forward(of[i], along[i], image.shape[3], u, by, to[i])
            to[i] /= len(u) + 1

    _over(scale, work)
    return photo


def backward(grad: Tensor, image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` with respect to image and rays."""
    d_image = torch.empty_like(image, memory_format=torch.contiguous_format)
    d_rays = torch.empty_like(rays, memory_format=torch.contiguous_format)
    given, of, along, u = _flat(grad), _flat(image), _flat(rays), views.numpy()
    to_image, to_rays = _flat(d_image), _flat(d_rays)

    def work(i: int, by: float) -> None:
        to_image[i], to_rays[i] = given[i], 0
        if by:
            _backward(given[i], of[i], along[i], image.shape[3], u, by, to_image[i], to_rays[i])
            to_image[i] /= len(u) + 1
            to_rays[i] /= len(u) + 1

    _over(scale, work)
    return d_image, d_rays


def _flat(planes: Tensor) -> Array:
    """(N, C, H, W) -> (N, C, H W), the same memory if it lies in planes."""
    return planes.detach().contiguous().flatten(2).numpy()


def _over(scale: Tensor, work: Callable[[int, Any], None]) -> None:
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
