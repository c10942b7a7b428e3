"""Collections: anybody's photographs, added bit by bit, each kept once by the hash of its bytes.

    data/collections/<name>/
      photos/ab/abcd....jpg   every photo as it came, named by the sha256 of its bytes
      preview/                a store of 64 px (see `ingest`): its index says what the collection holds, its quarantine what was
                              refused and why, and `report.html` whether AR-GAN can learn from it
    data/collections/.<name>.seen.parquet   which files were hashed before: may be deleted, costs only time

The preview is swapped in last: until then, whatever happens, the collection is what it was. What else lies in photos/ after a
kill does no harm. Nothing but `remove` deletes a photo; should the preview be lost, it is made again from the photos.
"""

from __future__ import annotations

from argan.photos.collection.addition import Added, add
from argan.photos.collection.contents import HOME, UNMEASURED, Collection, names, photo_paths
from argan.photos.collection.removal import remove
from argan.photos.collection.snapshot import freeze

__all__ = ["HOME", "UNMEASURED", "Added", "Collection", "add", "freeze", "names", "photo_paths", "remove"]
