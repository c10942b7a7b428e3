"""`argan serve`: a real server on loopback, its answers those of the model itself, and whatever one may send to it."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from argan import cli, photograph
from argan.iris import ANGLES, Iris
from argan.model import Model
from argan.serve import QUEUE, Refused, Work

DATA = Path(__file__).parent / "data"
MEGAPIXELS = 0.8


def start(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """A server, and its address once it listens."""
    command = [sys.executable, "-m", "argan", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
def server(folder: Path) -> Iterator[str]:
    process, address = start(folder, "--megapixels", MEGAPIXELS)
    yield address
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert process.returncode == 0


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


def test_what_is_there(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["meadow"]}
    (told,) = client.get("/v1/models").json()
    assert (told["domain"], told["resolution"]) == ("meadow", 32)
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
    said = model.estimate(DATA / "owl.webp")
    assert np.allclose(np.load(io.BytesIO(files["disparity.npy"])), said.disparity, atol=1e-5)
    assert picture(files["depth.png"]).shape == (*said.disparity.shape, 3)
    assert np.abs(picture(files["confidence.png"]) / 255 - said.confidence).max() < 0.01


@pytest.mark.parametrize("shape", ["7 blades", "collection"])
def test_bokeh_is_that_of_the_model_and_keeps_what_a_photo_carries(
    client: httpx.Client, model: Model, tmp_path: Path, shape: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (60, 90, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    photograph.write_png(tmp_path / "deep.png", pixels, icc=b"a profile", exif=exif.tobytes())
    asked: dict[str, Any] = {"aperture": 2, "x": 20, "y": 30, "shape": shape}
    answer = client.post("/v1/meadow/bokeh", params=asked, content=(tmp_path / "deep.png").read_bytes())
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
    "focus outside": (422, "meadow", "bokeh?x=41&y=3", {"content": PHOTO}, "outside the photo"),
    "no such shape": (422, "meadow", "bokeh?shape=heart", {"content": PHOTO}, "7 blades"),
    "no scenes": (422, "meadow", "sample", {"json": {"count": 0}}, "count"),
    "too many scenes": (422, "meadow", "sample", {"json": {"count": 65}}, "count"),
    "a misspelt option": (422, "meadow", "sample", {"json": {"coun": 1}}, "coun"),
    "no JSON": (422, "meadow", "sample", {"content": b"{", "headers": {"Content-Type": "application/json"}}, "json"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line(client: httpx.Client, name: str) -> None:
    status, domain, path, sent, told = REFUSED[name]
    answer = client.post(f"/v1/{domain}/{path}", **sent)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    (line,) = answer.json().values()
    assert told in line
    assert "\n" not in line
    assert "/tmp" not in line


def test_another_path_or_method_is_told(client: httpx.Client) -> None:
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


def test_a_sender_that_leaves_holds_nothing(server: str, client: httpx.Client) -> None:
    host, port = server.removeprefix("http://").split(":")
    for sent in (b"half a photo", PHOTO):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/meadow/depth HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
            connection.sendall(head.encode() + sent)
    for _ in range(QUEUE):
        assert client.post("/v1/meadow/depth", content=PHOTO).status_code == 200
    told = client.get("/metrics").text
    assert "argan_running 0.0" in told
    assert "argan_waiting 0.0" in told


def test_only_so_many_wait_and_only_so_long() -> None:
    cores = os.cpu_count() or 1
    listening = SimpleNamespace(is_disconnected=lambda: asyncio.sleep(0, False))

    async def crowd() -> None:
        work, go = Work(120, CollectorRegistry()), threading.Event()

        def job() -> Response:
            go.wait()
            return Response("done")

        asked = [asyncio.create_task(work.do(listening, job)) for _ in range(cores + QUEUE)]  # type: ignore[arg-type]
        while work.waiting < QUEUE:
            await asyncio.sleep(0)
        with pytest.raises(Refused, match="wait already"):
            await work.do(listening, job)  # type: ignore[arg-type]
        go.set()
        assert [answer.body for answer in await asyncio.gather(*asked)] == [b"done"] * len(asked)

    async def hurry() -> None:
        work, go = Work(0.05, CollectorRegistry()), threading.Event()
        late = [asyncio.create_task(work.do(listening, lambda: Response(str(go.wait())))) for _ in range(cores)]  # type: ignore[arg-type]
        for task in late:
            with pytest.raises(Refused, match="not done") as refused:
                await task
            assert refused.value.status == 504
        with pytest.raises(Refused, match="no turn"):  # they hold their places still
            await work.do(listening, Response)  # type: ignore[arg-type]
        go.set()
        while work.free.locked():
            await asyncio.sleep(0.01)
        assert (await work.do(listening, Response)).status_code == 200  # type: ignore[arg-type]

    asyncio.run(crowd())
    asyncio.run(hurry())


@pytest.mark.pipeline
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_was_begun_is_answered_before_the_end(untrained: Path, sent: signal.Signals, code: int) -> None:
    process, address = start(untrained)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        answer = pool.submit(client.post, "/v1/meadow/sample", json={"count": 64})
        with httpx.Client(base_url=address, trust_env=False) as other:
            while "argan_running 1.0" not in other.get("/metrics").text and not answer.done():
                pass
        process.send_signal(sent)
        assert len(unpacked(answer.result())) == 3 * 64
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said


def test_a_server_that_cannot_start_is_one_line(
    server: str, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, told in (
        ((untrained, "--port", server.rsplit(":", 1)[1]), "choose another"),
        ((untrained, "--host", "no.such.host.example"), "no.such.host.example"),
        ((tmp_path / "nothing",), "no model"),
        ((untrained, untrained), "second model"),
    ):
        monkeypatch.setattr(sys, "argv", ["argan", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        line = capsys.readouterr().err
        assert told in line
        assert line.count("\n") == 1
