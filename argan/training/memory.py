"""What a training will need: its parameters and its memory, and whether they fit."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.optics import Aperture
from argan.training.device import free_bytes

FLOAT = 4  # bytes

# Copies that a step keeps of what one image is made of, fitted to the peak of the steps with R1 and R2 as torch's profiler has it
# (docs/results.md, "What a preset costs"): of the discriminator's activations, for a photo and a rendering, differentiated
# twice; of the generator's; of what the renderer keeps: a GPU all layers, the gather with T its rays, a CPU next to nothing.
DISCRIMINATOR, GENERATOR, LAYERS, RAYS = {"modern": 5.4, "paper": 12.5}, 6.5, 4.0, 10.0
BFLOAT16_SHARE = (
    2 / 3
)  # of the networks' part remains in bfloat16: half of the activations, and what float32 is kept of them
RESERVE = 1.15  # what allocators and libraries take besides


@lru_cache(maxsize=16)
def parameter_counts(config: Training) -> dict[str, int]:
    """How many each network has; `expansion` is T, and part of the generator."""
    with torch.device("meta"):
        scene = networks.build_generator(config)
        parts = {
            "generator": scene,
            "expansion": scene.expansion or nn.Identity(),
            "discriminator": networks.build_discriminator(config),
            "estimator": networks.Estimator(config.estimator_channels, config.disparity_max),
        }
    return {name: sum(p.numel() for p in network.parameters()) for name, network in parts.items()}


@lru_cache(maxsize=16)
def bytes_per_image(config: Training, device: torch.device) -> int:
    """Memory that a step takes for each image that is worked on at a time."""
    r = config.resolution
    with torch.device("meta"):
        generator = _activations(networks.build_generator(config), torch.empty(1, config.latent))
        discriminator = _activations(networks.build_discriminator(config), torch.empty(1, 3, r, r))
    numbers = DISCRIMINATOR[config.recipe] * discriminator + GENERATOR * generator
    if networks.uses_bfloat16(config, device):
        numbers *= BFLOAT16_SHARE
    if config.renderer == "gather":
        numbers += RAYS * Aperture().views * r**2
    elif device.type != "cpu":
        numbers += LAYERS * config.layers * 4 * r**2
    return round(FLOAT * numbers)


def _activations(network: nn.Module, example: torch.Tensor) -> int:
    """How many numbers its convolutions output for an example."""
    count = 0

    def add(_: nn.Module, __: object, out: torch.Tensor) -> None:
        nonlocal count
        count += out.numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    network(example)
    return count


def bytes_needed(config: Training, device: torch.device, processes: int = 1) -> int:
    """Memory that training takes in one of `processes`, without the photographs: weights, gradients, Adam's two moments, the
    EMA, and a part of the batch."""
    count = parameter_counts(config)
    weights = FLOAT * (5 * count["generator"] + 4 * count["discriminator"])
    at_a_time = -(-config.batch // (config.accumulate * processes))
    return round(RESERVE * (weights + at_a_time * bytes_per_image(config, device)))


def check_fits(config: Training, device: torch.device, processes: int = 1) -> None:
    """Raises UserError where a training does not fit into the free memory, with the setting that would."""
    available, needed = free_bytes(device), bytes_needed(config, device, processes)
    if needed <= available:
        return
    message = f"train.batch {config.batch} at {config.resolution} px needs about {_gb(needed)} of memory, {_gb(available)} are free"
    even = [n for n in range(config.accumulate + 1, config.batch + 1) if config.batch % (n * processes) == 0]
    for parts in even:
        if bytes_needed(config.model_copy(update={"accumulate": parts}), device, processes) <= available:
            raise UserError(
                f"{message}; set train.accumulate to {parts}: the same training, {parts} parts one after the other"
            )
    raise UserError(f"{message}, and a single image does not fit; choose a smaller preset or free some memory")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
