"""Each idea off: python -m benchmarks.ablation [--images 64000] [--seeds 0 1 2] [--only NAME ...] [--out data/ablation]

Trainings of `meadow` at `quick` that differ from the recipe in one thing each, scored on validation photos: the depth of the
estimator and the kernel distance of 2,000 generated photographs. Test photos are not looked at. What is there of the same recipe
and photographs is not made again (after a change of code, delete it), and an interrupted training goes on where it was, so that
several of these at once (`--seeds 0`, `--seeds 1`) fill a machine: each runs on one thread, and two threads are not twice as fast.
It prints the table of all that is there, in Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from argan import networks
from argan.config.schema import training
from argan.evaluation.truth import load_maps
from argan.files import write_json
from argan.guided_filter import guided_filter
from argan.locks import exclusive_lock
from argan.metrics.depth import depth_scores
from argan.metrics.features import extractor
from argan.metrics.frechet import kernel_distance
from argan.photos.store import Photos
from argan.training import sign
from argan.training.checkpoint import fingerprint
from argan.training.distill import distill
from argan.training.job import TrainingJob
from argan.training.noise import step_random

ROWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "`light: display`": {"light": "display"},
    "`prior_below: 1`": {"prior_below": 1.0},
    "`prior: 0`": {"prior": 0.0},
    "`prior_sign: 0`": {"prior_sign": 0.0},
    "`prior_focus: 0`": {"prior_focus": 0.0},
    "`smoothness: 0`": {"smoothness": 0.0},
    "`aperture_zero: 0`": {"aperture_zero": 0.0},
    "`estimator_outline: 0`": {"estimator_outline": 0},
    "`renderer: gather`, T": {"renderer": "gather"},
    "`renderer: gather`, `expansion: false`": {"renderer": "gather", "expansion": False},
    "`apertures: bernoulli`": {"apertures": "bernoulli"},
    "`apertures: half-normal`": {"apertures": "half-normal"},
    "`apertures: learned`": {"apertures": "learned"},
    "`sign: photographs`": {"sign": "photographs"},
}
GENERATED, BATCH, SALT = 2000, 100, 77


@torch.inference_mode()
def score(
    scenes: networks.SceneGenerator, student: networks.Estimator, store: Photos, truth: np.ndarray
) -> dict[str, float]:
    """Of a generator and its estimator, on the validation photos, whose exact disparity (n, H, W) is `truth`."""
    photos = store.split("validation")
    pixels = networks.from_uint8(torch.from_numpy(photos).permute(0, 3, 1, 2))
    prediction = torch.cat([(student(x) + student(x.flip(3)).flip(3)) / 2 for x in pixels.split(BATCH)])
    maps = [x[:, 0].numpy() for x in (prediction, guided_filter(prediction, pixels))]
    before, after = (depth_scores(x, truth) for x in maps)
    features, random, made = extractor("efficientnet-lite0"), step_random(0, 0, SALT), []
    for _ in range(GENERATED // BATCH):
        image, disparity = scenes(torch.randn(BATCH, scenes.latent, generator=random))
        made.append(
            features(networks.to_uint8(scenes.photograph(image, disparity, scenes.mixture.draw(BATCH, random))))
        )
    real = np.concatenate([features(photos[i : i + BATCH]) for i in range(0, len(photos), BATCH)])
    kid = kernel_distance(np.concatenate(made), real)
    depth = {"depth": after["spearman"], "depth_before_filter": before["spearman"]}
    return depth | {"kid": kid, "right_way_round": after["sign_agreement"]}


def run(name: str, seed: int, images: int, out: Path) -> None:
    """Train and score one row, unless it is there."""
    config = training("quick", ROWS[name] | {"sign_images": images, "images": images, "seed": seed})
    store = Photos.open("data/photos/meadow")
    mark, path = (
        fingerprint(config.learning_params, store.fingerprint),
        out / f"{_file_name(name)}-{images}-{seed}.json",
    )
    if path.exists() and json.loads(path.read_text())["mark"] == mark:
        return
    exact = load_maps(Path("data/truth/meadow"), store, "disparity", "index")
    truth = np.stack([exact[row] for row in store.rows("validation")])
    home = out / fingerprint(config.generator_params, store.fingerprint)  # rows that differ in the estimator share it
    with exclusive_lock(home / ".lock", print, f"{name}: waiting for another to end the same training"):
        job = TrainingJob(config, store.pixels, store.fingerprint, store.rows("train"))
        result, verdict = sign.train(job, home)
    student = distill(result.generator, config)
    scores = score(result.generator, student, store, truth)
    record = {"name": name, "seed": seed, "images": images, "seconds": result.seconds, "side": verdict and verdict.side}
    write_json(path, record | scores | {"mark": mark})


def _file_name(row: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in row).strip("-")


def table(out: Path) -> str:
    """All that is there: of each row its seeds, side by side."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    lines = ["| | images | seeds | depth | before the filter | kernel distance | right way round |", "|" + "---|" * 7]
    for name in ROWS:
        for images in sorted({x["images"] for x in found if x["name"] == name}):
            some = sorted((x for x in found if (x["name"], x["images"]) == (name, images)), key=lambda x: x["seed"])
            cells = [
                ", ".join(f"{x[key]:.3f}" for x in some)
                for key in ("depth", "depth_before_filter", "kid", "right_way_round")
            ]
            lines.append(" | ".join([f"| {name}", str(images), ", ".join(str(x["seed"]) for x in some), *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("data/ablation"))
    record = parser.parse_args()
    torch.set_num_threads(1)
    for name in record.only:
        for seed in record.seeds:
            run(name, seed, record.images, record.out)
    print(table(record.out))


if __name__ == "__main__":
    main()
