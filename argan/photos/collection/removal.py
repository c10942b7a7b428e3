"""Removing photographs from a collection, or the whole of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from argan.config.schema import Floors
from argan.errors import UserError
from argan.files import swapped
from argan.photos import report
from argan.photos.collection.changes import WELCOME, Say, exclusive, hash_cache, removed_folder, silent, write_preview
from argan.photos.collection.contents import HOME, Collection, photo_paths

DIGITS_MIN = 6  # of a hash that names a photo


def remove(
    name: str, photos: Sequence[str], home: Path = HOME, *, floors: Floors | None = None, say: Say = silent
) -> Collection | None:
    """Remove photos, each named by its source or by the start of its sha256; without any, the whole collection.

    Returns what is left, None after removing it all. A removed photo comes in again with the next add of where it is. Raises
    UserError where a name fits none or several.
    """
    with exclusive(name, home, say):
        if not photos and (home / name / "photos").is_dir():
            _remove_collection(name, home)
            return None
        collection = Collection.open(name, home)
        digests = {_digest(collection, photo) for photo in photos}
        rows = collection.index[~collection.index["file_sha256"].isin(digests)]
        if rows.empty:
            raise UserError(
                f"that would leave nothing of '{name}'; remove the collection: argan collection remove {name}"
            )
        left = Collection(name, collection.folder, rows, collection.quarantine)
        # What was refused for being like another photo may be welcome now
        faults = left.quarantine[~left.quarantine["reason"].str.startswith(WELCOME)]
        with swapped(left.folder / "preview") as preview:
            write_preview(left, left.files(), faults, preview)
            report.write(preview, report.About(f"the collection {name}"), floors or Floors())
        for digest, path in photo_paths(left.folder).items():
            if digest in digests:
                path.unlink()
        return Collection.open(name, home)


def _remove_collection(name: str, home: Path) -> None:
    """Out of sight in one step; what a kill leaves of it, the next change clears away."""
    removed = removed_folder(name, home)
    shutil.rmtree(removed, ignore_errors=True)
    (home / name).replace(removed)
    shutil.rmtree(removed)
    hash_cache(name, home).unlink(missing_ok=True)


def _digest(collection: Collection, photo: str) -> str:
    """The sha256 of the one photo that is meant."""
    index = collection.index
    by_hash = index["file_sha256"].str.startswith(photo) & (len(photo) >= DIGITS_MIN)
    matches = index[(index["source"] == photo) | by_hash]
    if len(matches) != 1:
        what = "no photo" if matches.empty else f"{len(matches)} photos"
        raise UserError(
            f"{what} of '{collection.name}' called '{photo}': give its source as `argan collection show --photos` lists it, or the "
            "first digits (6 or more) of its sha256"
        )
    return str(matches["file_sha256"].iloc[0])
