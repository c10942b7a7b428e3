"""How a command of the pipeline runs and ends: a user's mistake is one line and exit 2, a signal ends it by its own exit code."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from argan import interrupt
from argan.config import params
from argan.errors import UserError
from argan.redact import redacted

if TYPE_CHECKING:
    from argan.config.schema import Params

Stage = Callable[[str, "Params"], None]

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
DISK_FULL = ("No space left on device", "disk is full")


def say(line: str) -> None:
    """Progress, one line, at once: DVC's and Prefect's logs are read while they grow."""
    print(redacted(line), flush=True)


def fail(line: str) -> NoReturn:
    """End with a line on stderr and exit 2."""
    print(f"error: {redacted(line)}", file=sys.stderr, flush=True)
    sys.exit(2)


def run_stage(stage: Stage) -> NoReturn:
    """Run a stage for the domain named on the command line."""
    if len(sys.argv) != 2:
        fail(f"usage: python -m pipelines.{stage.__name__} DOMAIN")

    def work() -> None:
        settings = params.load()
        settings.domain(sys.argv[1])
        stage(sys.argv[1], settings)

    run_command(work)
    sys.exit(0)


def run_command(work: Callable[[], object]) -> None:
    """Run `work`; what a user can fix ends in one line on stderr and exit 2, a signal in its own exit code (130, 143)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have left it ignored
    signal.signal(signal.SIGTERM, _terminate)
    try:
        work()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as error:
        _exit_at_once(_exit_code(error))
    except Exception as error:
        if (reason := _out_of_disk(error) or _out_of_memory(error)) is None:
            raise
        fail(f"{reason}; fix that and run the same command again: nothing finished is lost")


@contextmanager
def grace_period(error: BaseException) -> Iterator[None]:
    """What is still to be done after a signal, for ARGAN_GRACE_SECONDS at most: then the process ends by the signal's code."""
    with interrupt.time_limit(_exit_code(error)):
        yield


def _terminate(*_: Any) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")


def _exit_code(error: BaseException) -> int:
    return 143 if error.args == ("SIGTERM",) else 130


def _exit_at_once(code: int) -> NoReturn:
    """An exit without Python's own finalization, which takes 4 s on a busy machine: a spot instance may have no more than 5."""
    for child in multiprocessing.active_children():
        child.kill()  # workers that nobody closed; they hold nothing
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _out_of_disk(error: Exception) -> str | None:
    """One line where a disk is full or may not be written to, whatever the library calls it; else None."""
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    message = " ".join(str(error).split())
    return message if any(text in message for text in DISK_FULL) else None


def _out_of_memory(error: Exception) -> str | None:
    """One line where memory ran out, Python's, NumPy's, or torch's on a CPU or a GPU; else None."""
    message = " ".join(str(error).split())
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in message
    ):
        return (
            f"out of memory ({message[:200] or 'no more is known'}): raise train.accumulate or choose a smaller preset"
        )
    return None
