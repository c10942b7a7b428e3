"""`argan collection ...`: photographs to learn from."""

from __future__ import annotations

from typing import Annotated

import typer

from argan.cli.common import app, bar

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
    from argan.config import params
    from argan.photos import collection

    params.check_collection_name(name, params.load())
    with bar("photos") as progress:
        added = collection.add(
            name,
            source,
            refused_max=refused_max,
            sha256=sha256,
            floors=params.load().crop.floors,
            say=lambda line: typer.echo(line, err=True),
            progress=progress,
        )
    first = params.record_revision(name, lambda: collection.Collection.open(name).revision)
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
    from argan.photos import collection

    for name in collection.names():
        opened = collection.Collection.open(name)
        size = sum(file.path.stat().st_size for file in opened.files())
        groups = int((opened.index["group"].value_counts() > 1).sum())
        typer.echo(
            f"{name}: {len(opened.index)} photos, {groups} groups of near duplicates, {size / 1e6:.1f} MB, "
            f"revision {opened.revision}"
        )
    if not collection.names():
        typer.echo("no collections yet; make one: argan collection add NAME SOURCE")


@collections.command("show")
def collection_show(
    name: NameArgument,
    photos: Annotated[
        bool, typer.Option("--photos", help="List every photograph, and every refused one with the reason.")
    ] = False,
) -> None:
    """Whether AR-GAN can learn from a collection, the numbers behind that, and where its report is."""
    from argan.photos import collection, report

    opened = collection.Collection.open(name)
    quality = opened.quality
    typer.echo(f"{name}: {'not fit' if opened.unfit else 'fit'} for training")
    for line in [*opened.unfit, *(quality["warnings"] if quality else [])]:
        typer.echo(f"  {line}")
    rows = [("photos", f"{len(opened.index):,}"), ("revision", opened.revision)]
    rows += [row for row in report.facts(quality) if row[0] != "photos"] if quality else []
    for fact, text in rows:
        typer.echo(f"{fact:30} {text}")
    typer.echo(f"{'report':30} {opened.folder / 'preview' / 'report.html'}")
    if not photos:
        return
    columns = ["file_sha256", "split", "group", "width", "height", "taken", "source"]
    for digest, split, group, width, height, taken, source in opened.index[columns].itertuples(index=False, name=None):
        when = taken if isinstance(taken, str) else "-"
        typer.echo(f"{digest[:12]}  {split:10}  {group[:8]}  {width:>5} x {height:<5}  {when:19}  {source}")
    for source, reason in opened.quarantine[["source", "reason"]].itertuples(index=False, name=None):
        typer.echo(f"refused: {source}: {reason}")


@collections.command("remove")
def collection_remove(
    name: NameArgument,
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PHOTO]...", help="By name or hash, as `show --photos` lists them. None: all.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a whole collection is removed.")] = False,
) -> None:
    """Remove photographs from a collection, or the whole of it. The files they were added from are left alone.

    To keep a photo out, take it out of where it came from too: the next add brings in whatever is new there.
    """
    from argan.config import params
    from argan.photos import collection

    params.check_collection_name(name, params.load())
    if not photos and not yes:
        count = len(collection.photo_paths(collection.HOME / name))
        typer.confirm(f"Remove the collection '{name}' with its {count} photos?", abort=True, err=True)
    floors = params.load().crop.floors
    left = collection.remove(name, photos or [], floors=floors, say=lambda line: typer.echo(line, err=True))
    if left is None:
        typer.echo(f"{name}: removed; its section in params.yaml stays, and what was learned from it")
        return
    params.record_revision(name, lambda: collection.Collection.open(name).revision)
    typer.echo(f"{name}: {len(photos or [])} removed, {len(left.index)} left, revision {left.revision}")
