"""What the page shows, made with a model. No server and no state here: arrays and bytes in, arrays and bytes out."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from argan import networks, pictures
from argan.errors import UserError
from argan.model import Estimate, Model

Pixels = NDArray[np.uint8]
Float = NDArray[Any]  # float32

GRID = 12  # scenes shown at a time
VIEWS = 5  # of a light field, across and down
SHOWN = 384  # pixels across a scene on the page, at least
PREVIEW = 1_000_000  # pixels of a photo's preview at most; a draft, while the hand moves, has DRAFT
DRAFT = 360_000
RELIEF = 640  # longest side of what becomes a light field or a mesh of a photo


@dataclass(frozen=True)
class Scene:
    """The address of a scene: latent `index` of `seed`, scaled by `truncation`; or `at` (0..1) of the way on to `to`."""

    seed: int = 1
    index: int = 0
    truncation: float = 1.0
    to: int | None = None
    at: float = 0.0

    def checked(self) -> Scene:
        """Itself. Raises UserError for numbers that name no scene."""
        if not 0 <= self.seed < 2**53:
            raise UserError(f"seed must be a whole number from 0 on, got {self.seed}")
        if not 0 <= self.truncation <= 2:
            raise UserError(f"truncation must be from 0 to 2, got {self.truncation:g}")
        if not all(0 <= i < 10_000 for i in (self.index, self.to or 0)) or not 0 <= self.at <= 1:
            raise UserError("there is no such scene: index and to count from 0, at lies between 0 and 1")
        return self


@dataclass(frozen=True)
class Relief:
    """What has depth: a generated scene, or a photograph."""

    image: Pixels  # (H, W, 3), all in focus
    disparity: Float  # (H, W), larger = nearer, fraction of the width
    photo: Pixels  # (H, W, 3), through the full aperture; of a photograph, itself
    views: Pixels  # (25, H, W, 3), row by row from the top left


# ---- Scenes ----------------------------------------------------------------------------------------------------------


def latent(model: Model, scene: Scene) -> Float:
    """(Z,) float32: the latents of `Model.sample`; between two, on the great circle, where latents of the same length lie."""

    def draw(index: int) -> Float:
        return np.random.default_rng([scene.seed, index]).standard_normal(model.config.latent, np.float32)

    z = draw(scene.index)
    if scene.to is not None:
        end = draw(scene.to)
        angle = np.arccos(np.clip(z @ end / (np.linalg.norm(z) * np.linalg.norm(end)), -1, 1))
        if angle > 1e-4:
            z = (np.sin((1 - scene.at) * angle) * z + np.sin(scene.at * angle) * end) / np.sin(angle)
    return (z * scene.truncation).astype(np.float32)


@torch.inference_mode()
def scenes(model: Model, wanted: list[Scene]) -> list[Relief]:
    """All of them in one pass."""
    image, disparity = model.generator(torch.from_numpy(np.stack([latent(model, scene) for scene in wanted])))
    full = torch.ones(len(wanted))
    views = model.generator.views(image, disparity, full)
    photos = model.generator.photograph(image, disparity, full)
    images, taken = networks.to_uint8(image), networks.to_uint8(photos)
    return [
        Relief(images[i], disparity[i, 0].numpy(), taken[i], networks.to_uint8(views[i])) for i in range(len(wanted))
    ]


# ---- Photographs -----------------------------------------------------------------------------------------------------


def reduced(pixels: NDArray[Any], area: int) -> Pixels:
    """At most `area` pixels in 8 bits, antialiased."""
    seen = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    ratio = (area / (seen.shape[0] * seen.shape[1])) ** 0.5
    return seen if ratio >= 1 else resized(seen, ratio)


def resized(picture: NDArray[Any], ratio: float) -> Any:
    size = (max(1, round(picture.shape[1] * ratio)), max(1, round(picture.shape[0] * ratio)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LANCZOS4)


def relief(pixels: Pixels, said: Estimate) -> Relief:
    """A photograph and its depth, small enough to be moved about."""
    ratio = min(1.0, RELIEF / max(pixels.shape[:2]))
    image, disparity = resized(pixels, ratio), resized(said.disparity, ratio)
    return Relief(image, disparity, image, _views(image, disparity))


def _views(image: Pixels, disparity: Float) -> Pixels:
    """The photograph from 25 places in the aperture. (H, W, 3) -> (25, H, W, 3)."""
    h, w = disparity.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    found = []
    for v in np.linspace(-1, 1, VIEWS):
        for u in np.linspace(-1, 1, VIEWS):
            d = disparity * np.float32(w)
            moved = cv2.remap(d, x + np.float32(u) * d, y + np.float32(v) * d, cv2.INTER_LINEAR)
            found.append(
                cv2.remap(
                    image,
                    x + np.float32(u) * moved,
                    y + np.float32(v) * moved,
                    cv2.INTER_LINEAR,
                    borderMode=cv2.BORDER_REPLICATE,
                )
            )
    return np.stack(found)


def confidence(pixels: Pixels, said: Float) -> Pixels:
    """The photo as it is where the model is sure of the depth, fading to a flat grey where it is not."""
    share = np.clip((said - 0.3) / 0.6, 0, 1)[..., None]
    return (pixels * share + 128 * (1 - share)).astype(np.uint8)


def depth(disparity: Float) -> Pixels:
    """In colours over its own range: red is near, blue is far."""
    return pictures.disparity_colors(disparity, max(float(np.abs(disparity).max()), 1e-6))


# ---- Files -----------------------------------------------------------------------------------------------------------


def enlarged(picture: Pixels) -> Pixels:
    """A small picture as large as the page shows it, smooth."""
    ratio = SHOWN / picture.shape[1]
    return picture if ratio <= 1 else resized(picture, ratio)


def encoded(picture: Pixels, kind: str = "WEBP", icc: bytes | None = None, quality: int = 88) -> bytes:
    """A picture (H, W, 3) or (H, W) as a file's content, in the colours of its profile."""
    out = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 4} if kind == "PNG" else {"quality": quality}
    if kind == "WEBP":
        options["method"] = 2
    Image.fromarray(picture).save(out, kind, icc_profile=icc, **options)
    return out.getvalue()


