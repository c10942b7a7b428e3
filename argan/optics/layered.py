"""The occlusion renderer: the scene in fronto-parallel disparity layers, each blurred by the aperture, composited far to near.

A defocused near object spills over what is behind it, a defocused far one is cut off by what is before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from argan.optics import layered_cpu
from argan.optics.aperture import Aperture

LEAST_COVERAGE = 1e-6  # a pixel's colour is divided by its total coverage, at least this
LEAST_RANGE = 1e-6  # of disparity, so that layers of a flat scene lie apart


class Layered(torch.autograd.Function):
    """`slice_layers`, `blur_layers` and `composite` on a CPU, by `layered_cpu`: layers are recomputed in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, disparity: Tensor, aperture: Aperture, scale: Tensor, levels: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, disparity, scale, levels)
        ctx.weights = aperture.weights.view(aperture.size, aperture.size)
        return layered_cpu.forward(image, disparity, ctx.weights, scale, levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, disparity, scale, levels = ctx.saved_tensors
        return *layered_cpu.backward(grads[0], image, disparity, ctx.weights, scale, levels), None, None, None


def slice_layers(image: Tensor, disparity: Tensor, count: int, disparity_max: float | None) -> tuple[Tensor, Tensor]:
    """Cut the scene into `count` layers of equal disparity steps, from far to near.

    A pixel belongs to its two nearest layers, linearly (a hat function): that is what gives disparity its gradient.
    Returns the premultiplied layers (N, K, C+1, H, W), the last channel their coverage, and the levels (K,).
    """
    levels = layer_levels(disparity, count, disparity_max)
    step = levels[1] - levels[0]
    clamped = torch.minimum(torch.maximum(disparity, levels[0]), levels[-1])
    coverage = (1 - (clamped - levels[None, :, None, None]).abs() / step).clamp(min=0)
    coverage = coverage[:, :, None]
    return torch.cat([image[:, None] * coverage, coverage], 2), levels


def layer_levels(disparity: Tensor, count: int, disparity_max: float | None) -> Tensor:
    """The disparities of the layers, (K,), from far to near, one of them 0. Raises ValueError for an even count or one below 3."""
    if count < 3 or count % 2 == 0:
        raise ValueError(f"layers must be odd and at least 3, so that one lies in the focal plane; got {count}")
    reach = float(disparity.detach().abs().max()) if disparity_max is None else disparity_max
    return torch.linspace(-1, 1, count, dtype=disparity.dtype, device=disparity.device) * max(reach, LEAST_RANGE)


def blur_layers(layers: Tensor, levels: Tensor, scale: Tensor, aperture: Aperture) -> Tensor:
    """Each layer averaged over the aperture: its disparity is constant, so it moves as one.

    Views in a row of the aperture share their step down, and rows of equal weights (the disc of 5 x 5 has two kinds) their sum
    along the row. So the blur is a sum of a few products down X across^T with matrices of look-ups, exactly those of the gather:
    that is what a GPU is best at, and no radius need be known, which would be waited for. layers (N, K, C, H, W) -> the same.
    """
    h, w = layers.shape[3:]
    kinds, kind_of = torch.unique(aperture.weights.view(aperture.size, aperture.size), dim=0, return_inverse=True)
    line = aperture.offsets[: aperture.size, 0].tolist()
    shift = scale[:, None] * levels * w  # (N, K) pixels, from the centre of the aperture to its rim
    blurred = torch.zeros_like(layers)
    for p, weights in enumerate(kinds.tolist()):
        across = sum(weight * _shift_matrix(w, u * shift) for u, weight in zip(line, weights, strict=True) if weight)
        down = sum(_shift_matrix(h, u * shift) for u, kind in zip(line, kind_of.tolist(), strict=True) if kind == p)
        blurred = blurred + torch.einsum("nkyj,nkcji,nkxi->nkcyx", down, layers, across)
    return blurred


def _shift_matrix(size: int, shift: Tensor) -> Tensor:
    """The look-up at x + shift as a matrix: linear, the border replicated. shift (N, K) pixels -> (N, K, size, size)."""
    x = torch.arange(size, dtype=shift.dtype, device=shift.device)
    at = (x + shift[..., None]).clamp(0, size - 1)
    return (1 - (at[..., None] - x).abs()).clamp(min=0)


def composite(layers: Tensor) -> Tensor:
    """Far to near with the over operator. layers (N, K, C+1, H, W), premultiplied, K from far to near -> (N, C, H, W).

    Divided by the total coverage: a surface between two layers is not transparent, and what a near object hid in the
    image is filled from what is visible beside it.
    """
    total, *nearer = layers.unbind(1)
    for layer in nearer:
        total = layer + total * (1 - layer[:, -1:])
    return total[:, :-1] / total[:, -1:].clamp(min=LEAST_COVERAGE)
