"""The command line. Every command imports what it needs when it runs, so that `argan --help` answers at once.

What a user can mend is one line on stderr, `error: ...`, and exit code 2; never a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from argan.errors import UserError

if TYPE_CHECKING:
    import numpy as np
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


@app.command()
def sample(
    model: ModelArgument,
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds, other scenes; the same seed, the same scenes.")] = 0,
    out: OutOption = Path("scenes"),
) -> None:
    """Make new scenes: an image all in focus, its photo through the full aperture, and its disparity.

    Writes <i>_image.png, <i>_photo.png and <i>_disparity.npy for each, and grid.png and light_field.gif to look at.
    """
    import numpy as np

    from argan import load, pictures

    loaded = load(model)
    _folder(out)
    resolution, shown = loaded.config.resolution, min(count, 32)
    upscale = max(1, 128 // resolution)
    tiles: list[NDArray[np.uint8]] = []
    for first, scenes in _progress(enumerate_batches(loaded.stream(count, seed)), count, "scenes"):
        colors = pictures.disparity_colors(scenes.disparity, loaded.config.disparity_max)
        for i, (image, photo, disparity) in enumerate(
            zip(scenes.images, scenes.photos, scenes.disparity, strict=True), first
        ):
            pictures.write_png(out / f"{i}_image.png", image)
            pictures.write_png(out / f"{i}_photo.png", photo)
            _write_array(out / f"{i}_disparity.npy", disparity)
            if i < shown:
                tiles += [image, colors[i - first], photo]
    columns = 3 * min(4, shown)  # in threes: image in focus, disparity, photo
    pictures.write_png(out / "grid.png", pictures.grid(np.stack(tiles), columns, upscale=upscale))
    views = [loaded.light_field(i, seed) for i in range(min(4, count))]
    pictures.light_field_gif(np.concatenate(views, 2), out / "light_field.gif", upscale=upscale)
    typer.echo(f"{count} scenes in {out}/; look at {out / 'grid.png'} and {out / 'light_field.gif'}")


@app.command()
def depth(model: ModelArgument, photos: PhotosArgument, out: OutOption = Path("depth")) -> None:
    """Estimate the depth of photographs.

    Writes <stem>.disparity.npy, float32 at the photo's own height and width, larger = nearer, 0 in the focal plane, in
    shift between the centre and the rim of the aperture as a fraction of the photo's width; and <stem>.depth.png, its
    picture: red is near, blue is far.
    """
    from argan import load, pictures

    loaded = load(model)

    def one(photo: Path) -> None:
        disparity = loaded.depth(photo)
        _write_array(out / f"{photo.stem}.disparity.npy", disparity)
        largest = max(float(abs(disparity).max()), 1e-6)  # the picture shows the photo's own range
        pictures.write_png(out / f"{photo.stem}.depth.png", pictures.disparity_colors(disparity, largest))

    _each(photos, out, one)


@app.command()
def bokeh(
    model: ModelArgument,
    photos: PhotosArgument,
    aperture: Annotated[
        float,
        typer.Option(min=0, help="Opening: 0 leaves the photo as it is, 1 is the model's full aperture, more is more."),
    ] = 1.0,
    focus: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="What to focus on: a pixel of the upright photo, from its top left; or fractions of width and height, "
            "when both are within 0..1.  [default: the centre]",
            show_default=False,
        ),
    ] = None,
    out: OutOption = Path("bokeh"),
) -> None:
    """Give photographs a shallow depth of field. Writes <stem>.bokeh.png at the photo's own size, upright."""
    from argan import load, pictures

    place = _focus(focus)
    loaded = load(model)
    _each(photos, out, lambda p: pictures.write_png(out / f"{p.stem}.bokeh.png", loaded.bokeh(p, aperture, place)))


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the numbers there, flat.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="PART", help="One part; may be repeated.")] = None,
) -> None:
    """Measure speed and memory on this machine, against the plain implementations in benchmarks/."""
    from argan.bench import run

    run(json, only or [])


@app.command()
def retrain(domain: Annotated[str, typer.Argument(help="A domain of params.yaml.", show_default=False)]) -> None:
    """Run the whole pipeline of one domain as a Prefect flow: fetch, crop, train, evaluate, register."""
    try:
        from pipelines.flows import retrain_command
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pipelines"):
            raise
        raise UserError("the pipeline is not here; run in the top folder of the repository") from error

    retrain_command(domain)


collections = typer.Typer(name="collection", help="Photographs of your own, to learn from.", no_args_is_help=True)
app.add_typer(collections)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the collection.", show_default=False)]


