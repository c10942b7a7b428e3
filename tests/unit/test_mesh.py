"""Meshes and point clouds: where vertices lie, that edges are cut, and that other programs read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from argan.effects.mesh import point_cloud, positions, scene_depth, textured_mesh, write_glb, write_ply
from argan.errors import UserError

FOCAL = 1.2071067811865475  # in widths: half of the width over the tangent of 22.5 degrees


def two_planes() -> tuple[np.ndarray, np.ndarray]:
    photo = np.random.default_rng(0).integers(0, 100, (48, 64, 3), np.uint8)
    disparity = np.full((48, 64), -0.06, np.float32)
    photo[16:32, 20:44], disparity[16:32, 20:44] = (250, 0, 0), 0.06
    return photo, disparity


def test_depth_is_affine_in_inverse_distance_and_bounded() -> None:
    assert scene_depth(np.array([0.0, 0.25, -0.125])).tolist() == [1, 0.5, 2]
    assert scene_depth(np.array([-1.0])) == 5 and scene_depth(np.array([0.2]), relief=0) == 1
    for relief in (-1, float("nan")):
        with pytest.raises(UserError, match="relief"):
            scene_depth(np.zeros(1), relief)


def test_the_camera_sees_45_degrees_across_its_width() -> None:
    """The outer edges of the first and the last column lie 22.5 degrees off the axis, whatever the height."""
    for height in (10, 40):
        row = positions(np.zeros((height, 40), np.float32))[0]
        pixel = row[1, 0] - row[0, 0]
        left, right = row[0, 0] - pixel / 2, row[-1, 0] + pixel / 2
        assert np.degrees(np.arctan([-left, right])) == pytest.approx([22.5, 22.5], abs=1e-3)


def test_pixels_project_back_to_where_they_came_from() -> None:
    disparity = np.random.default_rng(0).uniform(-0.1, 0.1, (30, 40)).astype(np.float32)
    x, y, z = np.moveaxis(positions(disparity), -1, 0)
    assert (z < 0).all(), "the camera looks along -Z"
    assert y[0, 0] > 0 > y[-1, 0] and x[0, 0] < 0 < x[0, -1], "+Y is up, +X is right"
    rows, columns = np.mgrid[:30, :40]
    assert np.allclose(x / -z * FOCAL * 40 + 20 - 0.5, columns, atol=1e-4)
    assert np.allclose(15 - y / -z * FOCAL * 40 - 0.5, rows, atol=1e-4)


def test_the_texture_lies_upright_on_the_mesh() -> None:
    """Looked up as viewers do: the colour of every vertex is the photo's, at the place that the vertex projects to."""
    rows, columns = np.mgrid[:24, :40]
    photo = np.stack([rows * 10, columns * 6, np.full_like(rows, 50)], -1).astype(np.uint8)
    front = textured_mesh(photo, np.zeros((24, 40), np.float32)).geometry["front"]
    colour = np.asarray(front.visual.to_color().vertex_colors)[:, :3].astype(int)
    x, y = front.vertices[:, 0], front.vertices[:, 1]  # all at a distance of 1
    assert np.corrcoef(colour[:, 0], -y)[0, 1] > 0.99, "red grows downwards"
    assert np.corrcoef(colour[:, 1], x)[0, 1] > 0.99, "green grows to the right"


def test_no_triangle_spans_an_edge_and_all_face_the_camera() -> None:
    photo, disparity = two_planes()
    scene = textured_mesh(photo, disparity)
    assert set(scene.geometry) == {"front", "behind"}
    for part in scene.geometry.values():
        corners = part.vertices[part.faces]
        assert np.ptp(corners[..., 2], 1).max() < 0.05, "near is at 0.81, far at 1.32"
        facing = np.einsum(
            "fi,fi->f", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]
        )
        assert (facing < 0).all()
    behind = scene.geometry["behind"]
    assert np.allclose(behind.vertices[:, 2], -scene_depth(np.float32(-0.06)), atol=1e-3)
    plate = np.asarray(behind.visual.material.baseColorTexture)
    columns = (behind.visual.uv[:, 0] * 64 - 0.5).round().astype(int)
    rows = ((1 - behind.visual.uv[:, 1]) * 48 - 0.5).round().astype(int)
    assert not (plate[rows, columns, 0] > 150).any(), "what is hidden is background, and nothing of the red square"


def test_the_front_fills_the_frame_as_the_camera_saw_it() -> None:
    """No gap: projected back, the front's triangles cover every pixel's square exactly as often as without edges or more."""
    front = textured_mesh(*two_planes()).geometry["front"]
    at = front.vertices[:, :2] / -front.vertices[:, 2:] * FOCAL * 64
    a, b, c = np.moveaxis(at[front.faces], 1, 0)
    area = np.abs((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])).sum() / 2
    assert area == pytest.approx(63 * 47, rel=1e-3)


def test_glb_round_trip(tmp_path: Path) -> None:
    photo, disparity = two_planes()
    path = tmp_path / "a.glb"
    write_glb(path, photo, disparity)
    again, made = trimesh.load(path), textured_mesh(photo, disparity)
    for name, part in made.geometry.items():
        assert np.allclose(again.geometry[name].vertices, part.vertices, atol=1e-6)
        assert np.array_equal(again.geometry[name].faces, part.faces)
        assert np.allclose(again.geometry[name].visual.uv, part.visual.uv, atol=1e-6)
    texture = again.geometry["front"].visual.material.baseColorTexture
    assert np.array_equal(np.asarray(texture.convert("RGB")), photo)
    content = path.read_bytes()
    assert content[:4] == b"glTF"
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert int.from_bytes(content[8:12], "little") == len(content) and len(content) % 4 == 0
    assert len(tree["images"]) == 2 and not any("uri" in x for x in tree["images"] + tree["buffers"]), "all in one file"
    for mesh in tree["meshes"]:
        (primitive,) = mesh["primitives"]
        position = tree["accessors"][primitive["attributes"]["POSITION"]]
        assert len(position["min"]) == len(position["max"]) == 3, "viewers ask for the bounds"
        assert {"TEXCOORD_0"} <= set(primitive["attributes"]) and "material" in primitive
    assert "KHR_materials_unlit" in tree["extensionsUsed"]
    assert all("KHR_materials_unlit" in m["extensions"] for m in tree["materials"])


def test_ply_round_trip(tmp_path: Path) -> None:
    photo, disparity = two_planes()
    disparity[:] = 0.02
    write_ply(tmp_path / "a.ply", photo, disparity)
    again = trimesh.load(tmp_path / "a.ply")
    assert np.allclose(again.vertices, positions(disparity).reshape(-1, 3), atol=1e-6)
    assert np.array_equal(again.colors[:, :3], photo.reshape(-1, 3))
    photo, disparity = two_planes()
    assert len(point_cloud(photo, disparity).vertices) > photo[..., 0].size, "hidden points come after"


@pytest.mark.parametrize("shape", [(2, 2), (1, 5), (40, 2)])
def test_small_and_flat(tmp_path: Path, shape: tuple[int, int]) -> None:
    photo, disparity = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32)
    if 1 in shape:
        with pytest.raises(UserError, match="2 pixels"):
            write_glb(tmp_path / "a.glb", photo, disparity)
    else:
        write_glb(tmp_path / "a.glb", photo, disparity)
        assert set(trimesh.load(tmp_path / "a.glb").geometry) == {"front"}


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.ply"):
        write_ply(tmp_path / "a.obj", *two_planes())
