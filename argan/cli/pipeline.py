"""Commands that run the pipeline, and measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from argan.cli.common import app
from argan.errors import UserError

if TYPE_CHECKING:
    pass


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the numbers there, flat.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="PART", help="One part; may be repeated.")] = None,
) -> None:
    """Measure speed and memory on this machine, against the plain implementations in benchmarks/."""
    from benchmarks.bench import run

    run(json, only or [])


@app.command()
def retrain(domain: Annotated[str, typer.Argument(help="A domain of params.yaml.", show_default=False)]) -> None:
    """Run the whole pipeline of one domain as a Prefect flow: fetch, crop, train, evaluate, register."""
    with _pipeline():
        from pipelines.flows.retrain import retrain_command

    retrain_command(domain)


@app.command()
def ingest(
    collection: Annotated[str, typer.Argument(help="Of photographs; also the domain.", show_default=False)],
    source: Annotated[
        str,
        typer.Argument(help="What photos arrive in: a folder, s3://BUCKET/PREFIX, or https://.../", show_default=False),
    ],
    enough: Annotated[
        int, typer.Option(min=1, help="New photos since the last retraining that make another worth while.")
    ] = 100,
) -> None:
    """Take in the photos that arrived, as a Prefect flow; when enough are new, retrain the collection's domain."""
    with _pipeline():
        from pipelines.flows.ingest import ingest_command

    ingest_command(collection, source, enough)


@contextmanager
def _pipeline() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pipelines"):
            raise
        raise UserError("the pipeline is not here; run in the top folder of the repository") from error
