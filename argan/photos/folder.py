"""The photographs of a folder, by their names."""

from __future__ import annotations

import os
from pathlib import Path

from argan.errors import UserError
from argan.photos.photo_file import SUFFIXES
from argan.photos.prepare import SourceFile


def find_photos(folder: Path) -> list[SourceFile]:
    """The files in a folder and below that are photographs by their names, sorted; hidden ones and links to folders left out."""
    paths: list[Path] = []

    def unreadable(error: OSError) -> None:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}); fix its permissions, or give another folder"
        )

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        photos = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        paths += [Path(parent) / name for name in photos]
    return [SourceFile(path, printable(path.relative_to(folder).as_posix())) for path in sorted(paths)]


def printable(name: str) -> str:
    """A file's name as text that every format and terminal can hold: what is not UTF-8, and control characters, written out."""
    if name.isprintable():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
