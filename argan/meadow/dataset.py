"""The meadow as a data set: its raw files, written once, and the photo store and exact depth made of them.

data/raw/meadow/photos.npy      uint8 (N, R, R, 3)
data/raw/meadow/disparity.npy   float32 (M, R, R), exact, of the held-out photographs, which are the last
data/raw/meadow/scenes.json     count, seed, resolution, and the range of numbers of each split
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from argan.config.schema import Meadow
from argan.effects.iris import find_highlights, measure_iris
from argan.errors import UserError
from argan.files import swapped
from argan.meadow.batch import photographs
from argan.photos import sharpness, store
from argan.photos.lens import LOOKED_AT
from argan.photos.truth import write_truth

CHUNK = 2000  # scenes between two lines of progress

Say = Callable[[str], None]


def write_raw(settings: Meadow, raw: Path, say: Say) -> None:
    """Make the photographs. Exact depth is kept of the held-out scenes alone, so that training cannot see any."""
    resolution, count = settings.resolution, settings.photos
    shape = (resolution, resolution)
    train = count - settings.validation - settings.test
    began = time.perf_counter()
    held_out = []

    def chunks() -> Iterator[np.ndarray]:
        edges = sorted({*range(0, count, CHUNK), train, count})
        for start, stop in pairwise(edges):
            photos, disparity = photographs(stop - start, resolution, settings.seed, start=start, depth=start >= train)
            if disparity is not None:
                held_out.append(disparity)
            yield photos
            say(f"{stop}/{count} photographs, {stop / (time.perf_counter() - began):.0f}/s")

    with swapped(raw) as new:
        store.write_rows(new / "photos.npy", (count, *shape, 3), np.uint8, chunks())
        store.write_rows(new / "disparity.npy", (count - train, *shape), np.float32, held_out)
        splits = {
            "train": [0, train],
            "validation": [train, train + settings.validation],
            "test": [train + settings.validation, count],
        }
        scenes = {"count": count, "seed": settings.seed, "resolution": resolution, "splits": splits}
        (new / "scenes.json").write_text(json.dumps(scenes, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Raw:
    """photos (N, R, R, 3) uint8; disparity (M, R, R) float32 of the last M; split (N,) the name of each."""

    photos: np.ndarray
    disparity: np.ndarray
    split: np.ndarray


def write_store(raw: Path, folder: Path, truth: Path, refused_max: float) -> str:
    """Check every photo, refuse what is none and exact copies, and write the store and, apart from it, the exact depth.

    Returns what was written in a line. Raises UserError where the raw files are damaged or more than `refused_max` is refused.
    """
    source = _read(raw)
    count, height, width, _ = source.photos.shape
    kept, table, refused = _checked(source)
    if len(refused) > refused_max * count:
        raise UserError(
            f"{raw}: {len(refused)} of {count} photos refused, more than crop.refused_max {refused_max:g} allows "
            f"(the first: {refused[0][0]}, {refused[0][1]}); fix the source or raise the parameter in params.yaml"
        )
    pixels = source.photos if len(kept) == count else source.photos[kept]
    store.write(folder, pixels, table, pd.DataFrame(refused, columns=["source", "reason"]))
    train = kept[(table["split"] == "train").to_numpy()][:LOOKED_AT]
    measure_iris([find_highlights(source.photos[row]) for row in train]).save(folder)
    first_held_out = count - len(source.disparity)
    rows = np.flatnonzero(kept >= first_held_out)
    write_truth(truth, "disparity", source.disparity[kept[rows] - first_held_out], rows)
    counts = ", ".join(f"{(table['split'] == split).sum()} {split}" for split in store.SPLITS)
    return f"{len(kept)} photos of {width} x {height} px ({counts}), {len(refused)} refused, exact depth of {len(rows)}"


def _checked(source: _Raw) -> tuple[np.ndarray, pd.DataFrame, list[tuple[str, str]]]:
    """Numbers of the photos that are taken (n,), their index, and (source, reason) of the others."""
    _, height, width, _ = source.photos.shape
    refused, index = [], []
    first: dict[str, int] = {}
    for i, photo in enumerate(source.photos):
        name, digest = f"scene {i}", store.sha256(photo)
        if photo.min() == photo.max():
            refused.append((name, "constant: every pixel has the same value"))
        elif digest in first:  # the earlier copy stays, so that no photo is in two splits
            refused.append((name, f"exact copy of scene {first[digest]}"))
        else:
            first[digest] = i
            index.append((name, digest, width, height, 0, 0, min(width, height), source.split[i]))
    table = pd.DataFrame(index, columns=list(store.COLUMNS))
    kept = np.array(list(first.values()), int)
    table["sharpness"] = [sharpness.pack(sharpness.sharpness(source.photos[i])) for i in kept]
    return kept, table, refused


def _read(raw: Path) -> _Raw:
    """The raw files, checked against each other. Raises UserError."""
    try:
        scenes = json.loads((raw / "scenes.json").read_text(encoding="utf-8"))
        photos = np.load(raw / "photos.npy", mmap_mode="r", allow_pickle=False)
        disparity = np.load(raw / "disparity.npy", mmap_mode="r", allow_pickle=False)
        split = np.empty(scenes["count"], object)
        for name, (start, stop) in scenes["splits"].items():
            split[start:stop] = name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise UserError(f"{raw} is damaged ({' '.join(str(error).split())}); delete it and run `dvc repro`") from error
    if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[3] != 3 or len(photos) != len(split):
        raise UserError(
            f"{raw}/photos.npy is {photos.dtype} {photos.shape}, not uint8 ({len(split)}, R, R, 3); delete {raw}"
        )
    held_out = int(np.sum(split != "train"))
    if disparity.dtype != np.float32 or disparity.shape != (held_out, *photos.shape[1:3]):
        raise UserError(
            f"{raw}/disparity.npy is {disparity.dtype} {disparity.shape}, not float32 of {held_out} scenes; delete {raw}"
        )
    return _Raw(photos, disparity, split)
