"""The command line. Every command imports what it needs when it runs, so that `argan --help` answers at once.

What a user can fix is one line on stderr, `error: ...`, and exit code 2; never a traceback.
"""

from __future__ import annotations

import sys

import typer

from argan.cli import (  # noqa: F401 (each adds its commands to the app)
    collections,
    fields,
    models,
    photos,
    pipeline,
    scenes,
    serve,
    studio,
)
from argan.cli.common import app
from argan.errors import UserError


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
        command = getattr(getattr(error, "ctx", None), "command_path", "argan")
        _fail(f"{error.format_message().rstrip('.')}; see {command} --help")


def _fail(line: str) -> None:
    print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)
