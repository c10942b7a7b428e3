"""The structure of TIFF files and of EXIF, which is a small TIFF: directories read within bounds, and written anew.

Pillow's own reader turns, warns and gives up by tags that have nothing to do with pixels, and holds no more than 8 bits of a
colour. So the pixels of a file are described to it by a new directory of the tags that matter alone, behind the same data; and
16 bits a sample are described as what it holds without loss, a grey picture with all samples of a row side by side.
Source: TIFF 6.0 (Adobe, 1992); BigTIFF (Aware Systems); DNG 1.7 for the tags that tell camera raw.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

ORIENTATION = 274
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes
UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers
ENTRIES = 1024  # of one directory; cameras write below a hundred
STRIPS = 1 << 19  # strips or tiles of one picture: 120 megapixels in tiles of 16 x 16 are 470,000
EXIF = 1 << 18  # bytes of what is kept as EXIF without its MakerNote
SPREAD = 4  # pixels that tiles may decode for each one allowed: the last column and row of tiles hang over
SHARED = 4  # times the file's bytes that its strips or tiles have together: some writers store equal tiles once
BAND = 1 << 25  # samples that are decoded at once: 64 MiB

# What describes the pixels: TIFF 6.0 and its supplements. 320 is the palette, 347 JPEG's tables, 529 to 532 YCbCr.
ONE = (256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323)  # of one number each
MANY = (258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532)
WORDS = (
    270,
    271,
    272,
    282,
    283,
    296,
    305,
    306,
    315,
    316,
    33432,
)  # of the first directory, what EXIF keeps beside 34665, 34853
RAW_TAGS = (50706, 33421)  # DNGVersion, CFARepeatPatternDim
RAW_COLOURS = (32803, 34892)  # CFA, LinearRaw
RAW_COMPRESSIONS = (32767, 34713, 65535)  # Sony, Nikon, Pentax
PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions that know predictors: LZW, deflate twice, LZMA, Zstandard
LOSSLESS = (1, 32773, *PREDICTED)  # and uncompressed, PackBits


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
        """Whole numbers; `default` where the tag is missing. Raises Damaged where they are none, cut off, or too many."""
        entry = self.entries.get(tag)
        if entry is None:
            return tuple(default)
        data = self.data(tag)
        if entry.kind not in UNSIGNED or entry.count > STRIPS * 4 or len(data) < entry.size:
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
    """The directory at offset `at`; entries that lie outside the file are passed over. Raises Damaged."""
    head, step, inline = (8, 20, 8) if big else (2, 12, 4)
    if not 0 < at <= len(content) - head:
        raise Damaged("its directory lies outside the file")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
    if not 0 < count <= ENTRIES or at + head + step * count > len(content):
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


def is_raw(found: Directory) -> bool:
    """Whether this directory or one that it leads to (SubIFDs) describes the samples of a sensor."""

    def tells(one: Directory) -> bool:
        return (
            any(tag in one.entries for tag in RAW_TAGS)
            or one.number(262, 0) in RAW_COLOURS
            or one.number(259, 1) in RAW_COMPRESSIONS
        )

    try:
        if tells(found):
            return True
        for at in found.numbers(330)[:16]:
            if tells(directory(found.content, at, found.order, found.big)):
                return True
    except Damaged:
        pass
    return False


# ---- EXIF ----


def orientation(exif: bytes) -> int:
    """1 to 8, as EXIF counts them; 1 where it says nothing that makes sense."""
    try:
        value = first(exif).number(ORIENTATION, 1)
    except Damaged:
        return 1
    return value if 1 <= value <= 8 else 1


def upright(exif: bytes) -> bytes:
    """The same bytes, but for an orientation of 1. The header Exif\\0\\0 does not belong to `exif`."""
    try:
        found = first(exif)
        if found.number(ORIENTATION, 1) < 2:
            return exif
    except Damaged:
        return exif
    entry = found.entries[ORIENTATION]
    one = struct.pack(found.order + UNSIGNED[entry.kind], 1)
    return exif[: entry.start] + one + exif[entry.start + len(one) :]


def exif_of(found: Directory) -> bytes:
    """What a TIFF or a camera raw tells in the manner of EXIF, as an EXIF of its own; empty where it tells nothing.

    Values are copied byte for byte. The MakerNote is left out: it points into its file.
    """
    parts = _kept(found, WORDS)
    below = {}
    for tag in (34665, 34853):  # camera, place
        try:
            sub = found.below(tag)
        except Damaged:
            continue
        below[tag] = _kept(sub, [t for t in sub.entries if t not in (37500, 40965)])
    if not parts and not below:
        return b""
    parts |= _kept(found, (ORIENTATION,))
    for tag in below:
        parts[tag] = (4, 1, bytes(4))
    head = (b"II*\0" if found.order == "<" else b"MM\0*") + struct.pack(found.order + "I", 8)
    end = 8 + len(_written(parts, 8, found.order, False))
    behind = b""
    for tag, values in below.items():
        parts[tag] = (4, 1, struct.pack(found.order + "I", end + len(behind)))
        behind += _written(values, end + len(behind), found.order, False)
    return head + _written(parts, 8, found.order, False) + behind


def _kept(found: Directory, tags: Sequence[int]) -> dict[int, tuple[int, int, bytes]]:
    """Type, count and bytes of those of the tags that are there, EXIF bytes in all at most."""
    kept, left = {}, EXIF
    for tag in tags:
        entry = found.entries.get(tag)
        if entry is not None and entry.kind <= 13 and entry.size <= left:
            kept[tag] = (entry.kind, entry.count, found.data(tag))
            left -= entry.size
    return kept


def _written(values: Mapping[int, tuple[int, int, bytes]], at: int, order: str, big: bool) -> bytes:
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


# ---- pixels ----


@dataclass(frozen=True)
class Layout:
    """How the first picture of a file lies in it; checked, so that decoding is bounded by its pixels."""

    found: Directory
    width: int
    height: int
    bits: int
    colours: (
        int  # PhotometricInterpretation: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 LAB
    )
    samples: int
    alpha: int  # ExtraSamples of the first sample that is no colour: 0 none, 1 premultiplied, 2 straight
    tile: tuple[int, int] | None  # width, height
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def compression(self) -> int:
        return self.found.number(259, 1)

    @property
    def planes(self) -> int:
        """Pictures of one sample each, one behind the other; 1: samples lie side by side."""
        return self.samples if self.found.number(284, 1) == 2 else 1

    @property
    def rows(self) -> int:
        """Of a strip."""
        return min(max(1, self.found.number(278, self.height)), self.height)


def layout(found: Directory) -> Layout:
    """Raises Damaged where there is no picture, or its parts do not fit its size."""
    width, height = found.number(256, 0), found.number(257, 0)
    samples = found.number(277, 1)
    bits = set(found.numbers(258, (1,))[:samples])
    formats = set(found.numbers(339, (1,))[:samples])
    if width < 1 or height < 1 or not 1 <= samples <= 64 or not bits:
        raise Damaged(f"it describes {width} x {height} pixels of {samples} samples")
    if formats & {3, 6}:
        raise Damaged("no photograph: floating point without a white")
    if formats & {2, 5}:
        raise Damaged("no photograph: signed numbers without a white")
    if len(bits) > 1 or max(bits) not in (1, 2, 4, 8, 16):
        raise Damaged(f"no photograph: {' and '.join(map(str, sorted(bits)))} bits a sample")
    tile = (found.number(322, 0), found.number(323, 0)) if 322 in found.entries else None
    offsets, lengths = (found.numbers(324 if tile else 273), found.numbers(325 if tile else 279))
    made = Layout(found, width, height, max(bits), found.number(262, 1), samples, 0, tile, offsets, lengths)
    side_by_side = -(-width // tile[0]) if tile and min(tile) > 0 else 1
    across = tile[1] if tile else made.rows
    wanted = side_by_side * -(-height // max(1, across)) * made.planes
    if not lengths and len(offsets) == 1 and made.compression == 1:
        lengths = (-(-width * made.bits * samples // 8) * height,)  # left out by old writers
    if len(offsets) > STRIPS or len(offsets) < wanted or len(lengths) < wanted or (tile and min(tile) < 1):
        raise Damaged(f"it has {len(offsets):,} strips or tiles where {wanted:,} are needed")
    if tile and side_by_side * tile[0] * -(-height // tile[1]) * tile[1] > SPREAD * max(width * height, 1 << 20):
        raise Damaged(f"its tiles of {tile[0]} x {tile[1]} do not fit {width} x {height} pixels")
    size = len(found.content)
    if any(at + n > size for at, n in zip(offsets[:wanted], lengths[:wanted], strict=True)):
        raise Damaged("truncated: its pixels end outside the file")
    if sum(lengths[:wanted]) > SHARED * size:
        raise Damaged("bomb: its strips or tiles share the same bytes")
    of_colour = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(made.colours, samples)
    if samples < of_colour:
        raise Damaged(f"it has {samples} samples a pixel where its colours need {of_colour}")
    alpha = found.number(338, 0) if samples > of_colour else 0
    return Layout(
        found, width, height, made.bits, made.colours, samples, alpha if alpha in (1, 2) else 0, tile,
        offsets[:wanted], lengths[:wanted],
    )  # fmt: skip


def plain(found: Layout) -> bytes:
    """The file with no tags but those of its pixels, for Pillow to decode."""
    entries, order = found.found.entries, found.found.order
    values = {tag: (4, 1, struct.pack(order + "I", found.found.number(tag, 0))) for tag in ONE if tag in entries}
    values |= {tag: (entries[tag].kind, entries[tag].count, found.found.data(tag)) for tag in MANY if tag in entries}
    if found.tile is None and 279 not in values:
        values[279] = (4, 1, struct.pack(order + "I", found.lengths[0]))
    return _with(found.found, values)


def _with(found: Directory, values: Mapping[int, tuple[int, int, bytes]]) -> bytes:
    """The file with a directory of these values, behind all that was there, in the place of its first."""
    at = len(found.content) + len(found.content) % 2
    head = found.content[: 8 if found.big else 4] + struct.pack(found.order + ("Q" if found.big else "I"), at)
    made = _written(values, at, found.order, found.big)
    return b"".join((head, memoryview(found.content)[len(head) :], bytes(at - len(found.content)), made))


def sixteen(found: Layout) -> NDArray[np.uint16]:
    """(H, W, samples) of a picture with 16 bits a sample, as stored. Raises Damaged, and OSError where its data are cut off."""
    if found.compression not in LOSSLESS:
        raise Damaged(f"16 bits in a compression (number {found.compression}) that is not read; save it uncompressed")
    predicted = found.compression in PREDICTED and found.found.number(317, 1)
    if predicted not in (False, 1, 2):
        raise Damaged(f"16 bits with a predictor (number {predicted}) that is not read; save it uncompressed")
    if found.found.number(266, 1) != 1:
        raise Damaged("16 bits whose order within bytes is turned round; save it again")
    across = found.samples if found.planes == 1 else 1
    pixels = np.empty((found.height, found.width, found.samples), np.uint16)
    each = len(found.offsets) // found.planes
    for plane in range(found.planes):
        part = pixels if across > 1 or found.samples == 1 else pixels[..., plane : plane + 1]
        parts = slice(plane * each, (plane + 1) * each)
        _plane(found, found.offsets[parts], found.lengths[parts], across, part)
    if predicted == 2:
        step = found.tile[0] if found.tile else found.width
        for left in range(0, found.width, step):
            block = pixels[:, left : left + step]
            np.cumsum(block, axis=1, dtype=np.uint16, out=block)
    return pixels


def _plane(found: Layout, offsets: Sequence[int], lengths: Sequence[int], across: int, out: NDArray[np.uint16]) -> None:
    """Decode strips or tiles into `out` (H, W, across), in bands of whole rows of them."""
    side_by_side, rows = (-(-found.width // found.tile[0]), found.tile[1]) if found.tile else (1, found.rows)
    content, order = found.found.content, found.found.order
    if found.compression == 1 and found.tile is None:
        for i, (at, length) in enumerate(zip(offsets, lengths, strict=True)):
            here = out[i * rows : (i + 1) * rows]
            if length < 2 * here.size:
                raise Damaged("truncated: a strip is shorter than its rows")
            here[...] = np.frombuffer(content, order + "u2", here.size, at).reshape(here.shape)
        return
    band = max(1, BAND // (rows * found.width * across))  # rows of strips or tiles at once
    for i in range(0, len(offsets) // side_by_side, band):
        here = out[i * rows : (i + band) * rows]
        parts = slice(i * side_by_side, (i + band) * side_by_side)
        data = b"".join(content[at : at + n] for at, n in zip(offsets[parts], lengths[parts], strict=True))
        starts = [8, *itertools.accumulate(lengths[parts], initial=8)][1:-1]
        numbers: dict[int, Sequence[int]] = {
            256: [found.width * across], 257: [len(here)], 258: [16], 259: [found.compression], 262: [1], 277: [1],
        }  # fmt: skip
        if found.tile:
            numbers |= {322: [found.tile[0] * across], 323: [found.tile[1]], 324: starts, 325: lengths[parts]}
        else:
            numbers |= {273: starts, 278: [rows], 279: lengths[parts]}
        values = {tag: (4, len(n), struct.pack(f"{order}{len(n)}I", *n)) for tag, n in numbers.items()}
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data) + len(data) % 2)
        made = _written(values, 8 + len(data) + len(data) % 2, order, False)
        # Not Image.open: its limit is of pixels, and a row here has a pixel for each sample.
        with TiffImagePlugin.TiffImageFile(io.BytesIO(head + data + bytes(len(data) % 2) + made)) as image:
            here[...] = np.asarray(image).reshape(here.shape)
