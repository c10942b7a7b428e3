"""Sharpness of a photograph, and the aperture it tells of."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from argan import meadow
from argan.sharpness import Pixels, openness, sharpness


def checkered(count: int = 1) -> Pixels:
    """Noise in blocks of 4 pixels: contrast everywhere, sharp."""
    small = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return small.repeat(4, 1).repeat(4, 2)


def test_textureless_sky_does_not_count_as_blur() -> None:
    sky = checkered()[0]
    sky[:32] = 200
    cells = sharpness(sky)
    assert np.isnan(cells[:3]).all() and np.isfinite(cells[5:]).all()


def test_what_is_out_of_focus_anywhere_is_more_open_the_more_it_is() -> None:
    sharp = checkered()[0]
    photos = [sharp]
    for sigma in (1, 2, 4):
        soft = sharp.copy()
        soft[:, :32] = cv2.GaussianBlur(sharp, (0, 0), sigma)[:, :32]
        photos.append(soft)
    photos.append(np.full_like(sharp, 120))  # nothing to see: in the middle
    told = openness(np.stack(photos), np.array([0, 3, 1, 4, 2]))
    assert told == pytest.approx([0.125, 0.875, 0.375, 0.5, 0.625])


def test_photographs_lie_in_the_order_of_their_apertures() -> None:
    photos, _ = meadow.photographs(400, 32, seed=5, depth=False)
    apertures = [meadow.aperture(i, 5) for i in range(400)]
    assert spearmanr(openness(photos, np.arange(400)), apertures).statistic > 0.7
