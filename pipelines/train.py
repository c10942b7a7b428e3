"""Train: data/photos/<domain>/ -> models/<domain>/. Resumes by itself from checkpoints/<domain>/; run it again after a kill."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from argan import dependencies, networks, registry
from argan import visualization as pictures
from argan.config.schema import Params, Training
from argan.effects.iris import Iris
from argan.errors import UserError
from argan.files import swapped, write_json, write_text
from argan.inference.novelty import NOVELTY_FILE, NoveltyDetector
from argan.photos.store import Photos
from argan.tensors import write_tensors
from argan.training import distill as estimator
from argan.training import distributed as processes
from argan.training import loop as training
from argan.training import sign
from argan.training.checkpoint import fingerprint
from argan.training.distributed import Processes
from pipelines.locks import exclusive_lock
from pipelines.stage import grace_period, run_stage, say

# What training imports and no weight depends on, and why. A change to any other module that it imports makes another training:
# an old checkpoint must not pass for the new code's work.
NO_WEIGHT = {
    "pipelines": "calls the training; what it hands on, parameters and photos, is in the fingerprint",
    "argan.__init__": "names the parts of the package",
    "argan.training.checkpoint": "keeps tensors as they are; its SCHEMA, in the fingerprint, says when their meaning changes",
    "argan.training.memory": "measures memory",
    "argan.dependencies": "tells which code this is",
    "argan.errors": "the class of an error",
    "argan.files": "writes files, whatever is in them",
    "argan.training.health": "watches a training and ends it; a step it lets pass is as without it",
    "argan.effects.iris": "goes with the model, measured on photos",
    "argan.inference.novelty": "goes with the model, measured on photos",
    "argan.metrics": "features of photos, for novelty",
    "argan.config": "its values are in the fingerprint themselves",
    "argan.visualization": "draws",
    "argan.registry": "keeps runs and models; a change in it must not throw checkpoints away",
}
# The estimator is distilled when the generator is done: its code is in its own fingerprint alone.
ESTIMATOR = {"argan.training.distill": "has a fingerprint of its own"}
SAMPLES = 12  # scenes on a sample sheet


def train(domain: str, params: Params) -> None:
    """Train, distil the estimator, and write the model whole. One training per domain and workspace at a time.

    On a machine with several GPUs by as many processes; under torchrun by those it has started.
    """
    config = params.training(domain)
    device = processes.device(config.device)
    count = processes.process_count(device, config.batch, config.accumulate, say)
    if count > 1:
        say(f"{domain}: one process for each of {count} GPUs")
        if code := processes.launch(count, ["-m", "pipelines.train", domain]):
            sys.exit(code)
        return
    computes = training.set_up(config, device)
    with processes.process_group(device) as group:
        store = Photos.open(Path("data/photos") / domain)
        if store.pixels.shape[1:3] != (config.resolution, config.resolution):
            height, width = store.pixels.shape[1:3]
            raise UserError(
                f"train.resolution is {config.resolution}, the photos of {domain} are {width} x {height} px; "
                f"the preset decides both: set {domain}.preset and leave train.resolution out"
            )
        _fit(domain, store.folder)
        data = f"{store.fingerprint}-{code_revision('pipelines.train', NO_WEIGHT | ESTIMATOR)}"
        home = Path("checkpoints") / domain
        if group.rank:  # the first process does all there is to do but for the steps
            while not group.broadcast(False):  # until it is this training's turn
                pass
            sign.train(config, store.pixels, home, data=data, rows=store.rows("train"), device=device, processes=group)
            return
        busy = f"{domain}: another training of it runs in this workspace; waiting for it to end"
        with exclusive_lock(
            home / ".lock", say, busy, waiting=lambda: group.broadcast(False)
        ):  # else the others take it for lost
            group.broadcast(True)
            folder = checkpoints(home, fingerprint(config.generator_params, data))
            if computes:
                say(f"{domain}: on {device}: {computes}")
            _train(domain, params, config, store, data, folder, device, group)


def _fit(domain: str, store: Path) -> None:
    """Raises UserError where the quality report says that AR-GAN cannot learn from the photos."""
    try:
        unfit = json.loads((store / "quality.json").read_text(encoding="utf-8"))["unfit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{store}/quality.json is missing or damaged; delete {store} and run `dvc repro`") from error
    if unfit:
        raise UserError(
            f"{domain}: AR-GAN cannot learn from these photos. {' '.join(unfit)} See {store}/report.html; "
            "to train all the same, lower the floor in params.yaml"
        )


def checkpoints(home: Path, mark: str) -> Path:
    """The folder of this very training. That of the one before stays, to be resumed should the params change back."""
    folder = home / mark
    others = sorted((p for p in home.iterdir() if p.is_dir() and p != folder), key=lambda p: p.stat().st_mtime)
    if others and not folder.exists():
        say(f"params, photos or code are not those of the checkpoints in {others[-1]}: starting fresh (those stay)")
    for old in others[:-1]:
        say(f"removing the checkpoints in {old}: those of the training before stay, and of none older")
        shutil.rmtree(old)
    folder.mkdir(exist_ok=True)
    os.utime(folder)  # what is written into folders within does not show
    return folder


def _train(
    domain: str,
    params: Params,
    config: Training,
    store: Photos,
    data: str,
    folder: Path,
    device: torch.device,
    group: Processes,
) -> None:
    tracked = registry.start_run(params.mlflow, domain, config, data, folder, say)
    progress = Progress(domain, config.images)
    rows = store.rows("train")

    def watch(images: int, row: dict[str, float]) -> None:
        progress(images, row)
        tracked.log_row(images, row)

    def trial(side: str) -> Progress:
        return Progress(f"{domain}, {side}", config.sign_images)

    def show(images: int, generator: networks.SceneGenerator) -> None:
        tracked.log_picture(images, samples(generator, config))

    by = f", {group.count} processes" if group.count > 1 else ""
    try:
        say(f"{domain}: training on {len(rows)} photos, {config.images} images to see, on {device}{by}")
        trained, verdict = sign.train(
            config, store.pixels, folder, data=data, rows=rows, watch=watch, watch_trial=trial, remember=tracked.log_missing,
            show=show, say=say, device=device, processes=group,
        )  # fmt: skip
        processes.leave()
        show(trained.images, trained.generator)
        say(f"{domain}: distilling the depth estimator from {config.estimator_images} generated photos")
        began = time.perf_counter()
        mark = fingerprint(config.learning_params, f"{data}-{code_revision('argan.training.distill', NO_WEIGHT)}")
        student = estimator.distill(
            trained.generator, config, device=device, folder=folder / "estimator", mark=mark, say=say
        )
        say(f"{domain}: distilled in {time.perf_counter() - began:.0f} s")
        novelty = NoveltyDetector.fit(store.pixels, rows, store.rows("validation"))
    except BaseException as error:
        if isinstance(error, Exception):
            tracked.end("FAILED")
        else:
            with grace_period(error):
                tracked.end("KILLED")
        raise
    other = config.sign_images if verdict else 0  # seen the other way round: in the seconds, and not in the model
    summary = {
        "train_seconds": round(trained.seconds, 1),
        "images_per_second": round((trained.images + other) / max(trained.seconds, 1e-9), 2),
        "images_seen": trained.images,
        "health": trained.health,
    }
    recipe = config.model_dump(
        exclude={"device", "precision", "accumulate", "stop_when_hopeless"}
    )  # not what the model is
    meta = {
        "domain": domain,
        "training": recipe,
        "data": store.fingerprint,
        "photos": {"count": len(store), "train": len(rows)},
        "prior": {"radius": config.prior_radius, "slope": config.prior_slope, "below": config.prior_below},
        "sign": asdict(verdict) if verdict else None,
        "summary": summary,
        "mlflow": tracked.reference(),
        "git_revision": registry.revision(),
    }
    lens = Iris.load(store.folder)
    with swapped(Path("models") / domain) as new:
        shape = {"domain": domain, "training": recipe}
        write_tensors(new / "generator.safetensors", trained.generator.state_dict(), shape)
        write_tensors(new / "estimator.safetensors", student.state_dict(), shape)
        novelty.save(new / NOVELTY_FILE)
        write_json(new / "config.json", meta)
        pd.DataFrame(trained.history).to_csv(new / "history.csv", index=False)
        (new / "samples").mkdir()
        pictures.write_png(new / "samples" / "samples.png", samples(trained.generator, config))
        if lens:
            lens.save(new)
        write_text(new / "card.md", card(meta, trained.generator.mixture.shares, lens))
        (new / "data").mkdir()
        for part in ("card.md", "quality.json", "report.html"):  # what it learned from goes where the model goes
            shutil.copyfile(store.folder / part, new / "data" / part)
    tags = {"health": ", ".join(trained.health) or "ok"} | ({"sign": str(verdict)} if verdict else {})
    tracked.end(tags=tags)
    say(f"{domain}: models/{domain} written, {summary['images_per_second']} images/s")


class Progress:
    """A line now and then: how far, how fast, how long still, and the losses."""

    def __init__(self, domain: str, total: int, every: float = 10.0) -> None:
        self.domain, self.total, self.every = domain, total, every
        self.first: tuple[float, int] | None = (
            None  # where the clock started, so that a resumed run tells its own speed
        )
        self.began, self.last = time.perf_counter(), float("-inf")

    def __call__(self, images: int, row: dict[str, float]) -> None:
        now = time.perf_counter()
        if self.first is None:
            self.first = (now, images)
        elif now - self.last >= self.every or images >= self.total:
            speed = (images - self.first[1]) / (now - self.first[0])
            left = max(self.total - images, 0) / speed
            self.last = now
            say(
                f"{self.domain}: {images}/{self.total} images ({images / self.total:.0%}), {speed:.0f}/s, "
                f"{left // 60:.0f}:{left % 60:02.0f} left, "
                f"loss D {row['loss_d']:.3f} G {row['loss_g']:.3f}, disparity std {row['disparity_std']:.3f}"
            )


@torch.inference_mode()
def samples(generator: networks.SceneGenerator, config: Training) -> np.ndarray:
    """A sheet of scenes at fixed latents, (H, W, 3) uint8: in threes of image in focus, disparity, and photo at full aperture."""
    device = next(generator.parameters()).device
    latents = torch.randn(SAMPLES, config.latent, generator=torch.Generator().manual_seed(0)).to(device)
    image, disparity = generator(latents)
    photo = generator.photograph(image, disparity, torch.ones(SAMPLES, device=device))
    colors = pictures.disparity_colors(disparity[:, 0].cpu().numpy(), config.disparity_max)
    trios = np.stack([networks.to_uint8(image), colors, networks.to_uint8(photo)], 1).reshape(-1, *colors.shape[1:])
    return pictures.grid(trios, columns=12, upscale=max(1, 128 // config.resolution))


def code_revision(module: str, without: dict[str, str]) -> str:
    """A short hash of the code that decides what the weights become: the module and what it imports, less what is `without`."""
    return dependencies.revision(dependencies.closure((module,), without))


def apertures(t: dict[str, Any], shares: list[float]) -> str:
    """Through which apertures scenes were photographed in training, and what was learned of them."""
    reach = "" if t["apertures"] == "bernoulli" else f", {t['aperture_min']:g} to 1 of the full one"
    learned = f": {', '.join(f'{share:.0%}' for share in shares)}, from the smallest up" if shares else ""
    return f"{t['apertures']}{reach}{learned}; closed in {t['aperture_zero']:.0%}"


def told(verdict: dict[str, Any] | None) -> str:
    """Where the sign of depth is from."""
    return f"learned from the photographs: {sign.Verdict(**verdict)}" if verdict else "told by the prior"


def card(meta: dict[str, Any], shares: list[float], lens: Iris | None = None) -> str:
    """The model's card: what it is, how it was made, what it is not for. `shares` of learned apertures, else none."""
    t, s = meta["training"], meta["summary"]
    return f"""# argan-{meta["domain"]}

Scenes (an all-in-focus image and its disparity) learned from {meta["photos"]["train"]} flat photographs of the domain
*{meta["domain"]}*: no depth sensor, no stereo, no focal stack, no pretrained network. With it, a depth estimator distilled
from generated photographs alone.

| | |
|---|---|
| preset, resolution | {t["preset"]}, {t["resolution"]} px |
| recipe, renderer, seed | {t["recipe"]}, {t["renderer"]}, {t["seed"]} |
| apertures | {apertures(t, shares)} |
| which way round | {told(meta.get("sign"))} |
| images seen | {s["images_seen"]} in {s["train_seconds"] / 60:.1f} minutes ({s["images_per_second"]:.0f}/s) |
| photos (fingerprint) | {meta["photos"]["count"]} (`{meta["data"]}`) |
| code revision | `{meta["git_revision"] or "unknown"}` |

{lens.told if lens else "Aperture not known."}

Use: `argan sample {meta["domain"]}`, `argan depth {meta["domain"]} PHOTO`, `argan bokeh {meta["domain"]} PHOTO`. Disparity is
signed, 0 in the focal plane, larger = nearer, as a fraction of the image's width; it is relative, no measure in metres.

Method: aperture rendering GAN (Kaneko, CVPR 2021). Files: safetensors, JSON, CSV and PNG; nothing is pickled.
"""


if __name__ == "__main__":
    run_stage(train)
