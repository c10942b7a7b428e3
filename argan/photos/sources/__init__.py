"""Where photographs come from: published datasets, and anybody's own collections."""

from __future__ import annotations

from argan.photos.sources.birds import BIRDS
from argan.photos.sources.dataset import Dataset
from argan.photos.sources.faces import FACES
from argan.photos.sources.flowers import FLOWERS

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (FLOWERS, BIRDS, FACES)}
