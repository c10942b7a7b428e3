"""What the page shows, made with a model. No server and no state here: arrays and bytes in, arrays and bytes out."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan import visualization as pictures
from argan.effects import lightfield, mesh
from argan.effects.animation import write_animation
from argan.effects.aperture_shape import Shape
from argan.effects.bokeh import refocus
from argan.effects.layered_depth_image import limit_size
from argan.errors import UserError
from argan.inference import latents
from argan.inference.model import Model

Pixels = NDArray[np.uint8]
Float = NDArray[Any]  # float32

GRID = 12  # scenes shown at a time
SEEDS = 2**31  # a page counts no further
VIEWS = 5  # of a light field, across and down
SHOWN = 512  # pixels across a scene on the page, at least
PREVIEW = 1_000_000  # pixels of a photograph on the page, at most
SPACE = 512  # longest side, in pixels, of what turns and moves
ORBIT = 256  # vertices of the mesh on the page, along its longest side
PARALLAX = 0.03  # of its width, either way


@dataclass(frozen=True)
class SceneAddress:
    """The address of a scene: latent `index` of `seed`, scaled by `truncation`; or `at` (0..1) of the way on to `to`."""

    seed: int = 1
    index: int = 0
    truncation: float = 1.0
    to: int | None = None
    at: float = 0.0

    def __post_init__(self) -> None:
        """Raises UserError for numbers that name no scene."""
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be a whole number from 0 to {SEEDS - 1}, got {self.seed}")
        if not 0 <= self.truncation <= 2:
            raise UserError(f"truncation must be from 0 to 2, got {self.truncation:g}")
        if not all(0 <= i < 10_000 for i in (self.index, self.to or 0)) or not 0 <= self.at <= 1:
            raise UserError(
                "there is no such scene: they count from 0 to 9999, and the way from one to another from 0 to 1"
            )

    @property
    def name(self) -> str:
        if self.to is None:
            return f"SceneAddress {self.index} of seed {self.seed}"
        return f"{self.at:.0%} of the way from scene {self.index} to {self.to} of seed {self.seed}"

    @property
    def address(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def neighbours(scene: SceneAddress) -> list[SceneAddress]:
    """The grid that a scene is seen in, made in one pass since the page asks for all of it. It may not hold the scene."""
    if scene.to is None:
        return [SceneAddress(scene.seed, i, scene.truncation) for i in range(GRID)]
    return [SceneAddress(scene.seed, scene.index, scene.truncation, scene.to, step(i)) for i in range(GRID)]


def step(i: int) -> float:
    """How far tile `i` of the grid is on the way between two scenes."""
    return round(i / (GRID - 1), 4)


@dataclass(frozen=True)
class DepthImage:
    """What has depth: a generated scene, or a photograph."""

    image: Pixels  # (H, W, 3), all in focus; a photograph as it is
    disparity: Float  # (H, W), larger = nearer, fraction of the width
    photo: Pixels  # (H, W, 3), through the full aperture; a photograph as it is
    confidence: Float | None = None  # (H, W) in 0..1, of a photograph
    warning: str | None = None
    icc: bytes | None = None
    opening: Callable[[str], Shape] = str  # see `Model.aperture_shape`

    @cached_property
    def shown(self) -> tuple[Pixels, Float]:
        """Image and disparity at the size at which they are looked at: a small scene is made larger."""
        ratio = max(1.0, SHOWN / self.disparity.shape[1])
        return resized(self.image, ratio), resized(self.disparity, ratio)

    @cached_property
    def space(self) -> tuple[Pixels, Float]:
        """The same for moving about in it."""
        return limit_size(*self.shown, SPACE)

    @cached_property
    def field(self) -> lightfield.LightField:
        """Its light field, as deep as eyes find pleasant."""
        image, disparity = self.space
        return lightfield.LightField(image, lightfield.scale_parallax(disparity, PARALLAX))

    def through(self, aperture: float, focus: tuple[float, float], shape: str, pixels: float = float("inf")) -> Pixels:
        """As an aperture would see it, at most so many pixels large. Raises UserError as `refocus` does."""
        if not (0 <= focus[0] <= 1 and 0 <= focus[1] <= 1):
            raise UserError(
                f"the focus is outside the picture: {focus[0]:g},{focus[1]:g} must be fractions of it, 0 to 1"
            )
        ratio = min(1.0, (pixels / self.shown[1].size) ** 0.5)
        image, disparity = (resized(x, ratio) for x in self.shown)
        return refocus(image, disparity, aperture, focus, self.opening(shape))


def generate(model: Model, wanted: Sequence[SceneAddress]) -> list[DepthImage]:
    """All of them in one pass; the scenes of `argan sample`."""

    def latent(scene: SceneAddress) -> Float:
        ends = model.latents([scene.index, scene.to or 0], scene.seed, scene.truncation)
        return ends[0] if scene.to is None else latents.slerp(ends[0], ends[1], scene.at)

    scenes = model.scenes(np.stack([latent(scene) for scene in wanted]))
    parts = zip(scenes.images, scenes.disparity, scenes.photos, strict=True)
    return [DepthImage(*part, opening=model.aperture_shape) for part in parts]


def estimate_photo(model: Model, preview: Pixels, icc: bytes | None) -> DepthImage:
    """What a model says of a photograph at the page's size. Raises UserError for a model that cannot say."""
    if model.folder and not (model.folder / "estimator.safetensors").exists():
        raise UserError(f"this model of {model.domain} has no depth estimator: pick another version for photographs")
    estimate = model.estimate(preview)
    return DepthImage(
        preview, estimate.disparity, preview, estimate.confidence, estimate.warning, icc, model.aperture_shape
    )


