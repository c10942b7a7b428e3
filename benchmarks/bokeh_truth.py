"""How near `argan.bokeh` comes to the truth, beside the light field of 25 views: python -m benchmarks.bokeh_truth [PICTURE.png]

Planes whose hidden parts are known, and a real photograph with measured disparity (scikit-image's motorcycle, which is all a
reference can know of it). Both renderers work in linear light; errors are of sRGB values, near edges within 12 pixels of one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage
from skimage.data import stereo_motorcycle
from skimage.metrics import structural_similarity

from argan import photograph
from argan.bokeh import refocus
from argan.optics import Aperture, render
from benchmarks.reference_bokeh import Float, encoded, linear, many_planes, many_views

PHOTOS = Path(__file__).parent.parent / "tests" / "data"
HEIGHT, WIDTH = 240, 360


def gathered(photo: Float, radius: Float) -> Float:
    image = torch.from_numpy(linear(photo)).permute(2, 0, 1)[None].float()
    disparity = torch.from_numpy(radius / photo.shape[1])[None, None].float()
    return encoded(render(image, disparity, Aperture(), torch.ones(1))[0].permute(1, 2, 0).numpy())


def planes(*spec: tuple[str, float, tuple[int, int, int] | None]) -> tuple[Float, Float, Float]:
    """(photo, radius in pixels, disc or everything) from far to near -> the photo all in focus, its radii, the truth."""
    y, x = np.indices((HEIGHT, WIDTH))
    scene, photo = [], np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    radii = np.zeros((HEIGHT, WIDTH), np.float32)
    for name, radius, disc in spec:
        picture = photograph.read(PHOTOS / f"{name}.webp").seen
        picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        inside = np.hypot(y - disc[0], x - disc[1]) < disc[2] if disc else np.ones((HEIGHT, WIDTH), bool)
        scene.append((linear(picture).astype(np.float32), inside.astype(np.float32), radius))
        photo[inside], radii[inside] = picture[inside], radius
    return photo, radii, encoded(many_planes(scene))


def motorcycle() -> tuple[Float, Float, Float]:
    photo, _, disparity = stereo_motorcycle()
    unknown = ~np.isfinite(disparity)
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    disparity = disparity[tuple(nearest)]
    radii = ((disparity - np.median(disparity)) / np.ptp(disparity) * 16).astype(np.float32)
    return photo, radii, encoded(many_views(linear(photo).astype(np.float32), radii))


SCENES = {
    "far blur of 9 px behind a subject": lambda: planes(("owl", -9, None), ("cat", 0, (120, 180, 70))),
    "near blur of 9 px before a sharp background": lambda: planes(("owl", 0, None), ("cat", 9, (120, 180, 70))),
    "both, 9 px behind and 12 before": lambda: planes(
        ("owl", -9, None), ("cat", 0, (120, 150, 70)), ("duck", 12, (180, 260, 60))
    ),
    "far blur of 20 px": lambda: planes(("owl", -20, None), ("cat", 0, (120, 180, 70))),
    "motorcycle, measured disparity, up to 12 px": motorcycle,
}


def main(picture: str | None) -> None:
    rows = []
    print("| scene | bokeh | 25 views | near edges | |\n|---|---|---|---|---|")
    for name, make in SCENES.items():
        photo, radii, truth = make()
        y, x = np.unravel_index(np.abs(radii).argmin(), radii.shape)
        ours = refocus(photo, radii / photo.shape[1], 1.0, (int(x), int(y)), highlight=1) / 255
        views = gathered(photo, radii)
        jumps = (np.abs(cv2.Laplacian(radii, cv2.CV_32F)) > 1).astype(np.uint8)
        edge = cv2.dilate(jumps, np.ones((25, 25), np.uint8)) > 0
        cells = [
            f"{-10 * np.log10(np.square(of - truth).mean()):.1f} dB, "
            f"{structural_similarity(of, truth, channel_axis=2, data_range=1):.3f}"
            for of in (ours, views)
        ]
        cells += [f"{-10 * np.log10(np.square((of - truth)[edge]).mean()):.1f} dB" for of in (ours, views)]
        print(f"| {name} | {' | '.join(cells)} |")
        rows.append(np.hstack([cv2.resize(np.float32(p), (WIDTH, HEIGHT)) for p in (photo / 255, ours, views, truth)]))
    if picture:
        photograph.write_png(Path(picture), (np.vstack(rows) * 255).clip(0, 255).round().astype(np.uint8))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
