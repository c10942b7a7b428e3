"""A trained model in numbers and pictures: its photographs, its depth against exact depth, and the degenerate answers by name.

Definitions and thresholds are those of docs/method.md, section Evaluation. On a CPU the same model gives the same numbers,
digit for digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from argan.config.schema import Evaluate
from argan.evaluation import figures, plots, report
from argan.evaluation.arrays import Pixels
from argan.evaluation.bootstrap import interval
from argan.evaluation.cache import Cache
from argan.evaluation.depth import RANK_SCORES, SCORES, DepthJudge, depth_metrics
from argan.evaluation.distances import distance_metrics
from argan.evaluation.gate import GATE_SPLIT, Scores
from argan.evaluation.generated import Generated, generate
from argan.evaluation.inputs import Inputs, near_duplicates
from argan.evaluation.model import EvaluatedModel
from argan.evaluation.revision import code_revision
from argan.evaluation.scenes import degenerate_answers
from argan.evaluation.truth import photos_digest, truth_digest
from argan.files import atomic, write_json
from argan.metrics import kernel_distance_parts

Metrics = dict[str, Any]  # flat: numbers, None, `features` (a string) and `degenerate` (a list of strings)
Log = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """metrics: of test photos; scores: of validation photos, for the gate; test, validation: a row per photo of the split whose
    depth or subject is known; shown: generated photos; judge: the estimator on test photos."""

    model: EvaluatedModel
    metrics: Metrics
    scores: Scores
    test: pd.DataFrame
    validation: pd.DataFrame
    shown: Pixels
    judge: DepthJudge


def evaluate_model(
    model: Path,
    photos: Path,
    truth: Path,
    folder: Path,
    params: Evaluate,
    *,
    report_folder: Path | None = None,
    cache: Path | None = None,
    device: torch.device | None = None,
    log: Log = lambda line: None,
) -> Metrics:
    """The metrics of the model folder `model` on the test split of the store `photos`; pictures go into `folder`.

    `truth` is the folder of exact disparity, of masks, or of neither; what cannot be scored is None. Into `report_folder`
    go `report.html`, a row per test and validation photo in `photos.parquet`, and `scores.json`, by which the gate compares
    models: scores of validation photos, since test photos choose nothing. `cache` keeps features for the next time. Raises
    UserError when something is missing, damaged, or does not belong together.
    """
    device = device or torch.device("cpu")
    evaluation = measure(model, photos, truth, params, cache=cache, device=device, log=log)
    log("drawing")
    plots.training(evaluation.model.history, folder)
    plots.photographs(evaluation.shown, folder / "grid.png")
    figures.show_scenes(evaluation.model, params, device, folder)
    if evaluation.metrics["depth_photos"]:
        figures.show_depth(evaluation.judge, evaluation.test, evaluation.metrics, folder / "depth.png")
    if report_folder is not None:
        with atomic(report_folder / "photos.parquet") as temporary:
            tables = [evaluation.test.assign(split="test"), evaluation.validation.assign(split=GATE_SPLIT)]
            pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
        write_json(report_folder / "scores.json", evaluation.scores.to_json())
        report.write(report_folder / "report.html", model, photos, folder, evaluation.metrics)
    return evaluation.metrics


def measure(
    model: Path,
    photos: Path,
    truth: Path,
    params: Evaluate,
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    log: Log = lambda line: None,
) -> Evaluation:
    """All the numbers of `evaluate_model`, and nothing drawn."""
    with Cache.at(cache) as opened_cache:
        inputs = Inputs.open(opened_cache, model, photos, truth, params, device, ("test", GATE_SPLIT))
        generated = generate(inputs, model, log)
        scores, validation = _validation_scores(inputs, generated, log)
        metrics, table, judge = _test_metrics(inputs, generated, log)
    return Evaluation(inputs.model, metrics, scores, table, validation, generated.shown, judge)


def validation_scores(
    model: Path,
    photos: Path,
    truth: Path,
    params: Evaluate,
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    log: Log = lambda line: None,
) -> Scores:
    """What the gate reads of a model, from validation photos: no test photo, nor its truth, is looked at.

    Arguments and errors are those of `evaluate_model`.
    """
    with Cache.at(cache) as opened_cache:
        inputs = Inputs.open(opened_cache, model, photos, truth, params, device, (GATE_SPLIT,))
        return _validation_scores(inputs, generate(inputs, model, log), log)[0]


def _validation_scores(inputs: Inputs, generated: Generated, log: Log) -> tuple[Scores, pd.DataFrame]:
    """Of validation photos, what the gate reads, and a row for each of them."""
    rows, params = inputs.store.rows(GATE_SPLIT), inputs.params
    log(f"scoring {len(rows)} validation photos, for the gate")
    judge = _depth_judge(inputs, GATE_SPLIT)
    table, groups = inputs.table(judge.disparity, GATE_SPLIT)
    names = RANK_SCORES if inputs.by_reference else SCORES
    depth, columns = depth_metrics(judge, table["photo"].to_numpy(), groups, names, baselines=False)
    all_groups = near_duplicates(inputs.store, rows)
    parts = kernel_distance_parts(generated.features, inputs.features(rows), groups=all_groups)
    if inputs.by_reference:
        basis = f"depth by {params.reference}"
    else:
        basis = f"truth {truth_digest(rows, inputs.disparity, inputs.masks)}"
    judged_on = (
        f"{GATE_SPLIT} photos {photos_digest(inputs.store, rows)} ({len(rows)} in {len(np.unique(all_groups))} groups), "
        f"{inputs.extract.name}, {params.images} images, seed {params.seed}, "
        f"{basis}, evaluation {code_revision()}"
    )

    def column(name: str) -> tuple[float, ...] | None:
        values = columns[name]
        return tuple(values.round(6).tolist()) if np.isfinite(values).any() else None

    scores = Scores(
        judged_on,
        depth_spearman=column("spearman"),
        depth_sign_agreement=column("sign_agreement"),
        depth_mask_auc=column("mask_auc"),
        kid=tuple(np.round(parts, 8).tolist()),
        degenerate=tuple(degenerate_answers(depth | generated.scenes.metrics())),
        groups=tuple(groups.tolist()) if len(np.unique(groups)) < len(groups) else None,
    )
    return scores, table.assign(**columns)


def _test_metrics(inputs: Inputs, generated: Generated, log: Log) -> tuple[Metrics, pd.DataFrame, DepthJudge]:
    """Of test photos, and a row for each of them."""
    test, params, summary = inputs.store.rows("test"), inputs.params, inputs.model.summary
    log(f"comparing the generated photos with {len(test)} test photos")
    groups = near_duplicates(inputs.store, test)
    metrics = distance_metrics(generated.features, inputs.features(test), inputs.substitute_features(), groups)
    metrics |= {"features": inputs.extract.name, "images": params.images, "images_real": len(test)}
    if inputs.by_reference:
        log(f"asking {params.reference} for the depth of test photos")
    judge = _depth_judge(inputs, "test", GATE_SPLIT)  # the mean of validation photos is a baseline
    table, groups = inputs.table(judge.disparity, "test")
    log(f"scoring the depth of {len(table)} test photos" if len(table) else "no depth is known of any photo")
    names = RANK_SCORES if inputs.by_reference else SCORES
    depth, columns = depth_metrics(judge, table["photo"].to_numpy(), groups, names)
    metrics["depth_reference"] = params.reference if inputs.by_reference else None
    metrics |= depth | generated.scenes.metrics() | generated.optics.metrics()
    ends = interval(generated.scenes.values("sharpness_gap"))
    metrics["sharpness_gap_low"], metrics["sharpness_gap_high"] = ends or (None, None)
    metrics["degenerate"] = degenerate_answers(metrics)
    metrics |= {name: summary.get(name) for name in ("train_seconds", "images_per_second", "images_seen")}
    return {name: _rounded(value) for name, value in metrics.items()}, table.assign(**columns), judge


def _depth_judge(inputs: Inputs, *splits: str) -> DepthJudge:
    """The estimator on photos of these splits."""
    return DepthJudge(inputs.model, inputs.store, inputs.depth_truth(*splits), inputs.masks, inputs.device)


def _rounded(value: Any) -> Any:
    """Floats to 6 significant digits: what is beyond depends on how many threads added them up."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
