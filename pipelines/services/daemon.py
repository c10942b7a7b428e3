"""One long-running process in a session of its own: started, found again, asked to stop, ended with all that it started.

A daemon is known by two variables in the environment of its processes: whose they are, and the pid of the process that was
started. Both are there from its first moment, so no kill in the middle of a start leaves one that is not found, and a pid that
another program got after a crash or a restart of the machine is never taken for it. The pid file holds what was noted beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from argan.errors import UserError
from argan.files import write_json
from argan.redact import redacted

MARK = "ARGAN_SERVICE"
LEADER = "ARGAN_SERVICE_PID"
EXEC = ("/bin/sh", "-c", f'export {LEADER}=$$; exec "$0" "$@"')  # the shell's pid is the command's


@dataclass(frozen=True)
class Daemon:
    """A command, its whole environment, and how it is ended. Pid file and log lie in `home`."""

    name: str
    home: Path
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    end: signal.Signals = signal.SIGTERM
    patience: float = 20.0  # seconds from that signal to SIGKILL
    user: str | None = None
    cwd: str | None = None

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.home / "run" / f"{self.name}.json"

    @property
    def _mark(self) -> str:
        return f"{self.home}:{self.name}"

    def note(self) -> dict[str, Any]:
        """What was written down at its start; empty when it never was, or was stopped. Its `pid` may be of a start before."""
        try:
            return dict(json.loads(self.pid_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def leader(self) -> psutil.Process | None:
        """The process that was started, if it is alive."""
        return next((p for p in self._of_mark() if self._leader_pid(p) == p.pid), None)

    def members(self) -> list[psutil.Process]:
        """All living processes of its session, those included that outlived their leader."""
        return [p for p in self._of_mark() if _in_session(p, self._leader_pid(p))]

    def _leader_pid(self, process: psutil.Process) -> int | None:
        """The pid of the daemon that a process belongs to."""
        with suppress(psutil.Error, ValueError):
            # Those that a version without LEADER started are known by their note
            return int(process.environ().get(LEADER) or self.note().get("pid") or 0)
        return None

    def _of_mark(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if _marked(p, self._mark)]

    def start(self, **note: Any) -> None:
        """Start it and write down its pid; `note` is kept beside it. The log goes on where it was, the last one kept."""
        for folder in (self.log.parent, self.pid_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > 20_000_000:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            log.write(f"\n---- {time.strftime('%Y-%m-%d %H:%M:%S')} start of {self.name}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*EXEC, *self.command],
                env={**self.environment, MARK: self._mark},
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_default_signals,
                user=self.user,
                group=None if self.user is None else _group(self.user),
                extra_groups=None if self.user is None else [],
            )
        write_json(self.pid_file, {"pid": process.pid, **note})

    def last_words(self) -> str:
        """The line of its log since the last start that tells best why it ended."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").rpartition("\n---- ")[2].splitlines()[1:]
            lines = [" ".join(line.split()) for line in lines if line.strip()]
            telling = [line for line in lines if "rror" in line or "FATAL" in line or "refused" in line] or lines
            if telling:
                return redacted(telling[-1])[:300]
        return "it printed no message"

    def stop(self, everything: bool = False) -> bool:
        """End it and all in its session; True when there was something to end.

        `everything`: also what it started in sessions of their own, a worker's flow runs, which otherwise live on.
        """
        members, leader = self.members(), self.leader()
        self._end([leader] if leader else members, self.members)
        self.pid_file.unlink(missing_ok=True)
        if everything and (left := self._of_mark()):
            self._end(left, self._of_mark)
            return True
        return bool(members)

    def _end(self, processes: Sequence[psutil.Process], left: Callable[[], list[psutil.Process]]) -> None:
        """Ask them to end, and end what is `left` when patience is."""
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(self.end)
        if not self._wait_until_gone(left, self.patience):
            for process in left():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if not self._wait_until_gone(left, 10):
                raise UserError(f"{self.name} (pid {self.note().get('pid')}) does not end; see {self.log}")

    @staticmethod
    def _wait_until_gone(left: Callable[[], list[psutil.Process]], patience: float) -> bool:
        deadline = time.monotonic() + patience
        while left():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def memory(self) -> int:
        """Bytes held by it and all that it runs; pages they share count once where the system tells (PSS)."""
        leader, total = self.leader(), 0
        with suppress(psutil.Error):
            for process in {*self.members(), *(leader.children(recursive=True) if leader else ())}:
                info = process.memory_full_info()
                total += getattr(info, "pss", info.rss)
        return total


def _default_signals() -> None:
    """A process started with & from a script is born deaf to SIGINT, and a Prefect worker so born never ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _in_session(process: psutil.Process, session: int | None) -> bool:
    try:
        return os.getsid(process.pid) == session
    except OSError:
        return False


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:  # another user's, and so none of ours
        return False
    except psutil.Error:
        return False
