"""The crop keeps its promises, and nothing that touches a photo touches its blur."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from argan.photos import crop as geometry
from argan.photos.crop import Box, Rule

DATA = Path(__file__).parents[1] / "data"
PHOTOS = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(DATA.glob("*.webp"))]


def blur(photo: np.ndarray) -> float:
    """How blurred, 0 to 1, whatever the contrast: the share of its slopes that survives another blur (Crete et al., 2007)."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    again = cv2.blur(grey, (1, 9))
    before, after = (np.abs(np.diff(x, axis=0)) for x in (grey, again))
    return 1 - float(np.maximum(0, before - after).sum() / before.sum())


def blur_map(photo: np.ndarray, cells: int = 4) -> np.ndarray:
    h, w = (n // cells for n in photo.shape[:2])
    return np.array([[blur(photo[y * h : y * h + h, x * w : x * w + w]) for x in range(cells)] for y in range(cells)])


def small(photo: np.ndarray, size: int = 128) -> np.ndarray:
    h, w = photo.shape[:2]
    box = geometry.square(Rule(), w, h, size)
    return geometry.cut(photo, 1, box, size)


def test_the_estimate_sees_blur() -> None:
    for photo in map(small, PHOTOS):
        for unsafe in (
            cv2.GaussianBlur(photo, (0, 0), 1.0),
            np.clip(photo + np.random.default_rng(0).normal(0, 12, photo.shape), 0, 255).astype(np.uint8),
            cv2.resize(photo[32:96, 32:96], (128, 128), interpolation=cv2.INTER_CUBIC),
        ):
            assert abs(blur(unsafe) - blur(photo)) > 0.03


# Each transform in use, alone. Moved and mirrored pictures are compared where they still are.


def test_mirroring_leaves_every_pixel_as_it_is() -> None:
    for photo in map(small, PHOTOS):
        mirrored = geometry._library().HorizontalFlip(p=1)(image=photo)["image"]
        assert np.array_equal(mirrored, photo[:, ::-1])
        assert np.allclose(blur_map(mirrored), blur_map(photo)[:, ::-1])


def test_moving_is_by_whole_pixels() -> None:
    photo = small(PHOTOS[0])
    seen = set()
    move = geometry.augmentation(128, color=0, seed=1)
    for _ in range(40):
        moved = move(image=photo)["image"]
        inner = moved[16:-16, 16:-16]
        found = [
            (dy, dx, m)
            for m, source in enumerate((photo, photo[:, ::-1]))
            for dy in range(33)
            for dx in range(33)
            if source[dy, dx, 0] == inner[0, 0, 0] and np.array_equal(source[dy : dy + 96, dx : dx + 96], inner)
        ]
        assert found
        seen.add(found[0])
        assert abs(blur(moved) - blur(photo)) < 0.03
    assert len(seen) > 30 and {m for *_, m in seen} == {0, 1}


def test_colour_leaves_blur_where_it_is() -> None:
    recolour = geometry.augmentation(128, translate=0, seed=2)
    for photo in map(small, PHOTOS):
        textured = np.array(
            [[photo[y : y + 32, x : x + 32].std() > 10 for x in range(0, 128, 32)] for y in range(0, 128, 32)]
        )
        for _ in range(10):
            out = recolour(image=photo)["image"]
            mirrored = np.abs(out[:, ::-1].astype(int) - photo).mean() < np.abs(out.astype(int) - photo).mean()
            out = out[:, ::-1] if mirrored else out
            assert not np.array_equal(out, photo)
            assert np.abs(blur_map(out) - blur_map(photo))[textured].max() < 0.05
            assert abs(blur(out) - blur(photo)) < 0.02


@pytest.mark.parametrize("sigma", [0.0, 8.0, 16.0])
def test_the_downscale_keeps_blur_by_its_size_in_the_frame(sigma: float) -> None:
    """A photo and the same with half the pixels become the same small picture, sharp or defocused."""
    for photo in PHOTOS:
        photo = cv2.GaussianBlur(photo, (0, 0), sigma) if sigma else photo
        half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        a, b = small(photo, 96), small(half, 96)
        assert np.abs(a.astype(int) - b).mean() < 2.5
        assert abs(blur(a) - blur(b)) < 0.02


def test_only_safe_transforms_are_in_use() -> None:
    names = {type(t).__name__ for t in geometry.augmentation(64).transforms}
    assert names == {"HorizontalFlip", "Pad", "RandomCrop", "ColorJitter"}
    assert [type(t).__name__ for t in geometry.downscale(0, 0, 8, 4).transforms] == ["Crop", "Resize"]


def test_the_downscale_is_area_averaging() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    out = geometry.cut(photo, 1, Box(10, 0, 60, 60), 20)
    mean = photo[:, 10:70].reshape(20, 3, 20, 3, 3).mean((1, 3))
    assert np.abs(out - mean).max() <= 0.5 + 1e-6
    assert np.array_equal(geometry.cut(photo, 1, Box(3, 5, 20, 20), 20), photo[5:25, 3:23])


def test_nothing_is_upscaled() -> None:
    with pytest.raises(ValueError, match="nothing is upscaled"):
        geometry.cut(np.zeros((60, 80, 3), np.uint8), 1, Box(0, 0, 30, 30), 32)


def test_squares() -> None:
    assert geometry.square(Rule(), 400, 300, 64) == Box(50, 0, 300, 300)
    assert geometry.square(Rule(keep=0.5), 300, 400, 64) == Box(75, 125, 150, 150)
    assert geometry.square(Rule(keep=0.1), 300, 400, 64).width == 64  # large enough for the result
    rule = Rule("box", background=0.75)
    assert geometry.square(rule, 400, 300, 64, Box(100, 100, 60, 60)) == Box(70, 70, 120, 120)
    assert geometry.square(rule, 400, 300, 64, Box(0, 0, 60, 60)) == Box(0, 0, 120, 120)  # moved into the frame
    assert geometry.square(rule, 400, 300, 64, Box(340, 240, 60, 60)) == Box(280, 180, 120, 120)
    assert geometry.square(rule, 400, 300, 64, Box(0, 0, 400, 300)) == Box(50, 0, 300, 300)  # as much as there is
    assert geometry.square(rule, 400, 300, 64) == Box(50, 0, 300, 300)  # no box: the centre
    for bad in ({"where": "corner"}, {"keep": 0.0}, {"background": 1.0}):
        with pytest.raises(ValueError):
            Rule(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [(0.15, 0.5), (0.5, 0.5), (0.8, 0.5), (0.7, 0.3)])
def test_the_sharpest_part_is_found(at: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    texture = cv2.resize(
        random.integers(0, 256, (150, 200, 3)).astype(np.uint8), (400, 300), interpolation=cv2.INTER_CUBIC
    )
    soft = cv2.GaussianBlur(texture, (0, 0), 6)
    soft[:, :200] = np.clip(soft[:, :200].astype(int) + 90, 0, 255)  # a strong soft edge is not sharp
    soft = cv2.GaussianBlur(soft, (0, 0), 6)
    x, y = int(at[0] * 400), int(at[1] * 300)
    mask = np.zeros((300, 400), bool)
    mask[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30] = True
    photo = np.where(mask[..., None], texture, soft).astype(np.uint8)
    box = geometry.square(Rule("sharpness", keep=0.6), 800, 600, 64, pixels=photo)
    assert box.width == 360 and 0 <= box.left <= 440 and 0 <= box.top <= 240
    wanted = np.clip([2 * x - 180, 2 * y - 180], 0, [440, 240])
    assert np.abs(np.array([box.left, box.top]) - wanted).max() <= 40
    with pytest.raises(ValueError, match="takes the photo's pixels"):
        geometry.square(Rule("sharpness"), 800, 600, 64)


def test_a_flat_photo_is_cropped_in_the_middle() -> None:
    box = geometry.square(Rule("sharpness"), 800, 600, 64, pixels=np.full((300, 400, 3), 9, np.uint8))
    assert abs(box.left - 100) <= 13 and box.top == 0
