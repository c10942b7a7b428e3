"""What DVC runs: one module per stage, thin. Each reads params.yaml, calls argan, and writes its outputs whole.

A stage is run as `python -m pipelines.<stage> <domain>` in the top folder of the repository.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

# Nothing here phones home; set before anything that would is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

try:
    from argan import params
    from argan.errors import UserError
except ModuleNotFoundError as error:
    if error.name and error.name.startswith(("argan", "pipelines")):
        raise
    print(
        f"error: {sys.executable} has no package '{error.name}': run `make setup`, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)

if TYPE_CHECKING:
    from argan.params import Params

Stage = Callable[[str, "Params"], None]


def say(line: str) -> None:
    """Progress, one line, at once: DVC's and Prefect's logs are read while they grow."""
    print(line, flush=True)


def run(stage: Stage) -> NoReturn:
    """Run a stage for the domain named on the command line."""
    if len(sys.argv) != 2:
        fail(f"usage: python -m pipelines.{stage.__name__} DOMAIN")

    def work() -> None:
        settings = params.load()
        settings.domain(sys.argv[1])
        stage(sys.argv[1], settings)

    guarded(work)
    sys.exit(0)


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; what a user can mend ends in one line on stderr and exit 2, a signal in its own exit code (130, 143)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have left it ignored
    signal.signal(signal.SIGTERM, _terminated)
    try:
        work()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        sys.exit(143 if error.args == ("SIGTERM",) else 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{error.strerror}{where}; mend that and run the same command again: nothing finished is lost")


def fail(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(2)


def _terminated(*_: Any) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")
