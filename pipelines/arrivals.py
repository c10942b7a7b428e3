"""Photographs that arrive: whatever is new in a watched folder or below a bucket's prefix comes into a collection, once.

A folder is looked through whole each time, and read where size or time changed. Of a bucket only objects that are new or
changed are fetched: `.argan/arrivals/` remembers which were looked at. It may be deleted; that only costs time, since a
collection knows its photos by their bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from argan.config import params
from argan.errors import UserError
from argan.files import write_json
from argan.photos import collection, photo_file
from argan.photos.collection import Added, Collection
from argan.photos.folder import find_photos
from argan.redact import redacted

Say = Callable[[str], None]

SEEN_FOLDER = Path(".argan/arrivals")
RETRAINING_FOLDER = Path(".argan/due")  # a file here is a retraining that has begun: it is finished in any case
QUIET_SECONDS = 5.0  # seconds without a change in a folder: nobody is writing a photo there
SETTLE_SECONDS = 60.0  # a folder in which something always changes is then taken as it is: half a photo is refused
BATCH_SIZE = 2000  # objects of a bucket on this disk at a time


def add_arrivals(name: str, source: str, say: Say) -> list[Added]:
    """Add what is new in `source`, and write the collection's revision into params.yaml. Empty where there is nothing at all.

    source: a folder, s3://bucket/prefix (any address fsspec knows), or what `argan collection add` takes; ${NAME} in an address
    stands for a variable of the environment. Raises UserError.
    """
    address, settings = with_variables(source), params.load()
    params.check_collection_name(name, settings)
    floors, added = settings.crop.floors, []

    def add(place: str) -> None:
        added.append(collection.add(name, place, floors=floors, say=say))
        params.record_revision(name, lambda: Collection.open(name).revision)

    if re.match(r"(?!https?:)\w[\w+.-]+://", address):
        for folder in _fetched(name, address, say):
            add(str(folder))
    elif not Path(address).is_dir():
        add(address)
    elif find_photos(Path(address)):
        _settle(Path(address), say)
        add(address)
    if name in collection.names():  # a kill may have come between the photos and the revision
        params.record_revision(name, lambda: Collection.open(name).revision)
    return added


def checked_source(source: str) -> str:
    """`source`, for a parameter of a flow: Prefect keeps those and shows them. Raises UserError where it holds a secret."""
    if (shown := redacted(source)) != source:
        raise UserError(
            f"the source {shown} holds a user, a password or a key, and Prefect keeps and shows parameters: write ${{NAME}} in "
            "its place, and set the variable NAME for the worker; for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return source


def with_variables(source: str) -> str:
    """An address with the values of the variables it names as ${NAME}. Raises UserError for one that is not set."""
    if "://" not in source:
        return source

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(
                f"the source {source} names the variable {found[1]}, which is not set: set it where this runs"
            )
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, source)


def not_trained_on(name: str) -> int:
    """Photos of a collection that the last retraining did not have; all, before the first."""
    try:
        trained = set(Collection.open(name, Path("data/raw")).index["file_sha256"])
    except UserError:
        trained = set()
    return len(set(Collection.open(name).index["file_sha256"]) - trained)


def retraining_due(name: str, summary: dict[str, Any], enough: int) -> tuple[str, bool]:
    """What came in, in a line, and whether a retraining is due."""
    if name not in collection.names():
        return f"{name}: no photographs there yet", False
    count, begun, settings = not_trained_on(name), (RETRAINING_FOLDER / name).exists(), params.load()
    line = f"{name}: {summary['new']} new photos, {len(summary['refused'])} refused; {count} not learned from yet"
    if name not in settings.domains:
        return f"{line}; to learn from them, set {name}.preset in params.yaml and add {name} to `domains`", False
    if unfit := Collection.open(name).unfit:
        return f"{line}; AR-GAN cannot learn from the collection yet: {' '.join(unfit)}", False
    if begun:
        return f"{line}; a retraining was begun and goes on", True
    return f"{line}, {enough} are enough", count >= enough


def _settle(folder: Path, say: Say) -> None:
    """Wait until nobody is writing there."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_SECONDS:
        newest = max((file.path.stat().st_mtime for file in find_photos(folder) if file.path.exists()), default=0.0)
        if not 0 <= time.time() - newest < QUIET_SECONDS:
            return
        time.sleep(0.5)
    say(f"{folder}: something is written all the time; going on with what is there")


