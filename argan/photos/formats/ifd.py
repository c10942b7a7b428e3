"""The structure of TIFF files and of EXIF, which is a small TIFF: image file directories, read within bounds and written.

Source: TIFF 6.0 (Adobe, 1992); BigTIFF (Aware Systems); DNG 1.7 for the tags that identify camera raw.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes
UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # integer types
MAX_ENTRIES = 1024  # of one directory; cameras write below a hundred
MAX_STRIPS = 1 << 19  # strips or tiles of one picture: 120 megapixels in tiles of 16 x 16 are 470,000
RAW_TAGS = (50706, 33421)  # DNGVersion, CFARepeatPatternDim
RAW_COLOURS = (32803, 34892)  # CFA, LinearRaw
RAW_COMPRESSIONS = (32767, 34713, 65535)  # Sony, Nikon, Pentax

Values = Mapping[int, tuple[int, int, bytes]]  # tag -> type, count, bytes


class Damaged(ValueError):
    """The file does not keep to TIFF, or asks for more than any photograph does."""


@dataclass(frozen=True)
class Entry:
    """One tag's value: `count` numbers of type `kind`, `size` bytes from `start`."""

    kind: int
    count: int
    start: int
    size: int


@dataclass(frozen=True)
class Directory:
    """One image file directory of `content`."""

    content: bytes
    order: str  # of struct: < or >
    big: bool  # BigTIFF
    entries: Mapping[int, Entry]

    def data(self, tag: int) -> bytes:
        entry = self.entries.get(tag)
        return b"" if entry is None else self.content[entry.start : entry.start + entry.size]

    def numbers(self, tag: int, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Integers; `default` where the tag is missing. Raises Damaged where they are none, cut off, or too many."""
        entry = self.entries.get(tag)
        if entry is None:
            return tuple(default)
        data = self.data(tag)
        if entry.kind not in UNSIGNED or entry.count > MAX_STRIPS * 4 or len(data) < entry.size:
            raise Damaged(f"its tag {tag} has {entry.count:,} values of type {entry.kind}")
        return struct.unpack(f"{self.order}{entry.count}{UNSIGNED[entry.kind]}", data)

    def number(self, tag: int, default: int) -> int:
        return (*self.numbers(tag), default)[0]

    def real(self, tag: int) -> float | None:
        """The first of its numbers, of whatever kind; None where there is none."""
        entry, data = self.entries.get(tag), self.data(tag)
        if entry is None or entry.count < 1:
            return None
        if entry.kind in (5, 10):
            above, below = struct.unpack_from(self.order + ("II" if entry.kind == 5 else "ii"), data)
            return above / below if below else None
        letter = {**UNSIGNED, 11: "f", 12: "d"}.get(entry.kind)
        return None if letter is None else float(struct.unpack_from(self.order + letter, data)[0])

    def text(self, tag: int, longest: int = 1000) -> str:
        """In one line, without control characters; empty where there is none."""
        words = self.data(tag)[:longest].decode("utf-8", "replace").replace("\0", " ").split()
        return "".join(letter for letter in " ".join(words) if letter.isprintable())

    def below(self, tag: int) -> Directory:
        """The directory that a tag leads to. Raises Damaged."""
        return directory(self.content, self.number(tag, 0), self.order, self.big)


def is_tiff(content: bytes) -> bool:
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def first(content: bytes) -> Directory:
    """The first directory. Raises Damaged."""
    if not is_tiff(content):
        raise Damaged("it has no TIFF header")
    order, big = "<" if content[:1] == b"I" else ">", 43 in content[2:4]
    at = struct.unpack_from(order + ("Q" if big else "I"), content.ljust(16, b"\0"), 8 if big else 4)[0]
    return directory(content, at, order, big)


def directory(content: bytes, at: int, order: str, big: bool) -> Directory:
    """The directory at offset `at`; entries that lie outside the file are skipped. Raises Damaged."""
    head, step, inline = (8, 20, 8) if big else (2, 12, 4)
    if not 0 < at <= len(content) - head:
        raise Damaged("its directory lies outside the file")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
    if not 0 < count <= MAX_ENTRIES or at + head + step * count > len(content):
        raise Damaged(f"its directory has {count:,} entries")
    entries: dict[int, Entry] = {}
    for place in range(at + head, at + head + step * count, step):
        tag, kind, n = struct.unpack_from(order + ("HHQ" if big else "HHI"), content, place)
        size, start = SIZES.get(kind, 0) * n, place + step - inline
        if size > inline:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), content, start)
        if kind in SIZES and start + size <= len(content):
            entries.setdefault(tag, Entry(kind, n, start, size))
    return Directory(content, order, big, entries)


def is_raw(top: Directory) -> bool:
    """Whether this directory or one that it leads to (SubIFDs) describes the samples of a sensor."""

    def describes_sensor(one: Directory) -> bool:
        return (
            any(tag in one.entries for tag in RAW_TAGS)
            or one.number(262, 0) in RAW_COLOURS
            or one.number(259, 1) in RAW_COMPRESSIONS
        )

    try:
        if describes_sensor(top):
            return True
        for at in top.numbers(330)[:16]:
            if describes_sensor(directory(top.content, at, top.order, top.big)):
                return True
    except Damaged:
        pass
    return False


def write_directory(values: Values, at: int, order: str, big: bool) -> bytes:
    """A directory for offset `at`, with its values behind it and none to follow."""
    inline = 8 if big else 4
    end = at + (8 + 20 * len(values) + 8 if big else 2 + 12 * len(values) + 4)
    table, behind = b"", b""
    for tag, (kind, count, data) in sorted(values.items()):
        if len(data) > inline:
            field = struct.pack(order + ("Q" if big else "I"), end + len(behind))
            behind += data + b"\0" * (len(data) % 2)
        else:
            field = data.ljust(inline, b"\0")
        table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + field
    return struct.pack(order + ("Q" if big else "H"), len(values)) + table + bytes(inline) + behind
