"""What judges the depth of held-out photos, kept apart from the store that training reads: data/truth/<domain>/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from argan.files import swapped
from argan.photos.store import Photos

NO_TRUTH = "No exact depth is known for these photographs: evaluation leaves the depth scores out.\n"
TABLES = {"disparity": "index", "masks": "masks"}  # name of the parquet file beside each kind of array

Say = Callable[[str], None]
Foreground = Callable[[Path], np.ndarray]  # of a mask's file: (H, W) bool, the subject


def write_truth(folder: Path, kind: str, maps: np.ndarray, rows: np.ndarray) -> None:
    """Write `maps` (M, H, W), disparity or masks, of the photos in these rows (M,) of the store."""
    with swapped(folder) as new:
        if kind != "disparity" or not len(rows):
            (new / "README.md").write_text(NO_TRUTH, encoding="utf-8")
        if len(rows):
            np.save(new / f"{kind}.npy", maps, allow_pickle=False)
            pd.DataFrame({"photo": rows}).to_parquet(new / f"{TABLES[kind]}.parquet", index=False)


def write_masks(folder: Path, store: Photos, masks: Mapping[str, Path], foreground: Foreground | None, say: Say) -> int:
    """Write the masks of held-out photos, by their sources, cropped as they are: uint8 (M, size, size), 255 = subject.

    Returns how many there are. A mask of another size than its photo is left out, saying so.
    """
    size, rows, crops = store.pixels.shape[1], [], []
    table = store.index[["source", "width", "height", "crop_left", "crop_top", "crop_size"]]
    for row, (source, width, height, left, top, length) in enumerate(table.itertuples(index=False, name=None)):
        if foreground is None or source not in masks:
            continue
        mask = foreground(masks[source])
        if mask.shape != (height, width):
            say(f"the mask of {source} is {mask.shape[1]} x {mask.shape[0]} px, the photo is not: left out")
            continue
        square = mask[top : top + length, left : left + length].astype(np.uint8) * 255
        crops.append(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))
        rows.append(row)
    write_truth(folder, "masks", np.stack(crops) if crops else np.empty((0, size, size), np.uint8), np.array(rows, int))
    return len(rows)
