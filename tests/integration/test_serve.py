"""`argan serve`: a real server on loopback, its answers those of the model itself, and whatever one may send to it."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import stub_jobs
import uvicorn
from PIL import Image

from argan import cli
from argan.effects.iris import ANGLES, Iris
from argan.errors import UserError
from argan.inference.model import Model
from argan.photos import photograph
from argan.serving import jobs
from argan.serving.application import QUEUE, application
from argan.serving.http_connections import ConnectionLimits, limited_protocol
from argan.serving.workers import ForkServer, Pool

DATA = Path(__file__).parents[1] / "data"
MEGAPIXELS = 0.8
FILES = 256  # that the server may have open: fewer than the connections that are tried on it


def start(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """A server, and its address once it listens."""
    command = [sys.executable, "-m", "argan", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " at http" in line, process.communicate()
    return process, line.split(" at ")[1].split(";")[0]


@pytest.fixture(scope="module")
def folder(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its photographs' iris: half as high as wide."""
    made = shutil.copytree(untrained, tmp_path_factory.mktemp("serve") / "meadow")
    Iris(tuple((np.cos(ANGLES) ** 2 + 4 * np.sin(ANGLES) ** 2) ** -0.5), 30, 9, 400).save(made)
    return Path(made)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A server and its address; when it ends, so have its workers, and it has written no traceback."""
    process, address = start(folder, "--megapixels", MEGAPIXELS, "--allowed-host", "photos.example")
    server = psutil.Process(process.pid)
    yield server, address
    children = server.children(recursive=True)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode == 0
    assert not psutil.wait_procs(children, timeout=60)[1]


@pytest.fixture(scope="module")
def server(running: tuple[psutil.Process, str]) -> str:
    return running[1]


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


def unpacked(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def picture(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_health_models_and_description(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["meadow"]}
    (model,) = client.get("/v1/models").json()
    assert (model["domain"], model["resolution"]) == ("meadow", 32)
    assert "/v1/{domain}/bokeh" in client.get("/openapi.json").json()["paths"]


def test_scenes_are_those_of_the_model(client: httpx.Client, model: Model) -> None:
    files = unpacked(client.post("/v1/meadow/sample", json={"count": 2, "seed": 7}))
    scenes = model.sample(2, 7)
    assert len(files) == 6
    for i in range(2):
        assert np.abs(picture(files[f"{i}_image.png"]).astype(int) - scenes.images[i]).max() <= 1
        assert np.allclose(np.load(io.BytesIO(files[f"{i}_disparity.npy"])), scenes.disparity[i], atol=1e-5)
    assert len(unpacked(client.post("/v1/meadow/sample"))) == 3


def test_depth_is_that_of_the_model(client: httpx.Client, model: Model) -> None:
    files = unpacked(client.post("/v1/meadow/depth", content=(DATA / "owl.webp").read_bytes()))
    estimate = model.estimate(DATA / "owl.webp")
    assert np.allclose(np.load(io.BytesIO(files["disparity.npy"])), estimate.disparity, atol=1e-5)
    assert picture(files["depth.png"]).shape == (*estimate.disparity.shape, 3)
    assert np.abs(picture(files["confidence.png"]) / 255 - estimate.confidence).max() < 0.01


@pytest.mark.parametrize("shape", ["7 blades", "collection"])
def test_bokeh_is_that_of_the_model_and_keeps_what_a_photo_carries(
    client: httpx.Client, model: Model, tmp_path: Path, shape: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (60, 90, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    photograph.write_png(tmp_path / "deep.png", pixels, icc=b"a profile", exif=exif.tobytes())
    options: dict[str, Any] = {"aperture": 2, "x": 20, "y": 30, "shape": shape}
    answer = client.post("/v1/meadow/bokeh", params=options, content=(tmp_path / "deep.png").read_bytes())
    assert answer.status_code == 200, answer.text
    (tmp_path / "made.png").write_bytes(answer.content)
    made = photograph.read(tmp_path / "made.png")
    wanted = model.bokeh(tmp_path / "deep.png", 2, (20, 30), shape)
    assert made.pixels.dtype == np.uint16
    assert np.abs(made.pixels.astype(int) - wanted).max() <= 16
    assert made.icc == b"a profile"
    assert made.exif is not None
    assert b"A maker" in made.exif


def test_a_photo_is_upright(client: httpx.Client) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (90, 60)).save(file, "JPEG", exif=exif)
    assert np.load(
        io.BytesIO(unpacked(client.post("/v1/meadow/depth", content=file.getvalue()))["disparity.npy"])
    ).shape == (90, 60)


def encoded(kind: str, size: tuple[int, int] = (40, 30), **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind, **settings)
    return file.getvalue()


PHOTO = encoded("PNG")
ANIMATION = encoded("GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])
REFUSED = {
    "an unknown domain": (404, "mead", "depth", {"content": PHOTO}, "there is: meadow"),
    "no photo": (422, "meadow", "depth", {"content": b"hello"}, "no photo"),
    "nothing": (422, "meadow", "depth", {"content": b""}, "no photo in the body"),
    "cut off": (422, "meadow", "depth", {"content": (DATA / "owl.webp").read_bytes()[:5000]}, "cut off"),
    "animated": (422, "meadow", "depth", {"content": ANIMATION}, "animation"),
    "a bomb": (413, "meadow", "bokeh", {"content": encoded("PNG", (9000, 9000))}, "9000 x 9000"),
    "too many bytes": (413, "meadow", "depth", {"content": bytes(6_000_000)}, "bytes"),
    "too many bytes by and by": (413, "meadow", "depth", {"content": (bytes(100_000) for _ in range(60))}, "bytes"),
    "a form": (415, "meadow", "depth", {"files": {"photo": PHOTO}}, "body"),
    "aperture below 0": (422, "meadow", "bokeh?aperture=-1", {"content": PHOTO}, "aperture"),
    "aperture nan": (422, "meadow", "bokeh?aperture=nan", {"content": PHOTO}, "aperture"),
    "aperture inf": (422, "meadow", "bokeh?aperture=inf", {"content": PHOTO}, "aperture"),
    "aperture 1000": (422, "meadow", "bokeh?aperture=1000", {"content": (DATA / "owl.webp").read_bytes()}, "diagonal"),
    "aperture 1e308": (422, "meadow", "bokeh?aperture=1e308", {"content": (DATA / "owl.webp").read_bytes()}, "diagonal"),
    "focus outside": (422, "meadow", "bokeh?x=41&y=3", {"content": PHOTO}, "outside the photo"),
    "no such shape": (422, "meadow", "bokeh?shape=heart", {"content": PHOTO}, "7 blades"),
    "no scenes": (422, "meadow", "sample", {"json": {"count": 0}}, "count"),
    "too many scenes": (422, "meadow", "sample", {"json": {"count": 65}}, "count"),
    "a misspelt option": (422, "meadow", "sample", {"json": {"coun": 1}}, "coun"),
    "no JSON": (422, "meadow", "sample", {"content": b"{", "headers": {"Content-Type": "application/json"}}, "json"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line(client: httpx.Client, name: str) -> None:
    status, domain, path, request, reason = REFUSED[name]
    answer = client.post(f"/v1/{domain}/{path}", **request)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    (line,) = answer.json().values()
    assert reason in line
    assert "\n" not in line
    assert "/tmp" not in line


def test_another_path_or_method_is_an_error(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 404
    assert "error" in client.get("/v1/meadow/depth").json()


def test_many_at_once_are_not_mixed_up(client: httpx.Client, model: Model) -> None:
    """And each is counted."""

    def ask(seed: int) -> np.ndarray[Any, Any]:
        files = unpacked(client.post("/v1/meadow/sample", json={"seed": seed}))
        return np.load(io.BytesIO(files["0_disparity.npy"]))

    def counted() -> float:
        line = 'argan_requests_total{domain="meadow",status="200",what="sample"} '
        return float(client.get("/metrics").text.split(line)[1].split("\n")[0])

    ask(0)
    before = counted()
    with ThreadPoolExecutor(8) as pool:
        for seed, disparity in enumerate(pool.map(ask, range(12))):
            assert np.allclose(disparity, model.sample(1, seed).disparity[0], atol=1e-5)
    assert counted() == before + 12


# Attacks: each is followed by a request that is answered


SAMPLE = b"POST /v1/meadow/sample HTTP/1.1\r\nHost: localhost\r\n"


def connected(address: str, sent: bytes) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=120)
    connection.sendall(sent)
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and the rest of a whole answer, which names its length."""
    with connection.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        headers = dict(line.decode().lower().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
        return status, lines.read(int(headers["content-length"]))


def ask(address: str, seed: int = 0) -> tuple[int, bytes]:
    with sampling(address, seed) as connection:
        return answer(connection)


def sampling(address: str, seed: int = 0) -> socket.socket:
    """A connection that has asked for a scene."""
    content = b'{"seed": %d}' % seed
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
    return connected(address, SAMPLE + head + content)


def wait_for(reached: Any) -> None:
    deadline = time.monotonic() + 300  # of a machine that is stuck
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Host": "evil.example"}),
        ("GET", {"Origin": "http://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Sec-Fetch-Site": "cross-site"}),
        ("OPTIONS", {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}),
    ],
)
def test_a_foreign_page_gets_nothing(client: httpx.Client, method: str, headers: dict[str, str]) -> None:
    for path in ("/v1/meadow/sample", "/v1/models", "/health"):
        refused = client.request(method, path, headers=headers)
        assert refused.status_code == 403
        assert not any(name.startswith("access-control") for name in refused.headers)
    unpacked(client.post("/v1/meadow/sample"))


