"""Generated photographs: their features, the statistics of their scenes, and some of them to look at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from argan import networks
from argan.errors import UserError
from argan.evaluation.arrays import BATCH, Maps, Pixels
from argan.evaluation.inputs import Inputs
from argan.evaluation.optics import OpticsScores
from argan.evaluation.revision import environment
from argan.evaluation.scenes import SceneStatistics

SHOWN = 48  # photos in grid.png
OPTICAL = 256  # scenes whose optics are measured, ten times as dear as the rest: its means are then known to 0.01


@dataclass(frozen=True)
class Generated:
    """features (n, F) of the generated photos, and the first SHOWN of the photos (m, H, W, 3)."""

    features: Maps
    scenes: SceneStatistics
    optics: OpticsScores
    shown: Pixels


def generate(inputs: Inputs, model: Path, log: Callable[[str], None]) -> Generated:
    """`params.images` photos of the model, whose folder `model` is named in the UserError of a photo that is not finite."""
    scenes, optics = SceneStatistics.of(inputs.model.config), OpticsScores()
    shown: list[Pixels] = []
    key = {
        "generator": inputs.model.digest,
        "extractor": inputs.extract.name,
        "images": inputs.params.images,
        "seed": inputs.params.seed,
    }
    key |= environment()
    cached = inputs.cache.find(**key)
    log(f"generating {inputs.params.images} photos")
    with inputs.cache.put(**key) if cached is None else nullcontext() as write:
        for image, disparity, photo in inputs.model.generate(inputs.params, inputs.device):
            if not torch.isfinite(photo).all():
                raise UserError(
                    f"{model} makes photos that are not finite: its training diverged; train again with a lower "
                    "train.learning_rate"
                )
            pixels = networks.to_uint8(photo)
            if write is not None:
                write(inputs.extract(pixels))
            scenes.add(image, disparity, photo)
            if scenes.count <= OPTICAL:
                optics.add(inputs.model.generator, image, disparity)
            if len(shown) * BATCH < SHOWN:
                shown.append(pixels)
    features = write.features if write is not None else cached
    assert features is not None
    return Generated(features, scenes, optics, np.concatenate(shown)[:SHOWN])
