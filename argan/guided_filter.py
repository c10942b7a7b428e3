"""The guided filter: a map brought to follow the edges of a picture (He, Sun, Tang, TPAMI 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def guided_filter(disparity: Tensor, photos: Tensor) -> Tensor:
    """The guided filter (He, Sun, Tang, 2013): in every window, the affine function of colour nearest to the disparity.

    disparity (N, 1, H, W), photos (N, 3, H, W) in [-1, 1] -> (N, 1, H, W). Windows of two fifths of the shorter side.
    """
    h, w = photos.shape[2:]
    radius = torch.sym_min(h, w) // 5  # a number, or a symbol in an export
    down, across = (_window_mean(n, radius, photos) for n in (h, w))

    def mean(x: Tensor) -> Tensor:
        return down @ x @ across.T

    colour = (photos + 1) / 2
    channels = colour.split(1, 1)
    average, level = mean(colour), mean(disparity)
    averages = average.split(1, 1)
    products = mean(torch.cat([channels[i] * channels[j] for i, j in UPPER], 1)).split(1, 1)
    covariance = {
        (i, j): product - averages[i] * averages[j] + (ONE_SURFACE if i == j else 0)
        for (i, j), product in zip(UPPER, products, strict=True)
    }
    cross = (mean(colour * disparity) - average * level).split(1, 1)
    slope = torch.cat(solve_symmetric(covariance, cross), 1)
    offset = level - (slope * average).sum(1, keepdim=True)
    return (mean(slope) * colour).sum(1, keepdim=True) + mean(offset)


def _window_mean(size: int, radius: int, like: Tensor) -> Tensor:
    """(size, size): the matrix that takes means over windows of 2 radius + 1, mirrored at both ends.

    A product is as fast as pooling at these sizes, does not care for the window's size, and goes into any format.
    """
    i = torch.arange(size, device=like.device)[:, None]
    j = torch.arange(size, device=like.device)[None]
    inside = ((i - j).abs() <= radius).to(like.dtype)
    before = ((i + j <= radius) & (j > 0)).to(like.dtype)
    after = ((2 * (size - 1) - i - j <= radius) & (j < size - 1)).to(like.dtype)
    return (inside + before + after) / (2 * radius + 1)


UPPER = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]  # of a symmetric 3 x 3 matrix


def solve_symmetric(a: dict[tuple[int, int], Any], b: Sequence[Any]) -> list[Any]:
    """x in a x = b, a symmetric, positive definite and 3 x 3 at every pixel, by Cramer's rule: planes in, planes out."""
    c00 = a[1, 1] * a[2, 2] - a[1, 2] * a[1, 2]
    c01 = a[0, 2] * a[1, 2] - a[0, 1] * a[2, 2]
    c02 = a[0, 1] * a[1, 2] - a[0, 2] * a[1, 1]
    c11 = a[0, 0] * a[2, 2] - a[0, 2] * a[0, 2]
    c12 = a[0, 1] * a[0, 2] - a[0, 0] * a[1, 2]
    c22 = a[0, 0] * a[1, 1] - a[0, 1] * a[0, 1]
    determinant = a[0, 0] * c00 + a[0, 1] * c01 + a[0, 2] * c02
    return [
        (c00 * b[0] + c01 * b[1] + c02 * b[2]) / determinant,
        (c01 * b[0] + c11 * b[1] + c12 * b[2]) / determinant,
        (c02 * b[0] + c12 * b[1] + c22 * b[2]) / determinant,
    ]


ONE_SURFACE = 1e-2  # variance of colour (0..1) below which a window is taken for one surface
