"""A trained model in numbers and pictures: its photographs, its depth against exact depth, and the degenerate answers by name.

Definitions and thresholds are those of docs/method.md, section Evaluation. On a CPU the same model gives the same numbers,
digit for digit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from argan import estimator, networks, objective
from argan.errors import UserError
from argan.metrics import depth_scores, depth_scores_per_photo, frechet_distance, kernel_distance, report
from argan.metrics.features import extractor
from argan.metrics.scenes import LUMA, Scenes, degenerate
from argan.model import Model
from argan.params import Evaluate, Training
from argan.photos import Photos
from argan.training import step_random

Metrics = dict[str, Any]  # flat: numbers, None, `features` (a string) and `degenerate` (a list of strings)
Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

SALT = 2  # keeps the latents of evaluation apart from those of training and distillation
BATCH = 32
SHOWN, SCENES, REFOCUSED = 48, 6, 4  # photos in grid.png, rows of scenes.png and of refocus.png
APERTURES = [1 / 3, 2 / 3, 1.0]


def evaluate(
    model: Path,
    photos: Path,
    truth: Path,
    plots: Path,
    params: Evaluate,
    *,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Metrics:
    """The metrics of the model folder `model` on the test split of the store `photos`; pictures go into the folder `plots`.

    `truth` is the folder of exact disparity; where it holds none the depth scores are None. Raises UserError when something
    is missing, damaged, or does not belong together.
    """
    device = device or torch.device("cpu")
    trained = Trained.open(model, device)
    store = Photos.open(photos)
    test, validation = store.split("test"), store.split("validation")
    _check(trained, store, params, len(test))
    exact = _truth(truth, store)

    say(f"generating {params.images} photos and comparing them with {len(test)} held-out ones")
    extract = extractor(params.features, device)
    scenes = Scenes.of(trained.config)
    generated: list[Maps] = []
    shown: list[Pixels] = []
    for image, disparity, photo in _generate(trained, params, device):
        pixels = networks.to_uint8(photo)
        generated.append(extract(pixels))
        scenes.add(image, disparity, photo)
        if len(shown) * BATCH < SHOWN:
            shown.append(pixels)
    features = np.concatenate(generated)
    real, other = extract(test), extract(validation) if len(validation) > 1 else None
    metrics: Metrics = {
        "fid": frechet_distance(features, real),
        "kid": kernel_distance(features, real),
        "kid_floor": None if other is None else kernel_distance(other, real),
        "features": extract.name,
        "images": params.images,
        "images_real": len(test),
    }

    say("scoring the depth of held-out photos" if exact else "no exact depth is known: depth scores stay empty")
    rows = [i for i in store.rows("test") if i in exact]
    known = np.stack([exact[i] for i in rows]) if rows else np.empty((0, *store.pixels.shape[1:3]), np.float32)
    seen = [exact[i] for i in store.rows("validation") if i in exact]
    judged = store.pixels[rows]
    estimated = trained.depth(judged, device)
    spearman = depth_scores_per_photo(estimated, known)["spearman"] if rows else np.empty(0)
    metrics |= _depth(trained, judged, known, seen, estimated, spearman) | scenes.metrics()
    metrics["degenerate"] = degenerate(metrics)
    metrics |= {name: trained.summary.get(name) for name in ("train_seconds", "images_per_second", "images_seen")}

    say("drawing")
    report.training(trained.history, plots)
    report.photographs(np.concatenate(shown)[:SHOWN], plots / "grid.png")
    _show_scenes(trained, params, device, plots)
    if metrics["depth_photos"]:
        title = (
            f"Held-out photographs: mean rank correlation {metrics['depth_spearman']:.2f} "
            f"(prior alone {metrics['depth_spearman_prior']:.2f})"
        )
        reach = trained.config.disparity_max
        report.depth(judged, known, estimated, trained.prior(), spearman, reach, title, plots / "depth.png")
    return {name: _rounded(value) for name, value in metrics.items()}


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

    @classmethod
    def open(cls, folder: Path, device: torch.device) -> Trained:
        loaded = Model.load(folder)
        try:
            summary = dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["summary"])
            history = _history(folder / "history.csv")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder} is damaged ({reason}); delete it and run `dvc repro`") from error
        generator, student = networks.placed(loaded.generator, device), networks.placed(loaded.estimator, device)
        return cls(loaded.config, generator, student, summary, history)

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
        c = self.config
        prior: Maps = objective.center_focus_prior(c.resolution, c.prior_radius, c.prior_slope)[0, 0].numpy()
        return prior


@torch.inference_mode()
def _generate(trained: Trained, params: Evaluate, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`params.images` scenes, each photographed with an aperture of the training mixture: image, disparity, photo."""
    for start in range(0, params.images, BATCH):
        random = step_random(params.seed, start, SALT)
        latents = torch.randn(BATCH, trained.config.latent, generator=random)[: params.images - start].to(device)
        scale = objective.aperture_scales(BATCH, trained.config, random)[: params.images - start].to(device)
        image, disparity = trained.generator(latents)
        yield image, disparity, trained.generator.photograph(image, disparity, scale)


