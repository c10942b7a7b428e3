"""What an earlier photo store knows of files by the hash of their bytes, so that they are not decoded again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.errors import UserError
from argan.photos.duplicates import Pairs
from argan.photos.store import Photos

VERSION = 2  # raise when the same file becomes other pixels or facts: earlier stores then give only groups and splits
FACTS = ("file_sha256", "format", "phash", "group", "aperture", "focal_length", "taken", "camera", "sharpness")
# Kinds of fault that are the file's own, and so need not be looked for again in the same bytes
PERMANENT_FAULTS = (
    "empty",
    "not an image",
    "truncated",
    "damaged",
    "too small",
    "bomb",
    "animated",
    "cut out",
    "no photograph",
    "constant",
)
ROWS = 256  # pictures read at a time


@dataclass
class PreviousStore:
    """The earlier store, as far as it was made with the same settings."""

    index: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, int] = field(default_factory=dict)  # hash of a file -> its row
    faults: dict[str, str] = field(default_factory=dict)  # hash of a file -> why it was refused
    settled: dict[str, tuple[str, str]] = field(default_factory=dict)  # hash of a file -> its group and split
    splits: dict[str, Any] | None = None
    pixels: Path | None = None
    offset: int = 0  # bytes of the header of `pixels`

    @classmethod
    def open(cls, folder: Path | None, settings: dict[str, Any]) -> PreviousStore:
        """Empty without a store, or where it was made with other settings: then all files are decoded."""
        if folder is None or not (folder / "index.parquet").exists():
            return cls()
        try:
            store = Photos.open(folder)
        except UserError:  # damaged: all is decoded again
            return cls()
        attrs = store.index.attrs
        earlier = attrs.get("ingest") or {}
        columns = ("file_sha256", "group")
        if {**earlier, "version": VERSION} != settings or any(name not in store.index for name in columns):
            return cls()
        names = store.index[["file_sha256", "group", "split"]].itertuples(index=False, name=None)
        settled = {digest: (group, split) for digest, group, split in names}
        if not is_current(store.index) or any(name not in store.index for name in FACTS):
            return cls(settled=settled, splits=attrs.get("splits"))
        table = [store.index[name].to_numpy(object, na_value=None).tolist() for name in store.index]  # type: ignore[call-overload]
        index = [dict(zip(store.index.columns, values, strict=True)) for values in zip(*table, strict=True)]
        row = {facts["file_sha256"]: i for i, facts in enumerate(index)}
        offset = int(getattr(store.pixels, "offset", 0))
        pixels = folder / "photos.npy"
        return cls(index, row, _permanent_faults(folder), settled, attrs.get("splits"), pixels, offset)


def is_current(index: pd.DataFrame) -> bool:
    """Whether a store's index is of this version; an earlier one is made again from the photos when the store next changes."""
    return bool((index.attrs.get("ingest") or {}).get("version") == VERSION)


def kind_of(reason: str) -> str:
    return reason.split(":")[0]


def _permanent_faults(folder: Path) -> dict[str, str]:
    """Hash of a file -> why it was refused, where that will always be so."""
    try:
        quarantine = pd.read_csv(folder / "quarantine.csv", keep_default_na=False, dtype=str)
    except (OSError, ValueError):  # what was refused is then looked at again
        return {}
    refused = zip(quarantine.get("file_sha256", []), quarantine["reason"], strict=False)
    return {digest: reason for digest, reason in refused if digest and kind_of(reason) in PERMANENT_FAULTS}


class PictureReader:
    """Pictures of rows, old and new, from their files by plain reads: a memory map would count as memory.

    A row is its number in the previous store, or -1 - its number in the file of new pictures.
    """

    def __init__(self, size: int, previous: PreviousStore, new: IO[bytes]) -> None:
        self.shape = (size, size, 3)
        self.bytes = size * size * 3
        self.previous, self.new = previous, new
        self.thumbnails: dict[int, NDArray[np.float32]] = {}
        new.flush()

    def read(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """(n, size, size, 3). Raises UserError where the previous store is cut off."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        flat = out.reshape(len(rows), self.bytes)
        with open(self.previous.pixels or os.devnull, "rb") as old:  # noqa: PTH123
            for i, row in enumerate(rows):
                file, position = (
                    (old, self.previous.offset + row * self.bytes) if row >= 0 else (self.new, (-1 - row) * self.bytes)
                )
                file.seek(position)
                content = file.read(self.bytes)
                if len(content) != self.bytes:
                    raise UserError(f"{self.previous.pixels} is cut off; delete its folder and run `dvc repro`")
                flat[i] = np.frombuffer(content, np.uint8)
        return out

    def alike(self, rows: Sequence[int], pairs: Pairs, correlation: float) -> NDArray[np.bool_]:
        """Which of the pairs (P, 2) of positions in `rows` show the same: (P,)."""
        missing = sorted({rows[i] for i in np.unique(pairs).tolist()} - self.thumbnails.keys())
        for i in range(0, len(missing), ROWS):
            for row, picture in zip(missing[i : i + ROWS], self.read(missing[i : i + ROWS]), strict=True):
                self.thumbnails[row] = _thumbnail(picture)
        a, b = (np.stack([self.thumbnails[rows[i]] for i in pairs[:, side].tolist()]) for side in (0, 1))
        return np.einsum("pi,pi->p", a, b) >= correlation


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brightness over 16 x 16 cells, (256,), without its mean and of length 1: products of two are correlations."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel()
    cells = cells - cells.mean()
    return np.asarray(cells / max(float(np.linalg.norm(cells)), 1e-6), np.float32)
