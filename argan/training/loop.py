"""The training loop: steps, rows of metrics, checkpoints, signals.

Images seen is the only clock. Random state and data order are functions of (seed, images seen), so that resuming needs no
more than the tensors: N + M steps equal N, a kill, a resume and M, bit for bit on CPU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn

import torch

from argan.errors import UserError
from argan.interrupt import deferred_signals
from argan.training import checkpoint, health, memory
from argan.training.job import Row, TrainingJob, TrainingResult
from argan.training.statistics import photo_spread
from argan.training.step import Trainer

RESUME_HINT = "run the same command again to resume"


def train(job: TrainingJob, folder: Path, stop_at: int | None = None) -> TrainingResult:
    """Train, resuming from the newest matching checkpoint in `folder`.

    Only as far as `stop_at` images, if given; the same call without it continues from there. SIGINT and SIGTERM end the step,
    save a checkpoint and raise KeyboardInterrupt. Raises UserError for a number that is not finite, naming step and tensor, and
    for a training that `stop_when_hopeless` ends; the last good checkpoint stays. Of several processes only the first reads and
    writes `folder` and calls the observer.
    """
    return _Loop(job, folder, stop_at).run()


class _Loop:
    def __init__(self, job: TrainingJob, folder: Path, stop_at: int | None) -> None:
        config, self.processes, self.observer = job.config, job.processes, job.observer
        memory.check_fits(config, job.device, self.processes.count)
        self.config, self.folder = config, folder
        self.last = min(stop_at or config.images, config.images)
        self.trainer = Trainer(config, job.photos, job.device, job.rows, self.processes)
        self.state, self.is_first = self.trainer.state, self.processes.rank == 0
        self.fingerprint = checkpoint.fingerprint(config.generator_params, job.data)
        self.resume()
        self.photo_std = photo_spread(job.photos, job.rows)
        self.saved_at, self.warned = self.state.images, set[str]()
        self.signals: list[str] = []

    def run(self) -> TrainingResult:
        config, state, observer = self.config, self.state, self.observer
        began, seconds_before = time.perf_counter(), state.seconds
        with deferred_signals(self.report_timeout) as self.signals:
            while state.images < self.last:
                state.pending.append(self.trainer.step())
                state.seconds = seconds_before + time.perf_counter() - began
                row = self.log_row() if self.crossed(config.log_every) else None
                interrupted = self.processes.any(bool(self.signals))  # all of them leave after the same step
                if interrupted:  # before anything that may take long
                    self.save()
                if self.is_first and row:
                    observer.on_row(state.images, row)
                if self.is_first and self.crossed(config.samples_every):
                    observer.on_samples(state.images, state.ema)
                if not interrupted and (state.images >= self.last or self.crossed(config.checkpoint_every)):
                    self.save()
                if interrupted:
                    self.leave()
                if config.stop_when_hopeless:
                    self.stop_if_stalled()
            if self.processes.any(bool(self.signals)):  # while the last row, sheet or checkpoint was written
                self.leave()
        names = health.warnings(state.history, config, self.photo_std)
        return TrainingResult(state.ema, state.history, state.seconds, state.images, names)

    def say(self, line: str) -> None:
        if self.is_first:
            self.observer.say(line)

    def crossed(self, interval: int) -> bool:
        return crossed_interval(self.state.images, interval, self.config.batch)

    def resume(self) -> None:
        self.processes.require_equal("params, code or photos", self.fingerprint)
        newest = checkpoint.newest(self.folder, self.fingerprint, self.observer.say) if self.is_first else None
        if loaded := self.processes.broadcast(newest):
            self.state.restore(*loaded)
            self.say(f"resuming at {self.state.images} of {self.last} images")
            if self.is_first:
                self.observer.on_resume(self.state.history)

    def save(self) -> None:
        state = self.state
        self.trainer.finite_check.raise_if_bad()
        meta = {
            "fingerprint": self.fingerprint,
            "images": state.images,
            "seconds": state.seconds,
            "history": state.history,
        }
        if self.is_first:
            checkpoint.save(self.folder, state.images, state.tensors(), meta, self.config.checkpoints_kept)
        self.saved_at = state.images

    def log_row(self) -> Row:
        """Means over the steps since the last row, appended to the history; and a 1 for every warning that stands."""
        state = self.state
        self.trainer.finite_check.raise_if_bad()
        steps, state.pending = state.pending, []
        row = {name: torch.stack([step[name] for step in steps]).nanmean().item() for name in steps[0]}
        state.history.append({"images": state.images, **row})
        names = health.warnings(state.history, self.config, self.photo_std)
        for name in names:
            if name not in self.warned:
                self.say(f"warning: {name} at {state.images} images: {health.MEANING[name]}")
        self.warned = set(names)
        return row | {f"warning_{name}": 1.0 for name in names}

    def stop_if_stalled(self) -> None:
        if name := health.stalled(self.state.history, self.config, self.photo_std):
            raise UserError(
                f"training is hopeless at {self.state.images} images: {name} for {health.STALLED_AFTER:.0%} of its length; "
                f"{health.MEANING[name]}; to go on all the same: train.stop_when_hopeless: false"
            )

    def report_timeout(self) -> None:
        self.say(
            "interrupted in the middle of something long, a step or a talk with MLflow; "
            f"saved at {self.saved_at} images; {RESUME_HINT}"
        )

    def leave(self) -> NoReturn:
        self.say(f"interrupted, saved at {self.state.images} images; {RESUME_HINT}")
        raise KeyboardInterrupt(self.signals[0] if self.signals else "SIGTERM")


def crossed_interval(images: int, interval: int, batch: int) -> bool:
    """Whether the step that ended at `images` crossed a multiple of `interval`."""
    return images // interval != (images - batch) // interval
