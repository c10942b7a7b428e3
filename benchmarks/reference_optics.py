"""The aperture renderer written the plain way: one look-up a view, twenty-five times. What `argan.optics` is measured against.

Kaneko, CVPR 2021, section 3, line by line, and autograd for the rest. Readable and slow; it computes the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from argan.optics import Aperture


def look_up(source: Tensor, shift: Tensor, u: Tensor) -> Tensor:
    """source(x + u shift(x)), bilinear, the border replicated. source (N, C, H, W), shift (N, H, W) in image widths, u (2,)."""
    _, _, h, w = source.shape
    y, x = torch.meshgrid((torch.arange(h) * 2 + 1) / h - 1, (torch.arange(w) * 2 + 1) / w - 1, indexing="ij")
    width = torch.tensor([2, 2 * w / h])  # an image width, in grid_sample's units
    grid = torch.stack([x, y], -1) + u * width * shift[..., None]
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def render(image: Tensor, disparity: Tensor, aperture: Aperture, scale: Tensor) -> Tensor:
    """P(x) = sum_u A(u) I(x + s u D~(x, u)) with D~(x, u) = D(x + u D(x)): the interface of `argan.optics.render`."""
    photo = torch.zeros_like(image)
    for u, weight in zip(aperture.offsets, aperture.weights, strict=True):
        ray = look_up(disparity, disparity[:, 0], u)[:, 0]
        photo = photo + weight * look_up(image, scale[:, None, None] * ray, u)
    return photo
