"""The model under evaluation: its networks on a device, its training history, and the scenes that it generates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from argan import networks
from argan.config.schema import Evaluate, Training
from argan.errors import UserError
from argan.evaluation.arrays import BATCH, Maps, Pixels
from argan.inference.model import Model
from argan.networks.estimator import estimate
from argan.training import losses
from argan.training.noise import step_random

SALT = 2  # separates the latents of evaluation from those of training and distillation


@dataclass(frozen=True)
class EvaluatedModel:
    """A model folder, opened. digest: a hash of the generator, of its weights and of the configuration that shapes them."""

    config: Training
    generator: networks.SceneGenerator
    estimator: networks.Estimator
    summary: dict[str, float]
    history: pd.DataFrame
    digest: str

    @classmethod
    def open(cls, folder: Path, device: torch.device) -> EvaluatedModel:
        """Raises UserError where something is missing or damaged."""
        loaded = Model.load(folder)
        try:
            digest = hashlib.sha256((folder / "generator.safetensors").read_bytes())
            digest.update(json.dumps(loaded.config.model_dump(), sort_keys=True).encode())
            summary = dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["summary"])
            history = _read_history(folder / "history.csv")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder} is damaged ({reason}); delete it and run `dvc repro`") from error
        generator, estimator = (
            networks.channels_last(loaded.generator, device),
            networks.channels_last(loaded.estimator, device),
        )
        return cls(loaded.config, generator, estimator, summary, history, digest.hexdigest()[:24])

    @torch.inference_mode()
    def depth(self, photos: Pixels, device: torch.device) -> Maps:
        """uint8 (N, H, W, 3) -> the estimated disparity (N, H, W)."""
        parts = [np.empty((0, *photos.shape[1:3]), np.float32)]
        for i in range(0, len(photos), BATCH):
            batch = torch.from_numpy(np.array(photos[i : i + BATCH])).to(device).permute(0, 3, 1, 2)
            parts.append(estimate(self.estimator, networks.from_uint8(batch))[:, 0].cpu().numpy())
        return np.concatenate(parts)

    def prior(self) -> Maps:
        """The center focus prior this model was trained with, (H, W)."""
        prior: Maps = losses.prior(self.config)[0, 0].numpy()
        return prior

    @torch.inference_mode()
    def generate(self, params: Evaluate, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of image, disparity, photo: `params.images` scenes, each with an aperture of the training mixture."""
        for start in range(0, params.images, BATCH):
            random = step_random(params.seed, start, SALT)
            latents = torch.randn(BATCH, self.config.latent, generator=random)[: params.images - start].to(device)
            scale = self.generator.mixture.draw(BATCH, random, device)[: params.images - start]
            image, disparity = self.generator(latents)
            yield image, disparity, self.generator.photograph(image, disparity, scale)


def _read_history(path: Path) -> pd.DataFrame:
    """The training curves, empty where training ended before its first row."""
    try:
        table = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"images": []})
    if "images" not in table:
        raise ValueError(f"{path.name} has no column images")
    return table
