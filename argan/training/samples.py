"""The sample sheet: the same latents from the first image to the last, and in the model."""

from __future__ import annotations

import numpy as np
import torch

from argan import networks, visualization
from argan.config.schema import Training

SAMPLES = 12  # scenes on a sheet


@torch.inference_mode()
def sample_sheet(generator: networks.SceneGenerator, config: Training) -> np.ndarray:
    """Scenes at fixed latents, (H, W, 3) uint8: in threes of image in focus, disparity, and photo at full aperture."""
    device = next(generator.parameters()).device
    latents = torch.randn(SAMPLES, config.latent, generator=torch.Generator().manual_seed(0)).to(device)
    image, disparity = generator(latents)
    photo = generator.photograph(image, disparity, torch.ones(SAMPLES, device=device))
    colors = visualization.disparity_colors(disparity[:, 0].cpu().numpy(), config.disparity_max)
    triples = np.stack([networks.to_uint8(image), colors, networks.to_uint8(photo)], 1)
    tiles = triples.reshape(-1, *colors.shape[1:])
    return visualization.grid(tiles, columns=12, upscale=max(1, 128 // config.resolution))
