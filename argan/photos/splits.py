"""Which split each photo belongs to: near duplicates together, by a hash, for ever the same; held-out splits never too small.

A photo that is in a split stays there. A new one goes where the hash of its group's name says, whatever else comes or goes.
By chance, or because somebody took the photos of one split out of an archive beforehand, a held-out split may be left far below
its share: then it is filled up from the new photos alone. Where the share itself is below TEST_MIN, chance decides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from argan.photos.duplicates import Alike

TEST_MIN = 2  # photos without which evaluation has nothing to compare with
SHORT = 0.5  # of its share: a held-out split with fewer photos is filled up to the share
HELD_OUT_MAX = 0.5  # of all photos, when held-out splits are filled up: most are there to be learned from
PRECEDENCE = {"test": 0, "validation": 1, "train": 2}  # which photo stays when two fixed splits meet
SPLIT_CONFLICT = "near duplicate across splits"  # kind of refusal


@dataclass(frozen=True)
class Splits:
    """Shares of the held-out splits; the rest is for training. Another seed draws other photos."""

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.validation < 0 or self.test < 0 or self.validation + self.test >= 1:
            raise ValueError(f"shares of validation {self.validation} and test {self.test} leave nothing to train on")

    def draw(self, group: str) -> float:
        """A number in [0, 1) by the hash of the group's name."""
        digest = hashlib.sha256(f"{self.seed} {group}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def of(self, group: str) -> str:
        """The split of a group, by the hash of its name alone: nothing else that comes or goes changes it."""
        drawn = self.draw(group)
        if drawn < self.test:
            return "test"
        return "validation" if drawn < self.test + self.validation else "train"


@dataclass(frozen=True)
class Assignment:
    """What became of each photo: its group's name and split, or why it is left out."""

    group: list[str]
    split: list[str]
    refused: dict[int, str]


def assign(
    component: NDArray[np.int64],
    names: Sequence[str],
    splits: Splits,
    official: Mapping[int, str],
    settled: Mapping[int, tuple[str, str]],
    alike: Alike,
    describe: Callable[[int], str],
) -> Assignment:
    """Name the sets of near duplicates and give each one split.

    component (N,) from `duplicates.components`; names: a stable name each (a hash of the file). official: splits that the
    source fixes. settled: group and split from before, which stay. Where photos of different fixed splits are alike, the later
    in rank (settled, test, validation, train, free) is refused, `describe` naming the one it duplicates; so no group straddles
    splits.
    """
    group, split = [""] * len(names), [""] * len(names)
    refused: dict[int, str] = {}
    free: dict[str, list[int]] = {}  # groups whose split only the hash has decided, and their photos
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    for members in (part.tolist() for part in np.split(order, starts[1:])):
        fixed = {i: settled[i][1] if i in settled else official[i] for i in members if i in settled or i in official}
        parts = [members]
        if len(set(fixed.values())) > 1:
            parts, conflicts = _separate(members, fixed, settled, names, alike)
            refused |= {
                i: f"{SPLIT_CONFLICT}: of {describe(j)} in {fixed.get(j, 'another split')}" for i, j in conflicts
            }
        for part in parts:
            name = min((settled[i][0] for i in part if i in settled), default="") or min(names[i] for i in part)[:16]
            label = next((fixed[i] for i in part if i in fixed), None)
            if label is None:
                free.setdefault(name, []).extend(part)
            for i in part:
                group[i], split[i] = name, label or splits.of(name)
    _fill_held_out(split, free, splits)
    return Assignment(group, split, refused)


def _fill_held_out(split: list[str], free: Mapping[str, list[int]], splits: Splits) -> None:
    """Move free groups out of `train` into held-out splits that are far below their share, in the order of their draw."""
    counts = Counter(label for label in split if label)
    total = counts.total()
    candidates = sorted((splits.draw(name), members) for name, members in free.items() if split[members[0]] == "train")
    for label, share in (("test", splits.test), ("validation", splits.validation)):
        target = round(share * total)
        if share * total < TEST_MIN or counts[label] >= max(TEST_MIN, SHORT * share * total):
            continue
        for _, members in candidates:
            held_out = total - counts["train"] + len(members)
            if split[members[0]] != "train" or len(members) > target or held_out > HELD_OUT_MAX * total:
                continue
            if counts[label] >= target:
                break
            for i in members:
                split[i] = label
            counts[label] += len(members)
            counts["train"] -= len(members)


def _separate(
    members: Sequence[int],
    fixed: Mapping[int, str],
    settled: Mapping[int, Any],
    names: Sequence[str],
    alike: Alike,
) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """A set whose fixed splits differ, taken apart: parts of one split each, and (refused, the one it duplicates)."""
    ranked = sorted(members, key=lambda i: (i not in settled, PRECEDENCE[fixed[i]] if i in fixed else 3, names[i]))
    parts: list[tuple[list[int], str | None]] = []
    conflicts = []
    for i in ranked:
        near = []
        for part, label in parts:
            hits = alike(np.array([(min(i, j), max(i, j)) for j in part]))
            if hits.any():
                near.append((part, label, part[int(np.argmax(hits))]))
        labels = {label for _, label, _ in near if label} | ({fixed[i]} if i in fixed else set())
        if len(labels) > 1:
            duplicated = next((j for _, label, j in near if label and label != fixed.get(i)), near[0][2])
            conflicts.append((i, duplicated))
            continue
        joined = [part for part, _, _ in near]
        parts = [entry for entry in parts if not any(entry[0] is part for part in joined)]
        parts.append((sorted(sum(joined, [i])), labels.pop() if labels else None))
    return [part for part, _ in parts], conflicts
