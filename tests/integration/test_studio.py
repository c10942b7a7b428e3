"""The studio: what it makes, what it refuses, and the page itself in a real browser."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import httpx
import numpy as np
import pytest
import torch
from conftest import OFFLINE
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image, ImageCms
from typer.testing import CliRunner

from argan import networks
from argan.config.schema import training
from argan.effects.iris import RAYS, Iris
from argan.errors import UserError
from argan.files import write_json
from argan.inference.model import Estimate, Model
from argan.studio import images
from argan.studio import state as studio_state
from argan.studio.catalog import ModelCatalog
from argan.studio.components import shapes
from argan.studio.images import SceneAddress
from argan.studio.routes import application
from argan.studio.state import StudioState
from argan.studio.uploads import FILE_BYTES, UploadLimit
from argan.tensors import write_tensors

SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}
PATIENCE = 60_000  # milliseconds on a busy machine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two models that learned nothing, `blind` without an estimator, and photographs."""
    folder = tmp_path_factory.mktemp("studio")
    for seed, name in enumerate(("meadow", "blind")):
        torch.manual_seed(seed)
        config = training("quick", SMALL)
        place = folder / "models" / name
        write_tensors(place / "generator.safetensors", networks.build_generator(config).state_dict())
        if name == "meadow":
            student = networks.Estimator(config.estimator_channels, config.disparity_max)
            write_tensors(place / "estimator.safetensors", student.state_dict())
        write_json(place / "config.json", {"domain": name, "training": config.model_dump()})
        (place / "card.md").write_text(f"# argan-{name}\n\nA <script>card</script>.\n")
    facts = Image.Exif()
    facts[0x010F] = "Zeiss"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(_pixels(300, 400)).save(folder / "rose.jpg", quality=95, exif=facts, icc_profile=profile)
    Image.fromarray(_pixels(400, 300)).save(folder / "tulip.png")
    Image.fromarray(_pixels(3000, 4000)).save(folder / "large.jpg")
    (folder / "letter.jpg").write_text("Dear all,")
    (folder / "cut.jpg").write_bytes((folder / "rose.jpg").read_bytes()[:9000])
    frames = [Image.fromarray(_pixels(40, 40, seed)) for seed in range(2)]
    frames[0].save(folder / "dance.webp", save_all=True, append_images=frames[1:])
    (folder / "huge.png").write_bytes(_claims(12_000, 12_000))
    return folder


def _pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def _claims(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and is not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


# Without a browser


@pytest.fixture
def state(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudioState:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    return StudioState(ModelCatalog(), tmp_path)


@pytest.fixture
def client(state: StudioState) -> TestClient:
    return TestClient(application(state, state.folder / "sent"), base_url="http://127.0.0.1")


def test_models_are_offered_by_domain_and_only_those_are_loaded(state: StudioState, tmp_path: Path) -> None:
    assert [entry.label for entry in state.catalog.entries()] == ["blind · in models/", "meadow · in models/"]
    assert state.catalog.default == "blind"
    named = ModelCatalog(str(Path("models/meadow").absolute()))
    assert named.default == str(Path("models/meadow").absolute()) and named.get(named.default).domain == "meadow"
    with pytest.raises(UserError, match="not offered"):
        state.catalog.get(str(tmp_path))


def test_no_model_anywhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match="there is no model"):
        ModelCatalog()


def test_scenes_are_those_of_argan_sample_and_the_way_between_two_ends_at_both(state: StudioState) -> None:
    sampled = Model.load("meadow").sample(4, seed=7, truncation=0.5)
    made = state.scene("meadow", SceneAddress(7, 3, 0.5))
    np.testing.assert_allclose(made.disparity, sampled.disparity[3], atol=1e-5)
    for at, end in ((0.0, 1), (1.0, 2)):
        way = state.scene("meadow", SceneAddress(7, 1, 0.5, 2, at))
        np.testing.assert_allclose(way.disparity, sampled.disparity[end], atol=1e-4)
    assert np.ptp(state.scene("meadow", SceneAddress(7, 1, 0.5, 2, 0.123)).disparity) >= 0  # not one of the grid's


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"truncation": 3.0}, {"index": -1}, {"to": 1, "at": 1.5}])
def test_numbers_that_name_no_scene_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        SceneAddress(**wrong)


