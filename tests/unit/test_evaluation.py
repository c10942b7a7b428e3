"""The evaluator against planted models whose answers are known: each is named for what it is, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from argan import meadow, networks
from argan.config.schema import Evaluate, Register, Training, training
from argan.errors import UserError
from argan.evaluation import gate, report
from argan.evaluation.bootstrap import interval
from argan.evaluation.cache import Cache
from argan.evaluation.distances import distance_metrics
from argan.evaluation.evaluate import Evaluation, Metrics, evaluate_model, measure, validation_scores
from argan.evaluation.gate import Scores
from argan.evaluation.inputs import Inputs, near_duplicates
from argan.evaluation.model import EvaluatedModel
from argan.evaluation.scenes import SceneStatistics, degenerate_answers, log_sharpness
from argan.files import write_json
from argan.metrics import frechet_distance, kernel_distance, kernel_distance_parts, reference
from argan.metrics.features import Extractor
from argan.networks.mixture import ApertureMixture
from argan.optics import Aperture, render
from argan.photos import store as photos
from argan.photos.store import Photos
from argan.tensors import read_tensors, write_tensors
from argan.training import losses

REACH = 0.1
SPLITS = ["train"] * 4 + ["validation"] * 10 + ["test"] * 40
KEYS = {
    "fid", "kid", "features", "images", "depth_spearman", "depth_spearman_prior", "depth_side", "depth_side_prior",
    "depth_sign_agreement", "depth_mask_auc", "sharpness_gap", "degenerate", "train_seconds", "images_per_second",
    "images_seen",
}  # fmt: skip


def smooth(random: np.random.Generator, n: int, sigma: float = 4) -> np.ndarray:
    """Smooth random fields (n, 32, 32), each with a mean of 0 and a standard deviation of 1."""
    fields = gaussian_filter(random.normal(size=(n, 32, 32)), (0, sigma, sigma))
    fields -= fields.mean((1, 2), keepdims=True)
    return fields / fields.std((1, 2), keepdims=True)


@pytest.fixture(scope="module")
def config() -> Training:
    return training("quick", {"disparity_max": REACH})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/photos and data/truth of scenes that carry their depth in the red channel, over textured green and blue."""
    root = tmp_path_factory.mktemp("store")
    random = np.random.default_rng(0)
    disparity = (smooth(random, len(SPLITS)) * 0.03).clip(-REACH, REACH).astype(np.float32)
    pixels = random.integers(0, 256, (len(SPLITS), 32, 32, 3), dtype=np.uint8)
    pixels[..., 0] = np.round((disparity / REACH + 1) * 127.5)
    index = pd.DataFrame(dict.fromkeys(photos.COLUMNS, 0) | {"source": map(str, range(len(SPLITS))), "split": SPLITS})
    index["sha256"] = index["source"]
    photos.write(root / "photos", pixels, index, pd.DataFrame({"source": [], "reason": []}))
    (root / "truth").mkdir()
    np.save(root / "truth" / "disparity.npy", disparity[4:])
    pd.DataFrame({"photo": range(4, len(SPLITS))}).to_parquet(root / "truth" / "index.parquet")
    (root / "nothing").mkdir()
    (root / "nothing" / "README.md").write_text("no truth\n")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, config: Training) -> Path:
    """A model folder as training leaves it, untrained."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    write_tensors(folder / "generator.safetensors", networks.build_generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    write_tensors(folder / "estimator.safetensors", student.state_dict())
    summary = {"train_seconds": 12.5, "images_per_second": 51.2, "images_seen": 640}
    write_json(folder / "config.json", {"domain": "planted", "training": config.model_dump(), "summary": summary})
    pd.DataFrame({"images": [320, 640], "loss_d": [0.7, 0.6], "loss_g": [0.7, 0.8]}).to_csv(
        folder / "history.csv", index=False
    )
    return folder


# -- planted models --------------------------------------------------------------------------------------------------

Plant = Callable[
    [Training, np.random.Generator], tuple[np.ndarray, np.ndarray]
]  # images (N, 3, H, W), disparity (N, H, W)


def textured(random: np.random.Generator, n: int = 64) -> np.ndarray:
    return random.uniform(-0.9, 0.9, (n, 3, 32, 32))


def healthy(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return textured(random), smooth(random, 64) * 0.03


def constant(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return textured(random), 0.04 + smooth(random, 64) * 0.0005


def prior(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    center = losses.prior(config)[0, 0].numpy()
    return textured(random), center + smooth(random, 64) * 0.002


def luminance(config: Training, random: np.random.Generator, sign: int = 1) -> tuple[np.ndarray, np.ndarray]:
    image = 0.25 * smooth(random, 64)[:, None] + 0.03 * random.normal(size=(64, 3, 32, 32))
    return image, sign * image.mean(1) * 0.2


def darkness(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return luminance(config, random, -1)


def planes(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each scene is flat; the next one lies elsewhere."""
    return textured(random), np.linspace(-0.08, 0.08, 64)[:, None, None] + smooth(random, 64) * 0.0005


