"""How sharp a photograph is, place by place: in CELLS x CELLS cells of the square that is learned from, at one fixed size.

Sharpness of a place is the ratio of its finest detail to its contrast: the largest Laplacian over the range of brightness
around it. An edge in focus has the same ratio whatever its contrast: 1 for a step between two pixels, up to 2 where edges meet.
A defocused one keeps its contrast and loses the detail. Contrast is measured without what varies more slowly than a cell, so
a sky that brightens towards the sun is no soft edge, and where no contrast is left nothing is said (NaN).

It imports neither pandas nor torch: the processes that decode photographs measure them.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

# Pixels across the square: enough to see the blur of a background (at 64 px a third of it is left, at 32 px next to none),
# and even small web pictures have as many
SIZE = 128
CELLS = 8  # across the square: the fewest in which a subject has a middle and a border; at 32 px each has 16 pixels
AROUND = 9  # windows across the square: a window is as large as a cell
SLOW = 16, 4.0  # what varies more slowly than the square / 16 (half a cell), or than 4 pixels, is no edge
CONTRAST = 16.0  # grey levels: less than this is noise or sky
HIGHEST = 2.0  # of a step between two pixels that meets another; of single bright pixels, noise, it would be 4
UNKNOWN = 255  # of a packed cell


def sharpness(photo: Pixels) -> Maps:
    """(S, S, 3) -> (CELLS, CELLS) from 0 (soft) to HIGHEST; NaN where less than half of a cell has contrast around it."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    window = np.ones((max(5, 2 * round(len(grey) / AROUND / 2) + 1),) * 2, np.uint8)
    local = grey - cv2.GaussianBlur(grey, (0, 0), max(len(grey) / SLOW[0], SLOW[1]))
    extent = cv2.dilate(local, window) - cv2.erode(local, window)
    detail = cv2.dilate(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), window)
    there = (extent > CONTRAST).astype(np.float32)
    ratio = there * np.minimum(detail / np.maximum(extent, 1), HIGHEST)
    total, count = (cv2.resize(each, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for each in (ratio, there))
    return np.where(count > 0.5, total / np.maximum(count, 0.5), np.float32(np.nan))


def pack(cells: Maps) -> bytes:
    """A byte for each cell, row by row: 0 to 254 for 0 to HIGHEST, UNKNOWN for NaN."""
    level = np.nan_to_num(cells / HIGHEST * 254, nan=UNKNOWN)
    return np.rint(level).astype(np.uint8).tobytes()


def unpack(rows: Iterable[bytes]) -> Maps:
    """(N, CELLS, CELLS) of packed cells."""
    level = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, CELLS, CELLS)
    return np.where(level == UNKNOWN, np.float32(np.nan), level.astype(np.float32) * np.float32(HIGHEST / 254))
