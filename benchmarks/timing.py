"""Time and memory of a piece of work.

Works that are compared take turns, round by round, so that whatever else the machine does falls on all of them. Memory is the peak
of what torch allocates above the start of a call, from its profiler's log of every allocation: the same in every run, which a
process's resident size is not.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

Numbers = dict[str, float]
Work = Callable[[], Any]

SETTLE = 0.02  # seconds; after its work torch's threads keep their cores for some milliseconds, at the cost of whoever is next


def interleaved(rounds: int, *works: Work) -> list[tuple[float, ...]]:
    """Seconds of each piece of work, round by round, taken in turn."""

    def once(work: Work) -> float:
        time.sleep(SETTLE)
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return [tuple(once(work) for work in works) for _ in range(rounds)]


def median_ms(work: Work, rounds: int, warm: bool = True) -> float:
    if warm:
        for _ in range(3):
            work()
    return statistics.median(t for (t,) in interleaved(rounds, work)) * 1e3


def peak_bytes(work: Work) -> int:
    """The most that torch holds at a time during `work`, above what it held before. (The compiled gather has ten planes of
    one image a thread besides.)"""
    with _no_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


@contextmanager
def _no_stderr() -> Iterator[None]:
    """The profiler's library talks there, below Python."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