def baked(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sharp in the focal plane alone: an image that the lens has been over already."""
    disparity = np.where(smooth(random, 64) > 0, 0.0, -0.08)
    image = textured(random)
    blurred = gaussian_filter(image, (0, 0, 2.5, 2.5))
    return np.where(disparity[:, None] < 0, blurred, image), disparity


class Planted(networks.SceneGenerator):
    """A generator that shows the given scenes one after the other, whatever the latents."""

    def __init__(self, image: np.ndarray, disparity: np.ndarray) -> None:
        super().__init__(training("quick", {"disparity_max": REACH}))
        self.image, self.disparity, self.next = torch.from_numpy(image).float(), torch.from_numpy(disparity).float(), 0

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rows = (torch.arange(len(latents)) + self.next) % len(self.image)
        self.next += len(latents)
        return self.image[rows].clamp(-1, 1), self.disparity[rows, None].clamp(-REACH, REACH)


class Red(nn.Module):
    """An estimator that reads the depth of `store`'s photos off their red channel."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def with_error(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope * REACH * pictures[:, :1], torch.ones_like(pictures[:, :1])


@pytest.fixture
def evaluated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Path, model: Path, config: Training
) -> Callable[..., Evaluation]:
    """A function that judges a planted generator and estimator, with features that cost nothing; drawn on request."""

    def evaluate(
        plant: Plant = healthy,
        slope: float = 1.0,
        truth: str = "truth",
        student: nn.Module | None = None,
        reference: str = "none",
        photos: str = "photos",
        drawn: bool = False,
    ) -> Evaluation | Metrics:
        generator = Planted(*plant(config, np.random.default_rng(1)))
        planted = replace(untrained_at(model), generator=generator, estimator=student or Red(slope))
        pooled = Extractor("pooled", lambda x: F.adaptive_avg_pool2d(x / 255, 4).flatten(1), torch.device("cpu"))

        def opened(folder: Path, device: torch.device) -> EvaluatedModel:
            generator.next = 0
            return planted

        monkeypatch.setattr(EvaluatedModel, "open", opened)
        monkeypatch.setattr("argan.evaluation.inputs.extractor", lambda name, device: pooled)
        params = Evaluate(images=64, reference=reference)
        if drawn:
            return evaluate_model(model, store / photos, store / truth, tmp_path, params, report_folder=tmp_path)
        return measure(model, store / photos, store / truth, params)

    return evaluate  # type: ignore[return-value]


@cache
def untrained_at(folder: Path) -> EvaluatedModel:
    return OPEN(folder, torch.device("cpu"))


OPEN = EvaluatedModel.open


@pytest.fixture
def metrics_of(evaluated: Callable[..., Evaluation]) -> Callable[..., Metrics]:
    """A function that measures a planted generator and estimator."""
    return lambda *args, **options: evaluated(*args, **options).metrics


@pytest.fixture
def drawn(evaluated: Callable[..., Evaluation]) -> Callable[..., Metrics]:
    """The same, with pictures and report in `tmp_path`."""
    return partial(evaluated, drawn=True)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (healthy, None),
        (constant, "constant_depth"),
        (prior, "prior_depth"),
        (planes, "constant_depth"),
        (luminance, "luminance_depth"),
        (darkness, "luminance_depth"),
        (baked, "baked_blur"),
    ],
)
def test_a_planted_answer_is_named(metrics_of: Callable[..., Metrics], plant: Plant, name: str | None) -> None:
    metrics = metrics_of(plant)
    assert metrics["degenerate"] == ([name] if name else [])


def test_a_perfect_estimator_scores_perfectly(metrics_of: Callable[..., Metrics]) -> None:
    metrics = metrics_of(slope=1.0)
    assert metrics["depth_spearman"] > 0.95  # 8 bits of red, and the estimate follows the edges of the texture
    assert metrics["depth_side"] < metrics["depth_side_prior"] / 4
    assert metrics["depth_sign_agreement"] == 1
    assert abs(metrics["depth_spearman_prior"]) < 0.2  # the fields know no centre
    assert abs(metrics["depth_spearman_mean"]) < 0.2
    assert metrics["depth_side_prior"] > 0.1
    assert 0.1 < metrics["depth_spearman_luminance"] < 0.9  # red is a part of brightness
    assert metrics["depth_photos"] == 40


