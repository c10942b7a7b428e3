"""What the published datasets share: their files and how these are got, who may use them, and a record of each photograph."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from argan.config.schema import FileOverride
from argan.errors import UserError
from argan.files import swapped
from argan.photos.sources.archive import extract
from argan.photos.sources.download import Fetched, Progress, Say, digests, download, mismatch
from argan.photos.sources.web import RetryPolicy

PROGRESS_SECONDS = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class RemoteFile:
    """A published file. `md5` stands where the publishers or those who checked it tell no sha256."""

    name: str
    urls: tuple[str, ...]  # mirrors; none where a person must fetch it
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    into: str = ""  # folder for what an archive holds; "": the file itself is kept
    suffixes: frozenset[str] = frozenset()
    masks: bool = False  # for judging depth alone
    optional: bool = False  # taken where the user gives it
    by_hand: str = ""  # what to do where it cannot be fetched


@dataclass(frozen=True)
class DatasetPhoto:
    """A photograph as the dataset has it. `split` is ours (train, validation, test), `official` the publishers' own name."""

    image: Path
    official: str
    split: str
    label: int | None = None  # the publishers' category, from 1; never used to learn
    box: tuple[float, float, float, float] | None = None  # left, top, width, height in pixels
    mask: Path | None = None  # for judging depth alone


@dataclass(frozen=True)
class Dataset:
    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    splits: str  # how `split` follows from the official one
    files: tuple[RemoteFile, ...]
    photos: Callable[[Path], list[DatasetPhoto]]  # of the folder that `fetch` made
    checked_photos: Callable[[Path], list[DatasetPhoto]] | None = None  # the same, after checks that take their time
    foreground: Callable[[Path], np.ndarray] | None = None  # of a mask's file: (H, W) bool, the subject


@dataclass
class FetchResult:
    """What `fetch` did: the photographs, and what archives held that was refused, with its reason."""

    photos: list[DatasetPhoto]
    refused: list[tuple[str, str]] = field(default_factory=list)


def fetch(
    dataset: Dataset,
    folder: str | Path,
    downloads: str | Path,
    *,
    overrides: Mapping[str, FileOverride] | None = None,
    masks: bool = True,
    say: Say = lambda line: None,
    retry: RetryPolicy | None = None,
) -> FetchResult:
    """Get, check and unpack a dataset into `folder`, which appears only whole. Downloads stay in `downloads` and are reused.

    Raises UserError when a file cannot be had, is not the published one, or does not hold what it should.
    """
    folder, overrides = Path(folder), overrides or {}
    if unknown := sorted(set(overrides) - {remote.name for remote in dataset.files}):
        raise UserError(
            f"{dataset.name}: no file is called {unknown[0]}; known: {', '.join(remote.name for remote in dataset.files)}"
        )
    wanted = [
        remote
        for remote in dataset.files
        if (masks or not remote.masks) and (not remote.optional or remote.name in overrides)
    ]
    files = [
        (remote, obtain(remote, Path(downloads), overrides.get(remote.name, FileOverride()), say, retry))
        for remote in wanted
    ]
    refused = []
    with swapped(folder) as new:
        for remote, file in files:
            if not remote.into:
                shutil.copyfile(file.path, new / remote.name)
                continue
            say(f"{remote.name}: unpacking")
            result = extract(file.path, new / remote.into, suffixes=remote.suffixes)
            refused += [(f"{remote.name}: {name}", reason) for name, reason in result.refused]
        photos = (dataset.checked_photos or dataset.photos)(new)
        (new / "provenance.json").write_text(_provenance(dataset, files), encoding="utf-8")
    say(f"{dataset.name}: {len(photos):,} photographs, {len(refused)} entries of archives refused")
    return FetchResult(dataset.photos(folder), refused)


def obtain(
    remote: RemoteFile, downloads: Path, override: FileOverride, say: Say, retry: RetryPolicy | None = None
) -> Fetched:
    """One file: the user's own copy where they name it, else downloaded. Checked either way by the hash that is known."""
    pins = {"sha256": override.sha256.lower()} if override.sha256 else _pins(remote)
    if override.path:
        try:
            hashes, size = digests(override.path), override.path.stat().st_size
        except OSError as error:
            raise UserError(
                f"{override.path}, named for {remote.name}, cannot be read: {error.strerror or error}"
            ) from error
        if wrong := mismatch(hashes, pins):
            raise UserError(
                f"{override.path} is not the published {remote.name} ({wrong}); fetch it again, or pin its sha256"
            )
        if not pins:
            say(
                f"{override.path}: no checksum is published for {remote.name}; pin sha256 {hashes['sha256']} to detect changes"
            )
        return Fetched(override.path, size, hashes["sha256"])
    urls = (override.url,) if override.url else remote.urls
    if not urls:
        raise UserError(f"{remote.name}: {remote.by_hand}")
    return download(
        urls,
        downloads / remote.name,
        sha256=pins.get("sha256"),
        md5=pins.get("md5"),
        size=None if override.sha256 else remote.size,
        say=say,
        progress=throttled_progress(remote.name, say),
        retry=retry,
    )


def throttled_progress(name: str, say: Say, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress as lines, not too many."""
    last = clock()

    def progress(done: int, total: int | None) -> None:
        nonlocal last
        if (now := clock()) - last >= PROGRESS_SECONDS:
            last = now
            of = f" of {total / 1e6:,.0f}" if total else ""
            say(f"{name}: {done / 1e6:,.0f}{of} MB")

    return progress


def held_out(key: str, share: float) -> bool:
    """Whether a photograph belongs to the part held out of an official split: by its name's hash, so for ever the same."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


def _pins(remote: RemoteFile) -> dict[str, str]:
    return {name: pin for name, pin in (("sha256", remote.sha256), ("md5", remote.md5)) if pin}


def _provenance(dataset: Dataset, files: list[tuple[RemoteFile, Fetched]]) -> str:
    terms = {name: getattr(dataset, name) for name in ("name", "title", "homepage", "licence", "citation", "splits")}
    described = [{"name": remote.name, "size": file.size, "sha256": file.sha256} for remote, file in files]
    return json.dumps({**terms, "files": described}, indent=2) + "\n"
