"""Arrays of whole numbers from a MATLAB 5 file, and no more of that format than they need.

Not scipy.io.loadmat: a damaged file makes that crash the whole process, here it is told in a line.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from argan.errors import UserError

HEADER = 128  # bytes: a description, the version, and which end of a number comes first
LARGEST = 64 << 20  # bytes a packed array may unpack to
MATRIX, PACKED = 14, 15
KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def whole_numbers(path: Path) -> dict[str, np.ndarray]:
    """Every real array of whole numbers, by name, flattened in MATLAB's order: int64.

    Raises UserError when the file is missing, damaged, or of another version of the format.
    """
    try:
        data = path.read_bytes()
        end = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
        if end is None:
            raise ValueError("not a MATLAB 5 file")
        return dict(array for kind, body in _elements(data[HEADER:], end) for array in _arrays(kind, body, end))
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path.name} cannot be read ({error}); fetch it again") from error


def _elements(data: bytes, end: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; one of up to 4 bytes is packed into the 8 bytes of its own head."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{end}II", data, at)
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            after = at + 8
        else:
            start = at + 8
            after = start + (size if kind == PACKED else -(-size // 8) * 8)
        if size > len(data) - start or (after == at + 8 and size > 4):
            raise ValueError(f"an element of {size:,} bytes where {len(data) - start:,} are left")
        yield kind, data[start : start + size]
        at = after


def _arrays(kind: int, body: bytes, end: str) -> Iterator[tuple[str, np.ndarray]]:
    if kind == PACKED:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(body, LARGEST)
        if not unpacker.eof:
            raise ValueError("a packed array that is cut off or too large")
        for inner, content in _elements(body, end):
            if inner != PACKED:
                yield from _arrays(inner, content, end)
    elif kind == MATRIX:
        parts = list(_elements(body, end))
        if len(parts) == 4 and parts[3][0] in KINDS:  # flags, dimensions, name, numbers: others are no plain arrays
            numbers = np.frombuffer(parts[3][1], end + KINDS[parts[3][0]])
            shape = np.frombuffer(parts[1][1], f"{end}i4")
            whole = np.isfinite(numbers).all() and (np.abs(numbers.astype(np.float64)) < 2**53).all()
            if not whole or (numbers != np.round(numbers)).any() or np.prod(shape.astype(np.float64)) != len(numbers):
                raise ValueError("an array that holds no whole numbers, or not as many as it should")
            yield parts[2][1].decode("ascii"), numbers.astype(np.int64)
