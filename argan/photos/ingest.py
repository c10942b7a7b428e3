"""From photo files to a photo store: decoded, checked, cropped, hashed, near duplicates grouped, split. Work follows new photos.

    photos.npy       uint8 (N, size, size, 3), in the order of the files
    index.parquet    the store's columns and FACTS: the file's hash, perceptual hash, group, the camera's settings, and how sharp
                     the places of the photo are (see `sharpness`)
    quarantine.csv   source, reason, file_sha256: what was refused and why

Memory does not grow with the pictures: rows go to a file as they come, about 1 kB a photo stays for the index.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.errors import UserError
from argan.photos import duplicates, splits, store
from argan.photos.crop import Rule
from argan.photos.duplicates import Pairs
from argan.photos.folder import printable
from argan.photos.photo_file import SUFFIXES, PhotoLimits
from argan.photos.pool import Lost, in_order
from argan.photos.prepare import Fault, Known, Prepare, Prepared, SourceFile
from argan.photos.previous_store import FACTS, ROWS, VERSION, PictureReader, PreviousStore, kind_of
from argan.photos.splits import Assignment, Splits

Progress = Callable[[int, int], None]  # files done, files in all

TYPES = {"phash": "uint64", "aperture": "float64", "focal_length": "float64", "taken": "string", "camera": "string"}
COPY = "copy"  # kind of refusal that is no fault
# Correlation of brightness over 16 x 16 cells; 29 different photographs reach 0.61 at most
ALIKE = 0.9
ALIKE_IN_BURST = 0.6


@dataclass(frozen=True)
class IngestReport:
    """What became of the files. Of all `files`: `photos` are in the store, `decoded` of them or of the refused are new."""

    files: int
    photos: int
    decoded: int
    groups: int  # of two photos or more
    refused: dict[str, int]  # kind of reason -> how many, the most frequent first


class Refusal(NamedTuple):
    """A file that is not taken in."""

    order: int  # among the files
    reason: str
    digest: str  # of its bytes


@dataclass(slots=True)
class IngestedPhoto:
    """A photo that is taken in. row: see `PictureReader`."""

    order: int  # among the files
    row: int
    facts: dict[str, Any]
    official: str | None = None  # the split that its source fixes


def ingest(
    files: Sequence[SourceFile],
    folder: Path,
    size: int,
    *,
    rule: Rule | None = None,
    limits: PhotoLimits | None = None,
    shares: Splits | None = None,
    previous: Path | None = None,
    refused_max: float = 0.05,
    processes: int | None = None,
    seconds: float = 60.0,
    progress: Progress | None = None,
) -> IngestReport:
    """Write the store of `files` into `folder`, an empty one (see `files.swapped`).

    previous: an earlier store; what is in it, by the hash of the file's bytes, is taken from there, and keeps group and split.
    refused_max: share of faulty files (copies are not) above which nothing is written. processes: None for one a core, 0 for
    this very process, without protection from files that hang or kill a decoder. seconds: for one file.
    Raises UserError when too many are refused or none is left.
    """
    rule, limits, shares = rule or Rule(), limits or PhotoLimits(), shares or Splits()
    settings = {"version": VERSION, "size": size, "rule": asdict(rule), "limits": asdict(limits)}
    earlier = PreviousStore.open(previous, settings)
    with tempfile.TemporaryFile(dir=folder) as new:
        work = _Work(files, Prepare(size, rule, limits), earlier, new)
        work.run(processes, seconds, progress)
        _check(files, work.refusals, refused_max)
        reader = PictureReader(size, earlier, new)
        photos, copies = _without_copies(work.photos)
        settled = earlier.settled if earlier.splits == asdict(shares) else {}
        assignment = _assign(photos, reader, shares, settled)
        accepted = [i for i in range(len(photos)) if i not in assignment.refused]
        index = pd.DataFrame(
            [photos[i].facts | {"group": assignment.group[i], "split": assignment.split[i]} for i in accepted]
        )
        index = index.loc[:, [*store.COLUMNS, *FACTS]].astype(TYPES)
        index.attrs = {"ingest": settings, "splits": asdict(shares)}
        index.to_parquet(folder / "index.parquet", index=False)
        rows = [photos[i].row for i in accepted]
        chunks = (reader.read(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS))
        store.write_rows(folder / "photos.npy", (len(rows), size, size, 3), np.uint8, chunks)
    conflicts = [
        Refusal(photos[i].order, reason, photos[i].facts["file_sha256"]) for i, reason in assignment.refused.items()
    ]
    refusals = sorted([*work.refusals, *copies, *conflicts])
    _write_quarantine(folder / "quarantine.csv", files, refusals)
    kinds = Counter(kind_of(refusal.reason) for refusal in refusals)
    groups = int((index["group"].value_counts() > 1).sum())
    return IngestReport(len(files), len(rows), work.decoded, groups, dict(kinds.most_common()))


class _Work:
    """The files become photos and refusals; pictures of the new ones are written to `new`."""

    def __init__(self, files: Sequence[SourceFile], prepare: Prepare, earlier: PreviousStore, new: IO[bytes]) -> None:
        self.files, self.prepare, self.earlier, self.new = files, prepare, earlier, new
        self.photos: list[IngestedPhoto] = []
        self.refusals: list[Refusal] = []
        self.decoded = self.written = 0

    def run(self, processes: int | None, seconds: float, progress: Progress | None) -> None:
        hashed = [bool(file.sha256 and self._recall(i, file.sha256)) for i, file in enumerate(self.files)]
        unseen = [i for i, recalled in enumerate(hashed) if not recalled]
        prepare = self.prepare
        if not all(self.files[i].sha256 for i in unseen):
            # Else all was looked up already, and the hashes need not go to the processes
            prepare = replace(prepare, known=frozenset(self.earlier.row) | frozenset(self.earlier.faults))
        results = in_order(prepare, (self.files[i] for i in unseen), processes=processes, seconds=seconds)
        for done, (i, (_, result)) in enumerate(zip(unseen, results, strict=True), len(self.files) - len(unseen) + 1):
            self._take(i, result)
            if progress:
                progress(done, len(self.files))
        self.photos.sort(key=lambda photo: photo.order)
        self.refusals.sort()

    def _recall(self, order: int, digest: str) -> bool:
        """Whether the earlier store knows the file: then it is taken from there."""
        if digest in self.earlier.faults:
            self.refusals.append(Refusal(order, self.earlier.faults[digest], digest))
        elif digest in self.earlier.row:
            row, file = self.earlier.row[digest], self.files[order]
            facts = self.earlier.index[row] | {"source": printable(file.source)}
            self.photos.append(IngestedPhoto(order, row, facts, file.split))
        else:
            return False
        return True

    def _take(self, order: int, result: Prepared | Known | Fault | Lost) -> None:
        file = self.files[order]
        self.decoded += not isinstance(result, Known)
        if isinstance(result, Known):
            self._recall(order, result.sha256)
        elif isinstance(result, Lost):
            self.refusals.append(Refusal(order, result.reason, file.sha256 or ""))
        elif isinstance(result, Fault):
            self.refusals.append(Refusal(order, result.reason, result.sha256))
        else:
            self.new.write(result.pixels.tobytes())
            self.written += 1
            self.photos.append(IngestedPhoto(order, -self.written, _facts(file, result), file.split))


def _facts(file: SourceFile, photo: Prepared) -> dict[str, Any]:
    return {
        "source": printable(file.source),
        "sha256": store.sha256(photo.pixels),
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


def _check(files: Sequence[SourceFile], refusals: Sequence[Refusal], refused_max: float) -> None:
    if not files:
        raise UserError(f"there are no photographs: no file ends in {', '.join(SUFFIXES[:8])} or a raw format's suffix")
    if not refusals or (len(refusals) <= refused_max * len(files) and len(refusals) < len(files)):
        return
    kind, count = Counter(kind_of(refusal.reason) for refusal in refusals).most_common(1)[0]
    example = next(refusal for refusal in refusals if kind_of(refusal.reason) == kind)
    limit = f"more than refused_max {refused_max:g} allows" if len(refusals) < len(files) else "none is left"
    raise UserError(
        f"{len(refusals)} of {len(files)} photos refused, {limit}; {count} of them: {kind} "
        f"(such as {printable(files[example.order].source)}: {example.reason}); fix the source or raise the parameter"
    )


def _without_copies(photos: Sequence[IngestedPhoto]) -> tuple[list[IngestedPhoto], list[Refusal]]:
    """One photo of those with the same bytes or the same picture stays: one known from before, else the first."""
    first: dict[str, IngestedPhoto] = {}
    for photo in sorted(photos, key=lambda photo: (photo.row < 0, photo.order)):
        first.setdefault(photo.facts["sha256"], photo)
    originals = [photo for photo in photos if first[photo.facts["sha256"]] is photo]
    copies = [
        Refusal(photo.order, f"{COPY}: the same picture as {original.facts['source']}", photo.facts["file_sha256"])
        for photo in photos
        if (original := first[photo.facts["sha256"]]) is not photo
    ]
    return originals, copies


def _assign(
    photos: Sequence[IngestedPhoto], reader: PictureReader, shares: Splits, settled: dict[str, tuple[str, str]]
) -> Assignment:
    """Groups of near duplicates, and a split for each. settled: hash of a file -> its group and split."""
    rows = [photo.row for photo in photos]
    hashes = np.array([photo.facts["phash"] for photo in photos], np.uint64)
    seconds = np.array([_seconds(photo.facts["taken"]) for photo in photos], np.float64)
    cameras = [photo.facts["camera"] or "" for photo in photos]

    def alike(pairs: Pairs) -> NDArray[np.bool_]:
        return reader.alike(rows, pairs, ALIKE)

    def alike_in_burst(pairs: Pairs) -> NDArray[np.bool_]:
        return reader.alike(rows, pairs, ALIKE_IN_BURST)

    def portions() -> Iterator[tuple[Pairs, duplicates.Alike]]:
        for pairs in duplicates.near_pairs(hashes):
            yield pairs, alike
        yield duplicates.burst_pairs(hashes, seconds, cameras), alike_in_burst

    component = duplicates.components(len(photos), portions())
    names = [photo.facts["file_sha256"] for photo in photos]
    official = {i: photo.official for i, photo in enumerate(photos) if photo.official}
    settled_at = {
        i: settled[name]
        for i, name in enumerate(names)
        if name in settled and photos[i].official in (None, settled[name][1])
    }
    sources = [photo.facts["source"] for photo in photos]
    return splits.assign(component, names, shares, official, settled_at, alike_in_burst, sources.__getitem__)


def _seconds(taken: str | None) -> float:
    return datetime.fromisoformat(taken).replace(tzinfo=UTC).timestamp() if taken else float("nan")


def _write_quarantine(path: Path, files: Sequence[SourceFile], refusals: Sequence[Refusal]) -> None:
    table = [(printable(files[refusal.order].source), refusal.reason, refusal.digest) for refusal in refusals]
    pd.DataFrame(table, columns=["source", "reason", "file_sha256"]).to_csv(path, index=False)
