"""The embedded domain: repeatable, honest optics, exact depth, and not to be guessed without looking."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy.stats import rankdata

from argan import meadow
from argan.meadow import camera


def spearman(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    a, b = (np.stack([rankdata(x) for x in y.reshape(len(y), -1)]) for y in (prediction, truth))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


@pytest.fixture(scope="module")
def dataset() -> tuple[np.ndarray, np.ndarray]:
    photos, disparity = meadow.photographs(200, 32, seed=0)
    assert disparity is not None
    return photos, disparity


def test_a_photo_depends_on_its_seed_and_index_alone(dataset: tuple[np.ndarray, np.ndarray]) -> None:
    photos, disparity = dataset
    again, depth = meadow.photographs(3, 32, seed=0, start=7)
    assert np.array_equal(again, photos[7:10]) and depth is not None and np.array_equal(depth, disparity[7:10])
    single, depth_none = meadow.photographs(1, 32, seed=0, start=9, depth=False)
    assert np.array_equal(single[0], photos[9]) and depth_none is None
    other, _ = meadow.photographs(3, 32, seed=1, start=7)
    assert not np.array_equal(other, again)


def test_worker_processes_make_the_same_bytes() -> None:
    parallel, _ = meadow.photographs(meadow.SMALL, 32, seed=3, depth=False, processes=2)
    serial, _ = meadow.photographs(4, 32, seed=3, start=meadow.SMALL - 4, depth=False, processes=1)
    assert np.array_equal(parallel[-4:], serial)


def test_photos_and_disparity_have_the_documented_ranges(dataset: tuple[np.ndarray, np.ndarray]) -> None:
    photos, disparity = dataset
    assert photos.shape == (200, 32, 32, 3) and photos.dtype == np.uint8
    assert disparity.shape == (200, 32, 32) and disparity.dtype == np.float32
    assert np.isfinite(disparity).all()
    assert disparity.min() >= camera.FARTHEST and disparity.max() <= camera.NEAREST
    assert photos.std((1, 2, 3)).min() > 5, "no blank photo"
    assert (np.abs(disparity) < 0.015).mean((1, 2)).mean() > 0.15, "subjects are in focus"
    assert 0.1 < (disparity.max((1, 2)) > 0.03).mean() < 0.5, "in a share of photos something stands before the subject"
    assert (disparity.min((1, 2)) < -0.04).mean() > 0.8, "and far things behind it"


def test_neither_prior_nor_mean_nor_brightness_explains_the_depth(dataset: tuple[np.ndarray, np.ndarray]) -> None:
    photos, disparity = dataset
    line = (np.arange(32) + 0.5) / 32 - 0.5
    prior = -np.clip(np.hypot(line[:, None], line) - 0.25, 0, None)
    half = disparity[:100]
    assert spearman(np.broadcast_to(prior, half.shape), half).mean() <= 0.55
    assert (
        spearman(np.broadcast_to(disparity[100:].mean(0), half.shape), half).mean() <= 0.58
    )  # of 100 photos: 0.03 too noisy
    assert np.abs(spearman(photos[:100].mean(-1), half)).mean() < 0.45


def test_apertures_run_from_deep_to_shallow() -> None:
    scales = np.array([meadow.aperture(i, 0) for i in range(500)])
    assert 0 < scales.min() < 0.15 and scales.max() > 0.95 and (scales > 0.5).mean() > 0.4


def test_a_wide_aperture_blurs_what_is_far_and_spares_the_subject(dataset: tuple[np.ndarray, np.ndarray]) -> None:
    _, disparity = dataset
    far, focused = [], []
    for i in [i for i in range(60) if meadow.aperture(i, 0) > 0.7][:20]:
        photo = meadow.photographs(1, 32, 0, start=i, depth=False)[0][0].astype(float)
        sharp = meadow.all_in_focus(i, 32, 0).astype(float)
        lost = [np.abs(cv2.Laplacian(x, cv2.CV_64F)).mean(-1) for x in (photo, sharp)]
        far += [[x[disparity[i] < -0.05].sum() for x in lost]]
        subject = cv2.erode((np.abs(disparity[i]) < 0.008).astype(np.uint8), np.ones((5, 5))) > 0
        focused += [[x[subject].sum() for x in lost]]
    far_ratio, focused_ratio = (np.sum(x, axis=0)[0] / np.sum(x, axis=0)[1] for x in (far, focused))
    assert far_ratio < 0.6 and focused_ratio > 0.8


@pytest.mark.parametrize("blades", [0, 5, 6, 9])
@pytest.mark.parametrize("radius", [1.5, 4.0, 11.0])
def test_the_circle_of_confusion_is_as_wide_as_the_lens_says(blades: int, radius: float) -> None:
    lens = camera.Lens(1.0, blades, 0.3)
    point = np.zeros((65, 65, 4), np.float32)
    point[32, 32] = 1
    image, reach = camera.spread(point, radius, lens, near=True)
    weight = image[..., 0].astype(float)
    assert weight.sum() == pytest.approx(1, rel=1e-3), "a lens moves light, it neither makes nor takes any"
    y, x = np.indices(weight.shape) - (32 + reach)
    off = (
        0.35 if radius < 6 else 0.55
    )  # wide circles are worked out on doubled samples, whose centres lie half a sample off
    assert abs((weight * x).sum()) < off and abs((weight * y).sum()) < off, "centred"
    second = (weight * (x * x + y * y)).sum()
    assert math.sqrt(2 * second) == pytest.approx(radius, rel=0.12), "second moment of a disc: r^2 / 2"


@pytest.mark.parametrize("blades", [5, 7])
@pytest.mark.parametrize("radius", [8.0, 15.0])
def test_a_point_of_light_is_the_iris_upright_behind_and_turned_before_the_focal_plane(
    blades: int, radius: float
) -> None:
    angle = 0.4  # of a corner, as the photographer sees the iris: to the right and a little down
    point = np.zeros((65, 65, 4), np.float32)
    point[32, 32] = 1
    for near in (False, True):
        image, reach = camera.spread(point, radius, camera.Lens(1.0, blades, angle), near)
        y, x = np.indices(image.shape[:2]) - (32 + reach)
        # The phase of the harmonic that tells the blades from a disc: 0 where a corner lies at `angle`, pi where a side does
        wave = (image[..., 0] * (x + 1j * y) ** blades * np.exp(-1j * blades * angle)).sum()
        assert (-wave.real if near else wave.real) > 0.9 * abs(wave)


def edge(disparity: float) -> np.ndarray:
    """A bright half plane at `disparity` laid over a dark one in focus, or in focus over one at `disparity` behind it."""
    resolution = 32
    size = camera.canvas_size(resolution) * camera.LENS

    def layer(value: float, d: float, start: int) -> camera.Layer:
        radiance = np.zeros((size, size, 4), np.float32)
        radiance[:, start:, :3], radiance[:, start:, 3] = value, 1
        return camera.Layer(radiance, np.full((size, size), d, np.float32), np.full((size, size), d, np.float32), 0, 0)

    near = layer(1.0, max(disparity, 0.0), size // 2)
    return camera.expose([layer(0.2, min(disparity, 0.0), 0), near], camera.Lens(1.0, 0, 0.0), resolution)[16, :, 0]


def test_near_blur_spills_over_and_far_blur_is_cut_off() -> None:
    near = edge(0.08)
    assert near[14] > 0.28 and near[17] < 0.95, "an edge out of focus in front is soft on both of its sides"
    far = edge(-0.08)
    assert np.allclose(far[:15], 0.2, atol=0.02) and np.allclose(far[17:], 1.0, atol=1e-3), (
        "the edge of what is in focus is sharp"
    )


def test_aperture_zero_is_the_picture_all_in_focus() -> None:
    deep = [i for i in range(300) if meadow.aperture(i, 0) < 0.07][:3]
    assert deep
    for i in deep:
        photo, _ = meadow.photographs(1, 32, 0, start=i, depth=False)
        assert np.abs(photo[0].astype(int) - meadow.all_in_focus(i, 32, 0)).mean() < 3


def test_resolutions_show_the_same_scene() -> None:
    for i in range(4):
        large, deep = meadow.photographs(1, 128, 5, start=i)
        small, depth = meadow.photographs(1, 64, 5, start=i)
        assert deep is not None and depth is not None
        shrunk = cv2.resize(large[0], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk.astype(int) - small[0]).mean() < 8
        assert (
            np.corrcoef(cv2.resize(deep[0], (64, 64), interpolation=cv2.INTER_AREA).ravel(), depth[0].ravel())[0, 1]
            > 0.97
        )


@pytest.mark.parametrize(("count", "resolution"), [(1, 31), (1, 257), (-1, 32)])
def test_sizes_and_counts_out_of_range_are_refused(count: int, resolution: int) -> None:
    with pytest.raises(ValueError, match=str(resolution if count > 0 else count)):
        meadow.photographs(count, resolution, seed=0)