def test_names_that_were_allowed_pass(client: httpx.Client) -> None:
    assert client.get("/health", headers={"Host": "photos.example"}).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_without_end_is_refused_early(server: str, declared: bool) -> None:
    """400 MB for a request of a hundred bytes; a client that sees no answer before it is done sends on."""
    block, blocks = bytes(1 << 20), 400
    kind = b"Content-Length: %d" % (blocks << 20) if declared else b"Transfer-Encoding: chunked"
    with connected(server, SAMPLE + kind + b"\r\n\r\n") as connection:
        sent = 0
        with suppress(ConnectionError):
            while sent < blocks:
                connection.sendall(block if declared else b"%x\r\n%b\r\n" % (len(block), block))
                sent += 1
        assert sent < 64  # what the sockets of both ends hold; the server itself takes a quarter of one
        assert answer(connection)[0] == 413
    assert ask(server)[0] == 200


def test_uploads_are_refused_before_they_are_received_when_too_many_wait(
    running: tuple[psutil.Process, str], client: httpx.Client
) -> None:
    process, address = running
    (fork_server,) = process.children()
    workers = fork_server.children()
    for worker in workers:
        worker.suspend()
    try:
        requests = [sampling(address, seed) for seed in range(len(workers) + QUEUE)]
        wait_for(lambda: f"argan_waiting {QUEUE}.0" in client.get("/metrics").text)
        head = b"POST /v1/meadow/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
        uploads = [connected(address, head) for _ in range(20)]  # and not a byte of the photos
        for connection in uploads:
            status, reason = answer(connection)
            assert (status, b"try again later" in reason) == (503, True)
            connection.close()
    finally:
        for worker in workers:
            worker.resume()
    assert [answer(connection)[0] for connection in requests] == [200] * len(requests)
    for connection in requests:
        connection.close()


