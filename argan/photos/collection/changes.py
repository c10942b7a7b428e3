"""What every change of a collection shares: the lock, the preview written anew, and where its hidden files are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from argan.locks import exclusive_lock
from argan.photos import ingest
from argan.photos.collection.contents import Collection
from argan.photos.prepare import SourceFile
from argan.photos.splits import SPLIT_CONFLICT, Splits

PREVIEW_SIZE = 64  # pixels: the coarsest at which sharp and soft can be distinguished; smaller photos are refused
SHARES = Splits(0.1, 0.1)  # of the photos for choosing and for judging: from 500 photos on, 50 each
WELCOME = (ingest.COPY, SPLIT_CONFLICT)  # kinds of refusal that are no fault

Say = Callable[[str], None]


def silent(line: str) -> None:
    """A `say` that discards its line."""


@contextmanager
def exclusive(name: str, home: Path, say: Say) -> Iterator[None]:
    """One change of a collection at a time. A killed holder lets go by itself, and what it left behind is cleared away."""
    busy = f"another process is changing '{name}': waiting for it"
    with exclusive_lock(home / f".{name}.lock", say, busy):
        preview, old = (home / name / part for part in ("preview", ".preview.old"))
        if old.exists() and not preview.exists():  # killed between the two renames of `swapped`
            old.replace(preview)
        for left_over in [removed_folder(name, home), *home.glob(f".{name}.unpacked.*")]:
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def write_preview(
    collection: Collection,
    files: Sequence[SourceFile],
    refused: pd.DataFrame,
    preview: Path,
    processes: int | None = 0,
    progress: ingest.Progress | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the store of `files` into `preview`; its quarantine begins with what was `refused` before.

    Returns the index and what is refused now.
    """
    ingest.ingest(
        files,
        preview,
        PREVIEW_SIZE,
        shares=SHARES,
        previous=collection.folder / "preview",
        refused_max=1.0,
        processes=processes,
        progress=progress,
    )
    faults = pd.read_csv(preview / "quarantine.csv", keep_default_na=False, dtype=str)
    pd.concat([refused, faults], ignore_index=True).to_csv(preview / "quarantine.csv", index=False)
    return pd.read_parquet(preview / "index.parquet"), faults


def hash_cache(name: str, home: Path) -> Path:
    return home / f".{name}.seen.parquet"


def removed_folder(name: str, home: Path) -> Path:
    """Where a collection goes in one step before it is deleted."""
    return home / f".{name}.removed"
