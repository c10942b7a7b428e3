"""Crop: data/raw/<domain>/ -> the photo store data/photos/<domain>/ and, apart from it, data/truth/<domain>/."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from argan import photos
from argan.errors import UserError
from argan.params import Params
from argan.photos import sha256, swapped
from pipelines import run, say

NO_TRUTH = "No exact depth is known for these photographs: evaluation leaves the depth scores out.\n"


def crop(domain: str, params: Params) -> None:
    """Check every photo, refuse what is none, keep one of exact copies, and write the store and the truth."""
    raw = Path("data/raw") / domain
    pixels, disparity, splits = _read(raw)
    count, height, width, _ = pixels.shape
    kept, refused, index = [], [], []
    first: dict[str, int] = {}
    for i, photo in enumerate(pixels):
        source, digest = f"scene {i}", sha256(photo)
        reason = _fault(photo)
        if reason is None and digest in first:
            # One copy stays, the earlier: no photo can be in two splits.
            reason = f"exact copy of scene {first[digest]}"
        if reason is not None:
            refused.append((source, reason))
            continue
        first[digest] = i
        kept.append(i)
        index.append((source, digest, width, height, 0, 0, min(width, height), splits[i]))
    if len(refused) > params.crop.refused_max * count:
        raise UserError(
            f"{raw}: {len(refused)} of {count} photos refused, more than crop.refused_max {params.crop.refused_max:g} allows "
            f"(the first: {refused[0][0]}, {refused[0][1]}); mend the source or raise the parameter in params.yaml"
        )
    table = pd.DataFrame(index, columns=list(photos.COLUMNS))
    rows = np.array(kept)
    photos.write(
        Path("data/photos") / domain,
        pixels if len(rows) == count else pixels[rows],
        table,
        pd.DataFrame(refused, columns=["source", "reason"]),
    )
    known = _truth(domain, disparity, rows, count)
    split = table["split"].value_counts()
    say(
        f"{domain}: {len(rows)} photos of {width} x {height} px ({', '.join(f'{split.get(s, 0)} {s}' for s in photos.SPLITS)}), "
        f"{len(refused)} refused, exact depth of {known}"
    )


def _fault(photo: np.ndarray) -> str | None:
    if photo.min() == photo.max():
        return "constant: every pixel has the same value"
    return None


def _read(raw: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photos (N, R, R, 3), disparity of the held-out ones (M, R, R) and the split of each (N,), checked against each other."""
    try:
        scenes = json.loads((raw / "scenes.json").read_text(encoding="utf-8"))
        pixels = np.load(raw / "photos.npy", mmap_mode="r", allow_pickle=False)
        disparity = np.load(raw / "disparity.npy", mmap_mode="r", allow_pickle=False)
        splits = np.empty(scenes["count"], object)
        for name, (start, stop) in scenes["splits"].items():
            splits[start:stop] = name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise UserError(f"{raw} is damaged ({' '.join(str(error).split())}); delete it and run `dvc repro`") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != len(splits):
        raise UserError(
            f"{raw}/photos.npy is {pixels.dtype} {pixels.shape}, not uint8 ({len(splits)}, R, R, 3); delete {raw}"
        )
    held_out = int(np.sum(splits != "train"))
    if disparity.dtype != np.float32 or disparity.shape != (held_out, *pixels.shape[1:3]):
        raise UserError(
            f"{raw}/disparity.npy is {disparity.dtype} {disparity.shape}, not float32 of {held_out} scenes; delete {raw}"
        )
    return pixels, disparity, splits


def _truth(domain: str, disparity: np.ndarray, rows: np.ndarray, count: int) -> int:
    """Write the exact depth of the held-out photos that were kept; `photo` is the row in photos.npy."""
    begins = count - len(disparity)
    photo = np.flatnonzero(rows >= begins)
    with swapped(Path("data/truth") / domain) as new:
        if len(photo):
            np.save(new / "disparity.npy", disparity[rows[photo] - begins], allow_pickle=False)
            pd.DataFrame({"photo": photo}).to_parquet(new / "index.parquet", index=False)
        else:
            (new / "README.md").write_text(NO_TRUTH, encoding="utf-8")
    return len(photo)


if __name__ == "__main__":
    run(crop)
