"""Collections: anybody's photographs, added bit by bit, each kept once by the hash of its bytes.

    data/collections/<name>/
      photos/ab/abcd....jpg   every photo as it came, named by the sha256 of its bytes
      preview/                a store of 64 px (see `ingest`): its index says what the collection holds, its quarantine what was
                              refused and why, and `report.html` whether AR-GAN can learn from it
    data/collections/.<name>.seen.parquet   which files were looked at before: may be deleted, costs only time

The preview is swapped in last: until then, whatever happens, the collection is what it was. What else lies in photos/ after a
kill does no harm. Nothing but `remove` deletes a photo; should the preview be lost, it is made again from the photos.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from argan.config.schema import Floors
from argan.errors import UserError
from argan.files import swapped
from argan.photos import ingest, photo_file, report
from argan.photos.duplicates import Splits
from argan.photos.listing import photographs
from argan.photos.prepare import File
from argan.photos.sources.archive import extract
from argan.photos.sources.dataset import spoken
from argan.photos.sources.download import digests, download, mismatch
from argan.photos.sources.web import shown

HOME = Path("data/collections")
PREVIEW = 64  # pixels of the preview: the coarsest at which sharp and soft can be told; smaller photos are refused
SPLITS = Splits(0.1, 0.1)  # of the photos for choosing and for judging: from 500 photos on, 50 each
UNMEASURED = "Not measured: the numbers are gone or of an earlier version. Add anything and they are made again."
LOOKED = ("path", "size", "mtime", "sha256")  # of `.seen`

Say = Callable[[str], None]


@dataclass(frozen=True)
class Added:
    """What an add did: of `files` photographs in the source, `new` came in; `refused` of the rest, the others were known."""

    files: int
    new: int
    refused: dict[str, str]  # source -> reason
    photos: int  # in the collection now
    revision: str


@dataclass(frozen=True)
class Collection:
    """An opened collection. index: a row per photo, the columns of `ingest`."""

    name: str
    folder: Path
    index: pd.DataFrame
    quarantine: pd.DataFrame

    @classmethod
    def open(cls, name: str, home: Path = HOME) -> Collection:
        """Raises UserError where there is none, or it is damaged."""
        folder = home / name
        try:
            index = pd.read_parquet(folder / "preview" / "index.parquet")
            quarantine = pd.read_csv(folder / "preview" / "quarantine.csv", keep_default_na=False, dtype=str)
        except FileNotFoundError as error:
            known = ", ".join(names(home)) or "none yet"
            raise UserError(
                f"there is no collection '{name}' (known: {known}); make it with `argan collection add {name} SOURCE`"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}/preview is damaged ({' '.join(str(error).split())[:200]}); delete that folder and add anything: "
                f"what is in {folder}/photos stays, and is looked through again"
            ) from error
        return cls(name, folder, index, quarantine)

    @property
    def revision(self) -> str:
        """16 hexadecimal digits that change with the photos and with how they are split."""
        told = self.index[["file_sha256", "group", "split"]].sort_values("file_sha256")
        return hashlib.sha256(told.to_csv(index=False).encode()).hexdigest()[:16]

    @property
    def quality(self) -> dict[str, Any] | None:
        """The numbers beside its report, see `quality.measure`; None where they are gone, damaged or of an earlier version."""
        try:
            told = json.loads((self.folder / "preview" / "quality.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) and "measured_at" in told else None

    @property
    def unfit(self) -> list[str]:
        """Why AR-GAN cannot learn from it; empty where it can."""
        told = self.quality
        return [UNMEASURED] if told is None else list(told["unfit"])

    def files(self) -> list[File]:
        """The photos, to take in: hashes known, splits given. Those that are gone from the disk are left out."""
        there = kept(self.folder)
        rows = self.index[["source", "file_sha256", "split"]].itertuples(index=False, name=None)
        return [File(there[digest], source, digest, split=split) for source, digest, split in rows if digest in there]


def kept(folder: Path) -> dict[str, Path]:
    """The photos of a collection's folder that are on the disk, by the hash of their bytes."""
    return {path.stem: path for path in folder.glob("photos/??/*") if re.fullmatch("[0-9a-f]{64}", path.stem)}


def names(home: Path = HOME) -> list[str]:
    """Of the collections there are, sorted."""
    return sorted(path.parent.parent.name for path in home.glob("[!.]*/preview/index.parquet"))


