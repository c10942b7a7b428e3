"""Adding photographs to a collection: what is new comes in, once; what is faulty is refused with its reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from argan.config.schema import Floors
from argan.errors import UserError
from argan.files import swapped
from argan.photos import ingest, report
from argan.photos.collection import origin
from argan.photos.collection.changes import WELCOME, Say, exclusive, hash_cache, silent, write_preview
from argan.photos.collection.contents import HOME, Collection, names, photo_paths
from argan.photos.collection.hashing import copy_verified, with_hashes
from argan.photos.collection.origin import Origin
from argan.photos.folder import find_photos, printable
from argan.photos.photo_file import SUFFIXES
from argan.photos.prepare import SourceFile
from argan.photos.previous_store import PERMANENT_FAULTS, is_current, kind_of


@dataclass(frozen=True)
class Added:
    """What an add did: of `files` photographs in the source, `new` came in; `refused` of the rest, the others were known."""

    files: int
    new: int
    refused: dict[str, str]  # source -> reason
    photos: int  # in the collection now
    revision: str


@dataclass(frozen=True)
class _Inventory:
    """What a collection holds before an add."""

    collection: Collection
    exists: bool
    files: list[SourceFile]  # its photos on the disk
    refused: pd.DataFrame  # its quarantine, as far as it still holds
    lost: int  # photos of the index that are gone from the disk

    @property
    def known(self) -> set[str]:
        """Hashes of the files that need not be looked at again."""
        return {*(file.sha256 or "" for file in self.files), *self.refused["file_sha256"]} - {""}

    @property
    def outdated(self) -> bool:
        return self.exists and not is_current(self.collection.index)


def add(
    name: str,
    source: str,
    home: Path = HOME,
    *,
    refused_max: float = 0.5,
    sha256: str | None = None,
    floors: Floors | None = None,
    processes: int | None = None,
    say: Say = silent,
    progress: ingest.Progress | None = None,
) -> Added:
    """Add the photographs of a folder, of a zip or tar, or of an https URL of an archive or of a folder's listing (it ends in /).

    refused_max: share of the source's files that may be no good before nothing is added. sha256: of an archive, where it is
    known. floors: of the report, `argan.photos.quality`. Raises UserError; the collection then stays as it was.
    """
    with exclusive(name, home, say), origin.opened(source, name, home, sha256, say) as place:
        files = _find(place)
        hashed, cache = with_hashes(files, hash_cache(name, home))
        inventory = _take_inventory(name, home, files, say)
        new = _not_known(hashed, inventory.known)
        say(f"{len(files):,} photographs in {place.label}, {len(new):,} of them not seen before")
        if inventory.outdated:
            say(f"an earlier version looked at the photos of '{name}': they are measured again")
        refused = dict(place.refused)
        if new or not inventory.exists or inventory.lost or inventory.outdated:
            with swapped(inventory.collection.folder / "preview") as preview:
                index, faults = write_preview(
                    inventory.collection,
                    [*inventory.files, *new],
                    _with_entries(inventory.refused, place),
                    preview,
                    processes,
                    progress,
                )
                refused |= dict(zip(faults["source"], faults["reason"], strict=True))
                _check_refused(faults["reason"].tolist(), len(files), place, refused_max)
                _copy_new(inventory, new, set(index["file_sha256"]), place, hash_cache(name, home))
                report.write(
                    preview,
                    report.About(f"the collection {name}"),
                    floors or Floors(),
                    lambda photo: place.folder / photo,
                )
                os.sync()  # one for all the photos; only then may the index name them
                _first_add_marker(inventory.collection).unlink(missing_ok=True)
        after = Collection.open(name, home)
        cache.to_parquet(hash_cache(name, home), index=False)
        added = len(after.index) - len(inventory.collection.index)
        return Added(len(files), added, refused, len(after.index), after.revision)


def _find(place: Origin) -> list[SourceFile]:
    files = find_photos(place.folder)
    if not files and place.refused:
        entry, reason = place.refused[0]
        raise UserError(f"{place.label}: none of its {len(place.refused)} entries can be taken; {entry}: {reason}")
    if not files:
        raise UserError(
            f"{place.label} holds no photographs: no file in it ends in {', '.join(SUFFIXES[:8])} or a raw suffix"
        )
    return files


def _take_inventory(name: str, home: Path, files: Sequence[SourceFile], say: Say) -> _Inventory:
    exists = name in names(home)
    collection = Collection.open(name, home) if exists else Collection.empty(name, home)
    present = collection.files() if exists else _orphans(collection, say)
    lost = len(collection.index) - len(present) if exists else 0
    if lost:
        say(f"{lost} photos of '{name}' are gone from {collection.folder}/photos: left out")
    # A fault of the file's own stays; what was the machine's, or has no hash, is looked at again
    quarantine = collection.quarantine
    permanent = quarantine["reason"].map(kind_of).isin([*PERMANENT_FAULTS, *WELCOME]).astype(bool)
    elsewhere = ~quarantine["source"].isin([printable(file.source) for file in files])
    refused = quarantine[(permanent & (quarantine["file_sha256"] != "")) | elsewhere]
    return _Inventory(collection, exists, present, refused, lost)


def _orphans(collection: Collection, say: Say) -> list[SourceFile]:
    """The photos of a collection whose preview is gone; none where a first add was killed before it was complete."""
    if _first_add_marker(collection).exists():
        return []
    paths = photo_paths(collection.folder)
    if paths:
        say(f"{len(paths)} photos are in {collection.folder}/photos without an index: they are looked through again")
    return [SourceFile(path, path.name, digest) for digest, path in paths.items()]


def _first_add_marker(collection: Collection) -> Path:
    """There while the first add runs: what a kill of it leaves is no photo of the collection."""
    return collection.folder / "photos" / ".first"


def _not_known(files: Sequence[SourceFile], known: set[str]) -> list[SourceFile]:
    """Those whose bytes are not known, one of each; and those that could not be hashed, whose reason is then found."""
    new, seen = [], set(known)
    for file in files:
        if file.sha256 not in seen:
            new.append(file)
            seen.add(file.sha256 or "")
    return new


def _with_entries(refused: pd.DataFrame, place: Origin) -> pd.DataFrame:
    """The quarantine with the archive's entries that were refused."""
    entries = pd.DataFrame(place.refused, columns=["source", "reason"]).assign(file_sha256="")
    return pd.concat([refused, entries], ignore_index=True).drop_duplicates(["source", "reason"])


