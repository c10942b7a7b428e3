"""Which square of a photo is taken, the one downscale, and the augmentations that are safe. albumentations is known here alone.

Blur is the teacher, so nothing here may add, remove or imitate it: the crop moves by whole pixels, the downscale averages
areas once, nothing is upscaled; augmentation mirrors, moves by whole pixels and changes colour. Blur, noise, compression,
rescaling and rotation have no place.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Where = Literal["center", "box", "sharpness"]

TRANSLATE = 1 / 8  # of the width: further, and the subject is no longer where the prior expects it
COLOR = 0.2  # brightness, contrast and saturation shrink by up to this; growing, they would clip what was blurred into an edge
CELLS = 48  # of the shorter side, in which sharpness is looked for


@dataclass(frozen=True)
class Box:
    """A rectangle in whole pixels of the upright photo."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Rule:
    """How the square is chosen.

    where: the centre of the frame; around the subject's box; or around what is sharpest, subjects being what was focused on.
    keep: side of the square as a share of the photo's shorter side (center, sharpness).
    background: least share of the square's area that lies outside the box (box): its blur is the signal.
    """

    where: Where = "center"
    keep: float = 1.0
    background: float = 0.5

    def __post_init__(self) -> None:
        if self.where not in ("center", "box", "sharpness"):
            raise ValueError(f"where must be center, box or sharpness, got {self.where!r}")
        if not 0 < self.keep <= 1 or not 0 <= self.background < 1:
            raise ValueError(f"keep must be in (0, 1], background in [0, 1), got {self.keep} and {self.background}")


def side(rule: Rule, width: int, height: int, size: int, box: Box | None = None) -> int:
    """Side of the square in pixels of the photo; at least `size` where the photo allows it, at most its shorter side."""
    shorter = min(width, height)
    if rule.where == "box" and box is not None:
        wanted = max(box.width, box.height, (box.width * box.height / (1 - rule.background)) ** 0.5)
    else:
        wanted = rule.keep * shorter
    return min(shorter, max(size, round(wanted)))


def square(
    rule: Rule,
    width: int,
    height: int,
    size: int,
    box: Box | None = None,
    pixels: Pixels | None = None,
) -> Box:
    """The square to cut out of an upright photo of (width, height), inside the frame: what does not exist is not made up.

    box: the subject, in the photo's pixels (`where` box; without one, the centre). pixels: the whole photo (h, w, 3) at any
    scale (`where` sharpness). Raises ValueError when sharpness is asked for without pixels.
    """
    length = side(rule, width, height, size, box)
    x, y = width / 2, height / 2
    if rule.where == "box" and box is not None:
        x, y = box.left + box.width / 2, box.top + box.height / 2
    elif rule.where == "sharpness":
        if pixels is None:
            raise ValueError("to crop by sharpness takes the photo's pixels")
        fx, fy = sharpest(pixels, length / width, length / height)
        x, y = fx * width, fy * height
    left = min(max(0, int(x - length / 2)), width - length)
    top = min(max(0, int(y - length / 2)), height - length)
    return Box(left, top, length, length)


def sharpest(pixels: Pixels, width: float, height: float) -> tuple[float, float]:
    """Centre (x, y) of the window of (width, height) with most sharpness in it, all as fractions of the frame.

    Sharpness is what a slight blur takes away, so that strong but soft edges do not count; it weighs less towards the
    window's border, so that the subject comes to its middle. Among equals, the one nearest the centre of the frame.
    """
    h, w = pixels.shape[:2]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lost = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.5))
    cell = min(h, w) / CELLS
    rows, columns = max(1, round(h / cell)), max(1, round(w / cell))
    energy = cv2.resize(lost, (columns, rows), interpolation=cv2.INTER_AREA)
    n, m = max(1, round(height * rows)), max(1, round(width * columns))
    weight = np.outer(np.sin(np.pi * (np.arange(n) + 0.5) / n), np.sin(np.pi * (np.arange(m) + 0.5) / m))
    windows = np.lib.stride_tricks.sliding_window_view(energy, (n, m))
    score = np.einsum("abij,ij->ab", windows, weight)
    ys, xs = np.arange(score.shape[0]) + n / 2, np.arange(score.shape[1]) + m / 2
    off = np.hypot((ys / rows - 0.5)[:, None], (xs / columns - 0.5)[None])
    at = np.argmax(score - 1e-4 * max(float(score.max()), 1e-3) * off)
    y, x = np.unravel_index(at, score.shape)
    return float(xs[x] / columns), float(ys[y] / rows)


def cut(pixels: Pixels, reduction: int, box: Box, size: int) -> Pixels:
    """Cut `box` (in pixels of the photo) out of the photo decoded at 1 / reduction, and scale it down: (size, size, 3).

    The box is rounded to whole decoded pixels, at most a quarter of a pixel of the result where the photo was decoded at twice
    its scale. Raises ValueError where that would upscale.
    """
    square = region(pixels, reduction, box)
    if len(square) < size:
        raise ValueError(f"a square of {len(square)} pixels cannot become one of {size}: nothing is upscaled")
    return np.asarray(downscale(0, 0, len(square), size)(image=square)["image"])


def region(pixels: Pixels, reduction: int, box: Box) -> Pixels:
    """The square `box` (in pixels of the photo) of the photo decoded at 1 / reduction: a view (n, n, 3)."""
    h, w = pixels.shape[:2]
    length = min(round(box.width / reduction), h, w)
    left, top = min(round(box.left / reduction), w - length), min(round(box.top / reduction), h - length)
    return pixels[top : top + length, left : left + length]


@cache
def _library() -> Any:
    """albumentations, when it is first needed: it takes half a second to import, and should stay at home."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the net for a newer version of itself
    absent = "albumentations.pytorch" not in sys.modules
    if absent:
        sys.modules["albumentations.pytorch"] = None  # type: ignore[assignment]  # "not installed": it would bring torch along
    try:
        import albumentations  # type: ignore[import-untyped]
    finally:
        if absent:
            del sys.modules["albumentations.pytorch"]
    return albumentations


def downscale(left: int, top: int, length: int, size: int) -> Any:
    """The square from (left, top), by area averaging to size x size: antialiased, and the same filter for every photo."""
    A = _library()
    return A.Compose(
        [A.Crop(left, top, left + length, top + length), A.Resize(size, size, interpolation=cv2.INTER_AREA)]
    )


def augmentation(size: int, translate: float = TRANSLATE, color: float = COLOR, seed: int | None = None) -> Any:
    """Training-time augmentation of (size, size, 3) uint8: mirrored or not, moved by whole pixels, other colours.

    What comes in at the border is the mirrored picture, as sharp as it is there. Call it as `augmentation(64)(image=photo)`.
    """
    A = _library()
    reach = int(size * translate)
    steps: list[Any] = [A.HorizontalFlip(p=0.5)]
    if reach:
        steps += [A.Pad(reach, border_mode=cv2.BORDER_REFLECT_101), A.RandomCrop(size, size)]
    if color:
        limits = (1 - color, 1.0)
        steps.append(A.ColorJitter(brightness=limits, contrast=limits, saturation=limits, hue=(0, 0), p=1.0))
    return A.Compose(steps, seed=seed)
