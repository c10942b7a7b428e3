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

from argan import estimator, networks, objective
from argan.errors import UserError
from argan.files import atomic, write_json
from argan.gate import Scores
from argan.health import LUMA
from argan.metrics import (
    depth_scores_per_photo,
    frechet_distance,
    kernel_distance,
    kernel_distances,
    mask_auc,
    page,
    precision_recall,
    reference,
)
from argan.metrics import report as pictures
from argan.metrics.cache import Cache
from argan.metrics.features import Extractor, extractor
from argan.metrics.neighbours import NEIGHBOUR
from argan.metrics.optics import Optics
from argan.metrics.scenes import Scenes, degenerate
from argan.metrics.uncertainty import interval
from argan.model import Model
from argan.params import Evaluate, Training
from argan.photos import Photos
from argan.pictures import disparity_colors, grid, light_field_gif, write_png
from argan.training import step_random

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
    go `report.html`, a row per held-out photo in `photos.parquet`, and `scores.json`, by which the gate compares models.
    `cache` keeps features for the next time. Raises UserError when something is missing, damaged, or does not belong together.
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
            f"Held-out photographs: mean rank correlation {found.metrics['depth_spearman']:.2f} "
            f"(prior alone {found.metrics['depth_spearman_prior']:.2f})"
        )
        by = found.metrics["depth_reference"]
        chosen = pictures.chosen(found.photos["spearman"].to_numpy())
        rows = found.photos["photo"].to_numpy()[[i for _, i in chosen]]
        maps = [found.judging.known(rows) * (reach if by else 1), found.judging.answers(rows)[""], trained.prior()]
        labels = [f"{name}\n{found.photos['spearman'].iloc[i]:+.2f}" for name, i in chosen]
        names = ["photo", by or "exact disparity", "estimated", "prior alone"]
        pictures.depth(found.judging.photos(rows), maps, labels, reach, names, title, plots / "depth.png")
    if report is not None:
        with atomic(report / "photos.parquet") as temporary:
            found.photos.to_parquet(temporary, index=False)
        write_json(report / "scores.json", found.scores().told())
        page.write(report / "report.html", model, photos, plots, found.metrics)
    return found.metrics


@dataclass(frozen=True)
class Judged:
    """What was found out about a model. photos: a row per held-out photo whose depth or subject is known; kid_parts: the kernel
    distance of parts of the photos."""

    trained: Trained
    metrics: Metrics
    photos: pd.DataFrame
    kid_parts: NDArray[np.float64]
    judged_on: str
    shown: Pixels
    judging: Judging

    def scores(self) -> Scores:
        def column(name: str) -> tuple[float, ...] | None:
            values = self.photos[name]
            return tuple(values.round(6).tolist()) if values.notna().any() else None

        return Scores(
            self.judged_on,
            depth_spearman=column("spearman"),
            depth_sign_agreement=column("sign_agreement"),
            depth_mask_auc=column("mask_auc"),
            kid=tuple(np.round(self.kid_parts, 8).tolist()),
            degenerate=tuple(self.metrics["degenerate"]),
        )


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
    device = device or torch.device("cpu")
    trained = Trained.open(model, device)
    store = Photos.open(photos)
    test = store.rows("test")
    _check(trained, store, params, len(test))
    exact, masks = exact_maps(truth, store, "disparity", "index"), exact_maps(truth, store, "masks", "masks")
    extract = extractor(params.features, device)

    scenes, optics = Scenes.of(trained.config), Optics()
    shown: list[Pixels] = []
    with Cache.at(cache) as kept:
        real = _features(kept, extract, store, "test")
        other = _features(kept, extract, store, "validation") if len(store.rows("validation")) > 1 else None
        what = {"generator": trained.digest, "extractor": extract.name, "images": params.images, "seed": params.seed}
        what |= _environment()
        generated = kept.find(**what)
        say(f"generating {params.images} photos and comparing them with {len(test)} held-out ones")
        with kept.put(**what) if generated is None else nullcontext() as write:
            for image, disparity, photo in _generate(trained, params, device):
                if not torch.isfinite(photo).all():
                    raise UserError(
                        f"{model} makes photos that are not finite: its training diverged; train again with a lower "
                        "train.learning_rate"
                    )
                pixels = networks.to_uint8(photo)
                if write is not None:
                    write(extract(pixels))
                scenes.add(image, disparity, photo)
                if scenes.count <= OPTICAL:
                    optics.add(trained.generator, image, disparity)
                if len(shown) * BATCH < SHOWN:
                    shown.append(pixels)
        features = write.features if write is not None else generated
        assert features is not None
        metrics, kid_parts = _distances(features, real, other)
        if ranked := not exact and params.reference != "none":
            say(f"asking {params.reference} for the depth of held-out photos")
            exact = _referred(kept, store, device)
    metrics |= {"features": extract.name, "images": params.images, "images_real": len(test)}

    rows = np.array([row for row in test if row in exact or row in masks], np.int64)
    say(f"scoring the depth of {len(rows)} held-out photos" if len(rows) else "no depth is known of any photo")
    judging = Judging(trained, store, exact, masks, device)
    depth, columns = _depth(judging, rows, RANKED if ranked else SCORES)
    metrics["depth_reference"] = params.reference if ranked else None
    table = store.index.iloc[rows][["source", "sha256"]].assign(photo=rows).reset_index(drop=True)
    metrics |= depth | scenes.metrics() | optics.metrics()
    gaps = interval(scenes.values("sharpness_gap"))
    metrics["sharpness_gap_low"], metrics["sharpness_gap_high"] = gaps or (None, None)
    metrics["degenerate"] = degenerate(metrics)
    metrics |= {name: trained.summary.get(name) for name in ("train_seconds", "images_per_second", "images_seen")}
    metrics = {name: _rounded(value) for name, value in metrics.items()}
    told = f", depth by {params.reference}" if ranked else f", truth {_hash(truth)}"
    where = f"photos {store.fingerprint}, {extract.name}, {params.images} images, seed {params.seed}{told}, evaluation {code()}"
    return Judged(
        trained,
        metrics,
        table.assign(**columns),
        kid_parts,
        where,
        np.concatenate(shown)[:SHOWN],
        judging,
    )


