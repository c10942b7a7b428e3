"""How near `argan.effects.bokeh` comes to the truth, beside the light field of 25 views:

    python -m benchmarks.bokeh_truth [PICTURE.png] [--more FOLDER]

Scenes whose hidden parts are known: planes and `meadow` through a thousand points of the lens, and solids under a ray tracer with
a thin lens (mitsuba). Then photographs with measured disparity, which is all that a reference can know of them: scikit-image's
motorcycle, and if FOLDER holds them `aloeL.jpg` and `aloeGT.png` (Debian's opencv-doc) and `pug.heic` (the source package of
pillow-heif). Both renderers work in linear light; errors are of sRGB values, without the border that what lies beyond the frame
is blurred into; near edges is within 12 pixels of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

from argan.effects.bokeh import refocus
from argan.optics import Aperture, render
from argan.photos import photograph
from benchmarks.bokeh_scenes import WIDTH, Truth, aloe, flowers, motorcycle, planes, pug, traced
from benchmarks.reference_bokeh import Float, encoded, linear


def gathered(photo: Float, radius: Float) -> Float:
    image = torch.from_numpy(linear(photo)).permute(2, 0, 1)[None].float()
    disparity = torch.from_numpy(radius / photo.shape[1])[None, None].float()
    return encoded(render(image, disparity, Aperture(), torch.ones(1))[0].permute(1, 2, 0).numpy())


SCENES: dict[str, Callable[[], Truth]] = {
    "far blur of 9 px behind a subject": lambda: planes(("owl", -9, None), ("cat", 0, (120, 180, 70))),
    "near blur of 9 px before a sharp background": lambda: planes(("owl", 0, None), ("cat", 9, (120, 180, 70))),
    "both, 9 px behind and 12 before": lambda: planes(
        ("owl", -9, None), ("cat", 0, (120, 150, 70)), ("duck", 12, (180, 260, 60))
    ),
    "far blur of 20 px": lambda: planes(("owl", -20, None), ("cat", 0, (120, 180, 70))),
    "meadow's exact depth, scene 0": lambda: flowers(0),
    "meadow's exact depth, scene 1": lambda: flowers(1),
    "ray traced, thin lens, 10 px behind and 8 before": traced,
    "motorcycle, measured disparity": motorcycle,
}
MORE = {
    "Aloe, measured disparity": ("aloeGT.png", aloe),
    "portrait of a pug, the phone's disparity": ("pug.heic", lambda folder: pug(folder, 12)),
    "the same, twice the blur": ("pug.heic", lambda folder: pug(folder, 24)),
}


def inner(picture: Float, radii: Float) -> Float:
    """Without the border that what lies beyond the frame is blurred into: of that, a truth made of the photo knows nothing."""
    margin = int(np.ceil(np.abs(radii).max()))
    return picture[margin:-margin, margin:-margin]


def main(picture: Path | None, more: Path | None) -> None:
    scenes = dict(SCENES)
    if more:
        scenes |= {name: lambda make=make: make(more) for name, (file, make) in MORE.items() if (more / file).is_file()}
    rows = []
    print("| scene | bokeh | 25 views | near edges | |\n|---|---|---|---|---|")
    for name, make in scenes.items():
        photo, radii, truth = make()
        y, x = np.unravel_index(np.abs(radii).argmin(), radii.shape)
        ours = refocus(photo, radii / photo.shape[1], 1.0, (int(x), int(y)), highlight=1) / 255
        views = gathered(photo, radii)
        jumps = (np.abs(cv2.Laplacian(radii, cv2.CV_32F)) > 1).astype(np.uint8)
        edge = cv2.dilate(jumps, np.ones((25, 25), np.uint8)) > 0
        edge, *within = (inner(of, radii) for of in (edge, truth, ours, views))
        cells = [
            f"{-10 * np.log10(np.square(of - within[0]).mean()):.1f} dB, "
            f"{structural_similarity(of, within[0], channel_axis=2, data_range=1):.3f}"
            for of in within[1:]
        ]
        cells += [f"{-10 * np.log10(np.square((of - within[0])[edge]).mean()):.1f} dB" for of in within[1:]]
        print(f"| {name} (blur {radii.min():.0f} to {radii.max():.0f} px) | {' | '.join(cells)} |", flush=True)
        high = WIDTH * photo.shape[0] // photo.shape[1]
        rows.append(
            np.hstack(
                [
                    cv2.resize(np.float32(p), (WIDTH, high), interpolation=cv2.INTER_AREA)
                    for p in (photo / 255, ours, views, truth)
                ]
            )
        )
    if picture:
        photograph.write_png(picture, (np.vstack(rows) * 255).clip(0, 255).round().astype(np.uint8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "picture", nargs="?", type=Path, help="where to write all scenes: photo, bokeh, 25 views, truth"
    )
    parser.add_argument("--more", type=Path, help="folder of aloeL.jpg, aloeGT.png, pug.heic")
    arguments = parser.parse_args()
    main(arguments.picture, arguments.more)