def _check_refused(faults: list[str], files: int, place: Origin, refused_max: float) -> None:
    """Raise UserError where too many of the source's photographs are refused: its files, and entries of an archive."""
    entries = [reason for entry, reason in place.refused if entry.lower().endswith(SUFFIXES)]
    files += len(entries)
    kinds = Counter(kind_of(reason) for reason in [*faults, *entries])
    for kind in WELCOME:
        kinds.pop(kind, None)
    if (count := kinds.total()) > refused_max * files:
        kind, most = kinds.most_common(1)[0]
        raise UserError(
            f"{count} of {files} photos in {place.label} are refused, more than --refused-max {refused_max:g} allows; "
            f"{most} of them: {kind}; nothing was added"
        )


def _copy_new(inventory: _Inventory, new: Sequence[SourceFile], accepted: set[str], place: Origin, cache: Path) -> None:
    """Copy the new photos that were accepted (hashes) into the collection. Raises UserError where one changed meanwhile."""
    if accepted - {file.sha256 for file in (*inventory.files, *new)}:
        cache.unlink(missing_ok=True)
        raise UserError(f"photos in {place.label} changed while they were added; nothing was added: run it again")
    if not inventory.files:
        marker = _first_add_marker(inventory.collection)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    for file in new:
        if file.sha256 in accepted:
            copy_verified(file, inventory.collection.folder)
