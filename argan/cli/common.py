"""What all commands share: the app, their arguments, and how they tell what they do."""

from __future__ import annotations

import fnmatch
import glob
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from argan.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
MAX_NAME_BYTES = 255  # of a file's name, on all common file systems

app = typer.Typer(
    name="argan",
    help="Depth and depth of field from ordinary photographs alone.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

MODEL = "A domain in models/, a folder, or a registry reference such as models:/argan-meadow@champion."
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL, show_default=False)]
PhotosArgument = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photographs.", show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for what is made; it is created.")]


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal for work that tells (done, all); None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def process_photos(photos: list[Path], out: Path, endings: Sequence[str], process: Callable[[Path], None]) -> None:
    """Process every photo, unless a file <stem><ending> is in the way; report those that failed, and fail at the end."""
    photos = list(dict.fromkeys(photos))
    check_outputs(photos, out, endings)
    make_folder(out)
    failed = 0
    for photo in progress(photos, len(photos), "photos"):
        try:
            longest = max(endings, key=len)
            if len(os.fsencode(photo.stem + longest)) > MAX_NAME_BYTES:
                raise UserError(f"{photo}: {photo.stem}{longest} is too long for the name of a file; rename the photo")
            process(photo)
        except (UserError, OSError) as error:
            failed += 1
            line = " ".join(str(error).split())
            typer.echo(f"error: {line}" if str(photo) in line else f"error: {photo}: {line}", err=True)
    if done := len(photos) - failed:
        typer.echo(f"{done} of {len(photos)} photos done, in {out}/")
    if failed:
        raise typer.Exit(2)


def check_outputs(photos: Sequence[Path], out: Path, endings: Sequence[str]) -> None:
    """Refuse, before anything is written, what would replace a photograph or the result of another one.

    endings: of the files <stem><ending> in `out`, * for any characters. Names are compared as the strictest file systems do,
    without case and without regard to how accents are written. In a folder that holds one of the photographs, no file is
    replaced either whose name may be a camera's or a sidecar's, such as IMG_1.mp4 and IMG_1.json: names with one dot.
    Raises UserError.
    """
    seen: dict[str, Path] = {}
    for photo in photos:
        if (other := seen.setdefault(_normalized(photo.stem), photo)) is not photo:
            raise UserError(f"{other} and {photo} would both become {out / photo.stem}.*; give them a folder each")
    existing = {_normalized(path.name): path for path in out.iterdir()} if out.is_dir() else {}
    beside = any(photo.parent.exists() and out.exists() and photo.parent.samefile(out) for photo in photos)
    for photo in photos:
        for ending in endings:
            pattern = glob.escape(_normalized(photo.stem)) + _normalized(ending)
            for path in (existing[name] for name in fnmatch.filter(existing, pattern)):
                if any(original.exists() and path.exists() and original.samefile(path) for original in photos):
                    raise UserError(f"{path} is one of the photographs and would be replaced; choose another --out")
                if beside and path.is_file() and ending.count(".") == 1 and "*" not in ending:
                    raise UserError(
                        f"{path} is there already, beside the photograph, and would be replaced; choose another --out"
                    )


def _normalized(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another --out") from error


def write_array(path: Path, array: NDArray[Any]) -> None:
    import numpy as np

    from argan.files import atomic

    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """A bar on a terminal, for more than a moment's work; silence elsewhere."""
    if total < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)