def test_an_inverted_estimator_is_named(metrics_of: Callable[..., Metrics]) -> None:
    metrics = metrics_of(slope=-1.0)
    assert metrics["degenerate"] == ["inverted_depth"]
    assert metrics["depth_spearman"] < -0.95
    assert metrics["depth_spearman_aligned"] > 0.95
    assert metrics["depth_sign_agreement"] == 0


def test_an_estimator_that_says_nothing_is_not_inverted(metrics_of: Callable[..., Metrics]) -> None:
    metrics = metrics_of(slope=0.0)
    assert metrics["degenerate"] == []
    assert (metrics["depth_spearman"], metrics["depth_sign_agreement"], metrics["depth_inverted"]) == (0, 0, 0)


class FixedEstimator(nn.Module):
    """An estimator of the same disparity, or of noise, whatever the photo."""

    def __init__(self, disparity: Tensor | None) -> None:
        super().__init__()
        self.disparity, self.random = disparity, torch.Generator().manual_seed(0)

    def with_error(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        some = pictures[:, :1]
        noise = REACH * torch.randn(some.shape, generator=self.random)
        return noise if self.disparity is None else self.disparity.expand_as(some), torch.ones_like(some)


def test_the_prior_and_noise_score_what_theory_gives(metrics_of: Callable[..., Metrics], config: Training) -> None:
    center = losses.prior(config)
    metrics = metrics_of(student=FixedEstimator(center))
    assert metrics["depth_spearman"] == pytest.approx(metrics["depth_spearman_prior"], abs=0.05)
    assert metrics["depth_side"] == pytest.approx(metrics["depth_side_prior"], abs=0.01)
    metrics = metrics_of(student=FixedEstimator(None))
    assert metrics["depth_spearman_low"] < 0.05 and metrics["depth_spearman_high"] > -0.05
    assert 0.2 < metrics["depth_sign_agreement"] < 0.8


def test_without_truth_depth_is_unknown_and_never_invented(drawn: Callable[..., Metrics], tmp_path: Path) -> None:
    metrics = drawn(slope=-1.0, truth="nothing")
    assert {value for name, value in metrics.items() if name.startswith("depth_")} == {None}
    assert metrics["degenerate"] == []
    assert metrics["kid"] is not None
    assert set(metrics) == set(drawn())
    assert {p.name for p in tmp_path.iterdir()} >= {"grid.png", "scenes.png", "refocus.png", "training.csv"}


def test_blur_in_the_image_differs_from_blur_by_the_lens(config: Training) -> None:
    """Meadow's own images in focus with their exact depth are healthy; painted with their full blur, they are not."""
    count = 32
    pixels = np.stack([meadow.all_in_focus(i, 32, 5) for i in range(count)])
    _, exact = meadow.photographs(count, 32, 5)
    assert exact is not None
    sharp, disparity = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(exact)[:, None]
    scale = ApertureMixture(config).draw(count, torch.Generator().manual_seed(0))

    def photo(image: Tensor, scale: Tensor) -> Tensor:
        return render(image, disparity, Aperture(), scale, renderer="occlusion", disparity_max=REACH)

    for image, names in ((sharp, []), (photo(sharp, torch.ones(count)), ["baked_blur"])):
        scenes = SceneStatistics.of(config)
        scenes.add(image, disparity, photo(image, scale))
        assert degenerate_answers(scenes.metrics()) == names


def test_truth_that_is_partly_or_wholly_unknown(metrics_of: Callable[..., Metrics], store: Path) -> None:
    exact = np.load(store / "truth" / "disparity.npy")
    for name, change in (("gaps", np.nan), ("flat", 0.01)):
        known = exact.copy()
        known[:, : 4 if name == "gaps" else 32] = change
        shutil.copytree(store / "truth", store / name)
        np.save(store / name / "disparity.npy", known)
    assert metrics_of(truth="gaps")["depth_spearman"] > 0.95
    assert metrics_of(truth="gaps")["depth_spearman_mean"] is not None
    assert metrics_of(truth="flat")["depth_spearman"] is None


def test_inversion_is_more_than_chance() -> None:
    healthy = {
        "scene_depth_std": 0.3,
        "scene_depth_alike": 0.2,
        "scene_defocus_gap": 1.0,
        "scene_luminance_correlation": 0.3,
    }
    for inverted, photos_, names in ((0.55, 40, []), (0.55, 2000, ["inverted_depth"]), (0.8, 40, ["inverted_depth"])):
        assert degenerate_answers(healthy | {"depth_inverted": inverted, "depth_photos": photos_}) == names


def test_the_photographs_themselves_score_like_their_floor(metrics_of: Callable[..., Metrics], store: Path) -> None:
    """A generator of the training distribution: its kernel distance is that of two samples, and darker ones are told apart."""
    pixels = Photos.open(store / "photos").pixels[4:].transpose(0, 3, 1, 2) / 127.5 - 1

    def real(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return pixels, np.zeros((len(pixels), 32, 32))

    def darker(config: Training, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return pixels * 0.7 - 0.2, np.zeros((len(pixels), 32, 32))

    same, other = metrics_of(real), metrics_of(darker)
    assert abs(same["kid"]) < 3 * abs(same["kid_floor"]) + 1e-3
    assert other["kid"] > 10 * abs(same["kid"])
    assert other["fid"] > same["fid"]


# -- a real model ----------------------------------------------------------------------------------------------------


def test_the_same_model_gives_the_same_numbers_byte_for_byte(model: Path, store: Path, tmp_path: Path) -> None:
    texts, pictures = [], []
    for seed in (1, 2):
        plots = tmp_path / str(seed)
        torch.manual_seed(seed)  # no global random state may matter
        np.random.seed(seed)
        metrics = evaluate_model(
            model,
            store / "photos",
            store / "truth",
            plots,
            Evaluate(images=40),
            report_folder=plots,
            cache=tmp_path / f"cache {seed}",
        )
        write_json(plots / "metrics.json", metrics)
        texts.append((plots / "metrics.json").read_bytes())
        pictures.append({p.name: p.read_bytes() for p in plots.iterdir()})
    assert texts[0] == texts[1]
    assert pictures[0] == pictures[1]
    assert set(metrics) >= KEYS
    assert {"report.html", "photos.parquet", "scores.json"} <= pictures[0].keys()
    assert metrics["features"] == "efficientnet-lite0@128"
    assert (metrics["images"], metrics["images_real"]) == (40, 40)
    assert (metrics["train_seconds"], metrics["images_per_second"], metrics["images_seen"]) == (12.5, 51.2, 640)
    flat = {n: v for n, v in metrics.items() if n not in ("features", "degenerate")}
    assert all(v is None or (isinstance(v, int | float) and np.isfinite(v)) for v in flat.values())
    assert metrics["depth_mask_auc"] is None


def test_generation_does_not_depend_on_how_many_follow(model: Path) -> None:
    """The first scenes are the same whatever `images` is, down to a last batch of one."""
    trained = EvaluatedModel.open(model, torch.device("cpu"))

    def photos_of(**params: int) -> Tensor:
        return torch.cat([photo for _, _, photo in trained.generate(Evaluate(**params), torch.device("cpu"))])

    long, short = photos_of(images=65), photos_of(images=33)
    assert (len(long), len(short)) == (65, 33)
    assert torch.allclose(long[:33], short, atol=1e-5)
    assert not torch.allclose(photos_of(images=33, seed=1), short, atol=1e-2)
    assert not torch.allclose(long[32:64], short[:32], atol=1e-2)  # every batch is drawn anew


def test_sharpness_falls_with_blur() -> None:
    image = torch.from_numpy(textured(np.random.default_rng(2), 3)).float()
    blurred = [torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, s, s))) for s in (0, 0.5, 1, 3)]
    steps = torch.stack([log_sharpness(b) for b in blurred]).diff(dim=0)
    assert (steps < -0.3).all()
    half = torch.ones(3, 1, 32, 32)
    half[..., 16:] = 0
    mixed = torch.cat([image[..., :16], blurred[3][..., 16:]], 3)  # sharp on the left, where the weight is
    assert torch.allclose(log_sharpness(mixed, half), log_sharpness(image), atol=0.3)
    assert (log_sharpness(mixed, 1 - half) < log_sharpness(image) - 2).all()
    flat = log_sharpness(torch.zeros(1, 3, 32, 32))
    assert torch.isfinite(flat).all()


