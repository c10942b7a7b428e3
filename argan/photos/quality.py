"""Can AR-GAN learn from these photographs? Measured on them, before a GPU is spent: numbers, and a verdict in words.

AR-GAN learns depth from defocus and begins with the prior that what is in focus is in the middle. So photographs must show both
sharp and soft parts, sharp in the middle more often than at the border, and there must be enough of them.

The sharpness of a photograph's places is measured when it is decoded (see `sharpness`), at 128 px whatever the preset, and
kept in the store's index: the verdict is one of the photographs. Photographs smaller than that are measured at their own
size, where less blur shows. Whether blur still shows at the preset's size is given beside it.

Measured (200 photos of each kind; 3,644 flower photographs of many photographers, a random 106 of those that show defocus, or
do not, beyond doubt):

                                                          share of photos with defocus    middle over border
    flower photographs                                    0.41                            +0.30
      that show defocus, to the eye (43)                  0.93                            +0.38
      that do not: fields, bouquets, silhouettes (63)     0.11
      blurred by 1 pixel; by 2                            0.003; 0.000
      moved to anywhere in the frame                                                      -0.03
      at 64 px; at 32 px                                  0.20; 0.10                      +0.25; +0.17
    29 photographs of animals, at 128 px; at 64 px        0.41; 0.07                      +0.03
    meadow at 128, 64, 32 px                              0.91, 0.63, 0.26                +0.43, +0.36, +0.24
      moved to anywhere in the frame                                                      -0.01, -0.01, -0.08
      all in focus                                        0.005, 0.000, 0.000
      all in focus, then evenly blurred                   0.000 at each
    noise                                                 0.000

Hence the floors (`params.Floors`). Defocus 0.15: above what photographs without any to see reach, 0.11, by chance and by soft
shading; below meadow at 32 px, where least is left of it. Centred 0.10: subjects anywhere in the frame come to 0 give or take
0.04 where only TELLING photos show defocus; meadow at 32 px reaches 0.24.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.config.schema import Floors
from argan.errors import UserError
from argan.photos import sharpness
from argan.photos.sharpness import CELLS, Maps
from argan.photos.splits import TEST_MIN
from argan.photos.store import SPLITS, Photos

MEASURABLE = 16  # cells of 64 that must have contrast, else nothing is said of the photo
SOFT, SHARP = 15, 85  # percentiles of a photo's cells taken for its softest and its sharpest part
DEFOCUS = 0.46  # softest part softer than the sharpest by this share: the table above
IN_FOCUS = 0.65  # least sharpness of the sharpest part: of 100 flowers blurred by 1 pixel 1 reaches it, of those with defocus all
VISIBLE = 1000  # photos at most, evenly chosen, whose blur is looked for at the size of the preset: the share is known to 0.02
TELLING = 30  # photos with defocus: of fewer, chance alone moves the middle by as much as its floor


@dataclass(frozen=True)
class Sharpness:
    """Of the photos to learn from, `rows` (n,) of the store.

    map (CELLS, CELLS): mean over photos of sharpness, relative to each photo's own mean and in units of its sharpest part.
    defocus (n,): how much softer the softest part of a photo is than the sharpest, 0 to 1; 0 where too little has contrast
    to say, or nothing is in focus. share: of photos with defocus. centered: in those, middle minus border of the map.
    """

    map: Maps
    rows: NDArray[np.int64]
    defocus: NDArray[np.float64]
    share: float
    centered: float


def defocus(cells: Maps) -> tuple[NDArray[np.float64], Maps]:
    """Of cells (n, CELLS, CELLS): defocus (n,) as in `Sharpness`, and the cells relative to their mean, in sharpest parts."""
    flat = np.sort(cells.reshape(len(cells), -1), axis=1)  # NaN last
    known = np.isfinite(flat).sum(axis=1)

    def percentile(q: int) -> NDArray[np.float64]:
        at = q / 100 * np.maximum(known - 1, 0)
        low, high = (np.take_along_axis(flat, f(at).astype(int)[:, None], 1)[:, 0] for f in (np.floor, np.ceil))
        return np.nan_to_num(low + (high - low) * (at - np.floor(at)))

    soft, sharp = percentile(SOFT), percentile(SHARP)
    measured = (known >= MEASURABLE) & (sharp > IN_FOCUS)
    mean = np.nansum(flat, axis=1) / np.maximum(known, 1)
    relative = (cells - mean[:, None, None]) / np.maximum(sharp, 1e-6)[:, None, None]
    return np.where(measured, 1 - soft / np.maximum(sharp, 1e-6), 0.0), relative.astype(np.float32)


def sharpness_of(store: Photos) -> Sharpness:
    """Of the photos to learn from; of all, where there are none of those. Raises UserError where they were not measured."""
    if "sharpness" not in store.index:
        raise UserError(
            f"{store.folder}/index.parquet has no column sharpness: an earlier version made it; delete {store.folder} and run "
            "`dvc repro`"
        )
    rows = store.rows("train")
    if not len(rows):
        rows = np.arange(len(store))
    amount, cells = defocus(sharpness.unpack(store.index["sharpness"].iloc[rows]))
    having = amount > DEFOCUS
    place = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    radius = np.hypot(place[:, None], place[None])
    mean = _mean(cells[having])
    centered = float(mean[radius < 0.25].mean() - mean[radius > 0.45].mean())
    return Sharpness(_mean(cells), rows, amount, float(having.mean()) if len(rows) else 0.0, centered)


def visible(store: Photos, rows: NDArray[np.int64]) -> float:
    """Share of the photos, VISIBLE of them at most, whose defocus still shows at the store's own size."""
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), VISIBLE)).astype(int))]
    if not len(chosen):
        return 0.0
    amount, _ = defocus(np.stack([sharpness.sharpness(np.asarray(store.pixels[row])) for row in chosen]))
    return float((amount > DEFOCUS).mean())


