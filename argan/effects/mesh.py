"""A photograph in three dimensions: a textured mesh (GLB) and a point cloud (PLY) from its disparity.

The camera is a pinhole at the origin with a horizontal field of view of 45 degrees. Axes are glTF's: +X right, +Y up, and the
camera looks along -Z. The unit of length is the distance at which the camera is focused. A thin lens makes disparity affine in
inverse depth, d = k (1/z - 1), hence

    1/z = max(1 + relief d / k, 1/5),    x = (column + 1/2 - W/2) z / f,    y = (H/2 - row - 1/2) z / f,    f = W / (2 tan 22.5 deg)

for a pixel (column, row) of W x H. k = 1/4 is that of the depth scores (docs/method.md): the widest range a generator may be given
stays in front of infinity, and nothing is farther than five times the focal plane. Neither the field of view nor k nor the true
distance can be known from one photograph: shapes are true up to that, and the absolute scale is arbitrary.

A mesh has no triangle across an edge of an object: there `layers` continues the background, and both layers are in the file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from argan.effects.layered_depth_image import Float, LayeredDepthImage, Pixels, layered_depth_image, limit_size
from argan.errors import UserError

if TYPE_CHECKING:
    import trimesh

FOCAL = 0.5 / math.tan(math.radians(22.5))  # in widths of the photo
APERTURE = 0.25  # k above
FARTHEST = 5.0  # focal planes
CUT = (
    2.5  # pixels of disparity at 512 pixels across: less than 2 % of the distance is a dent in a surface, more an edge
)
REACH = 4.0  # a viewer turns the scene further than an aperture is wide
TEXTURE = 2048  # pixels of the texture's longest side


def scene_depth(disparity: Float, relief: float = 1.0) -> Float:
    """Distance along the camera's axis, 1 at the focal plane, of disparity (...), a fraction of width.

    `relief` stretches depth: 1 is the model's own, 0 is flat. Raises UserError for one below 0.
    """
    if not (math.isfinite(relief) and relief >= 0):
        raise UserError(f"relief must be 0 (flat) or more, got {relief:g}")
    return (1 / np.maximum(1 + relief * np.asarray(disparity, np.float64) / APERTURE, 1 / FARTHEST)).astype(np.float32)


def positions(disparity: Float, relief: float = 1.0) -> Float:
    """Where the pixels of disparity (H, W) lie in space: (H, W, 3)."""
    h, w = disparity.shape
    return _project(*np.mgrid[:h, :w], scene_depth(disparity, relief), h, w)  # type: ignore[call-arg]


def _project(rows: NDArray[Any], columns: NDArray[Any], z: Float, h: int, w: int) -> Float:
    x = (columns + 0.5 - w / 2) * z / (FOCAL * w)
    y = (h / 2 - rows - 0.5) * z / (FOCAL * w)
    return np.stack([x, y, -z], -1).astype(np.float32)


def textured_mesh(photo: Pixels, disparity: Float, longest: int = 512, relief: float = 1.0) -> trimesh.Scene:
    """photo uint8 (H, W, 3), disparity (H, W) -> a scene of geometries "front" and, where anything is hidden, "behind".

    A vertex a pixel of a grid whose longest side is at most `longest`; the texture has up to TEXTURE pixels.
    """
    import trimesh
    from PIL import Image

    scene = trimesh.Scene()
    texture, _ = limit_size(photo, disparity, TEXTURE)
    small, d = limit_size(photo, disparity, longest)
    if min(d.shape) < 2:
        raise UserError(f"a mesh needs a photo of at least 2 pixels each way, got {d.shape[1]} x {d.shape[0]}")
    seen = layered_depth_image(small, d, cut=_edge_limit(d), reach=REACH)
    parts = {"front": (*_front(seen, _edge_limit(d)), texture)}
    if seen.hidden.any():
        parts["behind"] = (*_behind(seen, _edge_limit(d)), seen.background)
    h, w = d.shape
    for name, (rows, columns, pixels, faces, picture) in parts.items():
        z = scene_depth(pixels / w, relief)
        material = trimesh.visual.material.PBRMaterial(
            name=name,
            baseColorTexture=Image.fromarray(picture),
            metallicFactor=0.0,
            roughnessFactor=1.0,
            doubleSided=True,
        )
        uv = np.stack([(columns + 0.5) / w, 1 - (rows + 0.5) / h], -1)
        used, faces = np.unique(faces, return_inverse=True)
        scene.add_geometry(
            trimesh.Trimesh(
                _project(rows, columns, z, h, w)[used],
                faces.reshape(-1, 3),
                visual=trimesh.visual.TextureVisuals(uv=uv[used], material=material),
                process=False,
            ),
            geom_name=name,
            node_name=name,
        )
    return scene


def point_cloud(photo: Pixels, disparity: Float, longest: int = 1024, relief: float = 1.0) -> trimesh.PointCloud:
    """A coloured point a pixel, row by row, and then those that are hidden from the camera."""
    import trimesh

    small, d = limit_size(photo, disparity, longest)
    seen = layered_depth_image(small, d, cut=_edge_limit(d), reach=REACH)
    w = d.shape[1]
    points = [positions(x / w, relief) for x in (seen.disparity, seen.background_disparity)]
    return trimesh.PointCloud(
        np.concatenate([points[0].reshape(-1, 3), points[1][seen.hidden]]),
        np.concatenate([seen.photo.reshape(-1, 3), seen.background[seen.hidden]]),
    )


def write_glb(path: Path, photo: Pixels, disparity: Float, longest: int = 512, relief: float = 1.0) -> None:
    """`textured_mesh` as binary glTF, unlit: the photo has its light already. Written atomically."""
    from trimesh.exchange.gltf import export_glb

    _write(path, ".glb", export_glb(textured_mesh(photo, disparity, longest, relief), tree_postprocessor=_unlit))


def write_ply(path: Path, photo: Pixels, disparity: Float, longest: int = 1024, relief: float = 1.0) -> None:
    """`point_cloud` as binary PLY. Written atomically."""
    _write(path, ".ply", point_cloud(photo, disparity, longest, relief).export(file_type="ply"))


def _unlit(tree: dict[str, Any]) -> None:
    for material in tree["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})


def _write(path: Path, suffix: str, content: bytes) -> None:
    from argan.files import atomic

    if path.suffix.lower() != suffix:
        raise UserError(f"{path} must end in {suffix}")
    with atomic(path) as temporary:
        temporary.write_bytes(content)


Part = tuple[NDArray[Any], NDArray[Any], Float, NDArray[Any]]  # row, column, disparity of vertices; vertices of faces


def _front(seen: LayeredDepthImage, limit: float) -> Part:
    """All the camera saw. A cell across an edge belongs to the near side, continued to its far corners; so the outline of
    an object is where the photo has it, and what lies behind shows the other half."""
    h, w = seen.disparity.shape
    corners, values = _corners(seen.disparity)
    cut = values.max(1) - values.min(1) > limit
    rows, columns = np.divmod(np.arange(h * w), w)
    middle = (values[cut].max(1) + values[cut].min(1)) / 2
    far = values[cut] < middle[:, None]
    near = np.where(far, -np.inf, values[cut]).max(1)
    moved = corners[cut][far]  # corners that get a vertex of their own
    corners = corners.copy()
    edge = corners[cut]
    edge[far] = h * w + np.arange(len(moved))
    corners[cut] = edge
    return (
        np.concatenate([rows, rows[moved]]),
        np.concatenate([columns, columns[moved]]),
        np.concatenate([seen.disparity.ravel(), np.broadcast_to(near[:, None], far.shape)[far]]),
        _triangles(corners),
    )


def _behind(seen: LayeredDepthImage, limit: float) -> Part:
    """The cells of the continued background that something hides."""
    h, w = seen.background_disparity.shape
    corners, values = _corners(seen.background_disparity)
    hidden = seen.hidden.ravel()[corners]
    continuous = hidden.all(1) | hidden.any(1) & (values.max(1) - values.min(1) <= 2 * limit)
    _, front = _corners(seen.disparity)
    continuous |= front.max(1) - front.min(1) > limit  # rather a stretched cell behind an edge than a hole
    rows, columns = np.divmod(np.arange(h * w), w)
    return rows, columns, seen.background_disparity.ravel(), _triangles(corners[continuous])


def _edge_limit(disparity: Float) -> float:
    return max(1.0, CUT * max(disparity.shape) / 512)


def _corners(disparity: Float) -> tuple[NDArray[Any], Float]:
    """The four pixels of every cell, anticlockwise from the upper left, (cells, 4), and their disparity."""
    index = np.arange(disparity.size).reshape(disparity.shape)
    corners = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    return corners, disparity.ravel()[corners]


def _triangles(corners: NDArray[Any]) -> NDArray[Any]:
    """(cells, 4) -> (2 cells, 3), facing the camera."""
    return corners[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