def test_half_sent_headers_leave_room(server: str, client: httpx.Client) -> None:
    """More of them than the server may have files open."""
    held = [connected(server, b"GET /health HTTP/1.1\r\nHost: local") for _ in range(300)]
    assert ask(server)[0] == 200
    for connection in held:
        connection.close()
    assert client.get("/health").status_code == 200


def test_a_sender_that_leaves_holds_nothing(server: str, client: httpx.Client) -> None:
    """Not one of its slots: more leave than there are."""
    head = f"POST /v1/meadow/depth HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
    for body in (b"half a photo", PHOTO):
        for _ in range(QUEUE + (os.cpu_count() or 1)):
            connected(server, head.encode() + body).close()
            wait_for(lambda: "argan_running 0.0" in client.get("/metrics").text)
        assert client.post("/v1/meadow/depth", content=PHOTO).status_code == 200
    wait_for(lambda: "argan_running 0.0" in client.get("/metrics").text)
    assert "argan_waiting 0.0" in client.get("/metrics").text


def test_a_killed_worker_is_replaced(running: tuple[psutil.Process, str]) -> None:
    process, address = running
    for worker in process.children()[0].children():
        worker.kill()
        wait_for(lambda worker=worker: worker.status() == psutil.STATUS_ZOMBIE)
    for seed in range(8):
        assert ask(address, seed)[0] == 200


