"""The occlusion renderer on a CPU, compiled: a layer at a time, forward and backward, and no layer stored in between.

A layer's blur is a sum of a few separable ones: views in rows of equal weights share their sum along the row (the disc of 5 x 5 has
two kinds of rows). Empty layers are skipped. An image is worked on by one thread, in one order: the result does not depend on
how many threads there are.

Planes lie in one line of memory each, with a border as wide as the widest blur around them: a tap is a distance along that line.
"""

from __future__ import annotations

import math
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

LEAST_COVERAGE = 1e-6  # a pixel's colour is divided by its total coverage, at least this


@_compiled
def _blur_kernels(kinds: Array, kind_of: Array, shift: float, across: Array, down: Array) -> None:
    """The blur of a layer that moves by u shift pixels: sum over kinds p of down[p] (along columns) times across[p] (along rows).

    kinds (P, size): the kinds of rows of the aperture's weights; kind_of (size,): which one each row is. across, down
    (P, 2 radius + 1), radius >= |shift|: views splatted bilinearly.
    """
    across[:], down[:] = 0, 0
    size, radius = len(kind_of), across.shape[1] // 2
    for i in range(size):
        at = radius + shift * ((2 * i - (size - 1)) / max(size - 1, 1))
        tap = min(int(at), 2 * radius)
        part = at - tap
        for p in range(len(kinds)):
            across[p, tap] += kinds[p, i] * (1 - part)
            if part > 0:
                across[p, tap + 1] += kinds[p, i] * part
        down[kind_of[i], tap] += 1 - part
        if part > 0:
            down[kind_of[i], tap + 1] += part


@_compiled
def _add_shifted(source: Array, distance: int, weight: float, to: Array) -> None:
    """to[j] += weight source[j + distance], wherever there is one."""
    first, end = max(0, -distance), min(len(to), len(to) - distance)
    a, b = source[first + distance : end + distance], to[first:end]
    for j in range(len(b)):
        b[j] += weight * a[j]


@_compiled
def _blur(source: Array, across: Array, down: Array, stride: int, sign: int, scratch: Array, to: Array) -> None:
    """to = source blurred, or, with sign -1, the gradient of that. All of them planes in a line; `stride` from row to row."""
    radius, one, zero = across.shape[1] // 2, to.dtype.type(1), to.dtype.type(0)
    to[:] = zero
    if radius == 0:
        to[:] = source * (one * across[:, 0] * down[:, 0]).sum()
        return
    for p in range(len(across)):
        scratch[:] = zero
        for t in range(2 * radius + 1):
            if across[p, t]:
                _add_shifted(source, sign * (t - radius), across[p, t], scratch)
        for t in range(2 * radius + 1):
            if down[p, t]:
                _add_shifted(scratch, sign * (t - radius) * stride, down[p, t], to)


@_compiled
def _slice_layer(image: Array, disparity: Array, level: float, step: float, border: int, layer: Array) -> bool:
    """The layer at `level`, premultiplied, its coverage last, its border replicated: (C + 1, H + 2 border, W + 2 border).

    False, and nothing is written, where no pixel belongs to it.
    """
    channels, height, width = image.shape
    zero, one = disparity.dtype.type(0), disparity.dtype.type(1)
    if not (np.abs(disparity - level) < step).any():
        return False
    for y in range(height):
        for x in range(width):
            share = max(one - abs(disparity[y, x] - level) / step, zero)
            for c in range(channels):
                layer[c, border + y, border + x] = image[c, y, x] * share
            layer[channels, border + y, border + x] = share
    right, bottom = border + width, border + height
    for c in range(channels + 1):
        for y in range(border, bottom):
            layer[c, y, :border], layer[c, y, right:] = layer[c, y, border], layer[c, y, right - 1]
        for y in range(border):
            layer[c, y], layer[c, bottom + y] = layer[c, border], layer[c, bottom - 1]
    return True


@_compiled
def _replicate_backward(layer: Array, border: int, height: int, width: int) -> None:
    """The gradient of replicating the border, in place: the border's goes to the pixels it was copied from."""
    right, bottom = border + width, border + height
    for c in range(len(layer)):
        for y in range(border):
            layer[c, border] += layer[c, y]
            layer[c, bottom - 1] += layer[c, bottom + y]
        for y in range(border, bottom):
            layer[c, y, border] += layer[c, y, :border].sum()
            layer[c, y, right - 1] += layer[c, y, right:].sum()


