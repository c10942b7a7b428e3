"""What SIGINT and SIGTERM do to long work: the step ends, its state is saved, and what hangs is left after a while.

The while is ARGAN_GRACE_SECONDS. It counts from the first signal, and anew from the end of a save: a save is never cut off here,
however slow the disk. Whoever sent the signal has SIGKILL for what never ends.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from argan.errors import UserError

GRACE = 4.0  # seconds, without ARGAN_GRACE_SECONDS; a spot instance's notice may be 5
_saving = threading.RLock()  # held while something is saved


def grace_seconds() -> float:
    """Seconds that work may take after a signal before the process is ended. Raises UserError for what is no such number."""
    text = os.environ.get("ARGAN_GRACE_SECONDS") or str(GRACE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UserError(
            f"ARGAN_GRACE_SECONDS is {text!r}; write a number of seconds above 0, or unset it for {GRACE:g}"
        )
    return seconds


@contextmanager
def uninterrupted_save() -> Iterator[None]:
    """What is inside writes state that must not be lost: no watchdog ends the process meanwhile."""
    with _saving:
        yield


@contextmanager
def time_limit(code: int) -> Iterator[None]:
    """What is inside may take `grace_seconds()` seconds, saves apart; then the process ends with exit code `code`."""
    left = threading.Event()
    thread = threading.Thread(target=_watch, args=(left, grace_seconds(), code), daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


@contextmanager
def deferred_signals(late: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """While it holds, SIGINT and SIGTERM only put their names into the list: a step is never left half done.

    Unless it takes too long: what has not ended `grace_seconds()` after the first signal, saves apart, is ended by exit code
    130 or 143, whatever it is doing, after a call of `late`. Handlers belong to the main thread; in others the list stays empty.
    """
    heard: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    seconds, numbers = grace_seconds(), (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: heard.append(signal.Signals(n).name)) for number in numbers]
    # Handlers wait until the main thread is back from whatever torch does; a byte in a pipe is written at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    left = threading.Event()

    def watchdog() -> None:
        while (number := os.read(reading, 1)[0]) not in numbers:
            if number == 0:
                return
        _watch(left, seconds, 128 + number, late)

    thread = threading.Thread(target=watchdog, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        left.set()
        signal.set_wakeup_fd(pipe_before)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.write(writing, bytes(1))
        thread.join()
        os.close(reading)
        os.close(writing)


def _watch(left: threading.Event, seconds: float, code: int, late: Callable[[], None] = lambda: None) -> None:
    """End the process unless `left` is set in time."""
    while not left.wait(seconds):
        if _saving.acquire(blocking=False):  # and kept: no save begins now
            late()
            _end(code)
        with _saving:  # until the save is done
            pass


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    os._exit(code)