# ---- Buckets ---------------------------------------------------------------------------------------------------------


def _fetched(name: str, source: str, say: Say) -> Iterator[Path]:
    """Folders with the objects that were not looked at before, one after the other; remembered once they have been added."""
    import fsspec  # type: ignore[import-untyped]

    shown = redacted(source)
    with _translate_errors(source):
        if source.startswith("s3://"):
            from pipelines import storage

            storage.check(source)
        files, prefix = fsspec.core.url_to_fs(source, **_options(source))
        found = (
            files.find(prefix, detail=True, refresh=True)
            if source.startswith("s3://")
            else files.find(prefix, detail=True)
        )
    note = SEEN_FOLDER / f"{name}.json"
    seen = _load_seen(note)
    marks = {
        f"{shown} {path}": _version(info) for path, info in sorted(found.items()) if _is_photo(path[len(prefix) :])
    }
    new = [key for key, mark in marks.items() if seen.get(key) != mark]
    say(f"{len(marks):,} photographs in {shown}, {len(new):,} of them not looked at before")
    folder = collection.HOME / f".{name}.arrived"
    try:
        for start in range(0, len(new), BATCH_SIZE):
            keys = new[start : start + BATCH_SIZE]
            shutil.rmtree(folder, ignore_errors=True)
            with _translate_errors(source):
                for key in keys:
                    path = key.removeprefix(f"{shown} ")
                    target = folder / path[len(prefix) :].lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files.get_file(path, str(target))
            yield folder
            seen |= {key: marks[key] for key in keys}
            write_json(note, seen, mode=0o600)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options(source: str) -> dict[str, Any]:
    """A server that is away is said to be within seconds."""
    if not source.startswith("s3://"):
        return {}
    config = {"connect_timeout": 5, "read_timeout": 60, "retries": {"total_max_attempts": 3}}
    return {"config_kwargs": config, "skip_instance_cache": True, "use_listings_cache": False}


@contextmanager
def _translate_errors(source: str) -> Iterator[None]:
    secret, shown = (address.partition("://")[2].partition("/")[0] or address for address in (source, redacted(source)))

    def clean(error: Exception) -> str:  # libraries quote parts of an address too
        return redacted(str(error).replace(secret, shown))

    def reason(error: Exception) -> str:
        return " ".join(clean(error).split())[:200]

    try:
        yield
    except UserError as error:
        raise UserError(clean(error)) from error
    except ImportError as error:
        raise UserError(f"{source} needs a package ({reason(error)}); for S3: pip install 'argan[s3]'") from error
    except FileNotFoundError as error:
        raise UserError(f"{source} is not there ({reason(error)}); create it, or fix its name") from error
    except PermissionError as error:
        raise UserError(
            f"{source}: access refused ({reason(error)}); fix the credentials or the bucket's rights"
        ) from error
    except Exception as error:  # whatever the library of a store throws
        why = reason(error) or type(error).__name__
        raise UserError(f"{source} cannot be reached ({why}); fix its address, or run it again later") from error


def _is_photo(name: str) -> bool:
    """A photograph by its name, and a name that is safe on this disk."""
    parts = name.strip("/").split("/")
    safe = all(
        part not in ("", ".", "..") and len(part) < 200 and part.isprintable() and "\\" not in part for part in parts
    )
    return safe and not any(part.startswith(".") for part in parts) and name.lower().endswith(photo_file.SUFFIXES)


def _version(info: dict[str, Any]) -> str:
    """What changes when an object does."""
    return str(info.get("ETag") or info.get("etag") or f"{info.get('size')} {info.get('mtime') or info.get('created')}")


def _load_seen(note: Path) -> dict[str, str]:
    try:
        return {redacted(key): str(mark) for key, mark in json.loads(note.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