def _features(kept: Cache, extract: Extractor, store: Photos, split: str) -> Maps:
    """Of the photos of a split, (n, F)."""
    rows = store.rows(split)
    what = {"photos": store.fingerprint, "split": split, "extractor": extract.name, **_environment()}
    if (found := kept.find(**what)) is None:
        with kept.put(**what) as write:
            for i in range(0, len(rows), BATCH):
                write(extract(np.asarray(store.pixels[rows[i : i + BATCH]])))
        found = write.features
    return found


def _environment() -> dict[str, str]:
    """What features depend on besides photos and network."""
    return {"code": code(), "torch": torch.__version__, "cuda": str(torch.cuda.is_available())}


def _referred(kept: Cache, store: Photos, device: torch.device) -> dict[int, Maps]:
    """The reference's depth by row of the store, of validation and test photos: from -1 to 1 in each, for its scale is unknown."""
    rows = np.concatenate([store.rows("validation"), store.rows("test")])
    what = {
        "photos": store.fingerprint,
        "reference": reference.NAME,
        "seen": reference.SEEN,
        "torch": torch.__version__,
    }
    if (found := kept.find(**what)) is None:
        judge = reference.reference(device)
        with kept.put(**what) as write:
            for i in range(0, len(rows), BATCH):
                maps = judge(np.asarray(store.pixels[rows[i : i + BATCH]]))
                low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
                write((2 * (maps - low) / np.maximum(high - low, 1e-9) - 1).reshape(len(maps), -1))
        found = write.features
    return dict(zip(rows.tolist(), found.reshape(-1, *store.pixels.shape[1:3]), strict=True))


