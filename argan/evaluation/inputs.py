"""What an evaluation reads: a model, the photographs it is judged on, their truth, and features of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from argan.config.schema import Evaluate
from argan.errors import UserError
from argan.evaluation.arrays import BATCH, Maps, Pixels, Rows
from argan.evaluation.cache import Cache
from argan.evaluation.gate import GATE_SPLIT
from argan.evaluation.model import EvaluatedModel
from argan.evaluation.revision import environment
from argan.evaluation.truth import load_maps, photos_digest, reference_depth
from argan.metrics.features import Extractor, extractor
from argan.metrics.frechet import fixed_permutation
from argan.photos.store import Photos


@dataclass(frozen=True)
class Inputs:
    """disparity, masks: the truth by row of the store, where there is any."""

    cache: Cache
    model: EvaluatedModel
    store: Photos
    disparity: dict[int, Maps]
    masks: dict[int, Pixels]
    extract: Extractor
    params: Evaluate
    device: torch.device

    @classmethod
    def open(
        cls,
        cache: Cache,
        model: Path,
        photos: Path,
        truth: Path,
        params: Evaluate,
        device: torch.device | None,
        splits: tuple[str, ...],
    ) -> Inputs:
        """From the folders of a model, of a store, and of its truth. Raises UserError where they are damaged or do not fit."""
        device = device or torch.device("cpu")
        opened, store = EvaluatedModel.open(model, device), Photos.open(photos)
        _check(opened, store, params, splits)
        disparity, masks = load_maps(truth, store, "disparity", "index"), load_maps(truth, store, "masks", "masks")
        return cls(cache, opened, store, disparity, masks, extractor(params.features, device), params, device)

    @property
    def by_reference(self) -> bool:
        """Whether a reference network's depth stands in for the exact one."""
        return not self.disparity and self.params.reference != "none"

    def depth_truth(self, *splits: str) -> dict[int, Maps]:
        """Disparity by row of the store; of photos of these splits the reference's, where it stands in."""
        disparity = self.disparity
        for split in splits if self.by_reference else ():
            disparity = disparity | reference_depth(self.cache, self.store, self.store.rows(split), self.device)
        return disparity

    def features(self, rows: Rows) -> Maps:
        """Of photos of the store, (n, F)."""
        key = {"photos": photos_digest(self.store, rows), "count": len(rows), "extractor": self.extract.name}
        key |= environment()
        if (cached := self.cache.find(**key)) is None:
            with self.cache.put(**key) as write:
                for i in range(0, len(rows), BATCH):
                    write(self.extract(np.asarray(self.store.pixels[rows[i : i + BATCH]])))
            cached = write.features
        return cached

    def substitute_features(self) -> Maps:
        """Features of real photos in the place of the generated ones, (n, F): as many, where the domain has them outside its
        test split. Validation photos, whose features are cached already, then training photos; a fixed random choice."""
        validation, train = self.store.rows(GATE_SPLIT), self.store.rows("train")
        first = np.sort(fixed_permutation(len(validation))[: self.params.images])
        features = [self.features(validation)[first]]
        if len(rest := train[np.sort(fixed_permutation(len(train))[: self.params.images - len(first)])]):
            features.append(self.features(rest))
        return np.concatenate(features)

    def table(self, disparity: dict[int, Maps], split: str) -> tuple[pd.DataFrame, Rows]:
        """The photos of a split of which depth or subject is known, a row each, and their groups."""
        rows = np.array([r for r in self.store.rows(split) if r in disparity or r in self.masks], np.int64)
        groups = near_duplicates(self.store, rows)
        table = self.store.index.iloc[rows][["source", "sha256"]].assign(photo=rows, group=groups)
        return table.reset_index(drop=True), groups


def near_duplicates(store: Photos, rows: Rows) -> Rows:
    """A number a photo, (n,), equal for near duplicates; where the store knows of none each photo has its own."""
    if "group" not in store.index:
        return np.arange(len(rows))
    names = store.index["group"].iloc[rows].reset_index(drop=True)
    single = names.isna() | (names == "")
    return np.asarray(pd.factorize(names.astype(object).where(~single, names.index.to_series()))[0], np.int64)


def _check(model: EvaluatedModel, store: Photos, params: Evaluate, splits: tuple[str, ...]) -> None:
    size = model.config.resolution
    if store.pixels.shape[1:3] != (size, size):
        height, width = store.pixels.shape[1:3]
        raise UserError(
            f"the model makes photos of {size} x {size} px, {store.folder} holds {width} x {height}; train again (dvc repro)"
        )
    for split in splits:
        if (count := len(store.rows(split))) < 2:
            raise UserError(
                f"{store.folder} has {count} {split} photos; comparing photos needs at least 2: add more photos"
            )
    if params.images < 2:
        raise UserError(f"evaluate.images is {params.images}; comparing photos needs at least 2")
