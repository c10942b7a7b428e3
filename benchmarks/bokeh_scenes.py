"""Scenes for `benchmarks.bokeh_truth`: a photo all in focus, how far out of it each pixel is, and what a lens makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage.data import stereo_motorcycle

from argan.meadow.batch import rngs
from argan.meadow.camera import LENS, Lens, expose, paint, surface
from argan.meadow.scene import scene as meadow_scene
from argan.photos import photograph
from benchmarks.reference_bokeh import Float, encoded, linear, many_planes, many_views, points

PHOTOS = Path(__file__).parent.parent / "tests" / "data"
HEIGHT, WIDTH = 240, 360
Truth = tuple[
    Float, Float, Float
]  # photo uint8; radius of blur in pixels, > 0 before the focal plane; truth, sRGB 0..1


def planes(*spec: tuple[str, float, tuple[int, int, int] | None]) -> Truth:
    """(photo, radius in pixels, disc or everything) from far to near -> the photo all in focus, its radii, the truth."""
    y, x = np.indices((HEIGHT, WIDTH))
    scene, photo = [], np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    radii = np.zeros((HEIGHT, WIDTH), np.float32)
    for name, radius, disc in spec:
        picture = photograph.read(PHOTOS / f"{name}.webp").in_8_bits
        picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        inside = np.hypot(y - disc[0], x - disc[1]) < disc[2] if disc else np.ones((HEIGHT, WIDTH), bool)
        scene.append((linear(picture).astype(np.float32), inside.astype(np.float32), radius))
        photo[inside], radii[inside] = picture[inside], radius
    return photo, radii, encoded(many_planes(scene))


def motorcycle() -> Truth:
    photo, _, disparity = stereo_motorcycle()
    return measured(photo, disparity, ~np.isfinite(disparity), 16, 0.5)


def flowers(index: int, size: int = 256) -> Truth:
    """A scene of meadow through a lens of aperture 1, its surfaces painted anew from each point of the lens."""
    scene = meadow_scene(rngs(index, 0)[1], size)

    def seen(u: Float) -> list[Any]:
        meshes = [scene.litter, *scene.plants]
        moved = [
            replace(m, corners=np.concatenate((m.corners[..., :2] - u * m.corners[..., 2:], m.corners[..., 2:]), -1))
            for m in meshes
        ]
        painted = [
            paint(moved[0], size, slid(scene.floor, -u * size * LENS)),
            *(paint(mesh, size) for mesh in moved[1:]),
        ]
        return [layer for layer in painted if layer is not None]

    def light(u: Float) -> Float:
        return np.minimum(scene.gain * expose(seen(u), Lens(0.0), size), 1)

    centre = np.zeros(2, np.float32)
    total = sum(light(u.astype(np.float32)) for u in points(1000)) / 1000
    photo = (encoded(light(centre)) * 255).round().astype(np.uint8)
    return photo, surface(seen(centre), size) * size, encoded(total)


def slid(floor: Float, shift: Float) -> Float:
    """The far surface (S, S, 4), disparity its last channel, seen from elsewhere: each of its points moves by its disparity."""
    y, x = np.indices(floor.shape[:2], dtype=np.float32)
    disparity = floor[..., 3]
    for _ in range(4):  # where a point came from depends on its disparity there
        fx, fy = x - shift[0] * disparity, y - shift[1] * disparity
        disparity = cv2.remap(floor[..., 3], fx, fy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.remap(floor, fx, fy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def traced(width: int = WIDTH, samples: int = 1024) -> Truth:
    """Two balls and a leaning board before a wall, each bearing a photograph, traced through a pinhole and through mitsuba's thin
    lens, which is focused on the larger ball and blurs the wall by a 36th of the width."""
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    T = mi.ScalarTransform4f
    at, wall, half = 4.0, 10.0, math.tan(math.radians(20))  # distances; half the width of the view at distance 1

    def bearing(name: str) -> dict[str, Any]:
        picture = linear(photograph.read(PHOTOS / f"{name}.webp").in_8_bits).astype(np.float32)
        texture = {"type": "bitmap", "bitmap": mi.Bitmap(picture), "raw": True}
        return {
            "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0}},
            "light": {"type": "area", "radiance": texture},
        }

    radius = 2 * half / 36 / (1 / at - 1 / wall)  # of the lens; its blur is radius |1/z - 1/at| / (2 half) of the width

    def ball(name: str, centre: list[float], size: float) -> dict[str, Any]:
        upright = (
            T().translate(centre).rotate([0, 1, 0], 180).rotate([1, 0, 0], -90).scale(size)
        )  # its poles above and below
        return {"type": "sphere", "to_world": upright, **bearing(name)}

    solids = {
        "wall": {"type": "rectangle", "to_world": T().translate([0, 0, -wall]).scale([6, 4, 1]), **bearing("owl")},
        "board": {
            "type": "rectangle",
            "to_world": T().translate([-1.3, 0, -6.5]).rotate([0, 1, 0], 40).scale([1.2, 1.6, 1]),
            **bearing("duck"),
        },
        "ball": ball("cat", [0.35, 0.1, -at - 0.8], 0.8),
        "near": ball("owl", [0.75, -0.55, -2.6], 0.25),
    }

    def take(camera: dict[str, Any], integrator: dict[str, Any], samples: int) -> Float:
        film = {
            "type": "hdrfilm",
            "width": width,
            "height": width * 2 // 3,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        }
        sensor = {
            **camera,
            "fov": 40.0,
            "film": film,
            "sampler": {"type": "multijitter", "sample_count": samples},
            "to_world": T().look_at(origin=[0, 0, 0], target=[0, 0, -1], up=[0, 1, 0]),
        }
        return np.array(
            mi.render(mi.load_dict({"type": "scene", "integrator": integrator, "sensor": sensor, **solids}))
        )

    through = {"type": "thinlens", "aperture_radius": radius, "focus_distance": at}
    depth = take({"type": "perspective"}, {"type": "aov", "aovs": "d:position"}, 16)[..., -1]
    photo = take({"type": "perspective"}, {"type": "path", "max_depth": 1}, 64)[..., :3]
    truth = take(through, {"type": "path", "max_depth": 1}, samples)[..., :3]
    radii = radius * (1 / -depth - 1 / at) / (2 * half) * width
    return (encoded(photo) * 255).round().astype(np.uint8), radii.astype(np.float32), encoded(truth)


def aloe(folder: Path) -> Truth:
    """The plant in its pot, at half its size; 0 is unknown."""
    photo, disparity = (
        photograph.read(folder / "aloeL.jpg").in_8_bits,
        cv2.imread(str(folder / "aloeGT.png"), cv2.IMREAD_UNCHANGED),
    )
    return measured(photo[::2, ::2], disparity[::2, ::2].astype(np.float32), disparity[::2, ::2] == 0, 12, 0.9)


def pug(folder: Path, span: float) -> Truth:
    """An iPhone's portrait of a dog, with the disparity the phone measured, at its size."""
    import pillow_heif

    file = pillow_heif.open_heif(folder / "pug.heic")
    disparity = np.asarray(file.info["depth_images"][0]).astype(np.float32)
    photo = cv2.resize(np.asarray(file.to_pillow().convert("RGB")), disparity.shape[::-1], interpolation=cv2.INTER_AREA)
    return measured(photo, disparity, disparity < 0, span, 0.9)


def measured(photo: Float, disparity: Float, unknown: Float, span: float, focus: float) -> Truth:
    """What is unknown is as what is nearest in the picture. `span`: pixels of blur between the nearest and the farthest; focus:
    the quantile of the disparities that is sharp."""
    disparity = disparity[tuple(ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True))]
    radii = ((disparity - np.quantile(disparity, focus)) / np.ptp(disparity) * span).astype(np.float32)
    return photo, radii, encoded(many_views(linear(photo).astype(np.float32), radii))
