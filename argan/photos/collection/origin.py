"""Where added photographs come from: a folder, an archive, or the address of either, made a folder on this disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from argan.errors import UserError
from argan.photos.listing import photographs
from argan.photos.photo_file import SUFFIXES
from argan.photos.sources.archive import extract
from argan.photos.sources.dataset import throttled_progress
from argan.photos.sources.download import Say, digests, download, mismatch
from argan.photos.sources.web import without_secrets


@dataclass(frozen=True)
class Origin:
    """label: the source without secrets. refused: entries of an archive that were not taken, with reasons."""

    label: str
    folder: Path
    refused: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def opened(source: str, name: str, home: Path, sha256: str | None, say: Say) -> Iterator[Origin]:
    """The photographs of the source as a folder, for as long as the context lasts.

    What was fetched stays for another try where the context ends by an error other than UserError. Raises UserError.
    """
    path, is_remote = Path(source), bool(re.match(r"https?://", source))
    is_listing = bool(re.match(r"https?://[^?]*/$", source))
    if sha256 and (is_listing or path.is_dir()):
        raise UserError(f"--sha256 is of an archive, and {without_secrets(source)} is a folder; leave it out")
    if not is_remote and not path.exists():
        raise UserError(
            f"{source} is not there; give a folder, a zip or tar of photographs, or the https address of either"
        )
    fetched = home / f".{name}.fetched" / hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
    if is_remote:
        path = _fetch(source, fetched, is_listing, sha256, say)
    elif sha256 and path.is_file() and (wrong := mismatch(digests(path), {"sha256": sha256.lower()})):
        raise UserError(f"{path} is not what --sha256 says ({wrong}); give the right file, or leave the hash out")
    try:
        if path.is_dir():
            yield Origin(without_secrets(source), path)
        else:
            with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}.unpacked.") as unpacked:
                say(f"unpacking {without_secrets(source)}")
                folder = Path(unpacked) / "photos"
                yield Origin(without_secrets(source), folder, extract(path, folder, suffixes=SUFFIXES).refused)
    except UserError:  # the complete source will not do: it is not fetched again in vain
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.unlink(missing_ok=True)
        raise
    shutil.rmtree(fetched.parent, ignore_errors=True)


def _fetch(source: str, fetched: Path, is_listing: bool, sha256: str | None, say: Say) -> Path:
    """A folder of what the listing links to, what is there already staying; else the archive."""
    if is_listing:
        photographs(source, fetched, say)
        return fetched
    progress = throttled_progress(without_secrets(source), say)
    return download(source, fetched, sha256=sha256, own=sha256 is None, say=say, progress=progress).path
