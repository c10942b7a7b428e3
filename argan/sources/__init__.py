"""Where photographs come from: published datasets, and anybody's own collections."""

from __future__ import annotations

from argan.sources.birds import BIRDS
from argan.sources.dataset import Dataset
from argan.sources.faces import FACES
from argan.sources.flowers import FLOWERS

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (FLOWERS, BIRDS, FACES)}
