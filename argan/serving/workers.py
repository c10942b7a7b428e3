"""Worker processes that can be killed, so that what a request costs ends when the request does.

A thread cannot be stopped; a process can. A fork server imports, loads and compiles everything, and workers are forked from it:
they share its memory, and the replacement of a worker that was killed is there within milliseconds. Forking is safe there, since
the fork server runs no threads, and it holds no connection of the HTTP server's. The HTTP server itself loads no model.

Jobs and replies are JSON, one line each, over a socket pair per worker. When the HTTP server's end of the fork server's socket is
closed, the fork server kills all workers and ends, so none outlives the HTTP server.
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

# What the fork server is asked for: a new worker (0), or that the worker of this pid be killed
REQUEST = struct.Struct("!q")
CLOSE_TIMEOUT = 10.0  # seconds for the fork server to kill its workers, which takes milliseconds
RETRY_DELAY = 1.0  # seconds until a worker that could not be forked (no memory, no free process id) is tried again


class WorkerCrashed(Exception):
    """The worker ended before it replied: killed from outside, such as for lack of memory, or crashed."""


class NoWorkerAvailable(Exception):
    """No worker was free in time."""


class WorkerTimeout(Exception):
    """The job took too long; its worker was killed."""


class ForkServer:
    """The process that workers are forked from, as the HTTP server sees it.

    factory: "module:function". The process calls function(*arguments), which returns the handler of jobs and facts for the HTTP
    server, both made once; it has one thread for numerical libraries. Raises UserError as the function does.
    """

    def __init__(self, factory: str, arguments: Sequence[Json] = ()) -> None:
        self.ready = False
        self.socket, child_end = socket.socketpair()
        script = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        script += "from argan.serving.workers import run_fork_server; run_fork_server(sys.argv[2:])"
        script_arguments = [json.dumps(sys.path), str(child_end.fileno()), factory, json.dumps(list(arguments))]
        # Threads of numerical libraries would not survive the fork; requests are what runs in parallel
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with child_end:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script, *script_arguments],
                pass_fds=[child_end.fileno()],
                env=os.environ | one_thread,
            )
        try:
            with self.socket.makefile("rb") as lines:
                line = lines.readline()
            reply = json.loads(line) if line else {"error": "the worker processes could not be started; see above"}
            if "error" in reply:
                raise UserError(reply["error"])
        except BaseException:
            self.close()
            raise
        self.ready = True
        self.facts: Json = reply["facts"]

    def fork(self) -> socket.socket:
        """Ask for a worker; this process's end of its socket pair. Raises OSError when the fork server is gone."""
        server_end, worker_end = socket.socketpair()
        with worker_end:
            try:
                socket.send_fds(self.socket, [REQUEST.pack(0)], [worker_end.fileno()])
            except OSError:
                server_end.close()
                raise
        return server_end

    def kill(self, worker: Worker) -> None:
        """Kill a worker. Its parent does so, which alone knows that the pid is still that process's.

        Without a parent it is killed from here, unless it has ended: until then its end of the socket is open.
        """
        try:
            self.socket.sendall(REQUEST.pack(worker.pid))
        except OSError:
            if not worker.ended:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and with it all workers."""
        self.socket.close()
        with suppress(subprocess.TimeoutExpired):
            if self.ready:
                self.process.wait(CLOSE_TIMEOUT)
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Worker:
    """One forked process, as the server sees it."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self.reader, self.writer = pid, reader, writer

    @property
    def ended(self) -> bool:
        """Its end of the socket is closed."""
        return self.reader.at_eof()

    async def run(self, job: dict[str, Json]) -> dict[str, Json]:
        """The reply to a job. Raises WorkerCrashed."""
        with suppress(ConnectionError):  # seen as the end of what it sends
            self.writer.write(json.dumps(job).encode() + b"\n")
            if line := await self.reader.readline():
                return dict(json.loads(line))
        raise WorkerCrashed


class Pool:
    """As many workers as requests may run at once; a worker whose job was broken off is killed and replaced.

    on_lost: called once when the fork server is gone, after which no worker can be replaced.
    """

    def __init__(self, fork_server: ForkServer, count: int, on_lost: Callable[[], None] = lambda: None) -> None:
        self.fork_server, self.count, self.on_lost = fork_server, count, on_lost
        self.waiting = self.running = 0
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()  # the last one used has the warmest caches
        self._starting: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        asyncio.get_running_loop().add_reader(self.fork_server.socket, self._fork_server_lost)
        await asyncio.gather(*(self._start() for _ in range(self.count)))

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fork_server.socket)
        for task in self._starting:
            task.cancel()
        while not self._idle.empty():
            self._idle.get_nowait().writer.close()

    async def run(self, job: dict[str, Json], seconds: float) -> dict[str, Json]:
        """The reply to a job, which has `seconds` to get a worker and as many to be done.

        When this is cancelled, or the job takes longer, its worker is killed at once. Raises NoWorkerAvailable, WorkerTimeout or
        WorkerCrashed.
        """
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                worker = await self._take()
        except TimeoutError as error:
            raise NoWorkerAvailable from error
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            async with asyncio.timeout(seconds):
                reply = await worker.run(job)
        except BaseException as error:
            self._replace(worker)
            if isinstance(error, TimeoutError):
                raise WorkerTimeout from error
            raise
        finally:
            self.running -= 1
        self._idle.put_nowait(worker)
        return reply

    async def _take(self) -> Worker:
        while (worker := await self._idle.get()).ended:  # while it was idle
            self._replace(worker)
        return worker

    def _replace(self, worker: Worker) -> None:
        self.fork_server.kill(worker)
        worker.writer.close()
        task = asyncio.create_task(self._start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        """A new worker, as soon as there can be one."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(sock=self.fork_server.fork())
                if line := await reader.readline():
                    self._idle.put_nowait(Worker(json.loads(line)["pid"], reader, writer))
                    return
                writer.close()
            await asyncio.sleep(RETRY_DELAY)

    def _fork_server_lost(self) -> None:
        """The fork server sends nothing once it is ready: what can be read is its end."""
        asyncio.get_running_loop().remove_reader(self.fork_server.socket)
        self.on_lost()


# In the fork server and its workers


def run_fork_server(arguments: Sequence[str]) -> None:
    """The life of the fork server: prepare, then fork and kill workers until the HTTP server closes its end."""
    # A terminal sends Ctrl-C, and systemd SIGTERM, to all of a service's processes: the server alone decides what is finished first
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    descriptor, factory, factory_arguments = arguments
    control = socket.socket(fileno=int(descriptor))
    module, _, name = factory.partition(":")
    try:
        handler, facts = getattr(importlib.import_module(module), name)(*json.loads(factory_arguments))
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
            # No memory or no process id: the server sees the channel end, and asks again
            with suppress(OSError), channel:
                child = os.fork()
                if child == 0:
                    control.close()
                    _run_worker(channel, handler)
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


def _run_worker(channel: socket.socket, handler: Handler) -> None:
    """The life of a worker; never returns."""
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
        os._exit(0)  # what the fork server registered to be done at its exit is not for a worker
