"""A folder of photographs, and a collection made of it, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from argan.photos import collection

DATA = Path(__file__).parent / "data"


def photo_folder(folder: Path) -> Path:
    """Three photographs of animals and nine of noise."""
    folder.mkdir()
    for path in DATA.glob("*.webp"):
        shutil.copy(path, folder)
    for i in range(9):
        noise(folder / f"{i}.png", i)
    return folder


def noise(path: Path, seed: int) -> Path:
    """A soft random picture, unlike any other."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


def put(source: object, home: Path, **options: Any) -> collection.Added:
    return collection.add("mine", str(source), home, processes=0, **options)
