"""What DVC runs: one module per stage, thin. Each reads params.yaml, calls argan, and writes its outputs whole.

A stage is run as `python -m pipelines.<stage> <domain>` in the top folder of the repository.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Nothing here phones home; set before anything that would is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Threads that wait for one another spin, and hold up whatever else wants their core (OpenMP's own count is 300,000). With this one
# `quick` learns 38 images a second beside two busy processes on two cores, for 3, and alone 2 % slower: docs/results.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if lacking := [name for name in ("dvc", "mlflow", "pandas", "pydantic", "torch", "yaml") if find_spec(name) is None]:
    print(
        f"error: {sys.executable} lacks the packages {', '.join(lacking)}: run `make setup`, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)

from argan import interrupt
from argan.config import params
from argan.errors import UserError
from argan.redact import redacted

if TYPE_CHECKING:
    from argan.config.schema import Params

CACHE = Path(".argan/features")  # of evaluation; may be deleted at any time
REEVALUATED = Path(".argan/reevaluated")  # a champion's scores of today, <domain>.json

Stage = Callable[[str, "Params"], None]


def say(line: str) -> None:
    """Progress, one line, at once: DVC's and Prefect's logs are read while they grow."""
    print(redacted(line), flush=True)


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


def guarded(work: Callable[[], object]) -> None:
    """Run `work`; what a user can mend ends in one line on stderr and exit 2, a signal in its own exit code (130, 143)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have left it ignored
    signal.signal(signal.SIGTERM, _terminated)
    try:
        work()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        _leave(_code(error))
    except Exception as error:
        if (reason := _out_of_disk(error) or _out_of_memory(error)) is None:
            raise
        fail(f"{reason}; mend that and run the same command again: nothing finished is lost")


@contextmanager
def in_a_hurry(error: BaseException) -> Iterator[None]:
    """What is still to be done after a signal, for ARGAN_GRACE_SECONDS at most: then the process ends by the signal's code."""
    with interrupt.time_limit(_code(error)):
        yield


def _code(error: BaseException) -> int:
    return 143 if error.args == ("SIGTERM",) else 130


def _leave(code: int) -> NoReturn:
    """An exit without Python's own tidying, which takes 4 s on a busy machine: a spot instance may have no more than 5."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _out_of_disk(error: Exception) -> str | None:
    """One line where a disk is full or may not be written to, whatever the library calls it; else None."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    told = " ".join(str(error).split())
    return told if "No space left on device" in told or "disk is full" in told else None


def _out_of_memory(error: Exception) -> str | None:
    """One line where memory ran out, Python's, NumPy's, or torch's on a CPU or a GPU; else None."""
    told = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in told:
        return f"out of memory ({told[:200] or 'no more is told'}): raise train.accumulate or choose a smaller preset"
    return None


@contextmanager
def alone(
    lock: Path, told: Callable[[str], None], busy: str, waiting: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold a lock file of our own; where another process holds it, tell so and wait. A killed holder lets go by itself.

    `waiting` is called at once where there is a wait, and every minute of it.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held, wait = FileLock(lock), 0
    while not held.is_locked:
        try:
            held.acquire(timeout=wait)
        except Timeout:
            if not wait:
                told(busy)
            waiting()
            wait = 60
    try:
        yield
    finally:
        held.release()


def fail(line: str) -> NoReturn:
    print(f"error: {redacted(line)}", file=sys.stderr, flush=True)
    sys.exit(2)


def _terminated(*_: Any) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")
