"""From photo files to a photo store: decoded, checked, cut out, hashed, near duplicates grouped, split. Work follows new photos.

    photos.npy       uint8 (N, size, size, 3), in the order of the files
    index.parquet    the store's columns and FACTS: the file's hash, perceptual hash, group, what the camera said, and how sharp
                     the places of the photo are (see `sharpness`)
    quarantine.csv   source, reason, file_sha256: what was refused and why

Memory does not grow with the pictures: rows go to a file as they come, about 1 kB a photo stays for the index.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.errors import UserError
from argan.photos import duplicates, photo_file
from argan.photos import store as photos
from argan.photos.crop import Rule
from argan.photos.duplicates import Pairs, Splits
from argan.photos.photo_file import PhotoLimits
from argan.photos.pool import Lost, in_order
from argan.photos.prepare import Fault, File, Known, Prepare, Prepared

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # files done, files in all

VERSION = 2  # raise when the same file becomes other pixels or facts: earlier stores then give only groups and splits
FACTS = ("file_sha256", "format", "phash", "group", "aperture", "focal_length", "taken", "camera", "sharpness")
TYPES = {"phash": "uint64", "aperture": "float64", "focal_length": "float64", "taken": "string", "camera": "string"}
# Faults that are the file's own, and so need not be looked for again in the same bytes
OWN = (
    "empty",
    "not an image",
    "truncated",
    "damaged",
    "too small",
    "bomb",
    "animated",
    "cut out",
    "no photograph",
    "constant",
)
COPY, STRADDLES = "copy", "near duplicate across splits"  # refused without being faulty
ALIKE, ALIKE_BURST = (
    0.9,
    0.6,
)  # correlation of brightness over 16 x 16 cells; 29 different photographs reach 0.61 at most
ROWS = 256  # pictures moved at a time


@dataclass(frozen=True)
class Report:
    """What became of the files. Of all `files`: `photos` are in the store, `decoded` of them or of the refused are new."""

    files: int
    photos: int
    decoded: int
    groups: int  # of two photos or more
    refused: dict[str, int]  # reason's kind -> how many, the most frequent first


def find(folder: Path) -> list[File]:
    """The files in a folder and below that are photographs by their names, sorted; hidden ones and links to folders left out."""
    found = []

    def unreadable(error: OSError) -> None:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}); mend its permissions, or give another folder"
        )

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        wanted = [name for name in names if name.lower().endswith(photo_file.SUFFIXES) and not name.startswith(".")]
        found += [Path(parent) / name for name in wanted]
    return [File(path, printable(path.relative_to(folder).as_posix())) for path in sorted(found)]


def ingest(
    files: Sequence[File],
    folder: Path,
    size: int,
    *,
    rule: Rule | None = None,
    limits: PhotoLimits | None = None,
    splits: Splits | None = None,
    previous: Path | None = None,
    refused_max: float = 0.05,
    processes: int | None = None,
    seconds: float = 60.0,
    progress: Progress | None = None,
) -> Report:
    """Write the store of `files` into `folder`, an empty one (see `files.swapped`).

    previous: an earlier store; what is in it, by the hash of the file's bytes, is taken from there, and keeps group and split.
    refused_max: share of faulty files (copies are not) above which nothing is written. processes: None for one a core, 0 for
    this very process, without protection from files that hang or kill a decoder. seconds: for one file.
    Raises UserError when too many are refused or none is left.
    """
    rule, limits, splits = rule or Rule(), limits or PhotoLimits(), splits or Splits()
    prepare = Prepare(size, rule, limits)
    settings = {"version": VERSION, "size": size, "rule": asdict(rule), "limits": asdict(limits)}
    before = _Before.open(previous, settings)
    with tempfile.TemporaryFile(dir=folder) as new:
        rows, faults, decoded = _taken(files, prepare, before, new, processes, seconds, progress)
        _check(files, faults, refused_max)
        pictures = _Pictures(size, before, new)
        rows, copies = _without_copies(rows)
        settled = before.settled if before.splits == asdict(splits) else {}
        grouped = _grouped(rows, pictures, splits, settled)
        rows_left = [i for i in range(len(rows)) if i not in grouped.refused]
        index = pd.DataFrame(
            [rows[i].facts | {"group": grouped.group[i], "split": grouped.split[i]} for i in rows_left]
        )
        index = index.loc[:, [*photos.COLUMNS, *FACTS]].astype(TYPES)
        index.attrs = {"ingest": settings, "splits": asdict(splits)}
        index.to_parquet(folder / "index.parquet", index=False)
        kept = [rows[i] for i in rows_left]
        chunks = (pictures.read([row.at for row in kept[i : i + ROWS]]) for i in range(0, len(kept), ROWS))
        photos.write_rows(folder / "photos.npy", (len(kept), size, size, 3), np.uint8, chunks)
    straddling = [(rows[i].order, reason, rows[i].facts["file_sha256"]) for i, reason in grouped.refused.items()]
    refused = sorted([*faults, *copies, *straddling])
    table = [(printable(files[order].source), reason, digest) for order, reason, digest in refused]
    pd.DataFrame(table, columns=["source", "reason", "file_sha256"]).to_csv(folder / "quarantine.csv", index=False)
    kinds = Counter(_kind(reason) for _, reason, _ in refused)
    groups = int((index["group"].value_counts() > 1).sum())
    return Report(len(files), len(kept), decoded, groups, dict(kinds.most_common()))


@dataclass(slots=True)
class _Row:
    """A photo that was taken in. at: its row in the earlier store, or -1 - its row among the new ones."""

    order: int
    at: int
    facts: dict[str, Any]
    given: str | None = None  # the official split


Refusal = tuple[int, str, str]  # which file, why, hash of its bytes


@dataclass
class _Before:
    """The earlier store, as far as it was made with the same settings."""

    index: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, int] = field(default_factory=dict)  # hash of a file -> its row
    faults: dict[str, str] = field(default_factory=dict)  # hash of a file -> why it was refused
    settled: dict[str, tuple[str, str]] = field(default_factory=dict)  # hash of a file -> its group and split
    splits: dict[str, Any] | None = None
    pixels: Path | None = None
    offset: int = 0

    @classmethod
    def open(cls, folder: Path | None, settings: dict[str, Any]) -> _Before:
        """Empty without a store, or when it is another's: then all files are decoded."""
        if folder is None or not (folder / "index.parquet").exists():
            return cls()
        try:
            store = photos.Photos.open(folder)
        except UserError:  # damaged: all is decoded again
            return cls()
        attrs = store.index.attrs
        made = attrs.get("ingest") or {}
        if {**made, "version": VERSION} != settings or any(n not in store.index for n in ("file_sha256", "group")):
            return cls()
        names = store.index[["file_sha256", "group", "split"]].itertuples(index=False, name=None)
        settled = {digest: (group, split) for digest, group, split in names}
        if made.get("version") != VERSION or any(name not in store.index for name in FACTS):
            return cls(settled=settled, splits=attrs.get("splits"))
        table = [store.index[name].to_numpy(object, na_value=None).tolist() for name in store.index]  # type: ignore[call-overload]
        index = [dict(zip(store.index.columns, values, strict=True)) for values in zip(*table, strict=True)]
        try:
            quarantine = pd.read_csv(folder / "quarantine.csv", keep_default_na=False, dtype=str)
        except (OSError, ValueError):  # what was refused is then looked at again
            quarantine = pd.DataFrame(columns=["source", "reason", "file_sha256"])
        known = zip(quarantine.get("file_sha256", []), quarantine["reason"], strict=False)
        faults = {digest: reason for digest, reason in known if digest and _kind(reason) in OWN}
        row = {facts["file_sha256"]: i for i, facts in enumerate(index)}
        offset = int(getattr(store.pixels, "offset", 0))
        return cls(index, row, faults, settled, attrs.get("splits"), folder / "photos.npy", offset)