@_compiled
def _composite(
    image: Array,
    disparity: Array,
    levels: Array,
    step: float,
    scale: float,
    kinds: Array,
    kind_of: Array,
    border: int,
    alphas: Array,
    totals: Array,
) -> NDArray[np.bool_]:
    """Far to near: totals[k] = layer k over the one before it, premultiplied; alphas[k] its blurred coverage.

    Returns which layers hold anything, (K,) bool: the others are skipped.
    """
    channels, height, width = image.shape
    stride, area = width + 2 * border, (width + 2 * border) * (height + 2 * border)
    occupied = np.zeros(len(levels), np.bool_)
    layer = np.empty((channels + 1, height + 2 * border, stride), image.dtype)
    blurred, scratch = np.empty(layer.size, image.dtype), np.empty(layer.size, image.dtype)
    one = image.dtype.type(1)
    previous = -1
    for k in range(len(levels)):
        occupied[k] = _slice_layer(image, disparity, levels[k], step, border, layer)
        if not occupied[k]:
            continue
        shift = scale * levels[k] * width
        across = np.empty((len(kinds), 2 * math.ceil(abs(shift)) + 1), image.dtype)
        down = np.empty_like(across)
        _blur_kernels(kinds, kind_of, shift, across, down)
        _blur(layer.reshape(-1), across, down, stride, 1, scratch, blurred)
        alpha, total = alphas[k], totals[k]
        alpha[:] = blurred[channels * area :]
        if previous < 0:
            total[:] = blurred
        else:
            for c in range(channels + 1):
                above, to, under = blurred[c * area : (c + 1) * area], total[c * area :], totals[previous, c * area :]
                for j in range(area):
                    to[j] = above[j] + under[j] * (one - alpha[j])
        previous = k
    return occupied


@_compiled
def _forward(
    image: Array,
    disparity: Array,
    levels: Array,
    step: float,
    scale: float,
    kinds: Array,
    kind_of: Array,
    border: int,
    photo: Array,
) -> None:
    """photo (C, H, W) of image (C, H, W) and disparity (H, W), the latter within the levels (K,), from far to near."""
    channels, height, width = image.shape
    inside = (channels + 1, height + 2 * border, width + 2 * border)
    area = inside[1] * inside[2]
    alphas = np.empty((len(levels), area), image.dtype)
    totals = np.empty((len(levels), inside[0] * area), image.dtype)
    occupied = _composite(image, disparity, levels, step, scale, kinds, kind_of, border, alphas, totals)
    total = totals[occupied.nonzero()[0][-1]].reshape(inside)[:, border : border + height, border : border + width]
    least = image.dtype.type(LEAST_COVERAGE)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                photo[c, y, x] = total[c, y, x] / max(total[channels, y, x], least)


@_compiled
def _backward(
    grad: Array,
    image: Array,
    disparity: Array,
    levels: Array,
    step: float,
    scale: float,
    kinds: Array,
    kind_of: Array,
    border: int,
    d_image: Array,
    d_disparity: Array,
) -> None:
    """d_image and d_disparity = the gradients of `_forward`; the layers are computed again."""
    channels, height, width = image.shape
    inside = (channels + 1, height + 2 * border, width + 2 * border)
    stride, area = inside[2], inside[1] * inside[2]
    alphas = np.empty((len(levels), area), image.dtype)
    totals = np.empty((len(levels), inside[0] * area), image.dtype)
    occupied = _composite(image, disparity, levels, step, scale, kinds, kind_of, border, alphas, totals)
    order = occupied.nonzero()[0]
    least, one, zero = image.dtype.type(LEAST_COVERAGE), image.dtype.type(1), image.dtype.type(0)
    d_total = np.zeros(inside, image.dtype)
    total = totals[order[-1]].reshape(inside)
    for y in range(height):
        for x in range(width):
            j, i = border + y, border + x
            coverage = max(total[channels, j, i], least)
            along = zero
            for c in range(channels):
                share = grad[c, y, x] / coverage
                d_total[c, j, i] = share
                along -= share * total[c, j, i]
            d_total[channels, j, i] = along / coverage if total[channels, j, i] >= least else zero
    d_line = d_total.reshape(-1)
    d_layer, scratch = np.empty(inside, image.dtype), np.empty(inside[0] * area, image.dtype)
    d_image[:], d_disparity[:] = zero, zero
    for position in range(len(order) - 1, -1, -1):
        k = order[position]
        grad_layer, alpha = d_line.copy(), alphas[k]
        if position:
            under = totals[order[position - 1]]
            d_alpha = grad_layer[channels * area :]
            for c in range(channels + 1):
                to, seen = d_line[c * area : (c + 1) * area], under[c * area :]
                for j in range(area):
                    d_alpha[j] -= to[j] * seen[j]
                    to[j] *= one - alpha[j]
        shift = scale * levels[k] * width
        across = np.empty((len(kinds), 2 * math.ceil(abs(shift)) + 1), image.dtype)
        down = np.empty_like(across)
        _blur_kernels(kinds, kind_of, shift, across, down)
        _blur(grad_layer, across, down, stride, -1, scratch, d_layer.reshape(-1))
        _replicate_backward(d_layer, border, height, width)
        for y in range(height):
            for x in range(width):
                away = disparity[y, x] - levels[k]
                share = one - abs(away) / step
                if share <= zero:
                    continue
                d_share = d_layer[channels, border + y, border + x]
                for c in range(channels):
                    part = d_layer[c, border + y, border + x]
                    d_image[c, y, x] += share * part
                    d_share += image[c, y, x] * part
                d_disparity[y, x] -= np.sign(away) * d_share / step


