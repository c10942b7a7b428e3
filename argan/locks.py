"""One process at a time, by a lock file; whoever waits says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT = 60  # seconds between two signs of waiting


@contextmanager
def exclusive_lock(
    lock: Path, say: Callable[[str], None], busy: str, waiting: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold a lock file; where another process holds it, say the line `busy` and wait. A killed holder lets go by itself.

    `waiting` is called at once where there is a wait, and every WAIT seconds of it.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held, timeout = FileLock(lock), 0
    while not held.is_locked:
        try:
            held.acquire(timeout=timeout)
        except Timeout:
            if not timeout:
                say(busy)
            waiting()
            timeout = WAIT
    try:
        yield
    finally:
        held.release()
