"""Depth of field for a real photograph: at its own size, in linear light, with occlusion.

The photograph is cut into layers of equal blur; each is spread by the disc its aperture makes, far to near. What lies
behind the focal plane is completed where something hid it, since a blurred edge in front lets it be seen; what lies before
it spills over. Method: layered depth of field (Scofield 1992; Kraus and Strengert 2007) with exact discs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.errors import UserError

Pixels = NDArray[np.uint8]
Float = NDArray[Any]  # float32 throughout

DISC = 8.0  # discs of a larger radius, in pixels, are drawn at a reduced size: their blur hides that


def refocus(photo: Pixels, disparity: Float, aperture: float, focus: tuple[float, float] | None = None) -> Pixels:
    """photo uint8 (H, W, 3) as an aperture would see it, focused on the pixel `focus` = (x, y) -> uint8 (H, W, 3).

    disparity (H, W): larger = nearer, fraction of width. A point at disparity d becomes a disc of radius
    aperture * |d - d(focus)| * width pixels. aperture 0 gives the photo itself. focus None is the centre; both numbers within
    0..1 are fractions of width and height. Raises UserError for an aperture below 0 or a focus outside the frame.
    """
    height, width = photo.shape[:2]
    if not (math.isfinite(aperture) and aperture >= 0):
        raise UserError(f"aperture must be 0 (closed) or more, got {aperture:g}")
    x, y = focus_pixel(focus, width, height)
    if aperture == 0:
        return photo.copy()
    radius = (disparity - disparity[y, x]) * np.float32(aperture * width)  # signed: before the focal plane > 0
    reach = math.hypot(height, width)
    radius = np.clip(radius, -reach, reach)
    behind, before = (np.zeros((height, width, 4), np.float32) for _ in range(2))  # premultiplied colour and coverage
    opacity = np.zeros((height, width, 1), np.float32)
    for level, coverage in layers(radius):
        box, layer = spread(photo, coverage, level)
        plate = before[box] if level > 0 else behind[box]
        plate *= 1 - layer[..., 3:]
        plate += layer
        if level > 0:  # a surface between two layers is as opaque as both together
            opacity[box] += layer[..., 3:]
    scene, opacity = complete(behind)[..., :3], np.minimum(opacity, 1)
    before[..., :3] *= opacity / np.maximum(before[..., 3:], 1e-6)
    scene *= 1 - opacity
    scene += before[..., :3]
    return encode(scene)


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


def levels(largest: float) -> list[float]:
    """Radii at which layers lie: a pixel apart near focus, a quarter of the radius apart beyond, where no eye can tell."""
    radii = [0.0]
    while radii[-1] < largest:
        radii.append(max(radii[-1] + 1, radii[-1] * 1.25))
    return radii


def layers(radius: Float) -> Iterator[tuple[float, Float]]:
    """Far to near, (signed radius, coverage (H, W)): a pixel belongs to its two nearest layers, linearly."""
    far, near = levels(max(0.0, -float(radius.min()))), levels(max(0.0, float(radius.max())))
    line = np.array([-r for r in reversed(far[1:])] + near, np.float32)
    position = np.interp(radius, line, np.arange(len(line))).astype(np.float32)
    for k, level in enumerate(line):
        coverage = np.clip(1 - np.abs(position - k), 0, 1)
        if coverage.any():
            yield float(level), coverage


def spread(photo: Pixels, coverage: Float, level: float) -> tuple[tuple[slice, slice], Float]:
    """One layer's light, blurred by a disc of radius |level|: where in the frame it reaches, and what lies there.

    Returns the box and (h, w, 4): premultiplied linear colour, and coverage.
    """
    margin = math.ceil(abs(level)) + 1
    rows, columns = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
    top, bottom = max(rows[0] - margin, 0), min(rows[-1] + margin + 1, coverage.shape[0])
    left, right = max(columns[0] - margin, 0), min(columns[-1] + margin + 1, coverage.shape[1])
    box = (slice(top, bottom), slice(left, right))
    layer = np.empty((bottom - top, right - left, 4), np.float32)
    layer[..., 3] = coverage[box]
    np.multiply(DECODE[photo[box]], layer[..., 3:], out=layer[..., :3])
    return box, disc_blur(layer, abs(level))


def disc_blur(layer: Float, radius: float) -> Float:
    """Average over a disc of `radius` pixels with an antialiased rim; the border replicated. (H, W, C) -> (H, W, C)."""
    if radius < 0.5:
        return layer
    h, w = layer.shape[:2]
    factor = max(1, math.floor(radius / DISC))
    if factor > 1:
        size = (max(1, round(w / factor)), max(1, round(h / factor)))
        layer = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    blurred = cv2.filter2D(layer, -1, disc(radius / factor), borderType=cv2.BORDER_REPLICATE)
    blurred = np.clip(blurred, 0, None)  # a large kernel goes through a Fourier transform, which leaves -1e-8
    return cv2.resize(blurred, (w, h), interpolation=cv2.INTER_LINEAR) if factor > 1 else blurred


def disc(radius: float, oversampling: int = 8) -> Float:
    """A disc as a kernel that sums to 1: every pixel weighs what part of it the disc covers."""
    half = math.ceil(radius)
    n = 2 * half + 1
    line = (np.arange(n * oversampling) + 0.5) / oversampling - n / 2
    inside = (line[:, None] ** 2 + line[None] ** 2 <= max(radius, 0.5) ** 2).astype(np.float32)
    kernel = inside.reshape(n, oversampling, n, oversampling).mean((1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def complete(plate: Float) -> Float:
    """Fill what is uncovered from around it, coarser the wider the hole: push and pull over a pyramid.

    (H, W, 4) premultiplied -> the same, fully covered wherever anything is.
    """
    h, w = plate.shape[:2]
    covered = plate / np.maximum(plate[..., 3:], 1e-3)  # a surface between two layers is not transparent
    if min(h, w) == 1 or float(covered[..., 3].min()) > 0.999:
        return covered
    half = cv2.resize(covered, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(complete(half), (w, h), interpolation=cv2.INTER_LINEAR)
    return covered + (1 - covered[..., 3:]) * coarse


def _srgb_table() -> Float:
    """sRGB (IEC 61966-2-1): light, 0..1, of each of the 256 values."""
    v = np.arange(256) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


DECODE = _srgb_table()
_STEPS = 4096
_v = np.arange(_STEPS + 1) / _STEPS  # of the square root of light, where sRGB is nearly linear
ENCODE = np.where(_v**2 <= 0.0031308, 12.92 * _v**2, 1.055 * _v ** (2 / 2.4) - 0.055)
ENCODE = (ENCODE * 255).round().astype(np.uint8)


def encode(light: Float) -> Pixels:
    """Linear light -> sRGB uint8."""
    return ENCODE[(np.sqrt(np.clip(light, 0, 1)) * _STEPS).round().astype(np.uint16)]