@pytest.mark.parametrize("kind", images.EXPORTS)
def test_every_download_is_written(state: StudioState, kind: str) -> None:
    path = images.export(state.scene("meadow", SceneAddress()), kind, state.new_file("scene"))
    assert path.stat().st_size > 100 and path.name.startswith("scene")
    with pytest.raises(UserError, match="no download"):
        images.export(state.scene("meadow", SceneAddress()), "Hologram", state.new_file("scene"))


def test_a_full_size_photo_is_what_argan_bokeh_writes_bit_for_bit(state: StudioState, tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), _pixels(60, 80).astype(np.uint16) * 257)
    photo = state.add_photo(deep)
    made = state.write_bokeh(photo.token, "meadow", 1.5, (0.25, 0.5), "7 blades")
    options = ["--aperture", "1.5", "--focus", "0.25,0.5", "--shape", "7 blades", "--out", str(tmp_path / "out")]
    assert _bokeh(deep, *options) == made.read_bytes()
    pixels = cv2.imread(str(made), cv2.IMREAD_UNCHANGED)
    assert pixels is not None and pixels.dtype == np.uint16


def _bokeh(photo: Path, *options: str) -> bytes:
    import argan.cli  # noqa: F401 (its commands add themselves)
    from argan.cli.common import app

    assert CliRunner().invoke(app, ["bokeh", "meadow", str(photo), *options]).exit_code == 0
    return (Path(options[-1]) / f"{photo.stem}.bokeh.png").read_bytes()


def test_what_is_held_is_bounded_and_private(
    state: StudioState, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio_state, "MAX_PHOTOS", 2)
    monkeypatch.setattr(studio_state, "MAX_FILES", 2)
    photos = [state.add_photo(home / "rose.jpg") for _ in range(3)]
    assert len({photo.token for photo in photos}) == 3
    with pytest.raises(UserError, match="drop it again"):
        state.photo(photos[0].token)
    for _ in range(4):
        state.new_file("file").write_text("x")
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 4 and all(path.stat().st_mode & 0o077 == 0 for path in folders)
    assert (home / "rose.jpg").exists()


