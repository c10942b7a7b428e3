"""Work on many files in several processes, where a file may hang its decoder or kill it.

Results come in the order of the work, a bounded number of them waiting. A piece of work that takes too long, or whose process
dies, becomes a `Lost` with its reason; the process is replaced and all else goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import psutil

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4  # pieces of work a process has: one in work, the others ready
WAITING = 64  # results a process may be ahead of the slowest
START = 600.0  # seconds for a process to start: it imports, perhaps on a busy machine
PATIENCE = (
    10  # times the limit of computing time, by the clock: a busy machine is slow, a dead network drive never comes back
)


@dataclass(frozen=True)
class Lost:
    """A piece of work without a result."""

    reason: str


def in_order(
    work: Callable[[T], R], items: Iterable[T], *, processes: int | None = None, seconds: float = 60.0
) -> Iterator[tuple[T, R | Lost]]:
    """(item, work(item)) for all items, in their order. `work`, items and results must pickle; `work` must not raise.

    processes: None for one a core, 0 for this process itself, where nothing that hangs is stopped. Started as they are needed.
    seconds: of computing for one item; a process that takes more is killed. Raises RuntimeError when processes do not start.
    """
    if processes == 0:
        for item in items:
            yield item, work(item)
        return
    pool = _Pool(work, processes or os.cpu_count() or 1, seconds)
    try:
        yield from pool.run(iter(items))
    finally:
        pool.close()


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    has: deque[int] = field(default_factory=deque)  # what it was given, first the one in work
    due: float = 0.0  # when to look whether that hangs
    due_at_last: float = 0.0
    computed: float = 0.0  # seconds of computing when it began
    ready: bool = False


class _Pool(Generic[T, R]):
    def __init__(self, work: Callable[[T], R], size: int, seconds: float) -> None:
        self.work, self.size, self.seconds = work, size, seconds
        self.context = multiprocessing.get_context("spawn")  # a fork of a process with threads may never run
        self.workers: list[_Worker] = []
        self.again: deque[int] = deque()  # given to a process that is no more
        self.items: dict[int, T] = {}
        self.results: dict[int, R | Lost] = {}

    def run(self, items: Iterator[T]) -> Iterator[tuple[T, R | Lost]]:
        given = done = 0
        more = True
        while True:
            while (
                more and given - done < self.size * WAITING and len(self.items) - len(self.results) < self.size * AHEAD
            ):
                try:
                    self.items[given] = next(items)
                except StopIteration:
                    more = False
                    break
                self.again.append(given)
                given += 1
            self._hand_out()
            while done in self.results:
                yield self.items.pop(done), self.results.pop(done)
                done += 1
            if done == given and not more:
                return
            if len(self.items) > len(self.results):
                self._listen()

    def _hand_out(self) -> None:
        while self.again:
            worker = min(self.workers, key=lambda w: len(w.has), default=None)
            if (worker is None or worker.has) and len(self.workers) < self.size:
                worker = self._start()
            if worker is None or len(worker.has) >= AHEAD:
                return
            at = self.again.popleft()
            worker.has.append(at)
            if len(worker.has) == 1:
                self._begins(worker)
            try:
                worker.pipe.send((at, self.items[at]))
            except OSError:  # it just died; listening will tell
                return

    def _listen(self) -> None:
        due = [worker.due for worker in self.workers if worker.has]
        heard = wait([w.pipe for w in self.workers], max(0.0, min(due, default=1.0) - time.monotonic()))
        for worker in list(self.workers):
            if worker.pipe in heard:
                self._hear(worker)
            elif worker.has and time.monotonic() >= worker.due:
                left = self.seconds - (_computed(worker) - worker.computed)
                if worker.ready and left > 0 and time.monotonic() < worker.due_at_last:
                    worker.due += max(left, 0.1)
                else:
                    self._lose(worker, f"hangs: not decoded in {self.seconds:g} s")

    def _begins(self, worker: _Worker) -> None:
        """The clock starts for the first of what it has."""
        now = time.monotonic()
        worker.computed = _computed(worker)
        worker.due = now + (self.seconds if worker.ready else START)
        worker.due_at_last = now + (self.seconds * PATIENCE if worker.ready else START)

    def _hear(self, worker: _Worker) -> None:
        try:
            at, result = worker.pipe.recv()
        except (EOFError, OSError):
            self._lose(worker, "crashes its decoder")
            return
        if at is None:
            worker.ready = True
        else:
            worker.has.remove(at)
            self.results[at] = result
        self._begins(worker)

    def _lose(self, worker: _Worker, reason: str) -> None:
        """The worker is gone or has to go; the first of what it had is lost, the others are given out again."""
        self.workers.remove(worker)
        _end(worker)
        if not worker.ready:
            raise RuntimeError(f"processes that decode do not start (exit code {worker.process.exitcode})")
        if worker.has:
            self.results[worker.has.popleft()] = Lost(reason)
            self.again.extendleft(reversed(worker.has))

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.work), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            _end(worker)
        self.workers = []


def _computed(worker: _Worker) -> float:
    """Seconds of computing of its process so far; 0 when it is gone, which its pipe will tell."""
    try:
        times = psutil.Process(worker.process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()  # it holds nothing that needs to be put away
    worker.process.join()


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    try:
        pipe.send((None, None))
        while True:
            at, item = pipe.recv()
            pipe.send((at, work(item)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
