"""`argan serve`: the models over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from argan.cli.common import MODEL, app


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODEL, show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on; nobody is asked for a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    megapixels: Annotated[
        float, typer.Option(min=0.01, help="Of a photo at most; 100 bytes a pixel are held for each.")
    ] = 30,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="For a photo to arrive, to wait its turn, and to be done.")
    ] = 60,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which clients call the server (the Host header), such as its proxy's; may be repeated. Its own address "
            "and loopback names are allowed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Scenes, depth and bokeh over HTTP: docs/serving.md. The newest version of a model is served after a restart."""
    from argan.serving.server import serve as run

    run(models, host, port, megapixels, seconds, allowed_host or ())
