"""SIGINT and SIGTERM in long work: the step ends, its state is saved, and what does not end in time is ended by a watchdog.

The time is ARGAN_GRACE_SECONDS, counted from the first signal and again from the end of a save: the watchdog never cuts off a
save, however slow the disk. Whoever sent the signal has SIGKILL for what never ends.
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
    """Seconds that work may take after a signal before the process is ended. Raises UserError for an invalid setting."""
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
    """The body writes state that must not be lost: no watchdog ends the process meanwhile."""
    with _saving:
        yield


@contextmanager
def time_limit(code: int) -> Iterator[None]:
    """The body may take `grace_seconds()`, not counting saves; then the process ends with exit code `code`."""
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(done, grace_seconds(), code), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def deferred_signals(on_timeout: Callable[[], None] = lambda: None) -> Iterator[list[str]]:
    """In the body SIGINT and SIGTERM only append their names to the list it yields: no step is left half done.

    A body that has not ended `grace_seconds()` after the first signal, not counting saves, is ended with exit code 130 or 143,
    whatever it is doing, after a call of `on_timeout`. Handlers belong to the main thread; in others the list stays empty.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    seconds, numbers = grace_seconds(), (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: received.append(signal.Signals(n).name)) for number in numbers]
    # Handlers wait until the main thread is back from whatever torch does; a byte in a pipe is written at once.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    done = threading.Event()

    def watchdog() -> None:
        while (number := os.read(reading, 1)[0]) not in numbers:
            if number == 0:
                return
        _watch(done, seconds, 128 + number, on_timeout)

    thread = threading.Thread(target=watchdog, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        done.set()
        signal.set_wakeup_fd(pipe_before)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.write(writing, bytes(1))
        thread.join()
        os.close(reading)
        os.close(writing)


def _watch(done: threading.Event, seconds: float, code: int, on_timeout: Callable[[], None] = lambda: None) -> None:
    """End the process unless `done` is set in time."""
    while not done.wait(seconds):
        if _saving.acquire(blocking=False):  # and kept: no save begins now
            on_timeout()
            _end(code)
        with _saving:  # until the save is done
            pass


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    os._exit(code)
