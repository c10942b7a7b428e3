"""Photographs of another kind are told from the domain's own; the domain's own are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from argan.inference.model import read_photo
from argan.inference.novelty import NEIGHBOUR, UNLIKE, Likeness
from argan.meadow.scene import chunk

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def flowers() -> np.ndarray:
    return chunk(0, 240, 32, 0, depth=False)[0]


@pytest.fixture(scope="module")
def known(flowers: np.ndarray) -> Likeness:
    return Likeness.of(flowers, np.arange(120), np.arange(120, 200))


def test_animals_are_unlike_flowers_and_other_flowers_are_not(known: Likeness, flowers: np.ndarray) -> None:
    animals = [read_photo(DATA / f"{name}.webp")[::8, ::8][:32, :32] for name in ("cat", "duck", "owl")]
    assert all(known.unlike(animal) >= UNLIKE for animal in animals)
    others = [known.unlike(flower) for flower in flowers[200:]]
    assert np.mean(np.array(others) >= UNLIKE) < 0.15 and 0.3 < np.mean(others) < 0.7, "evenly among their kind"


def test_it_is_kept_and_a_model_without_it_says_nothing(known: Likeness, flowers: np.ndarray, tmp_path: Path) -> None:
    known.save(tmp_path / "likeness.safetensors")
    again = Likeness.load(tmp_path / "likeness.safetensors")
    assert again is not None and again.unlike(flowers[230]) == known.unlike(flowers[230])
    assert Likeness.load(tmp_path / "nothing.safetensors") is None


def test_too_few_photographs_are_refused(flowers: np.ndarray) -> None:
    with pytest.raises(ValueError, match="got 4 and 80"):
        Likeness.of(flowers, np.arange(NEIGHBOUR - 1), np.arange(80))
