"""Depth of field on real photographs: sizes, focus, occlusion, and light that is neither made nor lost."""

from __future__ import annotations

import numpy as np
import pytest

from argan import bokeh
from argan.errors import UserError


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


def test_what_is_in_focus_stays_as_it_is(photo: np.ndarray) -> None:
    assert np.array_equal(bokeh.refocus(photo, np.zeros((80, 120), np.float32), 0.0), photo)
    flat = bokeh.refocus(photo, np.full((80, 120), 0.05, np.float32), 3.0)
    assert np.abs(flat.astype(int) - photo).max() <= 1, "a flat scene is in focus everywhere, wherever it is"


@pytest.mark.parametrize("radius", [1.0, 3.3, 9.0, 30.0])
def test_the_disc_has_the_radius_it_is_asked_for(radius: float) -> None:
    point = np.zeros((161, 161, 1), np.float32)
    point[80, 80] = 1
    image = bokeh.disc_blur(point, radius)
    image = image[..., 0] if image.ndim == 3 else image
    assert image.sum() == pytest.approx(1, rel=0.02)
    y, x = np.indices(image.shape) - 80
    assert np.sqrt(2 * (image * (x**2 + y**2)).sum() / image.sum()) == pytest.approx(radius, rel=0.12, abs=0.35)


def scene(near_on_the_right: float) -> tuple[np.ndarray, np.ndarray]:
    photo = np.full((64, 128, 3), 60, np.uint8)
    photo[:, 64:] = 220
    disparity = np.zeros((64, 128), np.float32)
    disparity[:, 64:] = near_on_the_right
    return photo, disparity


def test_near_blur_spills_over_and_far_blur_is_cut_off() -> None:
    photo, disparity = scene(0.1)
    near = bokeh.refocus(photo, disparity, 1.0, (10, 32))[32, :, 0]
    assert near[58] > 75, "a bright thing out of focus in front spills over what is in focus behind it"
    photo, disparity = scene(-0.1)
    far = bokeh.refocus(photo, disparity, 1.0, (10, 32))[32, :, 0]
    assert np.abs(far[:62].astype(int) - 60).max() <= 2, "a bright thing out of focus behind does not"


def test_focus_chooses_what_is_sharp(photo: np.ndarray) -> None:
    disparity = np.zeros((80, 120), np.float32)
    disparity[:, 60:] = 0.08
    for place, sharp, soft in (((20, 40), slice(0, 45), slice(75, 120)), ((100, 40), slice(75, 120), slice(0, 45))):
        out = bokeh.refocus(photo, disparity, 1.0, place).astype(float)
        assert out[:, sharp].std() > 60 > 25 > out[:, soft].std()


def test_focus_is_a_pixel_or_fractions() -> None:
    assert bokeh.focus_pixel(None, 100, 50) == (50, 25)
    assert bokeh.focus_pixel((0.5, 1.0), 100, 50) == (50, 49)
    assert bokeh.focus_pixel((30, 20), 100, 50) == (30, 20)
    for outside in ((100, 20), (-1, 20), (30, 50), (float("nan"), 0)):
        with pytest.raises(UserError, match="100 x 50"):
            bokeh.focus_pixel(outside, 100, 50)


@pytest.mark.parametrize("aperture", [-0.1, float("nan"), float("inf")])
def test_an_impossible_aperture_is_refused(photo: np.ndarray, aperture: float) -> None:
    with pytest.raises(UserError, match="aperture"):
        bokeh.refocus(photo, np.zeros((80, 120), np.float32), aperture)
