"""How well `argan.effects.iris` finds a known lens again, and what it takes for highlights where there are none:

    python -m benchmarks.iris_truth [FOLDER OF PHOTOGRAPHS] [--picture PICTURE.png]

Collections of composed photographs: a real one, dimmed and blurred, and small lights through a known iris in linear light, clipped,
with noise, as JPEG; landscape and portrait, before and behind the focal plane. Then photographs of FOLDER as they are.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.effects import iris
from argan.effects.bokeh_kernels import ENCODE
from argan.inference.photo import read_photo
from argan.visualization import write_png
from benchmarks.reference_bokeh import linear

Pixels = NDArray[np.uint8]
Float = NDArray[np.float64]
DATA = Path(__file__).parents[1] / "tests" / "data"
FINE = 8  # samples of a pixel along either side
ANGLES = 2 * np.pi * np.arange(720) / 720  # of a truth: its corners are sharper than what is measured


def radii(blades: int, angle: float = 0.0, curved: float = 0.0) -> Float:
    """(720,) of an iris: blades from straight (curved 0) to a disc (1), turned by `angle`; unit-disc area. 0: a disc."""
    if not blades:
        return np.ones(len(ANGLES))
    within = (ANGLES - angle) % (2 * np.pi / blades) - np.pi / blades
    straight = math.cos(np.pi / blades) / np.cos(within)
    return np.asarray(_sized((1 - curved) * straight + curved))


def _sized(outline: Float) -> Float:
    return np.asarray(outline / math.sqrt(float((outline**2).mean())))


def fine(found: iris.Iris) -> Float:
    """A measured outline at the angles of a truth."""
    assert found.outline is not None
    return np.interp(ANGLES, iris.ANGLES, np.array(found.outline), period=2 * np.pi)


def light(outline: Float, radius: float, at: tuple[float, float], size: tuple[int, int]) -> NDArray[np.float32]:
    """Coverage (h, w) of the outline at `at` = (x, y), of `radius` pixels."""
    rim = np.stack([outline * np.cos(ANGLES), outline * np.sin(ANGLES)], 1) * radius
    half = math.ceil(radius * 1.3) + 1
    left, top = int(at[0]) - half, int(at[1]) - half
    points = (rim + np.array([at[0] - left + 0.5, at[1] - top + 0.5])) * FINE - 0.5
    patch = np.zeros((2 * half * FINE,) * 2, np.uint8)
    cv2.fillPoly(patch, [np.round(points * 16).astype(np.int32)], 255, shift=4)
    small = cv2.resize(patch, (2 * half, 2 * half), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    whole = np.zeros((size[1] + 4 * half, size[0] + 4 * half), np.float32)
    whole[top + 2 * half : top + 4 * half, left + 2 * half : left + 4 * half] = small
    return whole[2 * half : -2 * half, 2 * half : -2 * half]


def composed(outline: Float, random: np.random.Generator, lights: int, scene: Pixels) -> Pixels:
    """A photograph (H, W, 3) through an iris of that outline, of 1200 x 800 pixels or upright."""
    w, h = 1200, 800
    view = cv2.resize(scene, (w, h), interpolation=cv2.INTER_CUBIC)
    view = cv2.GaussianBlur(linear(view).astype(np.float32), (0, 0), random.uniform(1, 12)) * random.uniform(0.05, 0.4)
    flipped = np.roll(outline, len(ANGLES) // 2) if random.random() < 0.5 else outline  # before the focal plane
    for _ in range(lights):
        colour = random.dirichlet([3, 3, 3]) * 3 * random.uniform(0.7, 3)
        at = random.uniform(0.1, 0.9, 2) * [w, h]
        view = view + light(flipped, random.uniform(8, 40), (at[0], at[1]), (w, h))[..., None] * colour.astype(
            np.float32
        )
    view = cv2.GaussianBlur(view, (0, 0), random.uniform(0.4, 0.9))  # the lens's and the sensor's own
    steps = (np.sqrt(view.clip(0, 1)) * (len(ENCODE) - 2)).astype(int)
    photo = ENCODE[steps] * 255 + random.normal(0, 2, view.shape)
    if random.random() < 0.4:  # the camera was held upright
        photo = np.rot90(photo, random.choice([1, 3]))
    coded = cv2.imencode(
        ".jpg", photo.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(85, 96))]
    )
    return np.asarray(cv2.imdecode(coded[1], cv2.IMREAD_COLOR), np.uint8)


def collection(outline: Float, photos: int, seed: int = 0, lights: int = 8) -> list[Pixels]:
    """So many photographs, a third of them without a light."""
    random = np.random.default_rng(seed)
    scenes = [read_photo(path) for path in sorted(DATA.glob("*.webp"))]
    return [
        composed(
            outline, random, int(random.integers(1, lights + 1)) if i % 3 and lights else 0, scenes[i % len(scenes)]
        )
        for i in range(photos)
    ]


def things(kind: str, photos: int, seed: int = 0) -> list[Pixels]:
    """Photographs with bright things that are no highlights out of focus."""
    random = np.random.default_rng(seed)
    out = []
    for photo in collection(radii(0), photos, seed, lights=0):
        h, w = photo.shape[:2]
        y, x = np.indices((h, w), np.float32)
        for _ in range(12):
            radius, at = random.uniform(8, 40), random.uniform(0.2, 0.8, 2) * [w, h]
            place = (int(at[0]), int(at[1]))
            away = np.hypot(x - at[0], y - at[1])[..., None] / radius
            if kind == "text":
                cv2.putText(
                    photo,
                    random.choice(["Open 8:00", "SALE", "B0 oO"]),
                    place,
                    0,
                    radius / 12,
                    (255,) * 3,
                    4,
                    cv2.LINE_AA,
                )
            elif kind == "windows":
                cv2.rectangle(
                    photo, place, (place[0] + int(1.7 * radius), place[1] + int(2 * radius)), (250, 240, 215), -1
                )
            elif kind == "shaded balls":
                photo = np.where(away < 1, 255 * np.sqrt(np.maximum(1 - away**2, 0)), photo).astype(np.uint8)
            elif kind == "glows":
                photo = np.clip(photo + 400 * np.exp(-2 * away**2), 0, 255).astype(np.uint8)
            elif kind == "textured balls":
                texture = (
                    190 + 40 * np.sin(x / 3)[..., None] * np.sin(y / 3)[..., None] + random.normal(0, 10, photo.shape)
                )
                photo = np.where(away < 1, texture.clip(0, 255), photo).astype(np.uint8)
            elif kind == "white spots in focus":
                photo = np.where(away < 1, 250, photo).astype(np.uint8)
        out.append(photo)
    return out


def overlap(a: Float, b: Float) -> float:
    """Intersection over union of two outlines around one centroid, at the best of the four quarters."""
    return max(
        float((np.minimum(turned, b) ** 2).sum() / (np.maximum(turned, b) ** 2).sum())
        for turned in (np.roll(a, q * len(ANGLES) // 4) for q in range(4))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    sheet = []
    cases = [(0, 0.0), *((n, 0.0) for n in range(5, 10)), (6, 0.5), (7, 0.5), (9, 0.5)]
    print("| iris | blades found | overlap with the truth | of a disc | highlights in photos | agreement |")
    print("|---|---|---|---|---|---|")
    for blades, curved in cases:
        for seed in range(arguments.seeds):
            truth = radii(blades, np.random.default_rng([blades, seed]).uniform(0, 2 * np.pi), curved)
            found = iris.measure_iris(
                [iris.find_highlights(photo) for photo in collection(truth, arguments.photos, seed)]
            )
            name = f"{blades} blades" + (", half curved" if curved else "") if blades else "disc"
            summary = "unknown: " + found.reason if found.outline is None else str(found.blades or "round")
            scores = (
                ("", "")
                if found.outline is None
                else (f"{overlap(fine(found), truth):.3f}", f"{overlap(np.ones(len(ANGLES)), truth):.3f}")
            )
            print(
                f"| {name} | {summary} | {scores[0]} | {scores[1]} | {found.highlights} in {found.photos} | {found.agreement} |"
            )
            if seed == 0 and found.outline is not None:
                sheet.append(drawn(truth, fine(found)))
    for kind in ("nothing", "text", "windows", "shaded balls", "glows", "textured balls", "white spots in focus"):
        print(
            f"{kind}: {iris.measure_iris([iris.find_highlights(photo) for photo in things(kind, arguments.photos)]).summary}"
        )
    two = [*collection(radii(5, 0.3), arguments.photos // 2), *collection(radii(8, 0.1), arguments.photos // 2, 1)]
    print(f"two lenses, 5 and 8 blades: {iris.measure_iris([iris.find_highlights(photo) for photo in two]).summary}")
    if arguments.picture:
        write_png(arguments.picture, np.concatenate(sheet, 1))
    if arguments.folder:
        paths = sorted(p for p in arguments.folder.iterdir() if p.suffix in (".webp", ".jpg", ".png"))
        all_found = [iris.find_highlights(read_photo(path)) for path in paths]
        for path, found_here in zip(paths, all_found, strict=True):
            if len(found_here):
                print(f"{path.name}: {len(found_here)}")
        print(iris.measure_iris(all_found).summary)


def drawn(truth: Float, found: Float, side: int = 240) -> Pixels:
    """The truth filled, what was found over it, at its best quarter."""
    best = max(
        (np.roll(found, q * len(ANGLES) // 4) for q in range(4)), key=lambda one: -float(np.abs(one - truth).sum())
    )
    picture = np.full((side, side, 3), 255, np.uint8)
    for outline, colour in ((truth, (190, 200, 215)), (best, (200, 60, 40))):
        points = np.stack([outline * np.cos(ANGLES), outline * np.sin(ANGLES)], 1) * side * 0.4 + side / 2
        shifted = np.round(points * 16).astype(np.int32)
        if colour[0] == 190:
            cv2.fillPoly(picture, [shifted], colour, cv2.LINE_AA, shift=4)
        else:
            cv2.polylines(picture, [shifted], True, colour, 1, cv2.LINE_AA, shift=4)
    return picture


if __name__ == "__main__":
    main()
