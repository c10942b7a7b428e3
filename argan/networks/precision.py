"""How tensors are stored and with which precision networks compute: uint8 photos, memory layout, bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from argan.config.schema import Training

Module = TypeVar("Module", bound=nn.Module)


def from_uint8(photos: Tensor) -> Tensor:
    """Photos as stored, uint8 of any shape -> float in [-1, 1], as networks take them."""
    return photos.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [-1, 1] -> uint8 (N, H, W, 3), on the CPU."""
    pixels: NDArray[np.uint8] = (
        (images.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return pixels


def channels_last(module: Module, device: torch.device) -> Module:
    """The module on `device`, in the memory layout in which convolutions of a CPU and a GPU run without reordering."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,return-value]


def uses_bfloat16(config: Training, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16.

    `train.precision` auto: on devices where bfloat16 is the faster type, which are CPUs with AMX, CPUs other than Intel's with
    AVX-512 BF16, and GPUs since Ampere.
    """
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu.get_capabilities()
    # Intel's AVX-512 BF16 does twice the products at half the rate, and rounding comes on top (docs/results.md)
    return cpu.get("amx_tile", False) or (cpu.get("avx512_bf16", False) and "Intel" not in cpu.get("cpu_name", ""))


def autocast(config: Training, device: torch.device) -> Callable[[], torch.autocast]:
    """Makes the context in which networks are trained: convolutions and matrix products in bfloat16 where `uses_bfloat16`.

    Optics, losses and penalties stay outside, in float32. A context caches rounded weights: enter a new one after every update.
    """
    enabled = uses_bfloat16(config, device)
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=enabled)