# Pictures


def resized(picture: NDArray[Any], ratio: float) -> Any:
    if ratio == 1:
        return picture
    size = (max(1, round(picture.shape[1] * ratio)), max(1, round(picture.shape[0] * ratio)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)


def reduced(pixels: Pixels) -> Pixels:
    """At most PREVIEW pixels, antialiased."""
    return resized(pixels, min(1.0, (PREVIEW / (pixels.shape[0] * pixels.shape[1])) ** 0.5))  # type: ignore[no-any-return]


def depth(source: DepthImage) -> Pixels:
    """In colours over its own range: red is near, blue is far."""
    return pictures.depth_colors(source.shown[1])


def confidence(source: DepthImage) -> Pixels:
    """The picture where the model is sure of the depth, fading to grey where it is not. A scene's depth is sure."""
    if source.confidence is None:
        return source.shown[0]
    share = np.clip((source.confidence - 0.3) / 0.6, 0, 1)[..., None]
    return (source.image * share + 128 * (1 - share)).astype(np.uint8)


def tile(source: DepthImage) -> Pixels:
    return resized(source.photo, max(1.0, SHOWN / 2 / source.photo.shape[1]))  # type: ignore[no-any-return]


def sheet(source: DepthImage) -> Pixels:
    """All views of the light field as one picture, row by row from the top left."""
    views = source.field.views(lightfield.aperture_grid(VIEWS))
    _, h, w, _ = views.shape
    return views.reshape(VIEWS, VIEWS, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(VIEWS * h, VIEWS * w, 3)


def jpeg(picture: Pixels, icc: bytes | None = None) -> bytes:
    """As a file's content, in the colours of its profile."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90, icc_profile=icc)
    return out.getvalue()


# Files


def write_orbit(source: DepthImage, path: Path) -> None:
    """A mesh for the page, light enough for a phone."""
    mesh.write_glb(path, *source.space, longest=ORBIT)


EXPORTS = {  # what the page calls it: end of the file's name
    "Mesh (GLB)": ".glb",
    "Point cloud (PLY)": ".ply",
    "Moving picture (WebP)": ".webp",
    "Moving picture (GIF)": ".gif",
    "Quilt for a holographic display": ".png",
    "Depth (PNG)": ".depth.png",
    "Disparity (NPY)": ".disparity.npy",
}


def export(source: DepthImage, kind: str, path: Path) -> Path:
    """Write one of EXPORTS beside `path`, a name without an end; the path it has in the end. Raises UserError."""
    if kind not in EXPORTS:
        raise UserError(f"there is no download '{kind}'; there is: {', '.join(EXPORTS)}")
    target = path.with_name(path.name + EXPORTS[kind])
    if target.suffix == ".glb":
        mesh.write_glb(target, *source.space)
    elif target.suffix == ".ply":
        mesh.write_ply(target, *source.shown)
    elif target.suffix in (".webp", ".gif"):
        write_animation(source.field.views(lightfield.circle()), target)
    elif target.suffix == ".npy":
        np.save(target, source.disparity)
    elif kind == "Depth (PNG)":
        pictures.write_png(target, depth(source))
    else:
        columns, rows = 8, 6
        h, w = source.space[1].shape
        target = path.with_name(lightfield.quilt_name(path.name, columns, rows, w / h))
        pictures.write_png(
            target, lightfield.quilt(source.field.views(lightfield.sweep(columns * rows)), columns, rows)
        )
    return target
