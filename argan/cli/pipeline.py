"""Commands that run the pipeline, and measure."""

from __future__ import annotations

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
    from argan.bench import run

    run(json, only or [])


@app.command()
def retrain(domain: Annotated[str, typer.Argument(help="A domain of params.yaml.", show_default=False)]) -> None:
    """Run the whole pipeline of one domain as a Prefect flow: fetch, crop, train, evaluate, register."""
    try:
        from pipelines.flows.retrain import retrain_command
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pipelines"):
            raise
        raise UserError("the pipeline is not here; run in the top folder of the repository") from error

    retrain_command(domain)
