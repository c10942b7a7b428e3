"""Coarse disparity at the size of a photo, following the photo's edges: the guided filter (He, Sun, Tang, 2013)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.guided_filter import UPPER, solve_symmetric

Pixels = NDArray[np.uint8]
Disparity = NDArray[Any]  # float32

GUIDE_SIZE = 512  # longest side, in pixels, at which depth is fitted to the photo's edges
SMOOTHING = 1e-3  # variance of colour (0..1) below which a window is taken for one surface
TEXTURE_LIMIT = 0.1  # of the range of disparity: steps of more than that are edges, smaller ones may be texture


def fit_to_edges(coarse: Disparity, photo: Pixels, pixel: float) -> Disparity:
    """Coarse disparity (h, w) at the size of `photo` (H, W, 3), following its edges: the guided filter.

    In every window, disparity is the affine function of colour nearest to the coarse one; `pixel` is the side of a coarse
    pixel in pixels of the photo, half the window's radius (He, Sun, Tang, 2013; fitted at GUIDE_SIZE, as in their fast one). What
    it copies of a pattern on a surface, feathers or fur, is taken off again: it would be speckles in a blurred picture.
    """
    height, width = photo.shape[:2]
    ratio = min(1.0, GUIDE_SIZE / max(height, width))
    h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
    guide = [plane.astype(np.float32) / np.float32(255) for plane in cv2.split(resize(photo, h, w))]
    target = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    radius = max(1, round(2 * pixel * ratio))

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    average, level = [mean(plane) for plane in guide], mean(target)
    covariance = {
        (i, j): mean(guide[i] * guide[j]) - average[i] * average[j] + np.float32(SMOOTHING if i == j else 0)
        for i, j in UPPER
    }
    cross = [mean(plane * target) - a * level for plane, a in zip(guide, average, strict=True)]
    slopes = solve_symmetric(covariance, cross)
    for slope, a in zip(slopes, average, strict=True):
        level = level - slope * a
    offset, *slopes = (cv2.resize(mean(x), (width, height), interpolation=cv2.INTER_LINEAR) for x in (level, *slopes))
    for slope, plane in zip(slopes, cv2.split(photo), strict=True):
        offset += slope * (plane * np.float32(1 / 255))
    lowest, highest = coarse.min(), coarse.max()
    fine = np.clip(offset, lowest, highest, out=offset)
    around = cv2.medianBlur(cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA), 5)
    relief = fine - cv2.resize(around, (width, height), interpolation=cv2.INTER_LINEAR)
    most = np.float32(TEXTURE_LIMIT * (highest - lowest))
    return fine - np.clip(relief, -most, most, out=relief)  # type: ignore[no-any-return]


def resize(photo: Pixels, height: int, width: int) -> Pixels:
    """Area averaging where it shrinks, bicubic where it grows."""
    shrinks = height < photo.shape[0]
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)  # type: ignore[return-value]
