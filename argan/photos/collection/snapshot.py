"""A revision of a collection, kept as it is: what training reads while the collection grows."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from argan.errors import UserError
from argan.files import swapped
from argan.photos.collection.changes import Say, exclusive, silent
from argan.photos.collection.contents import HOME, Collection


def freeze(name: str, revision: str, folder: Path, home: Path = HOME, *, say: Say = silent) -> Collection:
    """The collection as it is, in `folder`: photos as hard links where that is possible; `Collection.open` reads it there.

    What is there at that revision already stays. Raises UserError unless the collection is at `revision`, and complete.
    """
    with suppress(UserError):
        frozen = Collection.open(folder.name, folder.parent)
        if frozen.revision == revision and len(frozen.files()) == len(frozen.index):
            return frozen
    with exclusive(name, home, say):
        collection = Collection.open(name, home)
        if lost := len(collection.index) - len(collection.files()):
            raise UserError(
                f"{lost} photos of the collection '{name}' are gone from {collection.folder}/photos: restore them, or add them "
                "again; adding anything else takes what is left as the collection"
            )
        if collection.revision != revision:
            raise UserError(
                f"the collection '{name}' is at revision {collection.revision}, params.yaml asks for {revision}: write the "
                f"one you want into {name}.revision; photos of an earlier one come back with its commit and `dvc checkout`"
            )
        with swapped(folder) as new:
            for file in collection.files():
                target = new / file.path.relative_to(collection.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(file.path)
                except OSError:  # another disk
                    shutil.copyfile(file.path, target)
            (new / "preview").mkdir()
            for part in ("index.parquet", "quarantine.csv"):
                shutil.copyfile(collection.folder / "preview" / part, new / "preview" / part)
    return Collection.open(folder.name, folder.parent)
