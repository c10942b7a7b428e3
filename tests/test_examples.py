"""The examples run as they stand, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import argan
from argan import networks
from argan.checkpoint import write_tensors
from argan.export import export_onnx
from argan.files import write_json
from argan.meadow import photographs
from argan.params import training

ROOT = Path(__file__).parent.parent
SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = training("quick", SMALL)
    write_tensors(folder / "generator.safetensors", networks.generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    write_tensors(folder / "estimator.safetensors", student.state_dict())
    write_json(folder / "config.json", {"domain": "meadow", "training": config.model_dump()})
    return folder


def run(name: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_scene_for_a_3d_tool(model: Path, tmp_path: Path) -> None:
    assert "front: " in run("scene.py", model, cwd=tmp_path)
    assert "front" in trimesh.load(tmp_path / "scene.glb").geometry
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    run("scene.py", model, "photo.png", cwd=tmp_path)
    assert np.array_equal(trimesh.load(tmp_path / "scene.ply").colors[: 40 * 60, :3], photo.reshape(-1, 3))


def test_depth_for_a_robot_is_the_same_without_torch(model: Path, tmp_path: Path) -> None:
    export_onnx(argan.load(model), tmp_path / "estimator.onnx")
    photo = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    told = run("robot.py", "estimator.onnx", "photo.png", model, 5, cwd=tmp_path)
    assert "56 x 32: " in told and " ms a frame" in told
    assert float(told.split("difference from torch: ")[1]) < 1e-5
    assert "nearest at column" in run("robot.py", "estimator.onnx", cwd=tmp_path)


@pytest.mark.pipeline
def test_a_photographers_style_from_folder_to_finished_photo(make_workspace: Callable, tmp_path: Path) -> None:
    workspace = make_workspace()
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels, _ = photographs(150, 96, 11, depth=False)
    for i, photo in enumerate(pixels):
        Image.fromarray(photo).save(folder / f"{i}.jpg", quality=92)
    own = folder / "0.jpg"
    told = workspace.run("python", str(ROOT / "examples" / "style.py"), str(folder), "garden", str(own))
    assert "150 new photos" in told and "look in finished/" in told
    made = {p.name for p in (workspace.folder / "finished").iterdir()}
    assert {"0.disparity.npy", "0.bokeh.png", "0.webp", "0.views"} <= made
    again = workspace.run("python", str(ROOT / "examples" / "style.py"), str(folder), "garden", str(own))
    assert "0 new photos" in again and "Running stage" not in again
