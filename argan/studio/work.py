"""What the page shows, made with a model. No server and no state here: arrays and bytes in, arrays and bytes out."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from argan import lightfield, mesh, networks, pictures
from argan.errors import UserError
from argan.model import Estimate, Model

Pixels = NDArray[np.uint8]
Float = NDArray[Any]  # float32

GRID = 12  # scenes shown at a time
VIEWS = 5  # of a light field, across and down
SHOWN = 384  # pixels across a scene on the page, at least
PREVIEW = 1_000_000  # pixels of a photo's preview at most; a draft, while the hand moves, has DRAFT
DRAFT = 360_000
RELIEF = 640  # longest side, in pixels, of what moves on the page
PARALLAX = 0.03  # of its width, either way


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

    @cached_property
    def shown(self) -> tuple[Pixels, Float]:
        """Image and disparity at the size at which they are looked at and moved about."""
        longest = max(self.disparity.shape)
        ratio = min(max(1.0, SHOWN / longest), RELIEF / longest)
        return (self.image, self.disparity) if ratio == 1 else (resized(self.image, ratio), resized(self.disparity, ratio))

    @cached_property
    def field(self) -> lightfield.Field:
        """Its light field, as deep as eyes find pleasant."""
        image, disparity = self.shown
        return lightfield.Field(image, lightfield.settled(disparity, PARALLAX))

    @cached_property
    def views(self) -> Pixels:
        """(25, H, W, 3), row by row from the top left."""
        return self.field.views(lightfield.aperture_grid(VIEWS))


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
    photos = model.generator.photograph(image, disparity, torch.ones(len(wanted)))
    images, taken = networks.to_uint8(image), networks.to_uint8(photos)
    return [Relief(images[i], disparity[i, 0].numpy(), taken[i]) for i in range(len(wanted))]


# ---- Photographs -----------------------------------------------------------------------------------------------------


def reduced(pixels: NDArray[Any], area: int) -> Pixels:
    """At most `area` pixels in 8 bits, antialiased."""
    seen = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    ratio = (area / (seen.shape[0] * seen.shape[1])) ** 0.5
    return seen if ratio >= 1 else resized(seen, ratio)


def resized(picture: NDArray[Any], ratio: float) -> Any:
    size = (max(1, round(picture.shape[1] * ratio)), max(1, round(picture.shape[0] * ratio)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LANCZOS4)


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


EXPORTS = {  # kind: end of the file's name
    "image": ".in-focus.png",
    "photo": ".photo.png",
    "depth": ".depth.png",
    "disparity": ".disparity.npy",
    "animation": ".light-field.webp",
    "quilt": ".quilt.png",
    "glb": ".glb",
    "ply": ".ply",
}


def export(made: Relief, kind: str, path: Path) -> Path:
    """Write one of EXPORTS; the path it has in the end."""
    if kind in ("image", "photo", "depth"):
        picture = {"image": made.image, "photo": made.photo, "depth": depth(made.disparity)}[kind]
        pictures.write_png(path, picture)
    elif kind == "disparity":
        with path.open("wb") as file:
            np.save(file, made.disparity)
    elif kind == "animation":
        lightfield.write_animation(made.field.views(lightfield.circle()), path)
    elif kind == "quilt":
        columns, rows = 8, 6
        h, w = made.shown[1].shape
        path = path.with_name(lightfield.quilt_name(path.name.removesuffix(".quilt.png"), columns, rows, w / h))
        views = made.field.views(lightfield.sweep(columns * rows))
        pictures.write_png(path, lightfield.quilt(views, columns, rows))
    elif kind == "glb":
        mesh.write_glb(path, *made.shown)
    elif kind == "ply":
        mesh.write_ply(path, *made.shown)
    else:
        raise UserError(f"there is no download '{kind}'; there is: {', '.join(EXPORTS)}")
    return path
