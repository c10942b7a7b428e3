"""Commands that run the pipeline, and measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from argan.cli.common import app
from argan.errors import UserError


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the numbers there, flat.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="PART", help="One part; may be repeated.")] = None,
) -> None:
    """Measure speed and memory on this machine, against the plain implementations in benchmarks/."""
    with _repository_package("benchmarks", "the benchmarks are"):
        from benchmarks.bench import run

    run(json, only or [])


@app.command()
def retrain(domain: Annotated[str, typer.Argument(help="A domain of params.yaml.", show_default=False)]) -> None:
    """Run the whole pipeline of one domain as a Prefect flow: fetch, crop, train, evaluate, register."""
    with _repository_package("pipelines", "the pipeline is"):
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
    with _repository_package("pipelines", "the pipeline is"):
        from pipelines.flows.ingest import ingest_command

    ingest_command(collection, source, enough)


@contextmanager
def _repository_package(name: str, subject: str) -> Iterator[None]:
    """For the import of a package that is not installed with argan. Raises UserError where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name:
            raise
        raise UserError(f"{subject} not here; run in the top folder of the repository") from error