# -- bad input -------------------------------------------------------------------------------------------------------


def failing(model: Path, store: Path, tmp_path: Path, truth: str = "truth", **params: int) -> str:
    with pytest.raises(UserError) as caught:
        evaluate_model(model, store / "photos", store / truth, tmp_path / "plots", Evaluate(**{"images": 8, **params}))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bad_input_is_one_clear_line(model: Path, store: Path, tmp_path: Path) -> None:
    assert "no model" in failing(tmp_path / "absent", store, tmp_path)
    assert "evaluate.images is 1" in failing(model, store, tmp_path, images=1)

    def copy(source: Path) -> Path:
        return Path(shutil.copytree(source, tmp_path / str(len(list(tmp_path.iterdir())))))

    half = copy(model)
    (half / "generator.safetensors").write_bytes((model / "generator.safetensors").read_bytes()[:1000])
    assert "generator.safetensors is damaged" in failing(half, store, tmp_path)
    half = copy(model)
    (half / "config.json").write_text("{")
    assert "config.json is damaged" in failing(half, store, tmp_path)
    for name, message in (("generator", "photos that are not finite"), ("estimator", "depth is not finite")):
        sick = copy(model)
        tensors, _ = read_tensors(sick / f"{name}.safetensors")
        write_tensors(sick / f"{name}.safetensors", {key: value * float("nan") for key, value in tensors.items()})
        assert message in failing(sick, store, tmp_path)
    half = copy(model)
    (half / "history.csv").write_text("a,b\n1,2\n")
    assert "history.csv has no column images" in failing(half, store, tmp_path)
    half = copy(model)
    (half / "history.csv").unlink()
    assert "history.csv is not there" in failing(half, store, tmp_path)
    other = copy(model)
    changed = training("quick", {"estimator_channels": 8})
    write_json(other / "config.json", {"domain": "planted", "training": changed.model_dump(), "summary": {}})
    assert "estimator.safetensors does not fit" in failing(other, store, tmp_path)

    wrong = copy(store)
    np.save(wrong / "truth" / "disparity.npy", np.zeros((3, 32, 32), np.float32))
    assert "not its own" in failing(model, wrong, tmp_path)
    wrong = copy(store)
    (wrong / "truth" / "disparity.npy").write_bytes(b"nothing")
    assert "is damaged" in failing(model, wrong, tmp_path)
    small = copy(store)
    pictures = Photos.open(store / "photos")
    photos.write(
        small / "photos", pictures.pixels[:, :16, :16], pictures.index, pd.DataFrame({"source": [], "reason": []})
    )
    assert "32 x 32 px" in failing(model, small, tmp_path)
    index = pictures.index.assign(split="train")
    photos.write(small / "photos", pictures.pixels, index, pd.DataFrame({"source": [], "reason": []}))
    assert "0 test photos" in failing(model, small, tmp_path)