def sheet(views: Pixels) -> Pixels:
    """All views as one picture, row by row from the top left."""
    n, h, w, _ = views.shape
    side = round(n**0.5)
    return views.reshape(side, side, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(side * h, side * w, 3)


EXPORTS = {  # kind: (end of the file's name, what a photographer reads)
    "image": ("in-focus.png", "image in focus"),
    "photo": ("photo.png", "photo"),
    "depth": ("depth.png", "picture of the depth"),
    "disparity": ("disparity.npy", "disparity as numbers"),
    "light_field": ("light-field.gif", "light field, moving"),
    "quilt": ("quilt.png", "light field, all views"),
    "glb": ("scene.glb", "textured mesh"),
    "ply": ("scene.ply", "coloured points"),
}


def export(made: Relief, kind: str, path: Path) -> None:
    """Write one of EXPORTS."""
    if kind in ("image", "photo", "depth"):
        picture = {"image": made.image, "photo": made.photo, "depth": depth(made.disparity)}[kind]
        pictures.write_png(path, picture)
    elif kind == "disparity":
        with path.open("wb") as file:
            np.save(file, made.disparity)
    elif kind == "light_field":
        pictures.light_field_gif(made.views, path, upscale=max(1, 256 // made.image.shape[1]))
    elif kind == "quilt":
        pictures.write_png(path, sheet(made.views))
    elif kind in ("glb", "ply"):
        path.write_bytes(glb(made) if kind == "glb" else ply(made))
    else:
        raise UserError(f"there is no download '{kind}'; there is: {', '.join(EXPORTS)}")


def _grid(made: Relief, side: int = 256) -> tuple[Float, Float]:
    """Vertices (N, 3), the frame one unit wide, y up, near towards the viewer; and where in the frame (N, 2) each is."""
    ratio = side / max(made.disparity.shape)
    disparity = resized(made.disparity, ratio)
    h, w = disparity.shape
    x, y = np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h)
    place = np.stack([x - 0.5, (0.5 - y) * h / w, disparity * 2.0], -1)
    return place.reshape(-1, 3).astype(np.float32), np.stack([x, 1 - y], -1).reshape(-1, 2)


def glb(made: Relief) -> bytes:
    """A textured relief: glTF binary."""
    import trimesh

    ratio = 256 / max(made.disparity.shape)
    h, w = resized(made.disparity, ratio).shape
    vertices, uv = _grid(made)
    at = np.arange(h * w).reshape(h, w)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(enlarged(made.image)), roughnessFactor=1.0, metallicFactor=0.0
    )
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh = trimesh.Trimesh(vertices, faces, visual=visual, process=False)
    return bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh)))


def ply(made: Relief) -> bytes:
    import trimesh

    vertices, uv = _grid(made)
    h, w = made.image.shape[:2]
    colours = made.image[np.minimum(((1 - uv[:, 1]) * h).astype(int), h - 1), np.minimum((uv[:, 0] * w).astype(int), w - 1)]
    return bytes(trimesh.exchange.ply.export_ply(trimesh.PointCloud(vertices, colours)))


# ---- The model card --------------------------------------------------------------------------------------------------


def card(model: Model) -> tuple[str, dict[str, Any], list[Path]]:
    """Markdown of the model card, metrics, and pictures; each empty where the folder has none."""
    folder = model.folder
    if folder is None:
        return "", {}, []
    file = folder / "card.md"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    metrics: dict[str, Any] = {}
    for place in (folder / "evaluation" / "metrics.json", folder.parent.parent / "metrics" / f"{model.domain}.json"):
        if place.exists():
            try:
                metrics = json.loads(place.read_text(encoding="utf-8"))
                break
            except (OSError, ValueError):
                continue
    return text, metrics, sorted((folder / "samples").glob("*.png"))
