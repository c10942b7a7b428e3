"""What each preset costs: parameters, operations of a training step, memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from argan.config import schema
from argan.config.schema import Training
from argan.optics import Aperture
from argan.optics.layered import blur_layers, composite, slice_layers
from argan.training import memory
from argan.training.step import Trainer
from benchmarks.timing import Numbers, Work, peak_bytes

COST = ("quick", "64", "128", "256")


def cost() -> Numbers:
    """What each preset costs: parameters, operations of a training step an image, and memory.

    Operations are multiplications and additions, as torch counts them, of convolutions and matrices, forward and backward, the
    rare penalty spread over its interval: counted on two images, and the same on every machine. A CPU's renderer has neither, a
    GPU's has those of `gflop_gpu_renderer` besides. `memory_gb` is `argan.training.memory`'s estimate for the preset's batch;
    `memory_measured` the peak of a step of these two images over the estimate for two.
    """
    numbers: Numbers = {}
    for preset in COST:
        config = schema.training(preset, {"batch": 2})
        photos = np.random.default_rng(0).integers(0, 256, (4, config.resolution, config.resolution, 3), np.uint8)
        trainer, key = Trainer(config, photos, torch.device("cpu")), f"cost_{preset}"
        rare, often = operations(trainer.step), operations(trainer.step)
        numbers |= {
            f"{key}_parameters_{name}": count for name, count in memory.parameter_counts(config).items() if count
        }
        mean = (rare + (config.penalty_every - 1) * often) / config.penalty_every
        numbers[f"{key}_gflop_per_image"] = mean / config.batch / 1e9
        numbers[f"{key}_gflop_gpu_renderer"] = operations(partial(_by_torch, config)) / 1e9
        numbers[f"{key}_memory_gb"] = memory.bytes_needed(schema.training(preset), trainer.device) / 1e9
        trainer.state.images = 0
        numbers[f"{key}_memory_measured"] = peak_bytes(trainer.step) / (
            2 * memory.bytes_per_image(config, trainer.device)
        )
    return numbers


def _by_torch(config: Training) -> None:
    """A photograph and its gradients, as a GPU makes them."""
    image, disparity = (torch.zeros(1, c, config.resolution, config.resolution, requires_grad=True) for c in (3, 1))
    stack, levels = slice_layers(image, disparity, config.layers, config.disparity_max)
    composite(blur_layers(stack, levels, torch.ones(1), Aperture())).sum().backward()


def operations(work: Work) -> float:
    """Floating point operations of `work`, by torch's own formulas. (Its FlopCounterMode cannot follow a penalty on gradients.)"""

    class Count(TorchDispatchMode):
        total = 0.0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                self.total += formula(*args, **(kwargs or {}), out_val=out)
            return out

    with Count() as count:
        work()
    return count.total
