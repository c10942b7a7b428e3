"""Crop: data/raw/<domain>/ -> the photo store data/photos/<domain>/ and, apart from it, data/truth/<domain>/."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from argan.config.schema import Collection, Domain, Meadow, Params, Published
from argan.effects.iris import Iris, find_highlights, measure_iris
from argan.errors import UserError
from argan.files import swapped
from argan.photos import collection, report, sharpness
from argan.photos import store as photos
from argan.photos.crop import Box, Rule
from argan.photos.ingest import ingest, printable
from argan.photos.lens import LOOKED_AT, measure
from argan.photos.prepare import File
from argan.photos.report import About
from argan.photos.sources import DATASETS
from argan.photos.store import Photos, sha256
from pipelines.stage import run_stage, say

EVERY = 10.0  # seconds between two lines of progress
NO_TRUTH = "No exact depth is known for these photographs: evaluation leaves the depth scores out.\n"


def crop(domain: str, params: Params) -> None:
    """Check every photo, refuse what is none, and write the store and, apart from it, what judges depth."""
    settings = params.domain(domain)
    if isinstance(settings, Meadow):
        _meadow(domain, params)
    elif isinstance(settings, Published | Collection):
        _photographs(domain, settings, params)
    raw, store = Path("data/raw") / domain, Path("data/photos") / domain
    told = report.write(store, _about(domain, settings), params.crop.floors, lambda source: raw / source)
    for why in told["unfit"]:
        say(f"{domain}: not fit for training. {why}")
    for warning in told["warnings"]:
        say(f"{domain}: {warning}")
    say(f"{domain}: see {store}/report.html")


def _about(domain: str, settings: Domain) -> About:
    if isinstance(settings, Meadow):
        return About("meadow", licence="Made by this program: free to use.", splits="by number; the last are held out")
    if isinstance(settings, Published):
        dataset = DATASETS[settings.source]
        return About(dataset.title, dataset.homepage, dataset.licence, dataset.citation, dataset.splits)
    return About(f"the collection {domain}", splits="by the hash of each group of near duplicates: 80, 10 and 10 %")


def _photographs(domain: str, settings: Published | Collection, params: Params) -> None:
    """Photo files, through `ingest`; those that the store before held are not decoded again."""
    raw, store, size = Path("data/raw") / domain, Path("data/photos") / domain, settings.resolution
    files, masks = _files(settings, raw)
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            say(f"{domain}: {done:,}/{total:,} photos")

    rule = Rule(**settings.crop.model_dump())
    with swapped(store) as new:
        took = ingest(
            files, new, size, rule=rule, previous=store, refused_max=params.crop.refused_max, progress=progress
        )
        lens = _lens(files, Photos.open(new), store)
        lens.save(new)
    known = _masks(domain, settings, Photos.open(store), masks)
    refused = ", ".join(f"{count:,} {kind}" for kind, count in took.refused.items()) or "none"
    say(
        f"{domain}: {took.photos:,} photos of {size} x {size} px, {took.decoded:,} decoded now; refused: {refused}; "
        f"{took.groups:,} groups of near duplicates; masks of {known:,} held-out photos"
    )
    say(f"{domain}: {lens.summary}")


def _lens(files: list[File], store: Photos, previous: Path) -> Iris:
    """Of the photos to train on alone: what is held out must not shape the model."""
    paths = {printable(file.source): file.path for file in files}
    table = store.index.loc[store.rows("train"), ["source", "file_sha256"]]
    return measure({digest: paths[source] for source, digest in table.itertuples(index=False, name=None)}, previous)


def _files(settings: Published | Collection, raw: Path) -> tuple[list[File], dict[str, Path]]:
    """What is to be taken in, and by its source the mask of the subject, where one is published."""
    if isinstance(settings, Collection):
        return collection.Collection.open(raw.name, raw.parent).files(), {}
    files, masks = [], {}
    for row in DATASETS[settings.source].rows(raw):
        source = row.image.relative_to(raw).as_posix()
        files.append(File(row.image, source, box=_box(row.box), split=row.split))
        if row.mask is not None and row.split != "train":
            masks[source] = row.mask
    return files, masks


def _box(box: tuple[float, float, float, float] | None) -> Box | None:
    return None if box is None else Box(*(round(edge) for edge in box))


def _masks(domain: str, settings: Published | Collection, store: Photos, masks: dict[str, Path]) -> int:
    """Write the masks of held-out photos, cut as they are: uint8 (M, size, size), 255 = subject. Training never sees one."""
    foreground = DATASETS[settings.source].foreground if isinstance(settings, Published) else None
    size, photo, cuts = store.pixels.shape[1], [], []
    table = store.index[["source", "width", "height", "crop_left", "crop_top", "crop_size"]]
    for row, (source, width, height, left, top, length) in enumerate(table.itertuples(index=False, name=None)):
        if foreground is None or source not in masks:
            continue
        mask = foreground(masks[source])
        if mask.shape != (height, width):
            say(f"{domain}: the mask of {source} is {mask.shape[1]} x {mask.shape[0]} px, the photo is not: left out")
            continue
        square = mask[top : top + length, left : left + length].astype(np.uint8) * 255
        cuts.append(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))
        photo.append(row)
    with swapped(Path("data/truth") / domain) as new:
        (new / "README.md").write_text(NO_TRUTH, encoding="utf-8")
        if photo:
            np.save(new / "masks.npy", np.stack(cuts), allow_pickle=False)
            pd.DataFrame({"photo": photo}).to_parquet(new / "masks.parquet", index=False)
    return len(photo)


def _meadow(domain: str, params: Params) -> None:
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
    table["sharpness"] = [sharpness.pack(sharpness.sharpness(pixels[i])) for i in kept]
    rows = np.array(kept)
    photos.write(
        Path("data/photos") / domain,
        pixels if len(rows) == count else pixels[rows],
        table,
        pd.DataFrame(refused, columns=["source", "reason"]),
    )
    train = rows[(table["split"] == "train").to_numpy()][:LOOKED_AT]
    measure_iris([find_highlights(pixels[row]) for row in train]).save(Path("data/photos") / domain)
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
    run_stage(crop)
