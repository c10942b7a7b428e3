"""Worker processes that can be killed, so that what a request costs ends when the request does.

A thread cannot be stopped; a process can. One template process imports, loads and compiles everything, and workers are forked
from it: they share its memory, and the replacement of a worker that was killed is there within milliseconds. Forking is safe there,
since the template runs no threads, and it holds no connection of the server's. The server itself loads no model.

Jobs and replies are JSON, one line each, over a socket pair per worker. When the server's end of the template's socket is closed,
the template kills all workers and ends, so none outlives the server.
"""

from __future__ import annotations

import array
import asyncio
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from argan.errors import UserError

Json = Any
Handler = Callable[[dict[str, Json]], dict[str, Json]]

REQUEST = struct.Struct(
    "!q"
)  # what the template is asked for: a new worker (0), or that the worker of this pid be killed
CLOSING = 10.0  # seconds for the template to kill its workers, which takes milliseconds
AGAIN = 1.0  # seconds until a worker that could not be forked (no memory, no free process id) is tried again


class Lost(Exception):
    """The worker ended before it replied: killed from outside, such as for lack of memory, or crashed."""


class NoTurn(Exception):
    """No worker was free in time."""


class Late(Exception):
    """The job took too long; its worker was killed."""


class Template:
    """The process that workers are forked from.

    factory: "module:function". The template calls function(*arguments), which returns the handler of jobs and facts for the server,
    both made once; its process has one thread for numerical libraries. Raises UserError as the function does.
    """

    def __init__(self, factory: str, arguments: Sequence[Json] = ()) -> None:
        self.ready = False
        self.socket, theirs = socket.socketpair()
        start = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        start += "from argan.serving.workers import template; template(sys.argv[2:])"
        given = [json.dumps(sys.path), str(theirs.fileno()), factory, json.dumps(list(arguments))]
        # Threads of numerical libraries would not survive the fork; requests are what runs in parallel
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, *given], pass_fds=[theirs.fileno()], env=os.environ | single
            )
        try:
            with self.socket.makefile("rb") as lines:
                line = lines.readline()
            answer = json.loads(line) if line else {"error": "the worker processes could not be started; see above"}
            if "error" in answer:
                raise UserError(answer["error"])
        except BaseException:
            self.close()
            raise
        self.ready = True
        self.facts: Json = answer["facts"]

    def fork(self) -> socket.socket:
        """Ask for a worker; the server's end of its socket pair. Raises OSError when the template is gone."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.socket, [REQUEST.pack(0)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def kill(self, pid: int) -> None:
        """Kill a worker. Its parent does so, who alone knows that the pid is still that process's."""
        with suppress(OSError):
            self.socket.sendall(REQUEST.pack(pid))

    def close(self) -> None:
        """End it, and with it all workers."""
        self.socket.close()
        with suppress(subprocess.TimeoutExpired):
            if self.ready:
                self.process.wait(CLOSING)
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Template:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Worker:
    """One forked process, as the server sees it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self.reader, self.writer = pid, reader, writer

    async def do(self, job: dict[str, Json]) -> dict[str, Json]:
        """Raises Lost."""
        with suppress(ConnectionError):  # said by the end of what it sends
            self.writer.write(json.dumps(job).encode() + b"\n")
            if line := await self.reader.readline():
                return dict(json.loads(line))
        raise Lost


class Pool:
    """As many workers as requests may run at once; a worker whose job was broken off is killed and replaced.

    failed: called once when the template is gone, after which no worker can be replaced.
    """

    def __init__(self, template: Template, count: int, failed: Callable[[], None] = lambda: None) -> None:
        self.template, self.count, self.failed = template, count, failed
        self.waiting = self.running = 0
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()  # the last one used has the warmest caches
        self._starting: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        asyncio.get_running_loop().add_reader(self.template.socket, self._template_gone)
        await asyncio.gather(*(self._start() for _ in range(self.count)))

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.template.socket)
        for task in self._starting:
            task.cancel()
        while not self._idle.empty():
            self._idle.get_nowait().writer.close()

    async def run(self, job: dict[str, Json], seconds: float) -> dict[str, Json]:
        """The reply to a job, which has `seconds` to get a worker and as many to be done. Raises NoTurn, Late or Lost.

        When this is cancelled, or the job is late, its worker is killed at once.
        """
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                worker = await self._take()
        except TimeoutError as error:
            raise NoTurn from error
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            async with asyncio.timeout(seconds):
                reply = await worker.do(job)
        except BaseException as error:
            self._replace(worker)
            if isinstance(error, TimeoutError):
                raise Late from error
            raise
        finally:
            self.running -= 1
        self._idle.put_nowait(worker)
        return reply

    async def _take(self) -> Worker:
        while (worker := await self._idle.get()).reader.at_eof():  # it ended while it was idle
            self._replace(worker)
        return worker

    def _replace(self, worker: Worker) -> None:
        worker.writer.close()
        self.template.kill(worker.pid)
        task = asyncio.create_task(self._start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        """A new worker, as soon as there can be one."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(sock=self.template.fork())
                if line := await reader.readline():
                    self._idle.put_nowait(Worker(json.loads(line)["pid"], reader, writer))
                    return
                writer.close()
            await asyncio.sleep(AGAIN)

    def _template_gone(self) -> None:
        """The template sends nothing once it is ready: what can be read is its end."""
        asyncio.get_running_loop().remove_reader(self.template.socket)
        self.failed()


