"""A trained model in numbers and pictures: its photographs, its depth against exact depth, and the degenerate answers by name.

Definitions and thresholds are those of docs/method.md, section Evaluation. On a CPU the same model gives the same numbers,
digit for digit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache as once
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from argan import dependencies, networks
from argan.color import LUMA
from argan.config.schema import Evaluate, Training
from argan.errors import UserError
from argan.evaluation import page
from argan.evaluation import plots as pictures
from argan.evaluation.bootstrap import independent, interval
from argan.evaluation.cache import Cache
from argan.evaluation.gate import SPLIT, Scores
from argan.evaluation.optics import Optics
from argan.evaluation.scenes import Scenes, degenerate
from argan.files import atomic, write_json
from argan.inference.model import Model
from argan.metrics import (
    depth_scores_per_photo,
    frechet_distance,
    kernel_distance,
    kernel_distances,
    mask_auc,
    precision_recall,
    reference,
)
from argan.metrics.features import Extractor, extractor
from argan.metrics.frechet import shuffled
from argan.metrics.neighbours import NEIGHBOUR
from argan.networks.estimator import estimate
from argan.photos.store import Photos
from argan.training import losses as objective
from argan.training.loop import step_random
from argan.visualization import disparity_colors, grid, light_field_gif, write_png

Metrics = dict[str, Any]  # flat: numbers, None, `features` (a string) and `degenerate` (a list of strings)
Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

SALT = 2  # keeps the latents of evaluation apart from those of training and distillation
BATCH = 32
SHOWN, SCENES, REFOCUSED = 48, 6, 4  # photos in grid.png, rows of scenes.png and of refocus.png
OPTICAL = 256  # scenes whose optics are measured, ten times as dear as the rest: its means are then known to 0.01
VIEWED, STEPS = 4, 8  # scenes side by side in light_field.gif, steps of interpolation.png
APERTURES = [1 / 3, 2 / 3, 1.0]


def evaluate(
    model: Path,
    photos: Path,
    truth: Path,
    plots: Path,
    params: Evaluate,
    *,
    report: Path | None = None,
    cache: Path | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Metrics:
    """The metrics of the model folder `model` on the test split of the store `photos`; pictures go into the folder `plots`.

    `truth` is the folder of exact disparity, of masks, or of neither; what cannot be scored is None. Into the folder `report`
    go `report.html`, a row per test and validation photo in `photos.parquet`, and `scores.json`, by which the gate compares
    models: scores of validation photos, since test photos choose nothing. `cache` keeps features for the next time. Raises
    UserError when something is missing, damaged, or does not belong together.
    """
    device = device or torch.device("cpu")
    found = judge(model, photos, truth, params, cache=cache, device=device, say=say)
    say("drawing")
    trained, reach = found.trained, found.trained.config.disparity_max
    pictures.training(trained.history, plots)
    pictures.photographs(found.shown, plots / "grid.png")
    _show_scenes(trained, params, device, plots)
    if found.metrics["depth_photos"]:
        title = (
            f"Test photographs: mean rank correlation {found.metrics['depth_spearman']:.2f} "
            f"(prior alone {found.metrics['depth_spearman_prior']:.2f})"
        )
        by = found.metrics["depth_reference"]
        chosen = pictures.chosen(found.test["spearman"].to_numpy())
        rows = found.test["photo"].to_numpy()[[i for _, i in chosen]]
        maps = [found.judging.known(rows) * (reach if by else 1), found.judging.answers(rows)[""], trained.prior()]
        labels = [f"{name}\n{found.test['spearman'].iloc[i]:+.2f}" for name, i in chosen]
        names = ["photo", by or "exact disparity", "estimated", "prior alone"]
        pictures.depth(found.judging.photos(rows), maps, labels, reach, names, title, plots / "depth.png")
    if report is not None:
        with atomic(report / "photos.parquet") as temporary:
            tables = [table.assign(split=split) for split, table in (("test", found.test), (SPLIT, found.validation))]
            pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
        write_json(report / "scores.json", found.scores.told())
        page.write(report / "report.html", model, photos, plots, found.metrics)
    return found.metrics


@dataclass(frozen=True)
class Judged:
    """What was found out about a model. metrics: of test photos; scores: of validation photos, for the gate; test, validation: a
    row per photo of the split whose depth or subject is known; judging: the estimator on test photos."""

    trained: Trained
    metrics: Metrics
    scores: Scores
    test: pd.DataFrame
    validation: pd.DataFrame
    shown: Pixels
    judging: Judging


def judge(
    model: Path,
    photos: Path,
    truth: Path,
    params: Evaluate,
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Judged:
    """All the numbers of `evaluate`, and nothing drawn."""
    with Cache.at(cache) as kept:
        opened = _Opened.of(kept, model, photos, truth, params, device, ("test", SPLIT))
        generated = _generated(opened, model, say)
        scores, validation = _scores(opened, generated, say)
        metrics, table, judging = _metrics(opened, generated, say)
    return Judged(opened.trained, metrics, scores, table, validation, generated.shown, judging)


def scores(
    model: Path,
    photos: Path,
    truth: Path,
    params: Evaluate,
    *,
    cache: Path | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Scores:
    """What the gate reads of a model, from validation photos: no test photo, and nothing known of one, is looked at.

    Arguments and errors are those of `evaluate`.
    """
    with Cache.at(cache) as kept:
        opened = _Opened.of(kept, model, photos, truth, params, device, (SPLIT,))
        return _scores(opened, _generated(opened, model, say), say)[0]


@dataclass(frozen=True)
class _Opened:
    """A model, the photographs it is judged on, and what is known of them: exact and masks by row of the store."""

    kept: Cache
    trained: Trained
    store: Photos
    exact: dict[int, Maps]
    masks: dict[int, Pixels]
    extract: Extractor
    params: Evaluate
    device: torch.device

    @classmethod
    def of(
        cls,
        kept: Cache,
        model: Path,
        photos: Path,
        truth: Path,
        params: Evaluate,
        device: torch.device | None,
        splits: tuple[str, ...],
    ) -> _Opened:
        device = device or torch.device("cpu")
        trained, store = Trained.open(model, device), Photos.open(photos)
        _check(trained, store, params, splits)
        exact, masks = exact_maps(truth, store, "disparity", "index"), exact_maps(truth, store, "masks", "masks")
        return cls(kept, trained, store, exact, masks, extractor(params.features, device), params, device)

    @property
    def ranked(self) -> bool:
        """Whether a reference's answer stands in for exact depth."""
        return not self.exact and self.params.reference != "none"

    def judging(self, *splits: str) -> Judging:
        """The estimator on photos of these splits."""
        exact = self.exact
        for split in splits if self.ranked else ():
            exact = exact | _referred(self.kept, self.store, self.store.rows(split), self.device)
        return Judging(self.trained, self.store, exact, self.masks, self.device)

    def features(self, rows: NDArray[np.int64]) -> Maps:
        """Of photos of the store, (n, F)."""
        what = {"photos": _fingerprint(self.store, rows), "count": len(rows), "extractor": self.extract.name}
        what |= _environment()
        if (found := self.kept.find(**what)) is None:
            with self.kept.put(**what) as write:
                for i in range(0, len(rows), BATCH):
                    write(self.extract(np.asarray(self.store.pixels[rows[i : i + BATCH]])))
            found = write.features
        return found

    def table(self, judging: Judging, split: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The photos of a split of which depth or subject is known, a row each, and their groups."""
        rows = np.array([r for r in self.store.rows(split) if r in judging.exact or r in judging.masks], np.int64)
        groups = near_duplicates(self.store, rows)
        table = self.store.index.iloc[rows][["source", "sha256"]].assign(photo=rows, group=groups)
        return table.reset_index(drop=True), groups


@dataclass(frozen=True)
class _Generated:
    """Generated photos, as features (n, F) and some to show, and what was found of their scenes."""

    features: Maps
    scenes: Scenes
    optics: Optics
    shown: Pixels


def _generated(o: _Opened, model: Path, say: Callable[[str], None]) -> _Generated:
    scenes, optics = Scenes.of(o.trained.config), Optics()
    shown: list[Pixels] = []
    what = {
        "generator": o.trained.digest,
        "extractor": o.extract.name,
        "images": o.params.images,
        "seed": o.params.seed,
    }
    what |= _environment()
    found = o.kept.find(**what)
    say(f"generating {o.params.images} photos")
    with o.kept.put(**what) if found is None else nullcontext() as write:
        for image, disparity, photo in _generate(o.trained, o.params, o.device):
            if not torch.isfinite(photo).all():
                raise UserError(
                    f"{model} makes photos that are not finite: its training diverged; train again with a lower "
                    "train.learning_rate"
                )
            pixels = networks.to_uint8(photo)
            if write is not None:
                write(o.extract(pixels))
            scenes.add(image, disparity, photo)
            if scenes.count <= OPTICAL:
                optics.add(o.trained.generator, image, disparity)
            if len(shown) * BATCH < SHOWN:
                shown.append(pixels)
    features = write.features if write is not None else found
    assert features is not None
    return _Generated(features, scenes, optics, np.concatenate(shown)[:SHOWN])


def _scores(o: _Opened, generated: _Generated, say: Callable[[str], None]) -> tuple[Scores, pd.DataFrame]:
    """Of validation photos, what the gate reads, and a row for each of them."""
    rows = o.store.rows(SPLIT)
    say(f"scoring {len(rows)} validation photos, for the gate")
    judging = o.judging(SPLIT)
    table, groups = o.table(judging, SPLIT)
    depth, columns = _depth(judging, table["photo"].to_numpy(), groups, RANKED if o.ranked else SCORES, baselines=False)
    all_groups = near_duplicates(o.store, rows)
    parts = kernel_distances(generated.features, o.features(rows), groups=all_groups)
    known = f"depth by {o.params.reference}" if o.ranked else f"truth {_hash(o, rows)}"
    judged_on = (
        f"{SPLIT} photos {_fingerprint(o.store, rows)} ({len(rows)} in {len(np.unique(all_groups))} groups), "
        f"{o.extract.name}, {o.params.images} images, seed {o.params.seed}, {known}, evaluation {code()}"
    )

    def column(name: str) -> tuple[float, ...] | None:
        values = columns[name]
        return tuple(values.round(6).tolist()) if np.isfinite(values).any() else None

    found = Scores(
        judged_on,
        depth_spearman=column("spearman"),
        depth_sign_agreement=column("sign_agreement"),
        depth_mask_auc=column("mask_auc"),
        kid=tuple(np.round(parts, 8).tolist()),
        degenerate=tuple(degenerate(depth | generated.scenes.metrics())),
        groups=tuple(groups.tolist()) if len(np.unique(groups)) < len(groups) else None,
    )
    return found, table.assign(**columns)


def _metrics(o: _Opened, generated: _Generated, say: Callable[[str], None]) -> tuple[Metrics, pd.DataFrame, Judging]:
    """Of test photos, and a row for each of them."""
    test = o.store.rows("test")
    say(f"comparing the generated photos with {len(test)} test photos")
    metrics = _distances(generated.features, o.features(test), _others(o), near_duplicates(o.store, test))
    metrics |= {"features": o.extract.name, "images": o.params.images, "images_real": len(test)}
    if o.ranked:
        say(f"asking {o.params.reference} for the depth of test photos")
    judging = o.judging("test", SPLIT)  # the mean of validation photos is a baseline
    table, groups = o.table(judging, "test")
    say(f"scoring the depth of {len(table)} test photos" if len(table) else "no depth is known of any photo")
    depth, columns = _depth(judging, table["photo"].to_numpy(), groups, RANKED if o.ranked else SCORES)
    metrics["depth_reference"] = o.params.reference if o.ranked else None
    metrics |= depth | generated.scenes.metrics() | generated.optics.metrics()
    gaps = interval(generated.scenes.values("sharpness_gap"))
    metrics["sharpness_gap_low"], metrics["sharpness_gap_high"] = gaps or (None, None)
    metrics["degenerate"] = degenerate(metrics)
    metrics |= {name: o.trained.summary.get(name) for name in ("train_seconds", "images_per_second", "images_seen")}
    return {name: _rounded(value) for name, value in metrics.items()}, table.assign(**columns), judging


def near_duplicates(store: Photos, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number a photo, (n,), equal for near duplicates; where the store knows of none each photo has its own."""
    if "group" not in store.index:
        return np.arange(len(rows))
    names = store.index["group"].iloc[rows].reset_index(drop=True)
    alone = names.isna() | (names == "")
    return np.asarray(pd.factorize(names.astype(object).where(~alone, names.index.to_series()))[0], np.int64)


def _others(o: _Opened) -> Maps:
    """Features of real photos in the place of the generated ones, (n, F): as many, where the domain has them outside its test
    split. Validation photos, whose features are known already, then photos learned from; drawn by chance once for all."""
    validation, train = o.store.rows(SPLIT), o.store.rows("train")
    first = np.sort(shuffled(len(validation))[: o.params.images])
    found = [o.features(validation)[first]]
    if len(rest := train[np.sort(shuffled(len(train))[: o.params.images - len(first)])]):
        found.append(o.features(rest))
    return np.concatenate(found)


def _fingerprint(store: Photos, rows: NDArray[np.int64]) -> str:
    """Of some photos: their pixels enter by the index's sha256 column."""
    told = [store.pixels.shape[1:], store.index["sha256"].iloc[rows].tolist()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _environment() -> dict[str, str]:
    """What features depend on besides photos and network."""
    return {"code": code(), "torch": torch.__version__, "cuda": str(torch.cuda.is_available())}


def _referred(kept: Cache, store: Photos, rows: NDArray[np.int64], device: torch.device) -> dict[int, Maps]:
    """The reference's depth of photos, by row of the store: from -1 to 1 in each, for its scale is unknown."""
    what = {
        "photos": _fingerprint(store, rows),
        "count": len(rows),
        "reference": reference.NAME,
        "seen": reference.SEEN,
        "torch": torch.__version__,
    }
    if (found := kept.find(**what)) is None:
        answer = reference.reference(device)
        with kept.put(**what) as write:
            for i in range(0, len(rows), BATCH):
                maps = answer(np.asarray(store.pixels[rows[i : i + BATCH]]))
                low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
                write((2 * (maps - low) / np.maximum(high - low, 1e-9) - 1).reshape(len(maps), -1))
        found = write.features
    return dict(zip(rows.tolist(), found.reshape(-1, *store.pixels.shape[1:3]), strict=True))


def _distances(generated: Maps, real: Maps, other: Maps, groups: NDArray[np.int64]) -> Metrics:
    """fid, kid and their floors, precision and recall. other: real photos in the place of the generated ones; groups: of `real`.

    The Fréchet distance falls with the number of photos, so that it and its floor are of equally many, `fid_images`.
    """
    parts = kernel_distances(generated, real, groups=groups)
    enough = min(len(generated), len(real)) > NEIGHBOUR
    precision, recall = precision_recall(generated, real) if enough else (None, None)
    equal = min(len(generated), len(other))
    return {
        "fid": frechet_distance(generated[:equal], real),
        "fid_floor": frechet_distance(other[:equal], real),
        "fid_images": equal,
        "kid": kernel_distance(generated, real),
        "kid_se": float(parts.std(ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else None,
        "kid_floor": kernel_distance(other, real),
        "precision": precision,
        "recall": recall,
    }


@once
def code() -> str:
    """A short hash of the code that decides what the numbers become: of two versions they do not compare."""
    return dependencies.revision(dependencies.closure(("argan.evaluation.evaluate",), NO_SCORE))


NO_SCORE = {  # what evaluation imports and no score depends on, and why
    "argan.__init__": "names the parts of the package",
    "argan.dependencies": "tells which code this is",
    "argan.errors": "the class of an error",
    "argan.files": "writes files, whatever is in them",
    "argan.html": "draws",
    "argan.visualization": "draws",
    "argan.evaluation.page": "draws",
    "argan.evaluation.plots": "draws",
    "argan.metrics.__init__": "names the parts of the package",
    "argan.evaluation.cache": "keeps what was computed; what that depends on is in its keys",
    "argan.evaluation.bootstrap": "compares scores and gives them intervals; the scores are what they are",
    "argan.evaluation.gate": "compares scores",
    "argan.effects.bokeh": "for a user's photo; scenes are photographed by the renderer that trained them",
    "argan.effects.iris": "for a user's bokeh",
    "argan.inference.novelty": "for a user's photo",
    "argan.photos.photograph": "opens a user's photo; evaluation reads the store",
    "argan.registry": "finds a model; what is judged is its folder",
    "argan.photos.sources": "downloads weights, whose hash is pinned beside their address",
}


# ---------------------------------------------------------------------------------------------------------------------
# The model


@dataclass(frozen=True)
class Trained:
    """A model folder, opened."""

    config: Training
    generator: networks.SceneGenerator
    student: networks.Estimator
    summary: dict[str, float]
    history: pd.DataFrame
    digest: str  # of the generator: its weights and what shaped it

    @classmethod
    def open(cls, folder: Path, device: torch.device) -> Trained:
        loaded = Model.load(folder)
        try:
            digest = hashlib.sha256((folder / "generator.safetensors").read_bytes())
            digest.update(json.dumps(loaded.config.model_dump(), sort_keys=True).encode())
            summary = dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["summary"])
            history = _history(folder / "history.csv")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder} is damaged ({reason}); delete it and run `dvc repro`") from error
        generator, student = (
            networks.channels_last(loaded.generator, device),
            networks.channels_last(loaded.estimator, device),
        )
        return cls(loaded.config, generator, student, summary, history, digest.hexdigest()[:24])

    @torch.inference_mode()
    def depth(self, photos: Pixels, device: torch.device) -> Maps:
        """uint8 (N, H, W, 3) -> the estimated disparity (N, H, W)."""
        parts = [np.empty((0, *photos.shape[1:3]), np.float32)]
        for i in range(0, len(photos), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(photos[i : i + BATCH])).to(device).permute(0, 3, 1, 2)
            parts.append(estimate(self.student, networks.from_uint8(batch))[:, 0].cpu().numpy())
        return np.concatenate(parts)

    def prior(self) -> Maps:
        """The center focus prior this model was trained with, (H, W)."""
        prior: Maps = objective.prior(self.config)[0, 0].numpy()
        return prior


@torch.inference_mode()
def _generate(trained: Trained, params: Evaluate, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`params.images` scenes, each photographed with an aperture of the training mixture: image, disparity, photo."""
    for start in range(0, params.images, BATCH):
        random = step_random(params.seed, start, SALT)
        latents = torch.randn(BATCH, trained.config.latent, generator=random)[: params.images - start].to(device)
        scale = trained.generator.mixture.draw(BATCH, random, device)[: params.images - start]
        image, disparity = trained.generator(latents)
        yield image, disparity, trained.generator.photograph(image, disparity, scale)


# ---------------------------------------------------------------------------------------------------------------------
# Depth of photographs


@dataclass(frozen=True)
class Judging:
    """The estimator and its baselines on photos of the store: exact and masks hold, by row, what is known of them."""

    trained: Trained
    store: Photos
    exact: dict[int, Maps]
    masks: dict[int, Pixels]
    device: torch.device

    def photos(self, rows: NDArray[np.int64]) -> Pixels:
        return np.asarray(self.store.pixels[rows])

    def known(self, rows: NDArray[np.int64]) -> Maps:
        """Disparity (n, H, W), NaN where unknown."""
        unknown = np.full(self.store.pixels.shape[1:3], np.nan, np.float32)
        return np.stack([self.exact.get(row, unknown) for row in rows.tolist()])

    def subjects(self, rows: NDArray[np.int64]) -> Pixels:
        """Masks (n, H, W) uint8, of neither subject nor background where unknown."""
        neither = np.full(self.store.pixels.shape[1:3], 128, np.uint8)
        return np.stack([self.masks.get(row, neither) for row in rows.tolist()])

    def answers(self, rows: NDArray[np.int64], baselines: bool = True) -> dict[str, NDArray[Any]]:
        """The estimator's ("") and, if asked for, the baselines', by suffix, each (n, H, W)."""
        photos = self.photos(rows)
        found: dict[str, NDArray[Any]] = {"": self.trained.depth(photos, self.device)}
        if not np.isfinite(found[""]).all():
            raise UserError(
                "the model's depth is not finite: its training diverged; train again with a lower train.learning_rate"
            )
        if not baselines:
            return found
        found["_prior"] = np.broadcast_to(self.trained.prior(), photos.shape[:3])
        found["_luminance"] = photos @ np.array(LUMA)
        if self.mean is not None:
            found["_mean"] = np.broadcast_to(self.mean, photos.shape[:3])
        return found

    @cached_property
    def mean(self) -> NDArray[np.float64] | None:
        """Of the validation split's disparity, else of its masks, (H, W); None where neither is known."""
        for known in (self.exact, self.masks):
            total, count = (np.zeros(self.store.pixels.shape[1:3]) for _ in range(2))
            for row in self.store.rows("validation").tolist():
                if row in known:
                    finite = np.isfinite(known[row])
                    total += np.where(finite, known[row], 0)
                    count += finite
            if count.any():
                return np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        return None


def _depth(
    judging: Judging,
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    wanted: tuple[str, ...],
    baselines: bool = True,
) -> tuple[Metrics, dict[str, NDArray[np.float64]]]:
    """depth_*, and the scores of each photo by name. What cannot be scored, or is not `wanted`, is None.

    groups (n,) of the photos are for the intervals.
    """
    metrics: Metrics = {f"depth_{name}{who}": None for name in (*SCORES, "mask_auc") for who in ("", *BASELINES)}
    for name in HEADLINES:
        metrics |= {f"depth_{name}_low": None, f"depth_{name}_high": None}
    metrics |= {"depth_inverted": None, "depth_photos": None, "depth_photos_independent": None}
    columns: dict[str, NDArray[np.float64]] = {name: np.full(len(rows), np.nan) for name in (*SCORES, "mask_auc")}
    for start in range(0, len(rows), SCORED):
        some = rows[start : start + SCORED]
        known, subjects = judging.known(some), judging.subjects(some)
        for who, answer in judging.answers(some, baselines).items():
            scores = {name: values for name, values in depth_scores_per_photo(answer, known).items() if name in wanted}
            for name, values in (scores | {"mask_auc": mask_auc(answer, subjects)}).items():
                column = columns.setdefault(f"{name}{who}", np.full(len(rows), np.nan))
                column[start : start + SCORED] = values
    for name, values in columns.items():
        if np.isfinite(values).any():
            metrics[f"depth_{name}"] = float(np.nanmean(values))
    for name in HEADLINES:
        if (found := interval(columns[name], groups)) is not None:
            metrics[f"depth_{name}_low"], metrics[f"depth_{name}_high"] = found
    known_photos = np.isfinite(columns["spearman"])
    if known_photos.any():
        metrics["depth_inverted"] = float((columns["spearman"][known_photos] < 0).mean())
        metrics["depth_photos"] = int(known_photos.sum())
        metrics["depth_photos_independent"] = independent(groups[known_photos])
    return metrics, columns


SCORED = 128  # photos at a time: at 256 px the scores' float64 arrays take some 600 MB
RANKED = ("spearman", "spearman_aligned", "sign_agreement")  # that need no scale
HEADLINES = ("spearman", "side", "sign_agreement", "mask_auc")  # with an interval each
SCORES = ("spearman", "spearman_aligned", "side", "sign_agreement", "delta1", "delta2", "delta3")
BASELINES = ("_prior", "_mean", "_luminance")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures, checks


@torch.inference_mode()
def _show_scenes(trained: Trained, params: Evaluate, device: torch.device, plots: Path) -> None:
    image, disparity, _ = next(_generate(trained, params, device))
    image, disparity = image[:SCENES], disparity[:SCENES]
    ones = torch.ones(len(image), device=device)
    shots = [networks.to_uint8(trained.generator.photograph(image, disparity, ones * s)) for s in APERTURES]
    reach = trained.config.disparity_max
    maps = disparity[:, 0].cpu().numpy()
    pictures.scenes(networks.to_uint8(image), maps, shots, APERTURES, reach, plots / "scenes.png")

    views = trained.generator.views(image[:VIEWED], disparity[:VIEWED], ones[:VIEWED])  # (n, V, 3, H, W)
    frames = np.concatenate([networks.to_uint8(each) for each in views], 2)  # side by side
    light_field_gif(frames, plots / "light_field.gif", upscale=max(1, 128 // frames.shape[1]))
    _show_interpolation(trained, params, device, plots)

    image, disparity, maps = image[:REFOCUSED], disparity[:REFOCUSED], maps[:REFOCUSED]
    far, near = (torch.quantile(disparity.flatten(1), q, 1)[:, None, None, None] for q in (0.05, 0.95))
    steps = [
        networks.to_uint8(
            trained.generator.photograph(image, disparity - (far + t * (near - far)), ones[: len(image)], widen=2)
        )
        for t in np.linspace(0, 1, 5)
    ]
    pictures.refocus(steps, maps, reach, plots / "refocus.png")


@torch.inference_mode()
def _show_interpolation(trained: Trained, params: Evaluate, device: torch.device, plots: Path) -> None:
    """A walk along the arc between two latents, on which every point is as likely as its ends."""
    random = step_random(params.seed, 0, SALT)
    start, end = torch.randn(2, trained.config.latent, generator=random)
    angle = torch.arccos((start @ end / start.norm() / end.norm()).clamp(-1, 1))
    t = torch.linspace(0, 1, STEPS)[:, None]
    latents = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle).clamp(min=1e-6)
    image, disparity = trained.generator(latents.to(device))
    colors = disparity_colors(disparity[:, 0].cpu().numpy(), trained.config.disparity_max)
    rows = np.concatenate([networks.to_uint8(image), colors])
    write_png(plots / "interpolation.png", grid(rows, STEPS, upscale=max(1, 96 // rows.shape[1])))


def _history(path: Path) -> pd.DataFrame:
    """The training curves, empty where training ended before its first row."""
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"images": []})
    if "images" not in table:
        raise ValueError(f"{path.name} has no column images")
    return table


def exact_maps(folder: Path, store: Photos, name: str, index: str) -> dict[int, NDArray[Any]]:
    """Maps (H, W) of `name` by row of the store; empty where the domain has none."""
    if not (folder / f"{name}.npy").exists():
        return {}
    again = f"delete {folder} and run `dvc repro`"
    try:
        maps = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        rows = pd.read_parquet(folder / f"{index}.parquet")["photo"].to_numpy().astype(np.int64)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged ({' '.join(str(error).split())[:200]}); {again}") from error
    if maps.shape != (len(rows), *store.pixels.shape[1:3]) or (
        len(rows) and not 0 <= rows.min() <= rows.max() < len(store)
    ):
        raise UserError(
            f"{folder} holds {name} {maps.shape} for {len(rows)} photos of the store {store.folder}: not its own; {again}"
        )
    if name == "masks" and not ((maps > 0.9 * 255).any((1, 2)) & (maps < 0.1 * 255).any((1, 2))).any():
        raise UserError(f"{folder}/masks.npy tells subject from background in none of {len(maps)} photos; {again}")
    return dict(zip(rows.tolist(), maps, strict=True))


def _hash(o: _Opened, rows: NDArray[np.int64]) -> str:
    """Of what is known of some photos: two models are compared by the same."""
    digest = hashlib.sha256()
    for i, row in enumerate(rows.tolist()):
        for name, maps in (("disparity", o.exact), ("mask", o.masks)):
            if row in maps:
                digest.update(f"{i} {name}\n".encode())
                digest.update(np.ascontiguousarray(maps[row]).tobytes())
    return digest.hexdigest()[:8]


def _check(trained: Trained, store: Photos, params: Evaluate, splits: tuple[str, ...]) -> None:
    size = trained.config.resolution
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


def _rounded(value: Any) -> Any:
    """Floats to 6 significant digits: what is beyond depends on how many threads added them up."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
