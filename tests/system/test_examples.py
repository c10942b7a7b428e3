"""The examples run as they stand, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from argan.meadow import photographs

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.pipeline
def test_a_scene_for_a_3d_tool(untrained: Path, tmp_path: Path) -> None:
    assert "front: " in run("scene.py", untrained, cwd=tmp_path)
    assert "front" in trimesh.load(tmp_path / "scene.glb").geometry
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    run("scene.py", untrained, "photo.png", cwd=tmp_path)
    assert np.array_equal(trimesh.load(tmp_path / "scene.ply").colors[: 40 * 60, :3], photo.reshape(-1, 3))


@pytest.mark.pipeline
def test_depth_for_a_robot_is_the_same_without_torch(untrained: Path, exported: Path, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    output = run("robot.py", exported, "photo.png", untrained, 5, cwd=tmp_path)
    assert "56 x 32: " in output and " ms a frame" in output
    assert float(output.split("difference from torch: ")[1]) < 1e-5
    assert "nearest, of the surer half: " in run("robot.py", exported, cwd=tmp_path)


@pytest.mark.pipeline
def test_a_photographers_style_from_folder_to_finished_photo(make_workspace: Callable, tmp_path: Path) -> None:
    workspace = make_workspace()
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels, _ = photographs(150, 96, 11, depth=False)
    for i, photo in enumerate(pixels):
        Image.fromarray(photo).save(folder / f"{i}.jpg", quality=92)
    own = folder / "0.jpg"
    output = workspace.run("python", str(ROOT / "examples" / "style.py"), str(folder), "garden", str(own))
    assert "150 new photos" in output and "look in finished/" in output
    made = {p.name for p in (workspace.folder / "finished").iterdir()}
    assert {"0.disparity.npy", "0.bokeh.png", "0.webp", "0.views"} <= made
    again = workspace.run("python", str(ROOT / "examples" / "style.py"), str(folder), "garden", str(own))
    assert "0 new photos" in again and "Running stage" not in again
