"""Trainings of a few steps, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from argan.config.schema import Training, training
from argan.training import loop, sign
from argan.training.job import Observer, TrainingJob, TrainingResult

SMALL: dict[str, Any] = {
    "images": 96,
    "batch": 8,
    "latent": 8,
    "generator_channels": 4,
    "discriminator_channels": 8,
    "channels_max": 16,
    "checkpoint_every": 24,
    "log_every": 16,
    "samples_every": 48,
    "penalty_every": 2,
    "prior_fade": 48,
}


def small(**changes: object) -> Training:
    """The smallest networks, for 96 images."""
    return training("quick", SMALL | changes)


def train(
    config: Training,
    photos: np.ndarray,
    folder: Path,
    *,
    rows: np.ndarray | None = None,
    stop_at: int | None = None,
    **callbacks: Any,
) -> TrainingResult:
    """`loop.train` with an observer of these callbacks."""
    return loop.train(TrainingJob(config, photos, "d", rows, observer=Observer(**callbacks)), folder, stop_at)


def train_with_sign(
    config: Training, photos: np.ndarray, folder: Path, **callbacks: Any
) -> tuple[TrainingResult, sign.Verdict | None]:
    """`sign.train` with an observer of these callbacks."""
    folder.mkdir(exist_ok=True)
    return sign.train(TrainingJob(config, photos, "d", observer=Observer(**callbacks)), folder)
