"""Ground truth of photographs: exact disparity or subject masks by row of the store, or a reference network's depth instead."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from argan.errors import UserError
from argan.evaluation.arrays import BATCH, Maps, Pixels, Rows
from argan.evaluation.cache import Cache
from argan.metrics import reference
from argan.photos.store import Photos


def load_maps(folder: Path, store: Photos, name: str, index: str) -> dict[int, NDArray[Any]]:
    """Maps (H, W) of `name` by row of the store; empty where the domain has none."""
    if not (folder / f"{name}.npy").exists():
        return {}
    remedy = f"delete {folder} and run `dvc repro`"
    try:
        maps = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        rows = pd.read_parquet(folder / f"{index}.parquet")["photo"].to_numpy().astype(np.int64)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged ({' '.join(str(error).split())[:200]}); {remedy}") from error
    if maps.shape != (len(rows), *store.pixels.shape[1:3]) or (
        len(rows) and not 0 <= rows.min() <= rows.max() < len(store)
    ):
        raise UserError(
            f"{folder} holds {name} {maps.shape} for {len(rows)} photos of the store {store.folder}: not its own; {remedy}"
        )
    if name == "masks" and not ((maps > 0.9 * 255).any((1, 2)) & (maps < 0.1 * 255).any((1, 2))).any():
        raise UserError(f"{folder}/masks.npy tells subject from background in none of {len(maps)} photos; {remedy}")
    return dict(zip(rows.tolist(), maps, strict=True))


def photos_digest(store: Photos, rows: Rows) -> str:
    """A hash of some photos: their pixels enter by the index's sha256 column."""
    content = [store.pixels.shape[1:], store.index["sha256"].iloc[rows].tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def truth_digest(rows: Rows, disparity: dict[int, Maps], masks: dict[int, Pixels]) -> str:
    """A hash of the truth of some photos: two models are compared by the same."""
    digest = hashlib.sha256()
    for i, row in enumerate(rows.tolist()):
        for name, maps in (("disparity", disparity), ("mask", masks)):
            if row in maps:
                digest.update(f"{i} {name}\n".encode())
                digest.update(np.ascontiguousarray(maps[row]).tobytes())
    return digest.hexdigest()[:8]


def reference_depth(cache: Cache, store: Photos, rows: Rows, device: torch.device) -> dict[int, Maps]:
    """The reference network's depth of photos, by row of the store: from -1 to 1 in each, since its scale is unknown."""
    key = {
        "photos": photos_digest(store, rows),
        "count": len(rows),
        "reference": reference.NAME,
        "seen": reference.INPUT_SIZE,
        "torch": torch.__version__,
    }
    if (cached := cache.find(**key)) is None:
        network = reference.reference(device)
        with cache.put(**key) as write:
            for i in range(0, len(rows), BATCH):
                maps = network(np.asarray(store.pixels[rows[i : i + BATCH]]))
                low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
                write((2 * (maps - low) / np.maximum(high - low, 1e-9) - 1).reshape(len(maps), -1))
        cached = write.features
    return dict(zip(rows.tolist(), cached.reshape(-1, *store.pixels.shape[1:3]), strict=True))
