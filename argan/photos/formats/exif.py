"""EXIF: the orientation, made upright, and extracted from the directories of a TIFF or a camera raw."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from argan.photos.formats.ifd import UNSIGNED, Damaged, Directory, first, write_directory

ORIENTATION = 274
CAMERA, PLACE = 34665, 34853  # tags that lead to further directories
MAKER_NOTE, INTEROPERABILITY = 37500, 40965  # both point into their file
DESCRIPTIVE = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)  # of the first directory, copied too
MAX_BYTES = 1 << 20  # in a JPEG 64 KiB at most, elsewhere as many are more than any camera writes
MAX_EXTRACTED_BYTES = 1 << 18


def orientation(exif: bytes) -> int:
    """1 to 8, as EXIF counts them; 1 where it says nothing that makes sense."""
    try:
        value = first(exif).number(ORIENTATION, 1)
    except Damaged:
        return 1
    return value if 1 <= value <= 8 else 1


def readable(exif: bytes) -> bytes | None:
    """`exif` where it can be read, at least to its first directory."""
    try:
        return exif if first(exif[: MAX_BYTES + 1]) and len(exif) <= MAX_BYTES else None
    except Damaged:
        return None


def upright(exif: bytes) -> bytes:
    """The same bytes, but for an orientation of 1. The header Exif\\0\\0 does not belong to `exif`."""
    try:
        top = first(exif)
        if top.number(ORIENTATION, 1) < 2:
            return exif
    except Damaged:
        return exif
    entry = top.entries[ORIENTATION]
    one = struct.pack(top.order + UNSIGNED[entry.kind], 1)
    return exif[: entry.start] + one + exif[entry.start + len(one) :]


def from_directory(top: Directory) -> bytes:
    """What a TIFF or a camera raw tells in the manner of EXIF, as an EXIF of its own; empty where it tells nothing.

    Values are copied byte for byte. The MakerNote is left out: it points into its file.
    """
    parts = _copied(top, DESCRIPTIVE)
    below = {}
    for tag in (CAMERA, PLACE):
        try:
            sub = top.below(tag)
        except Damaged:
            continue
        below[tag] = _copied(sub, [t for t in sub.entries if t not in (MAKER_NOTE, INTEROPERABILITY)])
    if not parts and not below:
        return b""
    parts |= _copied(top, (ORIENTATION,))
    for tag in below:
        parts[tag] = (4, 1, bytes(4))
    head = (b"II*\0" if top.order == "<" else b"MM\0*") + struct.pack(top.order + "I", 8)
    end = 8 + len(write_directory(parts, 8, top.order, False))
    tail = b""
    for tag, values in below.items():
        parts[tag] = (4, 1, struct.pack(top.order + "I", end + len(tail)))
        tail += write_directory(values, end + len(tail), top.order, False)
    return head + write_directory(parts, 8, top.order, False) + tail


def _copied(top: Directory, tags: Sequence[int]) -> dict[int, tuple[int, int, bytes]]:
    """Type, count and bytes of those of the tags that are there, MAX_EXTRACTED_BYTES in all at most."""
    copied, left = {}, MAX_EXTRACTED_BYTES
    for tag in tags:
        entry = top.entries.get(tag)
        if entry is not None and entry.kind <= 13 and entry.size <= left:
            copied[tag] = (entry.kind, entry.count, top.data(tag))
            left -= entry.size
    return copied
