"""The command line: what it writes, and one clear line with exit code 2 for whatever a user can fix."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import argan
from argan import cli, networks
from argan.config.schema import training
from argan.effects.iris import RAYS, Iris
from argan.files import write_json
from argan.tensors import write_tensors

SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, small, in the layout that training writes."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = training("quick", SMALL)
    write_tensors(folder / "generator.safetensors", networks.build_generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    write_tensors(folder / "estimator.safetensors", student.state_dict())
    write_json(folder / "config.json", {"domain": "meadow", "training": config.model_dump()})
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["argan", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_sample_writes_what_it_promises(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "sample", model, "--count", 3, "--seed", 5, "--out", tmp_path / "out") == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    each = {f"{i}_{kind}" for i in range(3) for kind in ("image.png", "photo.png", "disparity.npy")}
    assert names == each | {"grid.png", "light_field.gif"}
    disparity = np.load(tmp_path / "out" / "2_disparity.npy")
    assert disparity.shape == (32, 32) and disparity.dtype == np.float32
    assert Image.open(tmp_path / "out" / "0_image.png").size == (32, 32)
    assert Image.open(tmp_path / "out" / "light_field.gif").n_frames > 5  # type: ignore[attr-defined]


def test_more_views_make_another_photo_of_the_same_scene(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = argan.load(model)
    coarse, fine = loaded.sample(2, views=5), loaded.sample(2, views=9)
    assert np.array_equal(coarse.images, fine.images) and np.array_equal(coarse.disparity, fine.disparity)
    assert 0 < np.abs(coarse.photos.astype(int) - fine.photos).mean() < 10
    assert loaded.light_field(views=9).shape == (81, 32, 32, 3)
    assert run(monkeypatch, "sample", model, "--views", 9, "--count", 1, "--out", tmp_path) == 0
    assert np.abs(np.asarray(Image.open(tmp_path / "0_photo.png")).astype(int) - fine.photos[0]).max() <= 1
    assert run(monkeypatch, "sample", model, "--views", 4, "--out", tmp_path / "new") == 2
    assert "views must be odd" in capsys.readouterr().err


def test_scenes_do_not_depend_on_how_many_are_asked_for(model: Path) -> None:
    loaded = argan.load(model)
    few, many = loaded.sample(2, seed=3), loaded.sample(40, seed=3)
    assert np.abs(few.images.astype(int) - many.images[:2]).max() <= 1, "a batch of another size rounds otherwise"
    assert np.allclose(few.disparity, many.disparity[:2], atol=1e-5)
    assert not np.array_equal(few.images, loaded.sample(2, seed=4).images)


def test_depth_and_bokeh_have_the_photos_own_size(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "depth", model, photo, "--out", tmp_path / "d") == 0
    disparity = np.load(tmp_path / "d" / "photo.disparity.npy")
    assert disparity.shape == (60, 90) and disparity.dtype == np.float32 and np.isfinite(disparity).all()
    assert run(monkeypatch, "bokeh", model, photo, "--aperture", 2, "--focus", "45,30", "--out", tmp_path / "b") == 0
    assert Image.open(tmp_path / "b" / "photo.bokeh.png").size == (90, 60)


def test_the_collections_own_aperture(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    asked = ("bokeh", folder, photo, "--shape", "collection", "--aperture", 4, "--out", tmp_path)
    Iris(None, 3, 2, 400, reason="3 out-of-focus highlights in 2 of 400 photos").save(folder)
    assert run(monkeypatch, *asked) == 2
    message = capsys.readouterr().err
    assert "'meadow'" in message and "3 out-of-focus highlights in 2 of 400" in message and "7 blades" in message
    Iris((1.0,) * RAYS, 30, 9, 400).save(folder)
    made = {}
    for shape in ("collection", "disc", "5 blades"):
        assert run(monkeypatch, *asked[:4], shape, *asked[5:]) == 0
        made[shape] = np.array(Image.open(tmp_path / "photo.bokeh.png")).astype(int)
    off, other = (np.abs(made["collection"] - made[shape]).mean() for shape in ("disc", "5 blades"))
    assert off < 0.2 * other, "a round one is a disc"


def test_a_closed_aperture_gives_the_photo_itself(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "bokeh", model, photo, "--aperture", 0, "--out", tmp_path) == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "photo.bokeh.png")), np.array(Image.open(photo)))


def test_exif_orientation_is_applied(model: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (40, 64), "green").save(tmp_path / "turned.jpg", exif=exif)
    assert argan.load(model).depth(tmp_path / "turned.jpg").shape == (40, 64)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a photo at all", "no photo"), (b"", "no photo"), (b"\x89PNG\r\n\x1a\n\x00\x00", "photo|read")],
)
def test_what_is_no_photo_is_named_and_the_others_are_done(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    content: bytes, words: str,
) -> None:  # fmt: skip
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(content)
    assert run(monkeypatch, "depth", model, bad, photo, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "bad.jpg" in message and "Traceback" not in message
    assert re.search(words, message)
    assert (tmp_path / "out" / "photo.disparity.npy").exists() and not (tmp_path / "out" / "bad.disparity.npy").exists()


def test_a_photo_cut_off_is_named(model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:4000])
    assert run(monkeypatch, "bokeh", model, cut, "--out", tmp_path / "out") == 2
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("depth", "medow", "PHOTO"),
        ("bokeh", "MODEL", "PHOTO", "--aperture", "-1"),
        ("bokeh", "MODEL", "PHOTO", "--aperture", "1e308"),
        ("bokeh", "MODEL", "PHOTO", "--aperture", "nan"),
        ("bokeh", "MODEL", "PHOTO", "--aperture", "wide"),
        ("bokeh", "MODEL", "PHOTO", "--focus", "500,10"),
        ("bokeh", "MODEL", "PHOTO", "--focus", "middle"),
        ("bokeh", "MODEL", "PHOTO", "--shape", "collection"),
        ("sample", "MODEL", "--count", "0"),
        ("sample", "MODEL", "--cuont", "3"),
        ("depth", "MODEL", "missing.jpg"),
        ("bench", "--only", "optik"),
        ("nonsense",),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:  # fmt: skip
    names = {"MODEL": str(model), "PHOTO": str(photo)}
    out = () if arguments[0] in ("bench", "nonsense") else ("--out", tmp_path / "out")
    assert run(monkeypatch, *(names.get(a, a) for a in arguments), *out) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("benchmarks.bench", ("bench",)),
        ("pipelines.flows.retrain", ("retrain", "meadow")),
        ("pipelines.flows.ingest", ("ingest", "roses", "photos")),
    ],
)
def test_commands_of_the_repository_alone_are_refused_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    assert run(monkeypatch, *arguments) == 2
    message = capsys.readouterr().err
    assert "not here; run in the top folder of the repository" in message and message.count("\n") == 1


@pytest.mark.parametrize("damage", ["missing", "half", "foreign", "config"])
def test_a_damaged_model_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("generator.safetensors", "estimator.safetensors", "config.json"):
        (broken / name).write_bytes((model / name).read_bytes())
    weights = broken / "generator.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "half":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "foreign":
        weights.write_bytes((model / "estimator.safetensors").read_bytes())
    else:
        (broken / "config.json").write_text('{"domain": "meadow"')
    assert run(monkeypatch, "sample", broken, "--count", 1, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "broken" in message and message.count("\n") == 1


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys; sys.argv = ['argan', '--help']\nfrom argan import cli\ntry: cli.main()\nexcept SystemExit: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("sample", "depth", "bokeh", "bench", "retrain"))