def add(
    name: str,
    source: str,
    home: Path = HOME,
    *,
    refused_max: float = 0.5,
    sha256: str | None = None,
    floors: Floors | None = None,
    processes: int | None = None,
    say: Say = lambda line: None,
    progress: ingest.Progress | None = None,
) -> Added:
    """Add the photographs of a folder, of a zip or tar, or of an https URL of an archive or of a folder's listing (it ends in /).

    refused_max: share of the source's files that may be no good before nothing is added. sha256: of an archive, where it is
    known. floors: of the report, `argan.photos.quality`. Raises UserError; the collection then stays as it was.
    """
    with _alone(name, home, say), _source(source, name, home, sha256, say) as (folder, entries):
        return _add(
            name, folder, shown(source), home, refused_max, floors or Floors(), processes, say, progress, entries
        )


def remove(
    name: str, photos: list[str], home: Path = HOME, *, floors: Floors | None = None, say: Say = lambda line: None
) -> Collection | None:
    """Remove photos, each named by its source or by the start of its sha256; without any, the whole collection.

    Returns what is left, None after removing it all. A removed photo comes in again with the next add of where it is. Raises
    UserError where a name fits none or several.
    """
    with _alone(name, home, say):
        if not photos and (home / name / "photos").is_dir():
            # Out of sight in one step; what a kill leaves of it, the next change clears away
            gone = home / f".{name}.removed"
            shutil.rmtree(gone, ignore_errors=True)
            (home / name).replace(gone)
            shutil.rmtree(gone)
            (home / f".{name}.seen.parquet").unlink(missing_ok=True)
            return None
        collection = Collection.open(name, home)
        digests = {_one(collection, photo) for photo in photos}
        rows = collection.index[~collection.index["file_sha256"].isin(digests)]
        if rows.empty:
            raise UserError(f"that would leave nothing of '{name}'; remove the whole: argan collection remove {name}")
        left = Collection(name, collection.folder, rows, collection.quarantine)
        # What was refused for being like another photo may be welcome now
        faults = left.quarantine[~left.quarantine["reason"].str.startswith((ingest.COPY, ingest.STRADDLES))]
        with swapped(left.folder / "preview") as preview:
            _preview(left, left.files(), faults, preview, 0, None)
            report.write(preview, report.About(f"the collection {name}"), floors or Floors())
        for digest, path in kept(left.folder).items():
            if digest in digests:
                path.unlink()
        return Collection.open(name, home)


def _one(collection: Collection, photo: str) -> str:
    """The sha256 of the one photo that is meant."""
    index = collection.index
    fits = index[(index["source"] == photo) | (index["file_sha256"].str.startswith(photo) & (len(photo) >= 6))]
    if len(fits) != 1:
        what = "no photo" if fits.empty else f"{len(fits)} photos"
        raise UserError(
            f"{what} of '{collection.name}' called '{photo}': give its source as `argan collection show --photos` lists it, or the "
            "first digits (6 or more) of its sha256"
        )
    return str(fits["file_sha256"].iloc[0])


