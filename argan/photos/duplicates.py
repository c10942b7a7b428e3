"""Near duplicates: resaves, resizes and bursts of one picture, found without comparing all pairs.

A photo's perceptual hash is 64 signs of its lowest frequencies. Two hashes at most 7 bits apart agree, in at least one of four
bands of 16 bits, up to one bit (7 < 4 x 2), so looking up 17 keys a band finds every such pair; the work grows with the photos
and with the pairs there are. A candidate is checked on the pictures themselves before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]  # (P, 2), the smaller index first
Alike = Callable[[Pairs], NDArray[np.bool_]]  # (P, 2) -> (P,): whether the pictures are

# Of 29 different photographs, no two are nearer than 19; resaved at quality 30, at a sixth of the size, with noise or a quarter
# brighter, they move by at most 4; in a burst that moves the frame by 1 %, by 5 in the median and at most 8.
DISTANCE = 7
BURST_DISTANCE = 14  # within BURST seconds by the same camera: the frame moved by 2 %
BURST = 2.0
PAIRS_AT_A_TIME = 1 << 20  # 16 MiB of candidates

_SIDE = 32
_LOWEST = sorted(((u, v) for u in range(_SIDE) for v in range(_SIDE) if u + v), key=lambda at: (at[0] + at[1], at[0]))[
    :64
]
# Neighbouring frequencies go to different bands, so that no band is all of the fragile ones
_U, _V = (np.array([_LOWEST[4 * (i % 16) + i // 16][axis] for i in range(64)]) for axis in (0, 1))


def perceptual_hash(pixels: Pixels) -> int:
    """Of a photo (h, w, 3) uint8 at any scale: 64 bits, little changed by what leaves the picture the same."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    bits = cv2.dct(small)[_U, _V] > 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: Hashes, distance: int = DISTANCE) -> Iterator[Pairs]:
    """All pairs of (N,) uint64 hashes at most `distance` <= 7 bits apart, in portions; a pair may come up to four times."""
    if not 0 <= distance <= DISTANCE:
        raise ValueError(f"the index finds pairs up to {DISTANCE} bits apart, not {distance}")
    flips = [0] if distance < 4 else [0, *(1 << bit for bit in range(16))]
    for band in range(4):
        keys = ((hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(65537))
        for flip in flips:
            first, last = starts[keys ^ flip], starts[(keys ^ flip) + 1]
            for i, j in _joined(first, last):
                j = order[j]
                one_way = i < j
                i, j = i[one_way], j[one_way]
                near = np.bitwise_count(hashes[i] ^ hashes[j]) <= distance
                if near.any():
                    yield np.stack([i[near], j[near]], 1)


def _joined(first: NDArray[np.int64], last: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(i, position) for all positions in first[i] .. last[i], PAIRS_AT_A_TIME at once at most but for a single i's."""
    ends = np.cumsum(last - first)
    at = 0
    while at < len(first):
        before = ends[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, before + PAIRS_AT_A_TIME, "right")))
        counts = (last - first)[at:stop]
        i = np.repeat(np.arange(at, stop), counts)
        offset = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield i, first[i] + offset
        at = stop


def burst_pairs(hashes: Hashes, seconds: NDArray[np.float64], cameras: Sequence[str]) -> Pairs:
    """Neighbours in time, at most BURST seconds apart by the same camera, whose pictures are alike. NaN seconds: unknown."""
    numbers = {name: n for n, name in enumerate(dict.fromkeys(cameras))}
    camera = np.array([numbers[name] for name in cameras], np.int64)
    known = np.flatnonzero(np.isfinite(seconds))
    known = known[np.lexsort((seconds[known], camera[known]))]
    a, b = known[:-1], known[1:]
    near = (camera[a] == camera[b]) & (seconds[b] - seconds[a] <= BURST)
    near &= np.bitwise_count(hashes[a] ^ hashes[b]) <= BURST_DISTANCE
    return np.sort(np.stack([a[near], b[near]], 1), 1).astype(np.int64)


class Sets:
    """Union-find over range(count)."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)

    def find(self, i: int) -> int:
        parent = self.parent
        root = i
        while parent[root] != root:
            root = int(parent[root])
        while parent[i] != root:
            parent[i], i = root, int(parent[i])
        return root

    def roots(self) -> NDArray[np.int64]:
        """Of all, (count,)."""
        parent = self.parent
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        self.parent = parent
        return parent

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self.parent[max(a, b)] = min(a, b)


def components(count: int, portions: Iterable[tuple[Pairs, Alike]]) -> NDArray[np.int64]:
    """(count,): the smallest member of each one's set. Every portion of pairs comes with what tells whether they are alike;
    pairs that are joined already are not looked at again."""
    sets = Sets(count)
    for portion, alike in portions:
        roots = sets.roots()
        pairs = portion[roots[portion[:, 0]] != roots[portion[:, 1]]]
        if len(pairs):
            for a, b in pairs[alike(pairs)].tolist():
                sets.join(a, b)
    return sets.roots()