def _taken(
    files: Sequence[File],
    prepare: Prepare,
    before: _Before,
    new: IO[bytes],
    processes: int | None,
    seconds: float,
    progress: Progress | None,
) -> tuple[list[_Row], list[Refusal], int]:
    """Rows and faults of all files, in their order, and how many were decoded; pictures of the new ones go to `new`."""
    rows: list[_Row] = []
    faults: list[Refusal] = []
    written = decoded = 0

    def known(order: int, digest: str) -> bool:
        if digest in before.faults:
            faults.append((order, before.faults[digest], digest))
        elif digest in before.row:
            at = before.row[digest]
            facts = before.index[at] | {"source": printable(files[order].source)}
            rows.append(_Row(order, at, facts, files[order].split))
        else:
            return False
        return True

    unseen = [order for order, file in enumerate(files) if not (file.sha256 and known(order, file.sha256))]
    if not all(
        files[order].sha256 for order in unseen
    ):  # else it was looked up already, and need not go to the processes
        prepare = replace(prepare, known=frozenset(before.row) | frozenset(before.faults))
    work = in_order(prepare, (files[order] for order in unseen), processes=processes, seconds=seconds)
    for n, (order, (file, result)) in enumerate(zip(unseen, work, strict=True), len(files) - len(unseen) + 1):
        decoded += not isinstance(result, Known)
        if isinstance(result, Known):
            known(order, result.sha256)
        elif isinstance(result, Lost):
            faults.append((order, result.reason, file.sha256 or ""))
        elif isinstance(result, Fault):
            faults.append((order, result.reason, result.sha256))
        else:
            new.write(result.pixels.tobytes())
            written += 1
            rows.append(_Row(order, -written, _facts(file, result), file.split))
        if progress:
            progress(n, len(files))
    return sorted(rows, key=lambda row: row.order), sorted(faults), decoded


