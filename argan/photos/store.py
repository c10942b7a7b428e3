"""The store of photographs that training and evaluation read: `photos.npy`, memory-mapped, and `index.parquet`.

    photos.npy       uint8 (N, H, W, 3)
    index.parquet    a row per photo: source, sha256, width, height, crop_left, crop_top, crop_size, split, and what else is known
    quarantine.csv   source, reason: what was refused and why

A store is written whole beside its place and swapped in, so a reader never meets half of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from argan.errors import UserError
from argan.files import swapped

COLUMNS = ("source", "sha256", "width", "height", "crop_left", "crop_top", "crop_size", "split")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Photos:
    """An opened store. `pixels` is read-only and memory-mapped: (N, H, W, 3) uint8, row i described by `index.iloc[i]`."""

    folder: Path
    pixels: np.ndarray
    index: pd.DataFrame

    @classmethod
    def open(cls, folder: str | Path) -> Photos:
        """Raises UserError when the store is missing, damaged, or its two files do not belong together."""
        folder = Path(folder)
        again = f"delete {folder} and run `dvc repro`"
        try:
            pixels = np.load(folder / "photos.npy", mmap_mode="r", allow_pickle=False)
            index = pd.read_parquet(folder / "index.parquet")
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename or folder} is not there; make the photo store first (dvc repro)"
            ) from error
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{folder} is damaged ({_line(error)}); {again}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise UserError(f"{folder}/photos.npy is {pixels.dtype} {pixels.shape}, not uint8 (N, H, W, 3); {again}")
        if missing := [name for name in COLUMNS if name not in index]:
            raise UserError(f"{folder}/index.parquet lacks the columns {', '.join(missing)}; {again}")
        if len(index) != len(pixels):
            raise UserError(f"{folder}: {len(index)} rows in index.parquet, {len(pixels)} in photos.npy; {again}")
        return cls(folder, pixels, index)

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending, int64."""
        if split not in SPLITS:
            raise UserError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")
        return np.flatnonzero(self.index["split"].to_numpy() == split)

    def split(self, name: str) -> np.ndarray:
        """The photos of a split, copied into memory: (n, H, W, 3) uint8."""
        return np.asarray(self.pixels[self.rows(name)])

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of what the photos are and how they are split; their pixels enter by the index's sha256 column."""
        told = [self.pixels.shape, self.index["sha256"].tolist(), self.index["split"].tolist()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def write_rows(path: Path, shape: tuple[int, ...], dtype: type, chunks: Iterable[np.ndarray]) -> None:
    """Write an .npy file of `shape` from consecutive chunks of its rows.

    By plain writes, not through a memory map: there a full disk kills the process without a word.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).data)


def write(folder: str | Path, pixels: np.ndarray, index: pd.DataFrame, quarantine: pd.DataFrame) -> None:
    """Write a store whole. pixels (N, H, W, 3) uint8 (a memory map will do), `index` a row per photo, COLUMNS and others."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) != len(index):
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape} and {len(index)} index rows make no photo store")
    with swapped(folder) as new:
        np.save(new / "photos.npy", pixels, allow_pickle=False)
        columns = [*COLUMNS, *(name for name in index if name not in COLUMNS)]
        index.loc[:, columns].to_parquet(new / "index.parquet", index=False)
        quarantine.to_csv(new / "quarantine.csv", index=False, columns=["source", "reason"])


def sha256(photo: np.ndarray) -> str:
    """Of one photo's pixels and shape: the same photo at another size is another photo."""
    return hashlib.sha256(repr(photo.shape).encode() + np.ascontiguousarray(photo).tobytes()).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
