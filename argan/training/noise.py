"""Random numbers of a step: a function of the seed and the images seen, so that resuming needs no random state."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Generator, Tensor

from argan.config.schema import Training
from argan.networks.mixture import aperture_noise
from argan.training.augment import draw_numbers
from argan.training.device import to_device


def step_random(seed: int, images: int, salt: int = 0) -> Generator:
    """The random state of the step that starts at `images` seen."""
    state = np.random.SeedSequence([seed, images, salt]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True)
class StepNoise:
    """The random numbers of one step, a row per image of the full batch: a part of the batch takes its rows of them."""

    latents: Tensor
    aperture: Tensor  # input of the aperture mixture
    real: Tensor  # augmentation of photographs
    fake: Tensor  # augmentation of renderings in the discriminator's turn
    generator: Tensor  # augmentation of renderings in the generator's turn

    @classmethod
    def sample(cls, config: Training, random: Generator) -> StepNoise:
        """Noise for `config.batch` images."""
        latents = torch.randn(config.batch, config.latent, generator=random)
        aperture = aperture_noise(config.batch, random)
        real, fake, generator = (draw_numbers(config.batch, config, random) for _ in range(3))
        return cls(latents, aperture, real, fake, generator)

    def rows(self, part: slice, device: torch.device) -> StepNoise:
        """The noise of a part of the batch, on the device."""
        return StepNoise(*(to_device(getattr(self, f.name)[part], device) for f in fields(self)))