class _Lens:
    """What all images of a batch share: the levels of the layers, and the aperture's weights as kinds of rows."""

    def __init__(self, image: Tensor, weights: Tensor, levels: Tensor) -> None:
        self.levels: Array = levels.detach().to(image.dtype).numpy()
        self.step = self.levels[1] - self.levels[0]
        self.width = image.shape[3]
        kinds, kind_of = np.unique(weights.numpy(), axis=0, return_inverse=True)
        self.kinds, self.kind_of = kinds.astype(self.levels.dtype), kind_of.reshape(-1)

    def border(self, scale: float) -> int:
        """Pixels: the radius of the widest blur."""
        return math.ceil(float(scale) * float(np.abs(self.levels).max()) * self.width)


def forward(image: Tensor, disparity: Tensor, weights: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """image (N, C, H, W), disparity (N, 1, H, W), the aperture's weights (size, size), scale (N,), levels (K,) from far to near
    -> photos (N, C, H, W). An image whose scale is 0 is returned as it is, at no cost."""
    photo = torch.empty_like(image, memory_format=torch.contiguous_format)
    lens = _Lens(image, weights, levels)
    images, disparities, photos = (as_array(x) for x in (image, disparity, photo))

    def work(i: int, s: float) -> None:
        clamped = disparities[i, 0].clip(lens.levels[0], lens.levels[-1])
        if not s:
            photos[i] = images[i]
        elif np.isnan(clamped).any():  # NaN belongs to no layer
            photos[i] = np.nan
        else:
            _forward(images[i], clamped, lens.levels, lens.step, s, lens.kinds, lens.kind_of, lens.border(s), photos[i])

    parallel_for(scale, work)
    return photo


def backward(
    grad: Tensor, image: Tensor, disparity: Tensor, weights: Tensor, scale: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` with respect to image and disparity."""
    d_image = torch.empty_like(image, memory_format=torch.contiguous_format)
    d_disparity = torch.empty_like(disparity, memory_format=torch.contiguous_format)
    lens = _Lens(image, weights, levels)
    grads, images, disparities, d_images, d_disparities = (
        as_array(x) for x in (grad, image, disparity, d_image, d_disparity)
    )

    def work(i: int, s: float) -> None:
        clamped = disparities[i, 0].clip(lens.levels[0], lens.levels[-1])
        if not s:
            d_images[i], d_disparities[i] = grads[i], 0
        elif np.isnan(clamped).any():
            d_images[i], d_disparities[i] = np.nan, np.nan
        else:
            _backward(
                grads[i],
                images[i],
                clamped,
                lens.levels,
                lens.step,
                s,
                lens.kinds,
                lens.kind_of,
                lens.border(s),
                d_images[i],
                d_disparities[i, 0],
            )
            d_disparities[i, 0] *= clamped == disparities[i, 0]  # what was clamped has no gradient

    parallel_for(scale, work)
    return d_image, d_disparity
