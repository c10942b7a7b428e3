"""Can AR-GAN learn from these photographs? Measured on the store, before a GPU is spent: numbers, and a verdict in words.

AR-GAN learns depth from defocus and begins with the prior that what is in focus is in the middle. So photographs must show both
sharp and soft parts, sharp in the middle more often than at the border, and there must be enough of them.

Sharpness of a place is its steepest step between two pixels over the range of brightness around it: an edge in focus takes one
or two pixels, whatever its contrast. Textureless places have none and do not count. Measured (200 photos of each kind):

    share of photos with defocus    meadow at 32 px 0.24, at 64 px 0.64; its scenes all in focus 0.02, 0.01; evenly blurred 0.00;
                                    noise 0.00; 29 photographs of animals, a few with plain bokeh, 0.14 at 64 px, 0.38 at 128 px
    middle over border              meadow at 32 px 0.19, at 64 px 0.23; the same moved to anywhere in the frame 0.02;
                                    the animals 0.08 at 128 px
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.params import Floors
from argan.photos import SPLITS, Photos

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

CELLS = 8  # across the frame: the fewest in which a subject has a middle and a border; at 32 px each has 16 pixels
AROUND = 9  # windows across the frame: the window is as large as a cell
CONTRAST = 16.0  # grey levels: less than this is noise or sky
MEASURABLE = 16  # cells of 64 that must have contrast, else nothing is said of the photo
SOFT, SHARP = 15, 85  # percentiles of a photo's cells taken for its softest and its sharpest part
DEFOCUS = 0.4  # softest part softer than the sharpest by this: scenes all in focus reach it in 2 of 100 photos, for texture differs
LOOKED_AT = 1000  # photos at most, evenly chosen: the shares are then known to 0.01
JUDGED = 2  # test photos without which evaluation has nothing to compare with
TELLING = 30  # photos with defocus: of fewer, chance alone moves the middle by 0.03 and more


@dataclass(frozen=True)
class Sharpness:
    """map (CELLS, CELLS): mean over photos, relative to each photo's own mean. rows: the photos looked at; defocus of each."""

    map: Maps
    rows: NDArray[np.int64]
    defocus: NDArray[np.float64]
    share: float
    centered: float


def sharpness(photo: Pixels) -> Maps:
    """(S, S, 3) -> (CELLS, CELLS) from 0 (soft) to 1 (a step from one pixel to the next); NaN where there is no contrast."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    window = np.ones((max(5, 2 * round(len(grey) / AROUND / 2) + 1),) * 2, np.uint8)
    extent = cv2.dilate(grey, window) - cv2.erode(grey, window)
    step = np.zeros_like(grey)
    step[:, :-1] = np.abs(np.diff(grey, axis=1))
    step[:-1] = np.maximum(step[:-1], np.abs(np.diff(grey, axis=0)))
    there = (extent > CONTRAST).astype(np.float32)
    ratio = there * cv2.dilate(step, window) / np.maximum(extent, 1)
    total, count = (cv2.resize(each, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for each in (ratio, there))
    return np.where(count > 0, total / np.maximum(count, 1e-6), np.float32(np.nan))


def sharpness_of(store: Photos) -> Sharpness:
    """Of the photos to learn from."""
    rows = store.rows("train")
    if not len(rows):
        rows = np.arange(len(store))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).astype(int))]
    total, count = np.zeros((2, CELLS, CELLS)), np.zeros((2, CELLS, CELLS))  # of all, and of those with defocus
    defocus = np.zeros(len(rows))
    for i, row in enumerate(rows):
        cells = sharpness(np.asarray(store.pixels[row]))
        known = np.isfinite(cells)
        if known.sum() < MEASURABLE:
            continue
        ordered = np.sort(cells[known])  # np.percentile takes ten times as long
        soft, sharp = np.interp(np.array([SOFT, SHARP]) / 100 * (len(ordered) - 1), np.arange(len(ordered)), ordered)
        defocus[i] = 1 - soft / max(sharp, 1e-6)
        for kind in range(1 + (defocus[i] > DEFOCUS)):
            total[kind] += np.where(known, cells - cells[known].mean(), 0)
            count[kind] += known
    shown, with_defocus = (total / np.maximum(count, 1)).astype(np.float32)
    place = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    radius = np.hypot(place[:, None], place[None])
    centered = float(with_defocus[radius < 0.25].mean() - with_defocus[radius > 0.45].mean())
    return Sharpness(shown, rows, defocus, float((defocus > DEFOCUS).mean()), centered)


def measure(store: Photos, floors: Floors, quarantine: pd.DataFrame, found: Sharpness | None = None) -> dict[str, Any]:
    """What the store holds, as flat numbers; `unfit` lists in sentences why AR-GAN cannot learn from it, and is empty else."""
    found = found or sharpness_of(store)
    index = store.index
    told: dict[str, Any] = {"photos": len(store), "size": int(store.pixels.shape[1])}
    told |= {split: int((index["split"] == split).sum()) for split in SPLITS}
    told |= {"refused": len(quarantine), "refused_kinds": _kinds(quarantine)}
    told |= {"defocus": round(found.share, 4), "centered": round(found.centered, 4)}
    shorter = index[["width", "height"]].min(axis=1)
    told["shorter_side"] = [int(q) for q in shorter.quantile([0, 0.25, 0.5, 0.75, 1])] if len(index) else []
    if "group" in index:
        sizes = index["group"].value_counts()
        told |= {"near_duplicate_groups": int((sizes > 1).sum()), "near_duplicates": int(sizes[sizes > 1].sum())}
    for name in ("aperture", "focal_length"):
        values = index[name].dropna() if name in index else pd.Series(dtype=float)
        told |= {
            f"{name}_known": len(values),
            f"{name}_median": round(float(values.median()), 3) if len(values) else None,
        }
    dates = sorted(index["taken"].dropna()) if "taken" in index else []
    told["taken"] = [dates[0][:10], dates[-1][:10]] if dates else []
    cameras = index["camera"].dropna() if "camera" in index else pd.Series(dtype=str)
    told["cameras"] = {str(name): int(count) for name, count in cameras.value_counts().head(5).items()}
    told["unfit"] = _unfit(told, floors)
    return told


def _kinds(quarantine: pd.DataFrame) -> dict[str, int]:
    return dict(Counter(str(reason).split(":")[0] for reason in quarantine["reason"]).most_common())


def _unfit(told: dict[str, Any], floors: Floors) -> list[str]:
    """Every sentence has its number, the parameter that sets the floor, and the way out."""
    why = []
    if told["train"] < floors.photos:
        why.append(
            f"Too few photos: {told['train']} to learn from, at least {floors.photos} are needed (crop.photos_min). "
            "Add more of the same kind."
        )
    if told["test"] < JUDGED:
        why.append(
            f"Too few photos to judge by: {told['test']} test photos, evaluation needs {JUDGED}. Add more of the same kind."
        )
    if told["defocus"] < floors.defocus:
        why.append(
            f"No defocus: {told['defocus']:.1%} of the photos have both sharp and soft parts at {told['size']} px, at least "
            f"{floors.defocus:.0%} must (crop.defocus_min). Add photos taken with an open aperture, or choose a larger preset."
        )
    elif told["defocus"] * told["train"] >= TELLING and told["centered"] < floors.centered:
        why.append(
            f"Nothing centred: in photos with defocus the middle is {told['centered']:+.3f} sharper than the border, at least "
            f"{floors.centered:+.3f} is needed (crop.centered_min). Set the domain's crop.where to sharpness."
        )
    return why
