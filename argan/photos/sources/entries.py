"""What comes out of an archive: one entry after the other, each written, refused with its reason, or not wanted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Protocol

from argan.errors import UserError

CHUNK = 1 << 20
BOMB_FROM = 64 << 20  # bytes that came out before their ratio to what went in is judged: small blank files pack well

Progress = Callable[[int, int], None]  # bytes of the archive read, bytes in all


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may do. The largest known source, FFHQ's thumbnails, has 70,000 entries and 2 GB."""

    entries: int = 500_000
    total: int = 64 << 30  # bytes that come out in all
    file: int = 1 << 30  # bytes of one file
    ratio: float = 100.0  # bytes that come out per byte that goes in: photographs are packed already


@dataclass
class Extracted:
    """Names are relative to the folder, with slashes, in the archive's order."""

    files: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    unwanted: list[str] = field(default_factory=list)  # nothing wrong with them but their suffix


class EntryRefused(Exception):
    """This entry will not come out."""


class Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


@dataclass
class Extraction:
    """Where entries go, and what they used up so far."""

    archive: Path
    folder: Path
    suffixes: Collection[str] | None
    limits: ArchiveLimits
    progress: Progress
    result: Extracted = field(default_factory=Extracted)
    seen: dict[str, bool] = field(
        default_factory=dict
    )  # every name as the strictest file system compares it: is a folder
    made: set[Path] = field(default_factory=set)
    entries: int = 0
    written: int = 0
    packed: int = 0  # bytes in the archive of what was written

    def stop(self, reason: str) -> UserError:
        return UserError(f"{self.archive} {reason}; nothing was extracted. If you trust it, unpack it yourself")

    def count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise self.stop(f"has more than {self.limits.entries:,} entries")

    def bomb(self, came: int, went: int) -> None:
        """Stop where too much came out, or too much for what went in."""
        if came > self.limits.total:
            raise self.stop(f"unpacks to more than {self.limits.total:,} bytes")
        if came > BOMB_FROM and came > self.limits.ratio * max(went, 1):
            raise self.stop(f"unpacks to more than {self.limits.ratio:g} times its size")

    def entry(self, raw_name: str, size: int, fault: str | None, open_: Callable[[], Readable]) -> None:
        """One file of the archive: written, refused or unwanted."""
        try:
            name = _name(raw_name)
            if fault:
                raise EntryRefused(fault)
            if self.suffixes is not None and not f"/{name}".lower().endswith(tuple(self.suffixes)):
                self.result.unwanted.append(name)
                return
            self.claim(name)
            if size > self.limits.file:
                raise EntryRefused(f"{size:,} bytes, more than the {self.limits.file:,} allowed of one file")
            self.write(name, open_())
            self.result.files.append(name)
        except EntryRefused as error:
            self.result.refused.append((printable(raw_name), str(error)))

    def claim(self, name: str) -> None:
        """Refuse a name that is there already: also where only case or the writing of accents differs."""
        *above, key = accumulate(_key(name).split("/"), "{}/{}".format)
        if any(self.seen.get(each) is False for each in above):
            raise EntryRefused("a file has the name of its folder")
        if (folder := self.seen.get(key)) is not None:
            raise EntryRefused(
                "a folder has its name" if folder else "its name is taken (case and accents do not tell names apart)"
            )
        self.seen.update(dict.fromkeys(above, True))
        self.seen[key] = False

    def write(self, name: str, source: Readable) -> None:
        target, size = self.folder / name, 0
        if target.parent not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(target.parent)
        try:
            with target.open("xb") as file:
                while chunk := source.read(CHUNK):
                    size += len(chunk)
                    self.written += len(chunk)
                    if size > self.limits.file:
                        raise EntryRefused(f"more than the {self.limits.file:,} bytes allowed of one file")
                    if self.written > self.limits.total:
                        raise self.stop(f"unpacks to more than {self.limits.total:,} bytes")
                    file.write(chunk)
        except EntryRefused:
            target.unlink()
            raise


def _name(raw_name: str) -> str:
    """The entry's name, relative and safe, or EntryRefused."""
    try:
        raw_name.encode()
    except UnicodeEncodeError:
        raise EntryRefused("its name is not UTF-8") from None
    path = PurePosixPath(raw_name)
    if path.is_absolute():
        raise EntryRefused("its name is absolute")
    if ".." in path.parts:
        raise EntryRefused("its name leads out of the folder (..)")
    if "\\" in raw_name or re.match("[A-Za-z]:", raw_name):
        raise EntryRefused("its name has a backslash or a drive letter")
    if not path.parts or any(unicodedata.category(letter) == "Cc" for letter in raw_name):
        raise EntryRefused("its name is empty or has control characters")
    if max(len(part.encode()) for part in path.parts) > 255 or len(raw_name.encode()) > 1024:
        raise EntryRefused("its name is too long")
    if path.name.startswith("._") or path.parts[0] == "__MACOSX":
        raise EntryRefused("a Mac's note about a file, not the file")
    return str(path)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def printable(raw_name: str) -> str:
    text = raw_name.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)[:1024]
