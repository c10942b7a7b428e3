"""Taking photographs in the plain way: one after the other, decoded whole, compared with all before: what ingest is measured by.

Pillow and a loop, as anybody would write it. Readable and slow; it takes the same square and averages the same areas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether brightness rises from a cell to its right neighbour, on 9 x 8 cells."""
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def ingest(
    paths: Sequence[Path], store: Path, size: int, distance: int = 7
) -> tuple[np.ndarray, list[str], list[tuple[int, int]]]:
    """Returns pixels (N, size, size, 3) uint8, which are also written to `store`, their hashes and the near-duplicate pairs."""
    photos: list[np.ndarray] = []
    digests: list[str] = []
    pairs: list[tuple[int, int]] = []
    hashes: list[int] = []
    for path in paths:
        content = path.read_bytes()
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
        pixels = np.asarray(square)
        digests.append(hashlib.sha256(content).hexdigest() + hashlib.sha256(pixels.tobytes()).hexdigest())
        hashes.append(difference_hash(image))
        pairs += [
            (i, len(photos)) for i, other in enumerate(hashes[:-1]) if (other ^ hashes[-1]).bit_count() <= distance
        ]
        photos.append(pixels)
    stacked = np.stack(photos)
    np.save(store, stacked)
    return stacked, digests, pairs
