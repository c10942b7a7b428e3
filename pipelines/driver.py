"""DVC, driven by a program: all commands for a domain in one process, which leads a process group of its own.

`python -m pipelines.driver DOMAIN` reads a command a line from its standard input, a JSON list: DVC's arguments, or `-m` and a
module. After the command's output comes a line with its exit code. A dvc process for each stage would cost 2 s, here it is 0.3.

The domain's lock is held for as long as the process lives, not the flow that drives it: who is killed lets go by itself, and
not before what it started has ended. Where standard input ends without a last `null`, the flow is gone: the group is
interrupted, so that training saves its state.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout

from argan import interrupt
from argan.errors import UserError
from argan.locks import exclusive_lock
from argan.redact import redacted
from pipelines.stage import run_command, say

LOCKS = Path(".dvc/tmp/argan")
MARK = "\x1eargan "  # begins the line with an exit code; no stage prints such a thing
UNCHANGED = "didn't change, skipping"
HINTS = ("To track the changes", "\tgit add", "To enable auto", "\tdvc config", "Use `dvc push`", "Data and pipelines")
END_SIGNALS = ((signal.SIGINT, 60), (signal.SIGTERM, 10), (signal.SIGKILL, 10))  # seconds for a group to end, at least


@dataclass(frozen=True)
class Outcome:
    """How a command ended. reason: why it failed, in one line; empty where it did not."""

    reason: str
    changed: bool


class Driver:
    """`with Driver(domain, say) as dvc: dvc(["repro", ...], say)`. Leaving it by an error interrupts what runs."""

    running: set[Driver] = set()  # noqa: RUF012  (of this process, for whoever must end them all)

    def __init__(self, domain: str, say: Callable[[str], object], **environment: str) -> None:
        self.domain, self.say = domain, say
        self.environment = os.environ | environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # `python` in dvc.yaml is this one
            "SHELL": "/bin/sh",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    def __enter__(self) -> Driver:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.driver", self.domain], env=self.environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_queue_lines, args=(self.process.stdout, self.lines), daemon=True).start()
        Driver.running.add(self)
        try:
            if (done := self._receive(self.say)).reason:  # it should hold the lock now
                raise UserError(done.reason)
        except BaseException:
            self.interrupt()
            raise
        return self

    def __call__(self, command: Sequence[str], say: Callable[[str], object]) -> Outcome:
        self._send(list(command))
        return self._receive(say)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._send(None)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        self.interrupt()

    def interrupt(self) -> None:
        """End the group: asked first, so that training saves its state; what it still prints is passed on."""
        Driver.running.discard(self)
        with suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()
        for number, least in END_SIGNALS:
            seconds = max(least, interrupt.grace_seconds()) if number == signal.SIGINT else least
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, number)
                self.process.wait(seconds)
                break
        with suppress(queue.Empty):
            while (line := self.lines.get(timeout=1)) is not None:
                if line.strip() and not line.startswith((MARK, "ERROR: ")):
                    self.say(redacted(line.rstrip()))

    def _send(self, command: Any) -> None:
        with suppress(OSError):  # it is gone: `_receive` says so
            assert self.process.stdin
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()

    def _receive(self, say: Callable[[str], object]) -> Outcome:
        """What a command prints, until its exit code. Waits in short pieces: a cancellation or a timeout is heard between."""
        reason, changed, dvc_error = "", True, ""
        while True:
            try:
                line = self.lines.get(timeout=0.2)
            except queue.Empty:
                if self.process.poll() is None:
                    continue
                line = self._last_line()
            if line is None:
                died = f"DVC ended in the middle of it (exit code {self.process.wait()}): out of memory?"
                return Outcome(reason or died, changed)
            if line.startswith(MARK):
                return Outcome(
                    "" if line == f"{MARK}0\n" else reason or dvc_error or f"DVC failed ({line.split()[-1]})", changed
                )
            if not line.strip() or line.startswith(HINTS):
                continue
            line = redacted(line)
            say(line.rstrip())
            changed &= UNCHANGED not in line
            if line.startswith("error: "):
                reason = line.removeprefix("error: ").strip()
            elif line.startswith("ERROR: "):
                dvc_error = line.removeprefix("ERROR: ").strip()

    def _last_line(self) -> str | None:
        """A line that is still in the pipe of a process that has ended; what it left behind may keep the pipe open."""
        with suppress(queue.Empty):
            return self.lines.get(timeout=2)
        return None


def is_busy(domain: str) -> bool:
    """Whether a run works on the domain in this workspace now."""
    lock = FileLock(LOCKS / f"{domain}.lock")
    LOCKS.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _queue_lines(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    for line in stream or ():
        lines.put(line)
    lines.put(None)


# ---- The process that is driven --------------------------------------------------------------------------------------


def serve(domain: str) -> None:
    commands: queue.Queue[list[str] | None] = queue.Queue()
    stdin = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the stages read nothing
    threading.Thread(target=_read_commands, args=(stdin, commands), daemon=True).start()
    busy = f"{domain}: another run works on it in this workspace; waiting for it to end"
    with exclusive_lock(LOCKS / f"{domain}.lock", say, busy):
        from dvc.cli import main  # type: ignore[import-untyped]

        print(f"{MARK}0", flush=True)
        while (command := commands.get()) is not None:
            code = _run_module(command) if command[0] == "-m" else main(["--wait-for-lock", *command])
            print(f"{MARK}{code}", flush=True)


def _read_commands(stdin: IO[str], commands: queue.Queue[list[str] | None]) -> None:
    for line in stdin:
        commands.put(command := json.loads(line))
        if command is None:
            return
    os.killpg(0, signal.SIGINT)
    commands.put(None)


def _run_module(command: list[str]) -> int:
    process = subprocess.Popen([sys.executable, *command])
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the module, as DVC holds it with a stage
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, handler)


if __name__ == "__main__":
    run_command(lambda: serve(sys.argv[1]))