def test_a_photo_unlike_the_domain_says_so(state: StudioState, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlike(self: Model, photo: NDArray[np.uint8]) -> Estimate:
        flat = np.zeros(photo.shape[:2], np.float32)
        return Estimate(flat, flat, 1.0)

    monkeypatch.setattr(Model, "estimate", unlike)
    assert "unlike" in str(state.depth_image("meadow", state.add_photo(home / "rose.jpg").token).warning)


def test_pictures_and_what_is_wrong_with_the_wish(state: StudioState, home: Path, client: TestClient) -> None:
    photo = state.add_photo(home / "large.jpg").token
    wish: dict[str, Any] = {"model": "meadow", "photo": photo, "aperture": 1, "x": 0.5, "y": 0.5}

    def size(answer: Any) -> tuple[int, int]:
        assert answer.status_code == 200, answer.text
        return Image.open(io.BytesIO(answer.content)).size

    assert size(client.get("/studio/preview", params=wish)) == (1155, 866)  # a megapixel
    assert size(client.get("/studio/depth", params=wish)) == size(client.get("/studio/confidence", params=wish))
    assert size(client.get("/studio/tile", params={"model": "meadow"})) == (256, 256)
    width, height = size(client.get("/studio/views", params=wish))
    assert width == 5 * 512 and height % 5 == 0
    for wrong, message in (
        ({"x": 1.5}, "outside"),
        ({"aperture": -1}, "aperture must be 0"),
        ({"aperture": 1e308}, "diagonal"),
        ({"shape": "star"}, "there is: disc"),
        ({"shape": "collection"}, "knows no aperture shape of its collection"),
        ({"model": "blind"}, "no depth estimator"),
        ({"model": "/etc"}, "not offered"),
        ({"photo": "guessed"}, "drop it again"),
    ):
        answer = client.get("/studio/preview", params=wish | wrong)
        assert answer.status_code == 400 and message in answer.json()["error"]


def test_the_collections_own_aperture_is_offered_where_it_is_known(
    state: StudioState, home: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = state.catalog.get("meadow")
    assert "collection" not in dict(shapes(model)).values()
    monkeypatch.setattr(model, "iris", Iris((1.0,) * RAYS, 30, 9, 400), raising=False)
    assert "collection" in dict(shapes(model)).values()
    wish: dict[str, Any] = {"model": "meadow", "aperture": 1, "x": 0.5, "y": 0.5, "shape": "collection"}
    for more in ({}, {"photo": state.add_photo(home / "rose.jpg").token}):
        answer = client.get("/studio/preview", params=wish | more)
        assert answer.status_code == 200, answer.text


def test_the_page_is_for_this_machine(client: TestClient) -> None:
    answer = client.get("/studio/tile", params={"model": "meadow"})
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for foreign in ({"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}):
        assert client.get("/studio/tile", headers=foreign).status_code == 403


def test_files_that_are_sent_take_only_so_much_of_the_disk(tmp_path: Path) -> None:
    """Also when the one that sends them never has them opened, or leaves in the middle."""
    received: list[int] = []

    async def gradio(scope: Any, receive: Any, send: Any) -> None:
        received.append((await receive())["body"])
        (tmp_path / f"{len(received)}.jpg").write_bytes(received[-1])
        os.utime(tmp_path / f"{len(received)}.jpg", (len(received),) * 2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(UploadLimit(gradio, tmp_path, most=1000), base_url="http://127.0.0.1")
    for _ in range(5):
        assert client.post("/gradio_api/upload", content=bytes(400)).status_code == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.jpg", "5.jpg"]
    refused = client.post("/gradio_api/upload", content=bytes(1001))
    assert refused.status_code == 503 and len(received) == 5


def test_a_file_deleted_while_room_is_made_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio deletes old files of its own accord, also between two looks at one."""
    (tmp_path / "old.jpg").write_bytes(bytes(900))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    limit = UploadLimit(lambda *_: None, tmp_path, most=1000)  # type: ignore[arg-type, return-value]
    limit.arriving = 200
    limit.make_room()
    assert not (tmp_path / "old.jpg").exists()


# On a port


@pytest.fixture(scope="module")
def address(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio, which at the end stops at once on Ctrl-C, has written no traceback and has left no file."""
    temporary = tmp_path_factory.mktemp("tmp")
    log = home / "log.txt"
    port = _free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "argan", "studio", "meadow", "--port", str(port), "--no-browser"],
            cwd=home,
            env=_environment(home) | {"TMPDIR": str(temporary)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while "studio at" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text(), log.read_text()
        assert not list(temporary.glob("argan-studio-*"))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "PATH", "NUMBA_CACHE_DIR")}
    root = Path(__file__).parents[2]
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(OFFLINE), str(root)]),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "ARGAN_TEST_CONNECTIONS": str(home / "connections.txt"),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.pipeline
def test_pages_of_others_send_nothing_and_ask_for_nothing(address: str, home: Path) -> None:
    """Gradio's own routes are guarded as the studio's are."""
    photo = {"files": ("rose.jpg", (home / "rose.jpg").read_bytes())}
    foreign = {"Origin": "http://evil.example"}
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        uploads = "/gradio_api/upload"
        for headers in (foreign, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post(uploads, files=photo, headers=headers).status_code == 403
        for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x", "/gradio_api/heartbeat/x"):
            assert client.get(path, headers=foreign).status_code == 403, path
            assert client.get(path, headers={"Host": "evil.example"}).status_code == 403, path
        preflight = client.options(uploads, headers=foreign | {"Access-Control-Request-Method": "POST"})
        assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers
        assert client.post("/gradio_api/queue/join", content=bytes(2 << 20)).status_code == 413
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        large = itertools.chain(
            [form], itertools.repeat(bytes(1 << 20), (FILE_BYTES >> 20) + 1)
        )  # chunked: of no known size
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert client.post(uploads, content=large, headers=kind).status_code == 413
        (kept,) = client.post(uploads, files=photo, headers={"Origin": address}).json()
        assert Path(kept).read_bytes() == photo["files"][1]


# In a browser


class Page:
    """A person at the page."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.until("document.querySelector('#scene figure')?.dataset.shown")

    def until(self, expression: str) -> Any:
        return self.page.wait_for_function(expression, timeout=PATIENCE).json_value()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def drop(self, path: Path) -> None:
        self.page.locator("#drop input[type=file]").set_input_files(path)

    def bring(self, path: Path) -> None:
        self.tab("Photo")
        self.drop(path)
        self.page.locator("#name b", has_text=path.name).wait_for()
        self.shows("picture", photo=r".+")

    def shows(self, stage: str, **wanted: str) -> dict[str, str]:
        """Wait until the address of the picture that a stage shows matches."""
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            shown = self.page.evaluate(f"document.querySelector('#{stage} figure')?.dataset.shown") or ""
            shown_values = {name: value[0] for name, value in parse_qs(urlsplit(shown).query).items()}
            shown_values["kind"] = urlsplit(shown).path
            if all(re.fullmatch(pattern, shown_values.get(name, "")) for name, pattern in wanted.items()):
                return shown_values
            assert time.monotonic() < deadline, f"{stage} shows {shown_values}, not {wanted}"
            time.sleep(0.05)

    def press(self, key: str, name: str) -> None:
        """Reach what has that name with the tab key alone, and press another."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if name in (self.page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
                return self.page.keyboard.press(key)  # type: ignore[no-any-return]
        raise AssertionError(f"the tab key does not reach {name}")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.pipeline
def test_a_tile_opens_as_its_scene_on_a_phone_and_nobody_else_is_asked(browser: Any, address: str, home: Path) -> None:
    with Page(browser, address, viewport={"width": 390, "height": 844}) as person:
        page = person.page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("[...document.images].every((image) => image.alt)")
        page.get_by_role("button", name="SceneAddress 2 of seed 1").click()
        person.shows("scene", index="2", kind="studio/preview")
        page.locator("#scene-view label", has_text="Depth").click()
        person.shows("scene", index="2", kind="studio/depth")
        page.locator("#way label", has_text="Interpolate").click()
        page.get_by_role("button", name="9% of the way from scene 0 to 1 of seed 1").click()
        person.shows("scene", to="1", at="0.0909")
        person.tab("About")
        page.get_by_role("heading", name="argan-meadow").wait_for()
        page.get_by_role("heading", name="Licence").wait_for()
        assert page.locator("#about script").count() == 0
    outside = [url for url in person.asked if not url.startswith((address + "/", "data:", "blob:"))]
    assert not outside and len(person.asked) > 20
    assert not (home / "connections.txt").exists()


@pytest.mark.pipeline
def test_a_photo_is_focused_refocused_and_downloaded(
    browser: Any, address: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Page(browser, address) as person:
        page = person.page
        person.bring(home / "rose.jpg")
        person.shows("picture", aperture="1", x=r"0\.5", y=r"0\.5")
        image = page.locator("#picture img")
        box = image.bounding_box()
        image.click(position={"x": box["width"] / 4, "y": box["height"] / 4})
        person.shows("picture", x=r"0\.2\d*", y=r"0\.2\d*")
        person.press("ArrowRight", "Focus at 25 %")
        person.shows("picture", x=r"0\.27\d*|0\.26\d*")
        page.locator("#picture-aperture input[type=range]").fill("2")
        person.shows("picture", aperture="2")
        page.locator("#picture .ring").focus()
        person.press("ArrowRight", "range slider for Aperture")
        person.shows("picture", aperture=r"2\.05")
        page.locator("#picture-shape input").click()
        page.get_by_role("option", name="6 blades").click()
        shown_values = person.shows("picture", aperture=r"2\.05", shape="6 blades", draft="")
        with page.expect_download(timeout=PATIENCE) as download:
            page.locator("#develop").click()
        got = Path(download.value.path()).read_bytes()
        assert download.value.suggested_filename == "rose.bokeh.png"
    monkeypatch.chdir(home)
    focus = f"{shown_values['x']},{shown_values['y']}"
    options = ["--aperture", "2.05", "--focus", focus, "--shape", "6 blades", "--out", str(tmp_path)]
    assert got == _bokeh(home / "rose.jpg", *options)
    with Image.open(io.BytesIO(got)) as made:
        assert made.getexif()[0x010F] == "Zeiss" and made.info["icc_profile"] and made.size == (400, 300)


@pytest.mark.pipeline
def test_what_is_no_photo_is_told_in_the_page_and_the_next_one_works(browser: Any, address: str, home: Path) -> None:
    with Page(browser, address) as person:
        person.tab("Photo")
        for name, shown_values in (
            ("letter.jpg", "no photo in a known format"),
            ("cut.jpg", "may be cut off"),
            ("dance.webp", "is an animation"),
            ("huge.png", "more than 120 million"),
        ):
            person.drop(home / name)
            toast = person.page.locator(".toast-body", has_text=shown_values)
            toast.wait_for()
            assert "/" not in toast.inner_text()  # no path of the server
            person.page.locator("#name .wrong", has_text=shown_values).wait_for()
        large = home / "endless.jpg"
        with large.open("wb") as file:
            file.truncate(FILE_BYTES + 1)
        person.drop(large)
        person.page.locator(".toast-body", has_text="exceed the maximum allowed size of 128").wait_for()
        large.unlink()
        person.bring(home / "tulip.png")


@pytest.mark.pipeline
def test_another_model_is_picked_also_one_that_sees_no_depth(browser: Any, address: str, home: Path) -> None:
    with Page(browser, address) as person:
        page = person.page
        person.bring(home / "tulip.png")
        page.get_by_label("Model").click()
        page.get_by_role("option", name="blind").click()
        page.locator(".toast-body", has_text="no depth estimator").wait_for()
        page.locator("#picture .note", has_text="no depth estimator").wait_for()
        person.tab("Imagine")
        person.shows("scene", model="blind")
        person.tab("About")
        page.get_by_role("heading", name="argan-blind").wait_for()


@pytest.mark.pipeline
def test_two_people_have_their_own_photos_and_one_may_leave_in_the_middle(
    browser: Any, address: str, home: Path
) -> None:
    with Page(browser, address) as one, Page(browser, address) as two:
        one.bring(home / "large.jpg")
        two.bring(home / "tulip.png")
        two.page.locator("#picture-aperture input[type=range]").fill("3")
        theirs = two.shows("picture", aperture="3")
        mine = one.shows("picture", aperture="1")
        assert mine["photo"] != theirs["photo"]
        one.page.locator("#develop").click()
        one.page.locator("#develop", has_text="Developing").wait_for()
        one.context.close()
        two.page.locator("#picture-aperture input[type=range]").fill("0.5")
        two.shows("picture", aperture="0.5", photo=re.escape(theirs["photo"]))
        with two.page.expect_download(timeout=PATIENCE):
            two.page.locator("#develop").click()


@pytest.mark.pipeline
def test_a_mesh_is_shown_and_the_light_field_moves(browser: Any, address: str) -> None:
    with Page(browser, address, reduced_motion="reduce") as person:
        page = person.page
        with page.expect_response(re.compile(r"scene\.glb"), timeout=PATIENCE) as answer:
            page.locator("#scene-space").click()
        assert answer.value.body()[:4] == b"glTF"
        page.locator("#orbit canvas").wait_for()
        person.until("document.querySelector('#wiggle .field').dataset.shown")
        before = page.evaluate("document.querySelector('#wiggle .field').style.backgroundPosition")
        page.evaluate("document.querySelector('#wiggle .field').focus()")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.querySelector('#wiggle .field').style.backgroundPosition") != before


@pytest.mark.pipeline
def test_a_mesh_is_asked_for_once(browser: Any, address: str, home: Path) -> None:
    # Gradio loses a mesh that comes twice while it loads what shows it
    with Page(browser, address) as person:
        person.bring(home / "tulip.png")
        person.asked.clear()
        person.page.locator("#photo-space").click()
        mesh = person.page.locator("#orbit canvas")
        mesh.wait_for()
        assert sum("queue/join" in url for url in person.asked) == 1
        assert "tulip.png" in (person.page.locator("#orbit").get_attribute("aria-label") or "")
        before, deadline = _steady(mesh), time.monotonic() + PATIENCE / 1000
        mesh.focus()
        person.page.keyboard.down("ArrowLeft")
        while mesh.screenshot() == before:
            assert time.monotonic() < deadline, "the arrow keys do not turn the mesh"
            time.sleep(0.1)


def _steady(seen: Any) -> bytes:
    """What is to be seen once it no longer changes: the mesh is there, and is no blank."""
    before, now = b"", seen.screenshot()
    while now != before or len(set(Image.open(io.BytesIO(now)).convert("L").tobytes())) < 20:
        time.sleep(1)
        before, now = now, seen.screenshot()
    return bytes(now)


@pytest.mark.pipeline
@pytest.mark.parametrize("wrong", ["port", "model"])
def test_a_studio_that_cannot_start_says_why_in_one_line(home: Path, wrong: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if wrong == "port" else _free_port()
        ended = subprocess.run(
            [sys.executable, "-m", "argan", "studio", "meadwo" if wrong == "model" else "meadow", "--port", str(port)],
            cwd=home,
            env=_environment(home),
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert (f"--port {port + 1}" if wrong == "port" else "did you mean 'meadow'") in ended.stderr