@collections.command("add")
def collection_add(
    name: NameArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a zip or tar of photographs, or the https address of either; a folder's ends in /.",
            show_default=False,
        ),
    ],
    refused_max: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the files that may be no good before nothing is added.")
    ] = 0.5,
    sha256: Annotated[str | None, typer.Option(metavar="HASH", help="Of an archive, where you know it.")] = None,
) -> None:
    """Add photographs to a collection; the first makes it. What is in it already is not added again.

    JPEG, PNG, WebP, TIFF, HEIC and camera raw. They are copied into data/collections/NAME; params.yaml gets the collection's
    new revision.
    """
    from argan import params
    from argan.sources import collection

    params.free(name, params.load())
    with _bar("photos") as progress:
        added = collection.add(
            name,
            source,
            refused_max=refused_max,
            sha256=sha256,
            floors=params.load().crop.floors,
            say=lambda line: typer.echo(line, err=True),
            progress=progress,
        )
    first = params.record(name, lambda: collection.Collection.open(name).revision)
    for photo, reason in list(added.refused.items())[:20]:
        typer.echo(f"refused: {photo}: {reason}")
    if len(added.refused) > 20:
        typer.echo(f"refused: {len(added.refused) - 20} more, in data/collections/{name}/preview/quarantine.csv")
    typer.echo(
        f"{name}: {added.new} new photos of {added.files}, {len(added.refused)} refused; {added.photos} in all, "
        f"revision {added.revision}"
    )
    if first:
        typer.echo(
            f"To learn from it: in params.yaml set {name}.preset and add {name} to domains, then: argan retrain {name}"
        )


@collections.command("list")
def collection_list() -> None:
    """What collections there are: photos, groups of near duplicates, size, revision."""
    from argan.sources import collection

    for name in collection.names():
        found = collection.Collection.open(name)
        size = sum(file.path.stat().st_size for file in found.files())
        groups = int((found.index["group"].value_counts() > 1).sum())
        typer.echo(
            f"{name}: {len(found.index)} photos, {groups} groups of near duplicates, {size / 1e6:.1f} MB, revision {found.revision}"
        )
    if not collection.names():
        typer.echo("no collections yet; make one: argan collection add NAME SOURCE")


@collections.command("show")
def collection_show(name: NameArgument) -> None:
    """A collection's photographs, what was refused, and whether AR-GAN can learn from it; a report to look at is beside it."""
    from argan.sources import collection

    found = collection.Collection.open(name)
    columns = ["file_sha256", "split", "group", "width", "height", "taken", "source"]
    for digest, split, group, width, height, taken, source in found.index[columns].itertuples(index=False, name=None):
        when = taken if isinstance(taken, str) else "-"
        typer.echo(f"{digest[:12]}  {split:10}  {group[:8]}  {width:>5} x {height:<5}  {when:19}  {source}")
    for source, reason in found.quarantine[["source", "reason"]].itertuples(index=False, name=None):
        typer.echo(f"refused: {source}: {reason}")
    typer.echo(f"{name}: {len(found.index)} photos, {len(found.quarantine)} refused, revision {found.revision}")
    for why in found.unfit:
        typer.echo(f"not fit for training: {why}")
    typer.echo(f"look at {found.folder / 'preview' / 'report.html'}")


@collections.command("remove")
def collection_remove(
    name: NameArgument,
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PHOTO]...", help="By name or hash, as `show` tells them. None: all.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a whole collection is removed.")] = False,
) -> None:
    """Remove photographs from a collection, or the whole of it. The files they were added from are left alone.

    To keep a photo out, take it out of where it came from too: the next add brings in whatever is new there.
    """
    from argan import params
    from argan.sources import collection

    params.free(name, params.load())
    if not photos and not yes:
        count = len(collection.kept(collection.HOME / name))
        typer.confirm(f"Remove the collection '{name}' with its {count} photos?", abort=True, err=True)
    floors = params.load().crop.floors
    left = collection.remove(name, photos or [], floors=floors, say=lambda line: typer.echo(line, err=True))
    if left is None:
        typer.echo(f"{name}: removed; its section in params.yaml stays, and what was learned from it")
        return
    params.record(name, lambda: collection.Collection.open(name).revision)
    typer.echo(f"{name}: {len(photos or [])} removed, {len(left.index)} left, revision {left.revision}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal for work that tells (done, all); None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def enumerate_batches(stream: Iterable[Any]) -> Iterable[tuple[int, Any]]:
    """(index of the first scene, scenes) of each batch."""
    first = 0
    for scenes in stream:
        yield first, scenes
        first += len(scenes.images)


def _focus(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--focus must be two numbers X,Y, such as 640,360 or 0.5,0.4; got '{text}'") from error
    return x, y


def _each(photos: list[Path], out: Path, one: Callable[[Path], None]) -> None:
    """Do every photo; name the ones that failed, and fail at the end."""
    seen: dict[str, Path] = {}
    for photo in photos:
        if (other := seen.setdefault(photo.stem, photo)) is not photo:
            raise UserError(f"{other} and {photo} would both become {out / photo.stem}.*; give them a folder each")
    _folder(out)
    failed = 0
    for photo in _progress(photos, len(photos), "photos"):
        try:
            one(photo)
        except UserError as error:
            failed += 1
            typer.echo(f"error: {error}", err=True)
    if done := len(photos) - failed:
        typer.echo(f"{done} of {len(photos)} photos done, in {out}/")
    if failed:
        raise typer.Exit(2)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another --out") from error


def _write_array(path: Path, array: NDArray[Any]) -> None:
    import numpy as np

    from argan.files import atomic

    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """A bar on a terminal, for more than a moment's work; silence elsewhere."""
    if total < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(stderr=True), transient=True)


def main() -> None:
    """The entry point: exit code 0, or 2 with one clear line."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except UserError as error:
        _fail(str(error))
    except OSError as error:  # a disk that is full, a folder that may not be written
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        place = getattr(getattr(error, "ctx", None), "command_path", "argan")
        _fail(f"{error.format_message().rstrip('.')}; see {place} --help")


def _fail(line: str) -> None:
    print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)
