"""What a training is made of, who observes it, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from argan import networks
from argan.config.schema import Training
from argan.training.distributed import Processes

CPU = torch.device("cpu")

Row = dict[str, float]
OnRow = Callable[[int, Row], None]  # (images seen, a row of metrics)


@dataclass(frozen=True)
class Observer:
    """Receives what training reports; of several processes only the first one's is called."""

    # every `log_every` images
    on_row: OnRow = lambda images, row: None
    # every `samples_every` images, with the EMA generator
    on_samples: Callable[[int, networks.SceneGenerator], None] = lambda images, ema: None
    # the rows before: a kill may have come before `on_row`
    on_resume: Callable[[list[Row]], None] = lambda history: None
    # makes the `on_row` of the trial of a side
    on_trial: Callable[[str], OnRow] = lambda side: lambda images, row: None
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class TrainingJob:
    """Everything a training needs beside a folder for its checkpoints."""

    config: Training
    photos: np.ndarray  # (N, R, R, 3) uint8; may be a memory map that holds other photos too
    data: str  # hash of the photos and the code
    rows: np.ndarray | None = None  # the photos to train on; None for all
    device: torch.device = CPU
    processes: Processes = field(default_factory=Processes)
    observer: Observer = field(default_factory=Observer)


@dataclass(frozen=True)
class TrainingResult:
    """The EMA generator, the curves, the time taken, and the warnings at the end (names in `health.MEANING`)."""

    generator: networks.SceneGenerator
    history: list[Row]
    seconds: float
    images: int
    health: list[str]