def measure(store: Photos, floors: Floors, quarantine: pd.DataFrame, focus: Sharpness | None = None) -> dict[str, Any]:
    """What the store holds, as flat numbers.

    `unfit` lists in sentences why AR-GAN cannot learn from the photographs, and is empty else; no preset changes it.
    `warnings`: what the store's size makes of them.
    """
    focus = focus or sharpness_of(store)
    index, size = store.index, int(store.pixels.shape[1])
    numbers: dict[str, Any] = {"photos": len(store), "size": size}
    numbers |= {split: int((index["split"] == split).sum()) for split in SPLITS}
    numbers |= {"refused": len(quarantine), "refused_kinds": _kinds(quarantine)}
    numbers |= {"defocus": round(focus.share, 4), "centered": round(focus.centered, 4)}
    measured_at = index["crop_size"].iloc[focus.rows].clip(upper=sharpness.SIZE)
    numbers["measured_at"] = int(measured_at.median()) if len(measured_at) else sharpness.SIZE
    same = size >= numbers["measured_at"]
    numbers["defocus_at_size"] = numbers["defocus"] if same else round(visible(store, focus.rows), 4)
    shorter = index[["width", "height"]].min(axis=1)
    numbers["shorter_side"] = [int(q) for q in shorter.quantile([0, 0.25, 0.5, 0.75, 1])] if len(index) else []
    if "group" in index:
        sizes = index["group"].value_counts()
        numbers |= {"near_duplicate_groups": int((sizes > 1).sum()), "near_duplicates": int(sizes[sizes > 1].sum())}
    for name in ("aperture", "focal_length"):
        values = index[name].dropna() if name in index else pd.Series(dtype=float)
        numbers |= {
            f"{name}_known": len(values),
            f"{name}_median": round(float(values.median()), 3) if len(values) else None,
        }
    dates = sorted(index["taken"].dropna()) if "taken" in index else []
    numbers["taken"] = [dates[0][:10], dates[-1][:10]] if dates else []
    cameras = index["camera"].dropna() if "camera" in index else pd.Series(dtype=str)
    numbers["cameras"] = {str(name): int(count) for name, count in cameras.value_counts().head(5).items()}
    numbers["unfit"] = _unfit(numbers, floors)
    numbers["warnings"] = []
    if numbers["defocus_at_size"] < floors.defocus <= numbers["defocus"]:
        numbers["warnings"].append(
            f"At {size} px blur shows in {numbers['defocus_at_size']:.1%} of the photos, at {numbers['measured_at']} px in "
            f"{numbers['defocus']:.1%}: a larger preset has more to learn depth from."
        )
    return numbers


def _mean(cells: Maps) -> Maps:
    """Over photos, (n, CELLS, CELLS) -> (CELLS, CELLS), of the cells that are known; 0 where none is."""
    known = np.isfinite(cells)
    total = np.where(known, cells, 0).sum(axis=0, dtype=np.float64)
    return (total / np.maximum(known.sum(axis=0), 1)).astype(np.float32)


def _kinds(quarantine: pd.DataFrame) -> dict[str, int]:
    return dict(Counter(str(reason).split(":")[0] for reason in quarantine["reason"]).most_common())


def _unfit(numbers: dict[str, Any], floors: Floors) -> list[str]:
    """Every sentence has its number, the parameter that sets the floor, and the way out."""
    why = []
    if numbers["train"] < floors.photos:
        why.append(
            f"Too few photos: {numbers['train']} to learn from, at least {floors.photos} are needed (crop.photos_min). "
            "Add more of the same kind."
        )
    if numbers["test"] < TEST_MIN:
        why.append(
            f"Too few photos to judge by: {numbers['test']} test photos, evaluation needs {TEST_MIN}. Add more of the same kind."
        )
    if numbers["defocus"] < floors.defocus:
        why.append(
            f"No defocus: {numbers['defocus']:.1%} of the photos have both sharp and soft parts at {numbers['measured_at']} px, "
            f"at least {floors.defocus:.0%} must (crop.defocus_min). Add photos taken with an open aperture."
        )
    elif numbers["defocus"] * numbers["train"] >= TELLING and numbers["centered"] < floors.centered:
        why.append(
            f"Nothing centred: in photos with defocus the middle is {numbers['centered']:+.3f} sharper than the border, at least "
            f"{floors.centered:+.3f} is needed (crop.centered_min). Set the domain's crop.where to sharpness."
        )
    return why