def _distances(generated: Maps, real: Maps, other: Maps | None) -> tuple[Metrics, NDArray[np.float64]]:
    """fid, kid and their floors, precision and recall; and the kernel distance of parts of the photos."""
    parts = kernel_distances(generated, real)
    enough = min(len(generated), len(real)) > NEIGHBOUR
    precision, recall = precision_recall(generated, real) if enough else (None, None)
    metrics: Metrics = {
        "fid": frechet_distance(generated, real),
        "fid_floor": None if other is None else frechet_distance(other, real),
        "kid": kernel_distance(generated, real),
        "kid_se": float(parts.std(ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else None,
        "kid_floor": None if other is None else kernel_distance(other, real),
        "precision": precision,
        "recall": recall,
    }
    return metrics, parts


@once
def code() -> str:
    """A short hash of the code that decides what the numbers become: of two versions they do not compare."""
    package = Path(__file__).parent
    names = sorted([package / f"{name}.py" for name in CODE] + list(package.glob("metrics/*.py")))
    told = [path.read_bytes() for path in names if path.stem not in DRAWING]
    return hashlib.sha256(b"".join(told)).hexdigest()[:8]


CODE = ("evaluation", "estimator", "gather", "lanes", "mixture", "networks", "objective", "occlusion", "optics")
DRAWING = ("report", "page", "cache", "uncertainty", "__init__")


# ---------------------------------------------------------------------------------------------------------------------
# The model


@dataclass(frozen=True)
class Trained:
    """A model folder, opened."""

    config: Training
    generator: networks.Scene
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
        generator, student = networks.placed(loaded.generator, device), networks.placed(loaded.estimator, device)
        return cls(loaded.config, generator, student, summary, history, digest.hexdigest()[:24])

    @torch.inference_mode()
    def depth(self, photos: Pixels, device: torch.device) -> Maps:
        """uint8 (N, H, W, 3) -> the estimated disparity (N, H, W)."""
        parts = [np.empty((0, *photos.shape[1:3]), np.float32)]
        for i in range(0, len(photos), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(photos[i : i + BATCH])).to(device).permute(0, 3, 1, 2)
            parts.append(estimator.estimate(self.student, networks.from_uint8(batch))[:, 0].cpu().numpy())
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
# Depth of held-out photos


@dataclass(frozen=True)
class Judging:
    """The estimator and its baselines on held-out photos: exact and masks hold, by row of the store, what is known of them."""

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

    def answers(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The estimator's ("") and the baselines', by suffix, each (n, H, W)."""
        photos = self.photos(rows)
        found: dict[str, NDArray[Any]] = {"": self.trained.depth(photos, self.device)}
        if not np.isfinite(found[""]).all():
            raise UserError(
                "the model's depth is not finite: its training diverged; train again with a lower train.learning_rate"
            )
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
    judging: Judging, rows: NDArray[np.int64], wanted: tuple[str, ...]
) -> tuple[Metrics, dict[str, NDArray[np.float64]]]:
    """depth_*, and the scores of each photo by name. What cannot be scored, or is not `wanted`, is None."""
    metrics: Metrics = {f"depth_{name}{who}": None for name in (*SCORES, "mask_auc") for who in ("", *BASELINES)}
    for name in HEADLINES:
        metrics |= {f"depth_{name}_low": None, f"depth_{name}_high": None}
    metrics |= {"depth_inverted": None, "depth_photos": None}
    columns: dict[str, NDArray[np.float64]] = {name: np.full(len(rows), np.nan) for name in (*SCORES, "mask_auc")}
    for start in range(0, len(rows), SCORED):
        some = rows[start : start + SCORED]
        known, subjects = judging.known(some), judging.subjects(some)
        for who, answer in judging.answers(some).items():
            scores = {name: values for name, values in depth_scores_per_photo(answer, known).items() if name in wanted}
            for name, values in (scores | {"mask_auc": mask_auc(answer, subjects)}).items():
                column = columns.setdefault(f"{name}{who}", np.full(len(rows), np.nan))
                column[start : start + SCORED] = values
    for name, values in columns.items():
        if np.isfinite(values).any():
            metrics[f"depth_{name}"] = float(np.nanmean(values))
    for name in HEADLINES:
        if (found := interval(columns[name])) is not None:
            metrics[f"depth_{name}_low"], metrics[f"depth_{name}_high"] = found
    spearman = columns["spearman"][np.isfinite(columns["spearman"])]
    if len(spearman):
        metrics["depth_inverted"], metrics["depth_photos"] = float((spearman < 0).mean()), len(spearman)
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


def _hash(folder: Path) -> str:
    """Of what is known of the photos: two models are compared by the same."""
    told = hashlib.sha256()
    for path in sorted(folder.glob("*.npy")) + sorted(folder.glob("*.parquet")):
        with path.open("rb") as file:
            told.update(hashlib.file_digest(file, "sha256").digest())
    return told.hexdigest()[:8]


def _check(trained: Trained, store: Photos, params: Evaluate, test: int) -> None:
    size = trained.config.resolution
    if store.pixels.shape[1:3] != (size, size):
        height, width = store.pixels.shape[1:3]
        raise UserError(
            f"the model makes photos of {size} x {size} px, {store.folder} holds {width} x {height}; train again (dvc repro)"
        )
    if test < 2:
        raise UserError(f"{store.folder} has {test} test photos; comparing photos needs at least 2")
    if params.images < 2:
        raise UserError(f"evaluate.images is {params.images}; comparing photos needs at least 2")


def _rounded(value: Any) -> Any:
    """Floats to 6 significant digits: what is beyond depends on how many threads added them up."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
