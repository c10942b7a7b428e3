"""The studio's command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from argan.cli.common import MODEL, app


@app.command()
def studio(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help=f"{MODEL}  [default: what lies in models/]", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of this machine, 127.0.0.1.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open the studio: scenes, depth, bokeh and 3D for your own photographs, in the browser.

    The page is served to this machine alone and loads nothing from elsewhere; photos stay here, and are deleted when it ends.
    """
    from argan.studio.server import serve

    serve(model, port, browser, typer.echo)
    sys.stdout.flush()
    os._exit(0)  # what is still being made for a page that is gone need not be waited for