def _facts(file: File, photo: Prepared) -> dict[str, Any]:
    return {
        "source": printable(file.source),
        "sha256": photos.sha256(photo.pixels),
        "width": photo.width,
        "height": photo.height,
        "crop_left": photo.crop.left,
        "crop_top": photo.crop.top,
        "crop_size": photo.crop.width,
        "file_sha256": photo.sha256,
        "format": photo.format,
        "phash": photo.phash,
        "sharpness": photo.sharpness,
        **asdict(photo.exif),
    }


def _check(files: Sequence[File], faults: list[Refusal], refused_max: float) -> None:
    if not files:
        raise UserError(
            f"there are no photographs: no file ends in {', '.join(photo_file.SUFFIXES[:8])} or a raw format's suffix"
        )
    if not faults or (len(faults) <= refused_max * len(files) and len(faults) < len(files)):
        return
    kind, count = Counter(_kind(reason) for _, reason, _ in faults).most_common(1)[0]
    order, reason, _ = next(fault for fault in faults if _kind(fault[1]) == kind)
    limit = f"more than refused_max {refused_max:g} allows" if len(faults) < len(files) else "none is left"
    raise UserError(
        f"{len(faults)} of {len(files)} photos refused, {limit}; {count} of them: {kind} "
        f"(such as {printable(files[order].source)}: {reason}); mend the source or raise the parameter"
    )


def _without_copies(rows: list[_Row]) -> tuple[list[_Row], list[Refusal]]:
    """One photo of those with the same bytes or the same picture stays: one known from before, else the first."""
    first: dict[str, _Row] = {}
    for row in sorted(rows, key=lambda row: (row.at < 0, row.order)):
        first.setdefault(row.facts["sha256"], row)
    kept = [row for row in rows if first[row.facts["sha256"]] is row]
    copies = [
        (row.order, f"{COPY}: the same picture as {original.facts['source']}", row.facts["file_sha256"])
        for row in rows
        if (original := first[row.facts["sha256"]]) is not row
    ]
    return kept, copies


