"""Everything that changes in training, as tensors of a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from argan import networks
from argan.config.schema import Training
from argan.tensors import strip_prefix

# The networks of `State` and the prefixes of their tensors in a checkpoint
NETWORKS = {"generator": "generator", "discriminator": "discriminator", "ema": "average"}
OPTIMIZERS = ("optimizer_g", "optimizer_d")


@dataclass
class State:
    """Both players, the exponential moving average (EMA) of the generator, the optimisers, the clock and the curves."""

    generator: networks.SceneGenerator
    discriminator: nn.Module
    ema: networks.SceneGenerator
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, Tensor]] = field(
        default_factory=list
    )  # metrics of the steps since the last row of the history

    @classmethod
    def fresh(cls, config: Training, device: torch.device) -> State:
        """The state before the first step, a function of the config alone."""
        torch.manual_seed(config.seed)
        generator = networks.channels_last(networks.build_generator(config), device)
        discriminator = networks.channels_last(networks.build_discriminator(config), device)
        ema = networks.channels_last(networks.build_generator(config), device).requires_grad_(False)
        ema.load_state_dict(generator.state_dict())
        adam: dict[str, Any] = {"lr": config.learning_rate, "betas": (0.0, 0.99), "fused": True}
        return cls(
            generator,
            discriminator,
            ema.eval(),
            torch.optim.Adam(generator.parameters(), **adam),
            torch.optim.Adam(discriminator.parameters(), **adam),
        )

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside `images`, `seconds` and `history`."""
        tensors: dict[str, Tensor] = {}
        for name, prefix in NETWORKS.items():
            tensors |= {f"{prefix}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for name in OPTIMIZERS:
            tensors |= {f"{name}.{k}": v for k, v in optimizer_tensors(getattr(self, name)).items()}
        return tensors | {f"pending.{i}.{k}": v for i, row in enumerate(self.pending) for k, v in row.items()}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The reverse of `tensors`; `meta` holds `images`, `seconds` and `history`."""
        for name, prefix in NETWORKS.items():
            getattr(self, name).load_state_dict(strip_prefix(tensors, prefix))
        for name in OPTIMIZERS:
            restore_optimizer(getattr(self, name), strip_prefix(tensors, name))
        self.pending, device = [], next(self.generator.parameters()).device
        for key, value in strip_prefix(tensors, "pending").items():
            i, metric = key.split(".")
            self.pending += [{} for _ in range(int(i) + 1 - len(self.pending))]
            self.pending[int(i)][metric] = value.to(device)
        self.images, self.seconds, self.history = meta["images"], meta["seconds"], meta["history"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as `<number of the parameter>.<slot>`."""
    return {f"{i}.{slot}": v for i, slots in optimizer.state_dict()["state"].items() for slot, v in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    parameters = list(optimizer.param_groups[0]["params"])
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, slot = key.split(".")
        if slot != "step":  # in its parameter's memory layout: the fused optimiser walks both as plain memory
            value = torch.empty_like(parameters[int(i)]).copy_(value)
        slots.setdefault(int(i), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
