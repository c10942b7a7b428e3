"""A training that MLflow follows, from its first step to the folder of its model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from argan import networks, registry
from argan.config.schema import Params
from argan.inference.model_folder import TrainedModel, write_model
from argan.inference.novelty import NoveltyDetector
from argan.photos.store import Photos
from argan.training import checkpoint, distributed, sign
from argan.training.distill import distill
from argan.training.job import Observer, TrainingJob
from argan.training.progress import Progress
from argan.training.revision import ESTIMATOR, code_revision
from argan.training.samples import sample_sheet
from pipelines.stage import grace_period, say


def train_and_write(domain: str, params: Params, job: TrainingJob, store: Photos, folder: Path) -> None:
    """Train the generator, distil the estimator, and write models/<domain>. `folder` is this training's own."""
    config = job.config
    run = registry.start_run(params.mlflow, domain, config, job.data, folder, say)
    job = replace(job, observer=_observer(domain, job, run))
    with _ended_on_failure(run):
        by = f", {job.processes.count} processes" if job.processes.count > 1 else ""
        photos = len(store.rows("train"))
        say(f"{domain}: training on {photos} photos, {config.images} images to see, on {job.device}{by}")
        result, verdict = sign.train(job, folder)
        distributed.leave()
        job.observer.on_samples(result.images, result.generator)
        estimator = _distill(domain, job, result.generator, folder / "estimator")
        novelty = NoveltyDetector.fit(store.pixels, store.rows("train"), store.rows("validation"))
    model = TrainedModel(
        domain, config, store, result, verdict, estimator, novelty, run.reference(), registry.revision()
    )
    write_model(model, Path("models") / domain)
    tags = {"health": ", ".join(result.health) or "ok"} | ({"sign": str(verdict)} if verdict else {})
    run.end(tags=tags)
    say(f"{domain}: models/{domain} written, {model.summary['images_per_second']} images/s")


def _observer(domain: str, job: TrainingJob, run: registry.TrainingRun) -> Observer:
    config, progress = job.config, Progress(domain, job.config.images, say)

    def on_row(images: int, row: dict[str, float]) -> None:
        progress(images, row)
        run.log_row(images, row)

    return Observer(
        on_row=on_row,
        on_samples=lambda images, generator: run.log_picture(images, sample_sheet(generator, config)),
        on_resume=run.log_missing,
        on_trial=lambda side: Progress(f"{domain}, {side}", config.sign_images, say),
        say=say,
    )


def _distill(domain: str, job: TrainingJob, generator: networks.SceneGenerator, folder: Path) -> networks.Estimator:
    config, began = job.config, time.perf_counter()
    say(f"{domain}: distilling the depth estimator from {config.estimator_images} generated photos")
    fingerprint = checkpoint.fingerprint(config.learning_params, f"{job.data}-{code_revision(ESTIMATOR)}")
    estimator = distill(generator, config, device=job.device, folder=folder, fingerprint=fingerprint, say=say)
    say(f"{domain}: distilled in {time.perf_counter() - began:.0f} s")
    return estimator


@contextmanager
def _ended_on_failure(run: registry.TrainingRun) -> Iterator[None]:
    """A run that fails or is killed ends as FAILED or KILLED in MLflow too."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            run.end("FAILED")
        else:
            with grace_period(error):
                run.end("KILLED")
        raise