class _Pictures:
    """Pictures of rows, old and new, from their files by plain reads: a memory map would count as memory."""

    def __init__(self, size: int, before: _Before, new: IO[bytes]) -> None:
        self.shape = (size, size, 3)
        self.bytes = size * size * 3
        self.before, self.new = before, new
        self.thumbnails: dict[int, NDArray[np.float32]] = {}
        new.flush()

    def read(self, rows: Sequence[int]) -> Pixels:
        """(n, size, size, 3) of rows by their `_Row.at`."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        flat = out.reshape(len(rows), self.bytes)
        with open(self.before.pixels or os.devnull, "rb") as old:  # noqa: PTH123
            for i, at in enumerate(rows):
                file, position = (
                    (old, self.before.offset + at * self.bytes) if at >= 0 else (self.new, (-1 - at) * self.bytes)
                )
                file.seek(position)
                content = file.read(self.bytes)
                if len(content) != self.bytes:
                    raise UserError(f"{self.before.pixels} is cut off; delete its folder and run `dvc repro`")
                flat[i] = np.frombuffer(content, np.uint8)
        return out

    def alike(self, rows: Sequence[_Row], pairs: Pairs, least: float) -> NDArray[np.bool_]:
        """Which of the pairs of rows show the same: (P,)."""
        missing = sorted({rows[i].at for i in np.unique(pairs).tolist()} - self.thumbnails.keys())
        for i in range(0, len(missing), ROWS):
            for at, picture in zip(missing[i : i + ROWS], self.read(missing[i : i + ROWS]), strict=True):
                self.thumbnails[at] = _thumbnail(picture)
        a, b = (np.stack([self.thumbnails[rows[i].at] for i in pairs[:, side].tolist()]) for side in (0, 1))
        return np.einsum("pi,pi->p", a, b) >= least


def _thumbnail(picture: Pixels) -> NDArray[np.float32]:
    """Brightness over 16 x 16 cells, (256,), without its mean and of length 1: products of two are correlations."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel()
    cells = cells - cells.mean()
    return np.asarray(cells / max(float(np.linalg.norm(cells)), 1e-6), np.float32)


def _grouped(
    rows: list[_Row], pictures: _Pictures, splits: Splits, before: dict[str, tuple[str, str]]
) -> duplicates.Grouped:
    hashes = np.array([row.facts["phash"] for row in rows], np.uint64)
    seconds = np.array([_seconds(row.facts["taken"]) for row in rows], np.float64)
    cameras = [row.facts["camera"] or "" for row in rows]

    def alike(pairs: Pairs) -> NDArray[np.bool_]:
        return pictures.alike(rows, pairs, ALIKE)

    def alike_burst(pairs: Pairs) -> NDArray[np.bool_]:
        return pictures.alike(rows, pairs, ALIKE_BURST)

    def portions() -> Iterator[tuple[Pairs, duplicates.Alike]]:
        for pairs in duplicates.near_pairs(hashes):
            yield pairs, alike
        yield duplicates.burst_pairs(hashes, seconds, cameras), alike_burst

    component = duplicates.components(len(rows), portions())
    given = {i: row.given for i, row in enumerate(rows) if row.given}
    settled = {
        i: known
        for i, row in enumerate(rows)
        if (known := before.get(row.facts["file_sha256"])) and row.given in (None, known[1])
    }
    names = [row.facts["file_sha256"] for row in rows]
    told = [row.facts["source"] for row in rows]
    return duplicates.grouped(component, names, splits, given, settled, alike_burst, told.__getitem__)


def _seconds(taken: str | None) -> float:
    return datetime.fromisoformat(taken).replace(tzinfo=UTC).timestamp() if taken else float("nan")


def current(index: pd.DataFrame) -> bool:
    """Whether a store's index is of this version; an earlier one is made again from the photos when the store next changes."""
    return bool((index.attrs.get("ingest") or {}).get("version") == VERSION)


def _kind(reason: str) -> str:
    return reason.split(":")[0]


def printable(name: str) -> str:
    """A file's name as text that every format and terminal can hold: what is not UTF-8, and control characters, written out."""
    if name.isprintable():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
