"""Train: data/photos/<domain>/ -> models/<domain>/. Resumes by itself from checkpoints/<domain>/; run it again after a kill."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from argan.config.schema import Params, Training
from argan.errors import UserError
from argan.locks import exclusive_lock
from argan.photos.store import Photos
from argan.training import checkpoint, distributed, sign
from argan.training.device import configure_device, select_device
from argan.training.job import TrainingJob
from argan.training.revision import GENERATOR, code_revision
from pipelines.stage import run_stage, say
from pipelines.tracked_training import train_and_write


def train(domain: str, params: Params) -> None:
    """Train, distil the estimator, and write the model whole. One training per domain and workspace at a time.

    On a machine with several GPUs by as many processes; under torchrun by those it has started.
    """
    config = params.training(domain)
    device = select_device(config.device)
    count = distributed.process_count(device, config.batch, config.accumulate, say)
    if count > 1:
        say(f"{domain}: one process for each of {count} GPUs")
        if code := distributed.launch(count, ["-m", "pipelines.train", domain]):
            sys.exit(code)
        return
    description = configure_device(config, device)
    with distributed.process_group(device) as processes:
        store = open_photos(domain, config)
        data = f"{store.fingerprint}-{code_revision(GENERATOR)}"
        job = TrainingJob(config, store.pixels, data, store.rows("train"), device, processes)
        home = Path("checkpoints") / domain
        if processes.rank:  # the first process does everything except the steps
            while not processes.broadcast(False):  # until it is this training's turn
                pass
            sign.train(job, home)
            return
        busy = f"{domain}: another training of it runs in this workspace; waiting for it to end"
        # While it waits, the other processes must hear from it, or they take it for lost
        with exclusive_lock(home / ".lock", say, busy, waiting=lambda: processes.broadcast(False)):
            processes.broadcast(True)
            fingerprint = checkpoint.fingerprint(config.generator_params, data)
            folder = checkpoint.training_folder(home, fingerprint, say)
            if description:
                say(f"{domain}: on {device}: {description}")
            train_and_write(domain, params, job, store, folder)


def open_photos(domain: str, config: Training) -> Photos:
    """The photo store. Raises UserError where it has another resolution, or where its quality report advises against training."""
    store = Photos.open(Path("data/photos") / domain)
    height, width = store.pixels.shape[1:3]
    if (height, width) != (config.resolution, config.resolution):
        raise UserError(
            f"train.resolution is {config.resolution}, the photos of {domain} are {width} x {height} px; "
            f"the preset decides both: set {domain}.preset and leave train.resolution out"
        )
    folder = store.folder
    try:
        unfit = json.loads((folder / "quality.json").read_text(encoding="utf-8"))["unfit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/quality.json is missing or damaged; delete {folder} and run `dvc repro`") from error
    if unfit:
        raise UserError(
            f"{domain}: AR-GAN cannot learn from these photos. {' '.join(unfit)} See {folder}/report.html; "
            "to train all the same, lower the floor in params.yaml"
        )
    return store


if __name__ == "__main__":
    run_stage(train)
