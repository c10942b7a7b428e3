"""What all commands share: the app, their arguments, and how they tell what they do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from argan.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

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


def each(photos: list[Path], out: Path, one: Callable[[Path], None]) -> None:
    """Do every photo; name the ones that failed, and fail at the end."""
    seen: dict[str, Path] = {}
    for photo in photos:
        if (other := seen.setdefault(photo.stem, photo)) is not photo:
            raise UserError(f"{other} and {photo} would both become {out / photo.stem}.*; give them a folder each")
    folder(out)
    failed = 0
    for photo in progress(photos, len(photos), "photos"):
        try:
            one(photo)
        except UserError as error:
            failed += 1
            typer.echo(f"error: {error}", err=True)
    if done := len(photos) - failed:
        typer.echo(f"{done} of {len(photos)} photos done, in {out}/")
    if failed:
        raise typer.Exit(2)


def folder(path: Path) -> None:
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