def freeze(name: str, revision: str, folder: Path, home: Path = HOME, *, say: Say = lambda line: None) -> Collection:
    """The collection as it is, in `folder`: photos as hard links where that is possible; `Collection.open` reads it there.

    What is there at that revision already stays. Raises UserError unless the collection is at `revision`, and whole.
    """
    with suppress(UserError):
        there = Collection.open(folder.name, folder.parent)
        if there.revision == revision and len(there.files()) == len(there.index):
            return there
    with _alone(name, home, say):
        collection = Collection.open(name, home)
        if lost := len(collection.index) - len(collection.files()):
            raise UserError(
                f"{lost} photos of the collection '{name}' are gone from {collection.folder}/photos: restore them, or add them "
                "again; adding anything else takes what is left as the collection"
            )
        if collection.revision != revision:
            raise UserError(
                f"the collection '{name}' is at revision {collection.revision}, params.yaml asks for {revision}: write the "
                f"one you want into {name}.revision; photos of an earlier one come back with its commit and `dvc checkout`"
            )
        with swapped(folder) as new:
            for file in collection.files():
                target = new / file.path.relative_to(collection.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(file.path)
                except OSError:  # another disk
                    shutil.copyfile(file.path, target)
            (new / "preview").mkdir()
            for part in ("index.parquet", "quarantine.csv"):
                shutil.copyfile(collection.folder / "preview" / part, new / "preview" / part)
    return Collection.open(folder.name, folder.parent)


def _add(
    name: str,
    folder: Path,
    source: str,
    home: Path,
    refused_max: float,
    floors: Floors,
    processes: int | None,
    say: Say,
    progress: ingest.Progress | None,
    entries: Sequence[tuple[str, str]],
) -> Added:
    there = Collection.open(name, home) if name in names(home) else None
    found = ingest.find(folder)
    if not found and entries:
        raise UserError(f"{source}: none of its {len(entries)} entries can be taken; {entries[0][0]}: {entries[0][1]}")
    if not found:
        raise UserError(
            f"{source} holds no photographs: no file in it ends in {', '.join(photo_file.SUFFIXES[:8])} or a raw suffix"
        )
    looked, facts = _hashed(found, home / f".{name}.seen.parquet")
    collection = there or Collection(
        name,
        home / name,
        pd.DataFrame(columns=["source", "file_sha256", "split"]),
        pd.DataFrame(columns=["source", "reason", "file_sha256"]),
    )
    before = collection.files()
    if lost := len(collection.index) - len(before):
        say(f"{lost} photos of '{name}' are gone from {collection.folder}/photos: left out")
    # A fault of the file's own stays; what was the machine's, or has no hash, is looked at again
    told = collection.quarantine
    settled = told["reason"].str.split(":").str[0].isin([*ingest.OWN, ingest.COPY, ingest.STRADDLES])
    told = told[
        (settled & (told["file_sha256"] != "")) | ~told["source"].isin([ingest.printable(f.source) for f in found])
    ]
    known = {*(file.sha256 or "" for file in before), *told["file_sha256"]} - {""}
    new = []
    first = (
        collection.folder / "photos" / ".first"
    )  # there while the first add runs: what a kill of it leaves is no photo
    if there is None:
        orphans = (
            {} if first.exists() else kept(collection.folder)
        )  # of a collection whose index is gone its photos are not
        before = [File(path, path.name, digest) for digest, path in orphans.items()]
        known |= set(orphans)
        if orphans:
            say(
                f"{len(orphans)} photos are in {collection.folder}/photos without an index: they are looked through again"
            )
    for file in looked:
        if file.sha256 not in known:
            new.append(file)
            known.add(file.sha256 or "")
    say(f"{len(found):,} photographs in {source}, {len(new):,} of them not seen before")
    refused = dict(entries)
    earlier = there is not None and not ingest.current(there.index)
    if earlier:
        say(f"an earlier version looked at the photos of '{name}': they are measured again")
    if new or there is None or lost or earlier:
        with swapped(collection.folder / "preview") as preview:
            added = pd.DataFrame(entries, columns=["source", "reason"]).assign(file_sha256="")
            told = pd.concat([told, added], ignore_index=True).drop_duplicates(["source", "reason"])
            index, faults = _preview(collection, [*before, *new], told, preview, processes, progress)
            refused |= dict(zip(faults["source"], faults["reason"], strict=True))
            photos = [reason for entry, reason in entries if entry.lower().endswith(photo_file.SUFFIXES)]
            _judge([*faults["reason"], *photos], len(found) + len(photos), refused_max, source)
            taken = set(index["file_sha256"])
            if taken - {file.sha256 for file in (*before, *new)}:
                (home / f".{name}.seen.parquet").unlink(missing_ok=True)
                raise UserError(f"photos in {source} changed while they were added; nothing was added: run it again")
            if not before:
                first.parent.mkdir(parents=True, exist_ok=True)
                first.touch()
            for file in new:
                if file.sha256 in taken:
                    _keep(file, collection.folder)
            report.write(preview, report.About(f"the collection {name}"), floors, lambda photo: folder / photo)
            os.sync()  # one for all the photos; only then may the index name them
            first.unlink(missing_ok=True)
    after = Collection.open(name, home)
    facts.to_parquet(home / f".{name}.seen.parquet", index=False)
    return Added(len(found), len(after.index) - len(collection.index), refused, len(after.index), after.revision)


def _preview(
    collection: Collection,
    files: list[File],
    told: pd.DataFrame,
    preview: Path,
    processes: int | None,
    progress: ingest.Progress | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the preview of `files`; its quarantine begins with what was `told` before. Returns the index and what is refused now."""
    ingest.ingest(
        files,
        preview,
        PREVIEW,
        splits=SPLITS,
        previous=collection.folder / "preview",
        refused_max=1.0,
        processes=processes,
        progress=progress,
    )
    faults = pd.read_csv(preview / "quarantine.csv", keep_default_na=False, dtype=str)
    pd.concat([told, faults], ignore_index=True).to_csv(preview / "quarantine.csv", index=False)
    return pd.read_parquet(preview / "index.parquet"), faults


def _judge(reasons: list[str], files: int, refused_max: float, source: str) -> None:
    kinds = Counter(reason.split(":")[0] for reason in reasons)
    for welcome in (ingest.COPY, ingest.STRADDLES):
        kinds.pop(welcome, None)
    if (count := kinds.total()) > refused_max * files:
        kind, most = kinds.most_common(1)[0]
        raise UserError(
            f"{count} of {files} photos in {source} are refused, more than --refused-max {refused_max:g} allows; {most} of them: "
            f"{kind}; nothing was added"
        )


def _hashed(found: list[File], cache: Path) -> tuple[list[File], pd.DataFrame]:
    """The files with their sha256, and what to remember of them. What has the path, size and time of last time is not read."""
    try:
        before = pd.read_parquet(cache)[list(LOOKED)]
    except (OSError, ValueError, KeyError):
        before = pd.DataFrame(columns=list(LOOKED))
    known = {(path, size, mtime): digest for path, size, mtime, digest in before.itertuples(index=False, name=None)}

    def one(file: File) -> tuple[str, int, int, str]:
        path = ingest.printable(str(file.path.absolute()))
        try:
            facts = file.path.stat()
            mark = (path, facts.st_size, facts.st_mtime_ns)
            if mark in known or not stat.S_ISREG(facts.st_mode):
                return (*mark, known.get(mark, ""))
            with file.path.open("rb") as content:
                return (*mark, hashlib.file_digest(content, "sha256").hexdigest())
        except OSError:
            return (path, 0, 0, "")

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(one, found))
    facts = pd.DataFrame(rows, columns=list(LOOKED))
    files = [replace(file, sha256=digest or None) for file, digest in zip(found, facts["sha256"], strict=True)]
    facts = pd.concat([before[~before["path"].isin(facts["path"])], facts[facts["sha256"] != ""]], ignore_index=True)
    return files, facts.astype({"size": "int64", "mtime": "int64"})


def _keep(file: File, folder: Path) -> None:
    """Copy a photo to where its hash says, whole."""
    target = folder / "photos" / str(file.sha256)[:2] / f"{file.sha256}{file.path.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(file.path, temporary)
    with temporary.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
            temporary.unlink()
            raise UserError(f"{file.source} changed while it was added; nothing was added: run it again")
    temporary.replace(target)


@contextmanager
def _source(
    source: str, name: str, home: Path, sha256: str | None, say: Say
) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """A folder with the photographs of the source, and which entries of an archive were refused, with reasons."""
    path = Path(source)
    fetched = home / f".{name}.fetched" / hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
    remote, listed = bool(re.match(r"https?://", source)), bool(re.match(r"https?://[^?]*/$", source))
    if sha256 and (listed or path.is_dir()):
        raise UserError(f"--sha256 is of an archive, and {shown(source)} is a folder; leave it out")
    if not remote and not path.exists():
        raise UserError(
            f"{source} is not there; give a folder, a zip or tar of photographs, or the https address of either"
        )
    if listed:
        photographs(source, fetched, say)  # what is there already stays for another try
    elif remote:
        own = sha256 is None
        path = download(source, fetched, sha256=sha256, own=own, say=say, progress=spoken(shown(source), say)).path
    elif sha256 and path.is_file() and (wrong := mismatch(digests(path), {"sha256": sha256.lower()})):
        raise UserError(f"{path} is not what --sha256 says ({wrong}); give the right file, or leave the hash out")
    try:
        if path.is_dir() or listed:
            yield (fetched if listed else path), []
        else:
            with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}.unpacked.") as unpacked:
                say(f"unpacking {shown(source)}")
                result = extract(path, Path(unpacked) / "photos", suffixes=photo_file.SUFFIXES)
                yield Path(unpacked) / "photos", result.refused
    except UserError:  # what came whole and will not do is not asked for again in vain
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.unlink(missing_ok=True)
        raise
    shutil.rmtree(fetched.parent, ignore_errors=True)


@contextmanager
def _alone(name: str, home: Path, say: Say) -> Iterator[None]:
    """One change of a collection at a time. A killed holder lets go by itself, and what it left behind is cleared away."""
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is changing '{name}': waiting for it")
        lock.acquire()
    try:
        preview, old = (home / name / part for part in ("preview", ".preview.old"))
        if old.exists() and not preview.exists():  # killed between the two renames of `swapped`
            old.replace(preview)
        for left_over in [home / f".{name}.removed", *home.glob(f".{name}.unpacked.*")]:
            shutil.rmtree(left_over, ignore_errors=True)
        yield
    finally:
        lock.release()
