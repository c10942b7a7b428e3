"""The one sRGB curve (IEC 61966-2-1) and the one luminance, for arrays of numpy and tensors of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601: the weights of encoded red, green and blue in brightness


def srgb_to_linear(values: Any) -> Any:
    """sRGB values in 0..1 -> light in 0..1, which is what a lens adds up. Any array or tensor."""
    return _where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Any) -> Any:
    """Light -> sRGB values in 0..1: the reverse. What is outside 0..1 is clipped."""
    light = light.clip(0, 1)
    # The straight part is kept from the power, whose gradient is infinite at 0
    return _where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(0.0031308) ** (1 / 2.4) - 0.055)


def pixels_to_light(pixels: Tensor) -> Tensor:
    """Pixel values as networks have them, sRGB in [-1, 1] -> light in 0..1. Differentiable."""
    light: Tensor = srgb_to_linear((pixels.clip(-1, 1) + 1) / 2)
    return light


def light_to_pixels(light: Tensor) -> Tensor:
    """The reverse of `pixels_to_light`: light -> sRGB in [-1, 1]. Differentiable, at black too."""
    pixels: Tensor = 2 * linear_to_srgb(light) - 1
    return pixels


def luminance(images: Tensor) -> Tensor:
    """Brightness of encoded values, (..., 3, H, W) -> (..., H, W), in the images' range."""
    import torch

    return torch.einsum("...chw,c->...hw", images, torch.tensor(LUMA).to(images))


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, np.ndarray):
        return np.where(condition, a, b)
    import torch

    return torch.where(condition, a, b)
