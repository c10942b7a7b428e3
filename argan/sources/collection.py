"""Collections: anybody's photographs, added bit by bit, each kept once by the hash of its bytes.

    data/collections/<name>/
      photos/ab/abcd....jpg   every photo as it came, named by the sha256 of its bytes
      preview/                a store of 64 px (see `ingest`): its index says what the collection holds, its quarantine what was
                              refused and why, and `report.html` whether AR-GAN can learn from it
    data/collections/.<name>.seen.parquet   which files were looked at before: may be deleted, costs only time

The preview is swapped in last: until then, whatever happens, the collection is what it was. What else lies in photos/ after a
kill is cleared away by the next change.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from argan.errors import UserError
from argan.files import swapped
from argan.sources import decode, ingest
from argan.sources.archive import extract
from argan.sources.dataset import spoken
from argan.sources.download import download
from argan.sources.duplicates import Splits
from argan.sources.listing import photographs
from argan.sources.prepare import File
from argan.sources.web import shown

HOME = Path("data/collections")
PREVIEW = 64  # pixels of the preview: the coarsest at which sharp and soft can be told; smaller photos are refused
SPLITS = Splits(0.1, 0.1)  # of the photos for choosing and for judging: from 500 photos on, 50 each
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
            raise UserError(f"the collection {folder} is damaged ({' '.join(str(error).split())[:200]})") from error
        return cls(name, folder, index, quarantine)

    @property
    def revision(self) -> str:
        """16 hexadecimal digits that change with the photos and with how they are split."""
        told = self.index[["file_sha256", "group", "split"]].sort_values("file_sha256")
        return hashlib.sha256(told.to_csv(index=False).encode()).hexdigest()[:16]

    def files(self) -> list[File]:
        """The photos, to take in: hashes known, splits given. Raises UserError where one is gone."""
        kept = {path.stem: path for path in self.folder.glob("photos/??/*")}
        rows = self.index[["source", "file_sha256", "split"]].itertuples(index=False, name=None)
        try:
            return [File(kept[digest], source, digest, split=split) for source, digest, split in rows]
        except KeyError as error:
            raise UserError(
                f"{self.folder} lacks the photo {error.args[0]}; restore it from a backup, or remove it: "
                f"argan collection remove {self.name} {error.args[0][:12]}"
            ) from error


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
    processes: int | None = None,
    say: Say = lambda line: None,
    progress: ingest.Progress | None = None,
) -> Added:
    """Add the photographs of a folder, of a zip or tar, or of an https URL of an archive or of a folder's listing (it ends in /).

    refused_max: share of the source's files that may be no good before nothing is added. sha256: of what a URL gives, where
    it is known. Raises UserError; the collection then stays as it was.
    """
    with _alone(name, home, say), _source(source, name, home, sha256, say) as (folder, entries):
        return _add(name, folder, shown(source), home, refused_max, processes, say, progress, entries)


def remove(name: str, photos: list[str], home: Path = HOME, *, say: Say = lambda line: None) -> Collection | None:
    """Remove photos, each named by its source or by the start of its sha256; without any, the whole collection.

    Returns what is left, None after removing it all. Raises UserError where a name fits none or several.
    """
    with _alone(name, home, say):
        collection = Collection.open(name, home)
        if not photos:
            # Out of sight in one step; what a kill leaves of it, the next change clears away
            gone = home / f".{name}.removed"
            shutil.rmtree(gone, ignore_errors=True)
            collection.folder.replace(gone)
            shutil.rmtree(gone)
            (home / f".{name}.seen.parquet").unlink(missing_ok=True)
            return None
        digests = {_one(collection, photo) for photo in photos}
        rows = collection.index[~collection.index["file_sha256"].isin(digests)]
        if rows.empty:
            raise UserError(f"that would leave nothing of '{name}'; remove the whole: argan collection remove {name}")
        left = Collection(name, collection.folder, rows, collection.quarantine)
        # What was refused for being like another photo may be welcome now
        faults = left.quarantine[~left.quarantine["reason"].str.startswith((ingest.COPY, ingest.STRADDLES))]
        with swapped(left.folder / "preview") as preview:
            _preview(left, left.files(), faults, preview, 0, None)
        after = Collection.open(name, home)
        _sweep(after)
        return after


def _one(collection: Collection, photo: str) -> str:
    """The sha256 of the one photo that is meant."""
    index = collection.index
    fits = index[(index["source"] == photo) | (index["file_sha256"].str.startswith(photo) & (len(photo) >= 6))]
    if len(fits) != 1:
        what = "no photo" if fits.empty else f"{len(fits)} photos"
        raise UserError(
            f"{what} of '{collection.name}' called '{photo}': give its source as `argan collection show` tells it, or the first "
            "digits (6 or more) of its sha256"
        )
    return str(fits["file_sha256"].iloc[0])


def freeze(name: str, revision: str, folder: Path, home: Path = HOME, *, say: Say = lambda line: None) -> Collection:
    """The collection as it is, in `folder`: photos as hard links where that is possible; `Collection.open` reads it there.

    Raises UserError unless it is at `revision`.
    """
    with _alone(name, home, say):
        collection = Collection.open(name, home)
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
    processes: int | None,
    say: Say,
    progress: ingest.Progress | None,
    entries: Sequence[tuple[str, str]],
) -> Added:
    there = Collection.open(name, home) if name in names(home) else None
    if there:
        _sweep(there)
    found = ingest.find(folder)
    if not found:
        raise UserError(
            f"{source} holds no photographs: no file in it ends in {', '.join(decode.SUFFIXES[:8])} or a raw suffix"
        )
    looked, facts = _hashed(found, home / f".{name}.seen.parquet")
    collection = there or Collection(
        name,
        home / name,
        pd.DataFrame(columns=["file_sha256"]),
        pd.DataFrame(columns=["source", "reason", "file_sha256"]),
    )
    known = {*collection.index["file_sha256"], *collection.quarantine["file_sha256"]}
    new = []
    for file in looked:
        if file.sha256 not in known:
            new.append(file)
            known.add(file.sha256 or "")
    say(f"{len(found):,} photographs in {source}, {len(new):,} of them not seen before")
    refused = dict(entries)
    if new:
        before = collection.files() if there else []
        with swapped(collection.folder / "preview") as preview:
            added = pd.DataFrame(entries, columns=["source", "reason"]).assign(file_sha256="")
            told = pd.concat([collection.quarantine, added], ignore_index=True)
            index, faults = _preview(collection, [*before, *new], told, preview, processes, progress)
            refused |= dict(zip(faults["source"], faults["reason"], strict=True))
            _judge(faults["reason"].tolist(), len(found), refused_max, source)
            taken = set(index["file_sha256"])
            for file in new:
                if file.sha256 in taken:
                    _keep(file, collection.folder)
            os.sync()  # one for all the photos; only then may the index name them
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
        path = str(file.path.absolute())
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


def _sweep(collection: Collection) -> None:
    """Clear away what the index does not name: a kill, or a removal, left it."""
    named = set(collection.index["file_sha256"])
    for path in collection.folder.glob("photos/??/*"):
        if path.stem not in named:
            path.unlink()


@contextmanager
def _source(
    source: str, name: str, home: Path, sha256: str | None, say: Say
) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """A folder with the photographs of the source, and which entries of an archive were refused, with reasons."""
    path = Path(source)
    if path.is_dir():
        yield path, []
        return
    fetched = home / f".{name}.fetched" / hashlib.sha256(source.encode()).hexdigest()[:16]  # stays for another try
    if re.match(r"https?://[^?]*/$", source):
        photographs(source, fetched, say)
        yield fetched, []
        shutil.rmtree(fetched.parent, ignore_errors=True)
        return
    if re.match(r"https?://", source):
        path = download(
            source, fetched, sha256=sha256, own=sha256 is None, say=say, progress=spoken(shown(source), say)
        ).path
    elif not path.exists():
        raise UserError(
            f"{source} is not there; give a folder, a zip or tar of photographs, or the https address of either"
        )
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}.unpacked.") as unpacked:
        say(f"unpacking {shown(source)}")
        result = extract(path, Path(unpacked) / "photos", suffixes=decode.SUFFIXES)
        yield Path(unpacked) / "photos", result.refused
    shutil.rmtree(home / f".{name}.fetched", ignore_errors=True)


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
