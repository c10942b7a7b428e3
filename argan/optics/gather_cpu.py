"""The gather renderer on a CPU, compiled: a view at a time, forward and backward, and nothing stored in between.

torch builds a grid of positions for every view and looks it up; here loops simple enough to become vector instructions do
both at once. An image is worked on by one thread, in one order: the result does not depend on how many threads there are.

Planes are flat, (H W,). An index is unsigned all through: numba would count a negative one from the end, and the test for it
takes longer than the look-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from argan import jit
from argan.optics.parallel import as_array, parallel_for

Array = NDArray[Any]

# A product may be fused with a sum; nothing else is reordered, and NaN and infinity keep their meaning.
_compiled = jit.compiled(fastmath={"contract"}, error_model="numpy")


@_compiled
def _locate(u: Array, shift: Array, width: int, height: int, tap: Array, right: Array, down: Array) -> None:
    """Where every pixel looks, x + u shift(x): the index of the upper left tap, the fractions towards its neighbours.

    u: pixels per unit of shift, (2,). A position outside is brought to the border, NaN to the first pixel.
    """
    real = shift.dtype.type
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    stride, last_column, last_row = np.int32(width), np.int32(max(width - 2, 0)), np.int32(max(height - 2, 0))
    u_x, u_y = u[0], u[1]
    for y in range(height):
        start = np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], real(y) + u_y * shift[k]
            px, py = px if px > zero else zero, py if py > zero else zero
            px, py = px if px < last_x else last_x, py if py < last_y else last_y
            column, row = min(np.int32(px), last_column), min(np.int32(py), last_row)
            tap[k] = row * stride + column
            right[k], down[k] = px - real(column), py - real(row)


@_compiled
def _locate_backward(u: Array, shift: Array, width: int, height: int, slope_x: Array, slope_y: Array) -> None:
    """d position / d shift of `_locate`: u, and 0 in a direction in which the position was brought to the border."""
    real = shift.dtype.type
    zero, last_x, last_y = real(0), real(width - 1), real(height - 1)
    u_x, u_y = u[0], u[1]
    for y in range(height):
        start = np.uint64(y * width)
        for x in range(width):
            k = start + np.uint64(x)
            px, py = real(x) + u_x * shift[k], real(y) + u_y * shift[k]
            slope_x[k] = u_x if (px > zero) and (px < last_x) else zero
            slope_y[k] = u_y if (py > zero) and (py < last_y) else zero


@_compiled
def _bilinear(plane: Array, width: int, tap: Array, right: Array, down: Array, out: Array) -> None:
    """out += the plane, bilinear, at these places."""
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (plane.size > width))
    for k in range(out.size):
        a = np.uint64(tap[k])
        upper = plane[a] + right[k] * (plane[a + next_x] - plane[a])
        lower = plane[a + next_y] + right[k] * (plane[a + next_y + next_x] - plane[a + next_y])
        out[k] += upper + down[k] * (lower - upper)


@_compiled
def _bilinear_backward(
    grad: Array,
    plane: Array,
    width: int,
    tap: Array,
    right: Array,
    down: Array,
    slope_x: Array,
    slope_y: Array,
    d_plane: Array,
    d_shift: Array,
) -> None:
    """The gradients of `_bilinear`: d_plane += to the taps by their shares; d_shift += by way of the position."""
    next_x, next_y = np.uint64(width > 1), np.uint64(width * (plane.size > width))
    for k in range(grad.size):
        a, value = np.uint64(tap[k]), grad[k]
        upper, lower = plane[a + next_x] - plane[a], plane[a + next_y + next_x] - plane[a + next_y]
        left, twist = plane[a + next_y] - plane[a], lower - upper
        d_shift[k] += value * (slope_x[k] * (upper + down[k] * twist) + slope_y[k] * (left + right[k] * twist))
        below = value * down[k]
        above = value - below
        d_plane[a] += above - above * right[k]
        d_plane[a + next_x] += above * right[k]
        d_plane[a + next_y] += below - below * right[k]
        d_plane[a + next_y + next_x] += below * right[k]


@_compiled
def _ray_shift(
    rays: Array, v: int, u: Array, width: int, scale: float, tap: Array, right: Array, down: Array, shift: Array
) -> None:
    """shift = scale M(x, u). Where rays are D alone, tap, right and down are where it was looked up."""
    if len(rays) == 1:
        _locate(u, rays[0], width, shift.size // width, tap, right, down)
        shift[:] = 0
        _bilinear(rays[0], width, tap, right, down, shift)
        shift *= scale
    else:
        shift[:] = scale * rays[v]


@_compiled
def _forward(image: Array, rays: Array, width: int, views: Array, scale: float, photo: Array) -> None:
    """photo += sum_u image(x + scale u M(x, u)). image, photo (C, H W); rays (1, H W): D, or (V, H W): M; views (V, 2)."""
    size = image.shape[1]
    tap = np.empty(size, np.int32)
    right, down, shift = np.empty(size, rays.dtype), np.empty(size, rays.dtype), np.empty(size, rays.dtype)
    for v in range(len(views)):
        _ray_shift(rays, v, views[v], width, scale, tap, right, down, shift)
        _locate(views[v], shift, width, size // width, tap, right, down)
        for c in range(len(image)):
            _bilinear(image[c], width, tap, right, down, photo[c])


@_compiled
def _backward(
    grad: Array, image: Array, rays: Array, width: int, views: Array, scale: float, d_image: Array, d_rays: Array
) -> None:
    """d_image and d_rays += the gradients of `_forward`; the rays are computed again."""
    size = image.shape[1]
    height = size // width
    tap, ray_tap, scratch = np.empty(size, np.int32), np.empty(size, np.int32), np.empty((8, size), rays.dtype)
    right, down, ray_right, ray_down = scratch[0], scratch[1], scratch[2], scratch[3]
    slope_x, slope_y, shift, d_shift = scratch[4], scratch[5], scratch[6], scratch[7]
    for v in range(len(views)):
        u = views[v]
        _ray_shift(rays, v, u, width, scale, ray_tap, ray_right, ray_down, shift)
        _locate(u, shift, width, height, tap, right, down)
        _locate_backward(u, shift, width, height, slope_x, slope_y)
        d_shift[:] = 0
        for c in range(len(image)):
            _bilinear_backward(grad[c], image[c], width, tap, right, down, slope_x, slope_y, d_image[c], d_shift)
        d_shift *= scale
        if len(rays) == 1:  # D is both what was looked up and where
            d_ray = d_rays[0]
            _locate_backward(u, rays[0], width, height, slope_x, slope_y)
            _bilinear_backward(d_shift, rays[0], width, ray_tap, ray_right, ray_down, slope_x, slope_y, d_ray, d_ray)
        else:
            d_rays[v] += d_shift


def forward(image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> Tensor:
    """The mean over the views and the centre: image (N, C, H, W), rays (N, 1 or V, H, W), views (V, 2) pixels per unit of
    disparity, scale (N,) -> (N, C, H, W). An image whose scale is 0 is returned as it is, at no cost."""
    photo = torch.empty_like(image, memory_format=torch.contiguous_format)
    images, all_rays, photos = (as_array(x).reshape(*x.shape[:2], -1) for x in (image, rays, photo))
    u = views.numpy()

    def work(i: int, s: float) -> None:
        photos[i] = images[i]
        if s:
            _forward(images[i], all_rays[i], image.shape[3], u, s, photos[i])
            photos[i] /= len(u) + 1

    parallel_for(scale, work)
    return photo


def backward(grad: Tensor, image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` with respect to image and rays."""
    d_image = torch.empty_like(image, memory_format=torch.contiguous_format)
    d_rays = torch.empty_like(rays, memory_format=torch.contiguous_format)
    grads, images, all_rays = (as_array(x).reshape(*x.shape[:2], -1) for x in (grad, image, rays))
    d_images, d_all_rays = (as_array(x).reshape(*x.shape[:2], -1) for x in (d_image, d_rays))
    u = views.numpy()

    def work(i: int, s: float) -> None:
        d_images[i], d_all_rays[i] = grads[i], 0
        if s:
            _backward(grads[i], images[i], all_rays[i], image.shape[3], u, s, d_images[i], d_all_rays[i])
            d_images[i] /= len(u) + 1
            d_all_rays[i] /= len(u) + 1

    parallel_for(scale, work)
    return d_image, d_rays