def test_the_process_that_is_forked_has_one_thread(running: tuple[psutil.Process, str]) -> None:
    """Others would be missing in its children, whatever they held."""
    process, _ = running
    assert [child.num_threads() for child in process.children()] == [1]


# The same server with stub jobs, which spin, crash or write large answers


@contextmanager
def stub_server(seconds: float = 60, **limits: Any) -> Iterator[tuple[Pool, str, set[Any]]]:
    """A server in a thread, with two workers: its pool, address and connections."""
    with (
        ForkServer("stub_jobs:prepare", ["meadow"]) as fork_server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        pool = Pool(fork_server, 2)
        app = application(pool, fork_server.facts, seconds=seconds)
        http = limited_protocol(ConnectionLimits(**limits))
        server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            yield pool, f"http://127.0.0.1:{listener.getsockname()[1]}", server.server_state.connections
        finally:
            server.should_exit = True
            thread.join()


def test_work_that_is_late_is_killed_and_its_place_is_free() -> None:
    with stub_server(seconds=0.5) as (pool, address, _):
        workers = psutil.Process(pool.fork_server.process.pid).children()
        with ThreadPoolExecutor(2) as clients:
            late = list(clients.map(lambda _: ask(address, stub_jobs.SPIN), range(2)))
        assert [status for status, _ in late] == [504] * 2
        assert b"not done within 0.5 s" in late[0][1]
        assert not psutil.wait_procs(workers, timeout=60)[1]  # neither is left to spin
        replaced = {int(ask(address)[1]) for _ in range(4)}
        assert not replaced & {worker.pid for worker in workers}


def test_clients_that_leave_use_up_nothing() -> None:
    with stub_server() as (pool, address, _):
        for _ in range(2 * (pool.count + QUEUE)):
            with sampling(address, stub_jobs.SPIN):
                wait_for(lambda: pool.running)
            wait_for(lambda: not pool.running)
        assert ask(address)[0] == 200


def test_a_worker_that_crashes_is_one_503() -> None:
    with stub_server() as (_, address, _):
        for _ in range(3):
            status, reason = ask(address, stub_jobs.CRASH)
            assert (status, b"try again" in reason) == (503, True)
            assert ask(address)[0] == 200


def test_slow_readers_hold_no_worker_and_are_cut_off() -> None:
    with stub_server(reading=2) as (pool, address, connections):
        slow = [sampling(address, stub_jobs.LARGE) for _ in range(2 * pool.count)]
        for connection in slow:
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert ask(address)[0] == 200  # while they have their answers still to read
        wait_for(lambda: not connections)
        for connection in slow:
            taken = 0
            with suppress(ConnectionError):
                while part := connection.recv(1 << 20):
                    taken += len(part)
            assert taken < stub_jobs.LARGE_BYTES
            connection.close()


def test_what_does_not_come_is_not_waited_for() -> None:
    with stub_server(seconds=0.5, headers=0.5) as (_, address, _):
        with connected(address, b"GET /health HTTP/1.1\r\nHost: local") as connection:
            assert connection.recv(1) == b""
        with connected(address, SAMPLE + b"Content-Length: 100\r\n\r\nhalf of") as connection:
            assert answer(connection)[0] == 408
        assert ask(address)[0] == 200


def test_only_so_many_wait_and_only_so_long() -> None:
    with stub_server(seconds=2) as (pool, address, _):
        requests = [sampling(address, stub_jobs.SPIN) for _ in range(pool.count)]
        wait_for(lambda: pool.running == pool.count)
        requests += [sampling(address, stub_jobs.SPIN) for _ in range(QUEUE)]
        statuses = [answer(connection)[0] for connection in requests]
        assert statuses[: pool.count] == [504] * pool.count
        assert set(statuses) == {503, 504}


def test_workers_end_with_the_server_whatever_they_do() -> None:
    with (
        ForkServer("stub_jobs:prepare", ["meadow"]) as fork_server,
        fork_server.fork() as channel,
        channel.makefile("rwb") as lines,
    ):
        worker = psutil.Process(json.loads(lines.readline())["pid"])
        lines.write(b'{"seed": %d}\n' % stub_jobs.SPIN)
        lines.flush()
        fork_server.close()
        assert not psutil.wait_procs([worker], timeout=60)[1]


def test_without_the_fork_server_the_workers_end_with_the_server() -> None:
    with stub_server() as (pool, address, _):
        fork_server = pool.fork_server.process
        workers = psutil.Process(fork_server.pid).children()
        spinning = sampling(address, stub_jobs.SPIN)
        wait_for(lambda: pool.running)
        fork_server.kill()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    spinning.close()


def test_without_the_fork_server_the_server_hears_of_it_and_one_that_fails_says_why() -> None:
    with stub_server() as (pool, address, _):
        lost = threading.Event()
        pool.on_lost = lost.set
        pool.fork_server.process.kill()
        assert lost.wait(120)
        assert ask(address)[0] == 200  # by workers that are there
    with pytest.raises(UserError, match="no domain"):
        ForkServer("stub_jobs:prepare", [""])


@pytest.mark.pipeline
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_was_begun_is_answered_before_the_end(untrained: Path, sent: signal.Signals, code: int) -> None:
    process, address = start(untrained)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        answer = pool.submit(client.post, "/v1/meadow/sample", json={"count": 64})
        with httpx.Client(base_url=address, trust_env=False) as other:
            while "argan_running 1.0" not in other.get("/metrics").text and not answer.done():
                pass
        for each in (process, *psutil.Process(process.pid).children(recursive=True)):  # as systemd and a terminal do
            each.send_signal(sent)
        assert len(unpacked(answer.result())) == 3 * 64
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_an_answer_whose_client_has_left_is_dropped(untrained: Path, tmp_path: Path) -> None:
    """Its folder is gone before its worker is killed: no traceback in the server's log."""
    handle, _ = jobs.prepare([str(untrained)], MEGAPIXELS)
    job = {"kind": "sample", "domain": "meadow", "folder": str(tmp_path / "gone"), "count": 1, "seed": 0}
    assert handle(job)["status"] == 499


def test_a_server_that_cannot_start_is_one_line(
    server: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for references, reason in (([str(tmp_path / "nothing")], "no model"), ([str(untrained)] * 2, "second model")):
        with pytest.raises(UserError, match=reason):
            jobs.prepare(references, MEGAPIXELS)
    for arguments, reason in (
        ((untrained, "--port", server.rsplit(":", 1)[1]), "choose another"),
        ((untrained, "--host", "no.such.host.example"), "no.such.host.example"),
    ):
        monkeypatch.setattr(sys, "argv", ["argan", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        line = capsys.readouterr().err
        assert reason in line
        assert line.count("\n") == 1
