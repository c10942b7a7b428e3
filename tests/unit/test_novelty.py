"""Photographs of another kind are flagged; the domain's own are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from argan.inference.novelty import NEIGHBOUR, NOVELTY_THRESHOLD, NoveltyDetector
from argan.inference.photo import read_photo
from argan.meadow import chunk

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def flowers() -> np.ndarray:
    return chunk(0, 240, 32, 0, depth=False)[0]


@pytest.fixture(scope="module")
def detector(flowers: np.ndarray) -> NoveltyDetector:
    return NoveltyDetector.fit(flowers, np.arange(120), np.arange(120, 200))


def test_animals_are_novel_to_flowers_and_other_flowers_are_not(detector: NoveltyDetector, flowers: np.ndarray) -> None:
    animals = [read_photo(DATA / f"{name}.webp")[::8, ::8][:32, :32] for name in ("cat", "duck", "owl")]
    assert all(detector.score(animal) >= NOVELTY_THRESHOLD for animal in animals)
    others = [detector.score(flower) for flower in flowers[200:]]
    assert np.mean(np.array(others) >= NOVELTY_THRESHOLD) < 0.15 and 0.3 < np.mean(others) < 0.7, (
        "evenly among their kind"
    )


def test_a_saved_detector_loads_and_none_is_made_up(
    detector: NoveltyDetector, flowers: np.ndarray, tmp_path: Path
) -> None:
    detector.save(tmp_path / "likeness.safetensors")
    loaded = NoveltyDetector.load(tmp_path / "likeness.safetensors")
    assert loaded is not None and loaded.score(flowers[230]) == detector.score(flowers[230])
    assert NoveltyDetector.load(tmp_path / "nothing.safetensors") is None


def test_too_few_photographs_are_refused(flowers: np.ndarray) -> None:
    with pytest.raises(ValueError, match="got 4 and 80"):
        NoveltyDetector.fit(flowers, np.arange(NEIGHBOUR - 1), np.arange(80))