# -- what is kept, and what is known -----------------------------------------------------------------------------------


def test_features_are_extracted_once(
    config: Training, model: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    pooled = Extractor("pooled", lambda x: F.adaptive_avg_pool2d(x / 255, 4).flatten(1), torch.device("cpu"))

    def counted(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return pooled(pixels)

    counted.name = "pooled"  # type: ignore[attr-defined]
    monkeypatch.setattr("argan.evaluation.inputs.extractor", lambda name, device: counted)

    def judged(truth: str = "truth", folder: Path = model, **params: int) -> Evaluation:
        seen.clear()
        params = {"images": 16, **params}
        return measure(folder, store / "photos", store / truth, Evaluate(**params), cache=tmp_path / "cache")

    first = judged()
    assert sum(seen) == 16 + 40 + 10 + 4
    again = judged()
    assert not seen and again.metrics == first.metrics and again.scores.to_json() == first.scores.to_json()
    judged("nothing")
    assert not seen
    judged(seed=1)
    assert sum(seen) == 16  # the generated ones alone
    assert judged(images=15).metrics["kid"] != first.metrics["kid"] and sum(seen) == 15  # fewer are others
    shutil.copytree(model, tmp_path / "other")
    torch.manual_seed(1)
    write_tensors(tmp_path / "other" / "generator.safetensors", networks.build_generator(config).state_dict())
    judged(folder=tmp_path / "other")
    assert sum(seen) == 16  # another generator's
    judged()
    monkeypatch.setattr("argan.evaluation.revision.code_revision", lambda: "other")
    judged()
    assert sum(seen) == 16 + 40 + 10 + 4  # of other code, all of them
    monkeypatch.undo()
    monkeypatch.setattr("argan.evaluation.inputs.extractor", lambda name, device: counted)
    for damage in (lambda data: data[:200], lambda data: data[:70] + b"(" + data[71:], lambda data: b""):
        for file in (tmp_path / "cache").iterdir():
            file.write_bytes(damage(file.read_bytes()))  # made again
        assert judged().metrics == first.metrics and sum(seen) == 16 + 40 + 10 + 4


def test_features_outlive_whoever_clears_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("argan.evaluation.cache.MAX_FILES", 1)
    with Cache.at(tmp_path / "cache") as kept:
        with kept.put(n=1) as write:
            write(np.ones((3, 5), np.float32))
        for file in (tmp_path / "cache").iterdir():
            os.utime(file, (0, 0))
        with kept.put(n=2) as other:
            other(np.zeros((3, 5), np.float32))
        assert kept.find(n=1) is None and kept.find(n=2) is not None
        assert write.features.shape == (3, 5) and write.features.sum() == 15
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be a folder"), Cache.at(tmp_path / "file"):
        pass


def test_masks_judge_depth_where_nothing_else_does(
    evaluated: Callable[..., Evaluation], store: Path, tmp_path: Path
) -> None:
    exact = np.load(store / "truth" / "disparity.npy")
    masked = tmp_path / "masked"
    masked.mkdir()
    masks = np.where(exact > 0.02, 255, np.where(exact < -0.02, 0, 128)).astype(np.uint8)
    np.save(masked / "masks.npy", masks[4:30])  # of 6 validation and 20 test photos
    pd.DataFrame({"photo": range(8, 34)}).to_parquet(masked / "masks.parquet", index=False)
    shutil.copytree(masked, store / "masked")
    right, wrong, nothing = (evaluated(slope=slope, truth="masked").metrics for slope in (1.0, -1.0, 0.0))
    assert right["depth_mask_auc"] > 0.99 and right["depth_mask_auc_low"] > 0.98
    assert wrong["depth_mask_auc"] < 0.01
    assert nothing["depth_mask_auc"] == pytest.approx(0.5)
    assert abs(right["depth_mask_auc_prior"] - 0.5) < 0.1
    assert right["depth_spearman"] is None and right["depth_photos"] is None
    before = evaluated(truth="masked").scores
    assert before.depth_mask_auc is not None and np.isfinite(before.depth_mask_auc).sum() == 6
    np.save(store / "masked" / "masks.npy", 255 - masks[4:30])  # other masks: other scores, and they say so
    assert evaluated(truth="masked").scores.judged_on != before.judged_on
    np.save(store / "masked" / "masks.npy", np.zeros_like(masks[4:30]))
    with pytest.raises(UserError, match=r"masks\.npy tells subject from background in none of 26 photos"):
        evaluated(truth="masked")


def test_a_row_a_photo_and_scores_that_compare(drawn: Callable[..., Metrics], store: Path, tmp_path: Path) -> None:
    def scores(slope: float) -> Scores:
        drawn(slope=slope)
        return Scores.from_json(json.loads((tmp_path / "scores.json").read_text()))

    perfect, inverted = scores(1.0), scores(-1.0)
    assert perfect.judged_on == inverted.judged_on and len(perfect.depth_spearman or ()) == 10
    table = pd.read_parquet(tmp_path / "photos.parquet")
    index = Photos.open(store / "photos").index
    assert table["source"].tolist() == index["source"].iloc[table["photo"]].tolist()
    assert table["split"].value_counts().to_dict() == {"test": 40, "validation": 10}
    assert index["split"].iloc[table["photo"]].tolist() == table["split"].tolist()
    assert table["spearman"].max() < -0.9
    assert inverted.degenerate == ("inverted_depth",)
    decision = gate.decide(replace(inverted, degenerate=()), perfect, Register())
    assert not decision.champion and decision.comparisons["depth_spearman"].verdict == "worse"
    assert gate.decide(perfect, inverted, Register()).champion


# -- which photographs choose ------------------------------------------------------------------------------------------


def test_test_photos_choose_nothing(evaluated: Callable[..., Evaluation], store: Path, model: Path) -> None:
    """What the gate reads is the same whatever the test photos and their depth are; the metrics are not."""
    before = evaluated()
    assert before.scores.judged_on.startswith("validation photos ")
    opened = Photos.open(store / "photos")
    pixels, index = opened.pixels.copy(), opened.index.copy()
    pixels[14:] = 255 - pixels[14:]
    index.loc[14:, "sha256"] = "another " + index["sha256"]
    photos.write(store / "other", pixels, index, pd.DataFrame({"source": [], "reason": []}))
    shutil.copytree(store / "truth", store / "other_truth")
    exact = np.load(store / "truth" / "disparity.npy")
    exact[10:] = np.random.default_rng(3).normal(size=exact[10:].shape)
    np.save(store / "other_truth" / "disparity.npy", exact)
    after = evaluated(photos="other", truth="other_truth")
    assert after.metrics["depth_spearman"] != before.metrics["depth_spearman"]
    assert after.metrics["kid"] != before.metrics["kid"]
    assert after.scores == before.scores
    index["split"] = ["train"] * 4 + ["validation"] * 10 + ["train"] * 40
    photos.write(store / "no_test", pixels, index, pd.DataFrame({"source": [], "reason": []}))
    assert validation_scores(model, store / "no_test", store / "other_truth", Evaluate(images=64)) == before.scores


def test_where_the_splits_disagree_validation_decides(evaluated: Callable[..., Evaluation], store: Path) -> None:
    exact = np.load(store / "truth" / "disparity.npy")
    exact[10:] *= -1  # of test photos
    shutil.copytree(store / "truth", store / "opposed")
    np.save(store / "opposed" / "disparity.npy", exact)
    one, other = (evaluated(slope=slope, truth="opposed") for slope in (1.0, -1.0))
    assert one.metrics["depth_spearman"] < -0.9 and other.metrics["depth_spearman"] > 0.9
    assert one.metrics["degenerate"] == ["inverted_depth"] and other.metrics["degenerate"] == []
    assert one.scores.degenerate == () and other.scores.degenerate == ("inverted_depth",)
    assert gate.decide(one.scores, replace(other.scores, degenerate=()), Register()).champion
    assert not gate.decide(replace(other.scores, degenerate=()), one.scores, Register()).champion


def test_the_mean_depth_is_of_validation_photos(evaluated: Callable[..., Evaluation], store: Path) -> None:
    exact = np.load(store / "truth" / "disparity.npy").copy()  # 10 validation photos, then 40 test photos
    exact[0, :4] = np.nan
    shutil.copytree(store / "truth", store / "unknown_rows")
    np.save(store / "unknown_rows" / "disparity.npy", exact)
    judge = evaluated(truth="unknown_rows").judge
    assert judge.mean == pytest.approx(np.nanmean(exact[:10].astype(float), 0))
    test_photos = np.arange(14, 17)
    assert (judge.predictions(test_photos)["_mean"] == judge.mean).all()


def test_near_duplicates_count_as_one(evaluated: Callable[..., Evaluation], store: Path) -> None:
    """The same photos, known to be of few groups: the same scores, other intervals, and the gate is told."""
    shutil.copytree(store / "photos", store / "grouped")
    index = pd.read_parquet(store / "grouped" / "index.parquet")
    names = ["", "", None, "a"] + ["b", "c"] * 5 + [f"t{i // 10}" for i in range(40)]
    index.assign(group=names).to_parquet(store / "grouped" / "index.parquet")
    single, found = evaluated(), evaluated(photos="grouped")
    assert single.metrics["depth_spearman"] == found.metrics["depth_spearman"]
    assert [m.metrics["depth_photos_independent"] for m in (single, found)] == [40, 4]
    values, groups = found.test["spearman"], found.test["group"]
    ends = [found.metrics[f"depth_spearman_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx(interval(values, groups), rel=1e-5) and ends != pytest.approx(
        interval(values), rel=1e-5
    )
    assert single.scores.groups is None and found.scores.groups == (0, 1) * 5
    assert "(10 in 2 groups)" in found.scores.judged_on
    assert len(found.scores.kid or ()) == 1  # two groups make no two parts of two groups each
    opened = Photos.open(store / "grouped")
    assert near_duplicates(opened, np.arange(4)).tolist() == [0, 1, 2, 3]  # without a name, each is its own


def test_inversion_of_near_duplicates_is_no_evidence() -> None:
    scenes = {
        "scene_depth_std": 0.3,
        "scene_depth_alike": 0.2,
        "scene_defocus_gap": 1,
        "scene_luminance_correlation": 0.3,
    }
    inverted = scenes | {"depth_inverted": 0.8, "depth_photos": 400}
    assert degenerate_answers(inverted | {"depth_photos_independent": 400.0}) == ["inverted_depth"]
    assert degenerate_answers(inverted | {"depth_photos_independent": 4.0}) == []


def test_the_floor_is_of_as_many_photos_as_the_model_made() -> None:
    """A perfect model is above the floor as often as below it. With fewer photos in the floor it was below it always."""
    below = unequal = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        generated, real, other = (random.normal(size=(n, 32)).astype(np.float32) for n in (400, 100, 150))
        found = distance_metrics(generated, real, other, np.arange(100))
        assert found["fid_images"] == 150
        below += found["fid"] < found["fid_floor"]
        unequal += frechet_distance(generated, real) < found["fid_floor"]
    assert 4 <= below <= 16 and unequal == 20


def test_the_distances_and_their_floor_are_of_equally_many_photos() -> None:
    random = np.random.default_rng(0)
    made, real, other = (random.normal(size=(n, 6)).astype(np.float32) for n in (40, 60, 90))
    for generated, substitutes, count in ((made, other, 40), (other, made, 40)):
        metrics = distance_metrics(generated, real, substitutes, np.arange(60))
        assert metrics["fid_images"] == count
        assert metrics["fid"] == frechet_distance(generated[:count], real)
        assert metrics["fid_floor"] == frechet_distance(substitutes[:count], real)
        assert metrics["kid"] == kernel_distance(generated, real)
        assert metrics["kid_floor"] == kernel_distance(substitutes, real)
        parts = kernel_distance_parts(generated, real)
        assert metrics["kid_se"] == pytest.approx(parts.std(ddof=1) / len(parts) ** 0.5)


def test_real_photos_in_the_place_of_generated_ones_are_as_many_and_none_of_the_test_split(
    model: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = Extractor("numbered", lambda x: x.float().mean((2, 3)), torch.device("cpu"))
    monkeypatch.setattr("argan.evaluation.inputs.extractor", lambda name, device: numbered)
    opened = Photos.open(store / "photos")
    known = {tuple(row): i for i, row in enumerate(numbered(np.asarray(opened.pixels)).tolist())}
    with Cache.at(None) as kept:
        for images, count in ((8, 8), (12, 12), (64, 14)):
            params = Evaluate(images=images)
            o = Inputs.open(kept, model, store / "photos", store / "truth", params, None, ("test",))
            rows = [known[tuple(row)] for row in o.substitute_features().tolist()]
            assert len(rows) == len(set(rows)) == count and max(rows) < 14


def test_a_generator_that_lost_modes_has_low_recall(metrics_of: Callable[..., Metrics], store: Path) -> None:
    """Real photos score near their ceiling; of few of them, over and over, precision stays and recall falls."""
    pixels = Photos.open(store / "photos").pixels[4:].transpose(0, 3, 1, 2) / 127.5 - 1

    def of(count: int) -> Plant:
        return lambda config, random: (np.resize(pixels[:count], (64, 3, 32, 32)), np.zeros((64, 32, 32)))

    all_modes, few = metrics_of(of(50)), metrics_of(of(2))
    assert all_modes["recall"] > 2 * few["recall"] and few["kid"] > all_modes["kid"]


# -- the report ----------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.sources += [found[name] or "" for name in ("src", "href") if name in found]
        self.alts += [found.get("alt") or ""] if tag == "img" else []


def test_the_report_needs_nothing_but_itself_and_never_says_fid_of_other_features(
    drawn: Callable[..., Metrics], tmp_path: Path
) -> None:
    drawn(constant)
    page = (tmp_path / "report.html").read_text()
    found = Links()
    found.feed(page)
    text = re.sub(r'"data:image/[^"]*"', '""', page)
    assert len(found.sources) >= 6 and all(source.startswith("data:image/") for source in found.sources)
    assert all(found.alts) and len(found.alts) == len(found.sources)
    assert "http:" not in text and "https:" not in text
    assert "Degenerate: constant_depth." in text and "FID" not in text and "kernel distance (pooled)" in text
    gated = report.with_gate(text, "better <b>", True, [["kid", "0.1", "0.2", "+0.1", "0 to 1", "better"]])
    assert "<h2>Champion</h2><p>better &lt;b&gt;</p>" in gated and "<td>better</td>" in gated
    assert "The gate judges on validation photographs" in gated and "judged on 40 test photographs" in text
    assert "Real against real: 14 real photographs from outside the test split" in text and "14 of them count" in text
    assert "no model can beat" not in text and "held-out" not in text.lower()
    assert report.distance_names("inception-2015-12-05") == ("FID", "KID")


# -- the reference -------------------------------------------------------------------------------------------------------


def test_the_reference_ranks_where_no_depth_is_known_and_is_named(
    metrics_of: Callable[..., Metrics],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = dict(enumerate(np.load(store / "truth" / "disparity.npy"), 4))
    by_photo = {Photos.open(store / "photos").pixels[row].tobytes(): depth for row, depth in exact.items()}
    knowing = lambda photos_: np.stack([7 * by_photo[p.tobytes()] + 3 for p in photos_])  # noqa: E731
    monkeypatch.setattr(reference, "reference", lambda device: knowing)
    right, wrong = (metrics_of(slope=slope, truth="nothing", reference=reference.NAME) for slope in (1.0, -1.0))
    known = metrics_of(slope=1.0)
    assert right["depth_reference"] == reference.NAME and known["depth_reference"] is None
    assert right["depth_spearman"] == pytest.approx(known["depth_spearman"]) and right["depth_sign_agreement"] == 1
    assert wrong["degenerate"] == ["inverted_depth"]
    assert right["depth_side"] is None and right["depth_delta1"] is None  # of an unknown scale nothing can be said
    assert metrics_of(truth="truth", reference=reference.NAME)["depth_reference"] is None  # the truth goes before it
