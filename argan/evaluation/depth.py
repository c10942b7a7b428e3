"""Depth of photographs: the estimator and its baselines against exact disparity, subject masks, or a reference network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from argan.color import LUMA
from argan.errors import UserError
from argan.evaluation.arrays import Maps, Pixels, Rows
from argan.evaluation.bootstrap import effective_sample_size, interval
from argan.evaluation.model import EvaluatedModel
from argan.metrics import depth_scores_per_photo, mask_auc
from argan.photos.store import Photos

Columns = dict[str, NDArray[np.float64]]  # a score of each photo, by name

SCORES = ("spearman", "spearman_aligned", "side", "sign_agreement", "delta1", "delta2", "delta3")
RANK_SCORES = ("spearman", "spearman_aligned", "sign_agreement")  # that need no scale
HEADLINES = ("spearman", "side", "sign_agreement", "mask_auc")  # with an interval each
BASELINES = ("_prior", "_mean", "_luminance")
CHUNK = 128  # photos at a time: at 256 px the scores' float64 arrays take some 600 MB


@dataclass(frozen=True)
class DepthJudge:
    """The estimator and its baselines on photos of the store. disparity, masks: the truth by row, where there is any."""

    model: EvaluatedModel
    store: Photos
    disparity: dict[int, Maps]
    masks: dict[int, Pixels]
    device: torch.device

    def photos(self, rows: Rows) -> Pixels:
        return np.asarray(self.store.pixels[rows])

    def true_disparity(self, rows: Rows) -> Maps:
        """(n, H, W), NaN where unknown."""
        unknown = np.full(self.store.pixels.shape[1:3], np.nan, np.float32)
        return np.stack([self.disparity.get(row, unknown) for row in rows.tolist()])

    def true_masks(self, rows: Rows) -> Pixels:
        """(n, H, W) uint8, neither subject nor background where unknown."""
        neither = np.full(self.store.pixels.shape[1:3], 128, np.uint8)
        return np.stack([self.masks.get(row, neither) for row in rows.tolist()])

    def predictions(self, rows: Rows, baselines: bool = True) -> dict[str, NDArray[Any]]:
        """The estimator's ("") and, unless `baselines` is false, the baselines', by suffix, each (n, H, W)."""
        photos = self.photos(rows)
        predictions: dict[str, NDArray[Any]] = {"": self.model.depth(photos, self.device)}
        if not np.isfinite(predictions[""]).all():
            raise UserError(
                "the model's depth is not finite: its training diverged; train again with a lower train.learning_rate"
            )
        if not baselines:
            return predictions
        predictions["_prior"] = np.broadcast_to(self.model.prior(), photos.shape[:3])
        predictions["_luminance"] = photos @ np.array(LUMA)
        if self.mean is not None:
            predictions["_mean"] = np.broadcast_to(self.mean, photos.shape[:3])
        return predictions

    @cached_property
    def mean(self) -> NDArray[np.float64] | None:
        """Of the validation split's disparity, else of its masks, (H, W); None where there is neither."""
        for truth in (self.disparity, self.masks):
            total, count = (np.zeros(self.store.pixels.shape[1:3]) for _ in range(2))
            for row in self.store.rows("validation").tolist():
                if row in truth:
                    finite = np.isfinite(truth[row])
                    total += np.where(finite, truth[row], 0)
                    count += finite
            if count.any():
                return np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        return None


def depth_metrics(
    judge: DepthJudge, rows: Rows, groups: Rows, names: tuple[str, ...], baselines: bool = True
) -> tuple[dict[str, Any], Columns]:
    """depth_*, and the scores of each photo by name. What cannot be scored, or is not in `names`, is None.

    groups (n,): near duplicates have the same number; the intervals are over groups.
    """
    metrics: dict[str, Any] = {
        f"depth_{name}{suffix}": None for name in (*SCORES, "mask_auc") for suffix in ("", *BASELINES)
    }
    for name in HEADLINES:
        metrics |= {f"depth_{name}_low": None, f"depth_{name}_high": None}
    metrics |= {"depth_inverted": None, "depth_photos": None, "depth_photos_independent": None}
    columns = _score_photos(judge, rows, names, baselines)
    for name, values in columns.items():
        if np.isfinite(values).any():
            metrics[f"depth_{name}"] = float(np.nanmean(values))
    for name in HEADLINES:
        if (ends := interval(columns[name], groups)) is not None:
            metrics[f"depth_{name}_low"], metrics[f"depth_{name}_high"] = ends
    scored = np.isfinite(columns["spearman"])
    if scored.any():
        metrics["depth_inverted"] = float((columns["spearman"][scored] < 0).mean())
        metrics["depth_photos"] = int(scored.sum())
        metrics["depth_photos_independent"] = effective_sample_size(groups[scored])
    return metrics, columns


def _score_photos(judge: DepthJudge, rows: Rows, names: tuple[str, ...], baselines: bool) -> Columns:
    """Each score of each photo (n,), the baselines' under their suffix; NaN where a photo has none."""
    columns: Columns = {name: np.full(len(rows), np.nan) for name in (*SCORES, "mask_auc")}
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        disparity, masks = judge.true_disparity(chunk), judge.true_masks(chunk)
        for suffix, prediction in judge.predictions(chunk, baselines).items():
            scores = {k: v for k, v in depth_scores_per_photo(prediction, disparity).items() if k in names}
            for name, values in (scores | {"mask_auc": mask_auc(prediction, masks)}).items():
                column = columns.setdefault(f"{name}{suffix}", np.full(len(rows), np.nan))
                column[start : start + CHUNK] = values
    return columns