# ---- In the template and its workers ---------------------------------------------------------------------------------


def template(arguments: Sequence[str]) -> None:
    """The template's whole life: prepare, then fork and kill workers until the server closes its end."""
    # A terminal sends Ctrl-C, and systemd SIGTERM, to all of a service's processes: the server alone decides what is finished first
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    handle, factory, given = arguments
    control = socket.socket(fileno=int(handle))
    module, _, name = factory.partition(":")
    try:
        handler, facts = getattr(importlib.import_module(module), name)(*json.loads(given))
    except UserError as error:
        control.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    gc.collect()
    gc.freeze()  # what is there is shared: the collector of a worker need not touch it, which would copy it
    children: set[int] = set()
    with suppress(BrokenPipeError):
        control.sendall(json.dumps({"facts": facts}).encode() + b"\n")
    while (request := _request(control)) is not None:
        pid, channel = request
        if channel is not None:
            with (
                suppress(OSError),
                channel,
            ):  # no memory or no process id: the server sees the channel end, and asks again
                child = os.fork()
                if child == 0:
                    control.close()
                    _work(channel, handler)
                children.add(child)
        elif pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            children.remove(pid)
    for pid in children:  # none goes on for a server that is gone
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # there is nothing to tidy up, which takes libraries a second


def _request(control: socket.socket) -> tuple[int, socket.socket | None] | None:
    """A pid to kill, or the channel of a worker to fork; None at the end."""
    size = array.array("i").itemsize
    message, ancillary, *_ = control.recvmsg(REQUEST.size, socket.CMSG_SPACE(size))
    if len(message) < REQUEST.size:
        return None
    (pid,) = REQUEST.unpack(message)
    for *_, data in ancillary:
        return pid, socket.socket(fileno=array.array("i", data[:size])[0])
    return pid, None


def _work(channel: socket.socket, handler: Handler) -> None:
    """A worker's whole life; never returns."""
    try:
        with channel.makefile("rwb") as lines:
            lines.write(json.dumps({"pid": os.getpid()}).encode() + b"\n")
            lines.flush()
            for line in lines:
                try:
                    reply = handler(json.loads(line))
                except Exception as error:
                    traceback.print_exc()
                    reply = {"fault": type(error).__name__}
                lines.write(json.dumps(reply).encode() + b"\n")
                lines.flush()
    except (OSError, KeyboardInterrupt):  # the server is gone
        pass
    finally:
        os._exit(0)  # what the template registered to be done at its exit is the template's
