"""The commands for light fields, three dimensions and the space of scenes: what they write, and what they refuse."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import argan
from argan import cli


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["argan", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_light_field_of_a_photo(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--columns", 3, "--rows", 2, "--out", tmp_path]
    assert run(monkeypatch, "lightfield", untrained, photo, *options) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "photo.gif", "photo.webp", "photo.mp4", "photo.views", "photo_qs3x2a1.5.png",
    }  # fmt: skip
    views = sorted((tmp_path / "photo.views").iterdir())
    assert [p.name for p in views] == [f"{row}_{column}.png" for row in range(5) for column in range(5)]
    assert np.array_equal(pixels(views[12]), pixels(photo)), "from the middle of the aperture it is the photo"
    assert pixels(tmp_path / "photo_qs3x2a1.5.png").shape == (120, 270, 3)
    for suffix in ("gif", "webp"):
        image = Image.open(tmp_path / f"photo.{suffix}")
        assert image.n_frames == 24 and image.info["loop"] == 0 and image.size == (90, 60)  # type: ignore[attr-defined]


def test_the_light_field_of_scenes_is_the_models_own(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "lightfield", untrained, "--count", 2, "--seed", 4, "--out", tmp_path) == 0
    own = argan.load(untrained).light_field(1, 4)
    for i in (0, 12, 24):
        shown = pixels(tmp_path / "1.views" / f"{i // 5}_{i % 5}.png")
        assert shown.shape == (256, 256, 3), "scenes of 32 pixels are shown larger"
        small = shown.reshape(32, 8, 32, 8, 3).mean((1, 3))
        assert np.abs(small - own[i]).mean() < 6
    assert (tmp_path / "0.webp").exists() and (tmp_path / "1_qs8x6a1.png").exists()


def test_meshes_of_a_photo_and_of_a_scene(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "mesh", untrained, photo, "--out", tmp_path) == 0
    assert run(monkeypatch, "mesh", untrained, "--relief", 0, "--size", 64, "--out", tmp_path) == 0
    front = trimesh.load(tmp_path / "photo.glb").geometry["front"]
    texture = front.visual.material.baseColorTexture
    assert len(front.faces) >= 2 * 59 * 89 and np.array_equal(np.asarray(texture.convert("RGB")), pixels(photo))
    cloud = trimesh.load(tmp_path / "photo.ply")
    assert len(cloud.vertices) >= 60 * 90 and np.array_equal(cloud.colors[: 60 * 90, :3], pixels(photo).reshape(-1, 3))
    flat = trimesh.load(tmp_path / "0.glb")
    assert np.allclose(flat.bounds[:, 2], -1), "without relief all of it lies in the focal plane, at distance 1"
    assert len(flat.geometry["front"].vertices) == 64 * 64


def test_a_walk_through_scenes(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--from", 1, "--from", 2, "--frames", 3, "--out", tmp_path]
    assert run(monkeypatch, "interpolate", untrained, *arguments) == 0
    walk = Image.open(tmp_path / "interpolation.webp")
    assert walk.n_frames == 6 and walk.size == (512, 256)  # type: ignore[attr-defined]
    assert {p.suffix for p in tmp_path.iterdir()} == {".gif", ".webp", ".mp4"}


def test_a_projection_tells_how_near_it_came(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps", 3, "--starts", 2, "--out", tmp_path]
    assert run(monkeypatch, "project", untrained, photo, *arguments) == 0
    numbers = json.loads((tmp_path / "photo.json").read_text())
    assert numbers["rmse"] > 0.75 * min(numbers["rmse_mean"], numbers["rmse_flat"])
    assert "it is another scene" in capsys.readouterr().out, "of noise"
    latent = np.load(tmp_path / "photo.latent.npy")[None]
    assert np.allclose(argan.load(untrained).scenes(latent).disparity[0], np.load(tmp_path / "photo.disparity.npy"))
    assert Image.open(tmp_path / "photo.gif").n_frames > 5  # type: ignore[attr-defined]
    assert Image.open(tmp_path / "photo.png").width > 4 * 256


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("lightfield MODEL text.jpg", "text.jpg is no photo in a known format"),
        ("lightfield MODEL huge.png", "more than 120 million"),
        ("mesh MODEL animation.gif", "is an animation"),
        ("mesh MODEL missing.png", "missing.png is not there"),
        ("mesh MODEL line.png", "at least 2 pixels each way"),
        ("mesh BARE photo.png", "estimator.safetensors is not there"),
        ("lightfield MODEL photo.png --out taken", "choose another --out"),
        ("mesh MODEL photo.png --relief -1", "--relief"),
        ("lightfield MODEL photo.png --parallax -0.1", "--parallax"),
        ("project MODEL line.png", "the model needs at least 32 each way"),
        ("project MODEL .", "is a folder"),
        ("interpolate MODEL --from 1", "--from SEED twice or more"),
        ("export MODEL --out folder.onnx", "is a folder"),
        ("export MODEL --out a.pt", "must end in .onnx"),
    ],
)
def test_bad_input_gets_one_line(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, reason: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("no photo")
    Image.new("1", (12_000, 11_000)).save("huge.png")
    Image.new("RGB", (1, 40)).save("line.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save("animation.gif", save_all=True, append_images=frames[1:])
    Path("photo.png").write_bytes(photo.read_bytes())
    Path("taken").touch()
    Path("folder.onnx").mkdir()
    Path("bare").mkdir()
    for name in ("config.json", "generator.safetensors"):
        (Path("bare") / name).write_bytes((untrained / name).read_bytes())
    before = sorted(Path().rglob("*"))
    names = {"MODEL": str(untrained), "BARE": "bare"}
    arguments = [names.get(word, word) for word in command.split()]
    out = [] if "--out" in arguments else ["--out", "made"]
    assert run(monkeypatch, *arguments, *out) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and reason in message and len(message.splitlines()) == 1
    left = [p for p in sorted(Path().rglob("*")) if p not in before]
    assert left in ([], [Path("made")]), "no file is left, half made or whole"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("lightfield MODEL walk.webp IMG_1.jpg", "walk.webp is one of the photographs"),
        ("lightfield MODEL IMG_1.jpg", "IMG_1.mp4 is there already, beside the photograph"),
        ("project MODEL scan.png", "scan.png is one of the photographs"),
        ("project MODEL scan.jpg", "scan.png is there already, beside the photograph"),
        ("depth MODEL walk.webp walk.depth.png", "walk.depth.png is one of the photographs"),
        ("depth MODEL scan.jpg scan.png", "scan.jpg and scan.png would both become"),
        ("depth MODEL scan.jpg SCAN.PNG", "scan.jpg and SCAN.PNG would both become"),
        ("depth MODEL caf\u00e9.jpg cafe\u0301.png", "would both become"),
        ("mesh MODEL other/walk.webp walk.webp", "other/walk.webp and walk.webp would both become"),
    ],
)
def test_results_never_replace_what_is_there(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, reason: str,
) -> None:  # fmt: skip
    """An album: a phone's picture with its clip, a scan with its sidecar, an earlier result taken for a photograph."""
    monkeypatch.chdir(tmp_path)
    Path("other").mkdir()
    names = ("walk.webp", "walk.depth.png", "IMG_1.jpg", "IMG_1.mp4", "scan.png", "scan.jpg", "SCAN.PNG", "scan.json")
    for name in (*names, "caf\u00e9.jpg", "cafe\u0301.png", "other/walk.webp"):
        Path(name).write_bytes(photo.read_bytes() + name.encode())
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    arguments = [str(untrained) if word == "MODEL" else word for word in command.split()]
    assert run(monkeypatch, *arguments, "--out", ".") == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_name_too_long_for_its_results_is_one_line_and_the_others_are_done(
    untrained: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        "x" * 251 + ".png",
        "y" * 235 + ".png",
        os.fsdecode(b"caf\xe9.png"),
    )  # 255 bytes; just short enough; no text
    for name in names:
        (tmp_path / name).write_bytes(photo.read_bytes())
    photos = [tmp_path / name for name in names]
    assert run(monkeypatch, "depth", untrained, *photos, photos[1], "--out", tmp_path / "out") == 2
    output = capsys.readouterr()
    assert (
        "too long for the name of a file" in output.err
        and output.err.count("\n") <= 3
        and "2 of 3 photos done" in output.out
    )
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".npy", ".png"}
    assert len(list((tmp_path / "out").iterdir())) == 6