# ---------------------------------------------------------------------------------------------------------------------
# Depth of held-out photos


def _depth(
    trained: Trained, photos: Pixels, known: Maps, seen: list[Maps], estimated: Maps, spearman: NDArray[np.float64]
) -> Metrics:
    """depth_*: the estimator, and beside it the prior alone, the mean depth of the validation split, and brightness.

    photos (N, H, W, 3) with known and estimated disparity (N, H, W) and its rank correlation (N,); `seen`, validation's.
    """
    metrics: Metrics = dict.fromkeys(f"depth_{name}{who}" for name in SCORES for who in ("", *BASELINES))
    # The mask score needs masks of the subject, which no domain has yet.
    metrics |= {"depth_mask_auc": None, "depth_inverted": None, "depth_photos": None}
    spearman = spearman[np.isfinite(spearman)]
    if not len(spearman):
        return metrics
    answers = {
        "": estimated,
        "_prior": np.broadcast_to(trained.prior(), known.shape),
        "_luminance": photos @ np.array(LUMA),
    }
    if seen:
        answers["_mean"] = np.broadcast_to(np.ma.masked_invalid(np.stack(seen)).mean(0).filled(0), known.shape)
    for who, answer in answers.items():
        metrics |= {f"depth_{name}{who}": value for name, value in depth_scores(answer, known).items()}
    metrics["depth_inverted"] = float((spearman < 0).mean())
    metrics["depth_photos"] = len(spearman)
    return metrics


SCORES = ("spearman", "spearman_aligned", "side", "sign_agreement")
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
    report.scenes(networks.to_uint8(image), maps, shots, APERTURES, reach, plots / "scenes.png")

    image, disparity, maps = image[:REFOCUSED], disparity[:REFOCUSED], maps[:REFOCUSED]
    far, near = (torch.quantile(disparity.flatten(1), q, 1)[:, None, None, None] for q in (0.05, 0.95))
    steps = [
        networks.to_uint8(
            trained.generator.photograph(image, disparity - (far + t * (near - far)), ones[: len(image)], widen=2)
        )
        for t in np.linspace(0, 1, 5)
    ]
    report.refocus(steps, maps, reach, plots / "refocus.png")


def _history(path: Path) -> pd.DataFrame:
    """The training curves, empty where training ended before its first row."""
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"images": []})


def _truth(folder: Path, store: Photos) -> dict[int, Maps]:
    """Exact disparity by row of the store; empty where the domain has none."""
    if not (folder / "disparity.npy").exists():
        return {}
    again = f"delete {folder} and run `dvc repro`"
    try:
        maps = np.load(folder / "disparity.npy", mmap_mode="r", allow_pickle=False)
        rows = pd.read_parquet(folder / "index.parquet")["photo"].to_numpy()
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is damaged ({' '.join(str(error).split())[:200]}); {again}") from error
    if maps.shape != (len(rows), *store.pixels.shape[1:3]) or (
        len(rows) and not 0 <= rows.min() <= rows.max() < len(store)
    ):
        raise UserError(
            f"{folder} holds disparity {maps.shape} for {len(rows)} photos of the store {store.folder}: not its own; {again}"
        )
    return dict(zip(rows.tolist(), maps, strict=True))


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
