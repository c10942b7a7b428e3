"""Bilinear look-up of an image at shifted positions, in torch, with its gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_shapes(image: Tensor, disparity: Tensor, scale: Tensor | None = None) -> None:
    """Raises ValueError unless image is floating point (N, C, H, W), disparity (N, 1, H, W) and scale (N,)."""
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"image must be floating point (N, C, H, W), got {image.dtype} {tuple(image.shape)}")
    n, _, h, w = image.shape
    if disparity.shape != (n, 1, h, w):
        got = tuple(disparity.shape)
        raise ValueError(f"disparity must be {(n, 1, h, w)} to go with image {tuple(image.shape)}, got {got}")
    if scale is not None and scale.shape != (n,):
        raise ValueError(f"scale must be ({n},), one aperture an image, got {tuple(scale.shape)}")


def as_float32(tensor: Tensor) -> Tensor:
    """float32 at least: a half-precision coordinate cannot address a pixel of a 256-pixel row, let alone part of it.

    Contiguous in planes too, as the look-up needs it, where convolutions may have left channels last.
    """
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous()


class Frame:
    """Positions in an H x W image, in the units of grid_sample: -1 to 1 from edge to edge."""

    def __init__(self, like: Tensor) -> None:
        h, w = like.shape[-2:]
        x, y = (((torch.arange(n, dtype=like.dtype, device=like.device) * 2 + 1) / n - 1) for n in (w, h))
        self.centres = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])[:, None]  # 2 1 H W
        self.width = like.new_tensor([2, 2 * w / h])  # an image width along x and along y

    def steps(self, offsets: Tensor) -> Tensor:
        """u, given in image widths, in these units: (V, 2) -> (V, 2, 1, 1, 1)."""
        return (offsets.to(self.width) * self.width)[:, :, None, None, None]

    def grid(self, shift: Tensor, step: Tensor) -> Tensor:
        """x + u shift(x). shift (N, 1, H, W) -> (N, H, W, 2), stored as two planes, x and y: the fastest to make."""
        return torch.addcmul(self.centres, shift.transpose(0, 1), step).permute(1, 2, 3, 0)

    def look_up(self, source: Tensor, shift: Tensor, step: Tensor) -> Tensor:
        """source(x + u shift(x)). source (N, C, H, W), shift (N, 1, H, W) -> (N, C, H, W)."""
        return sample(source, self.grid(shift, step))


def sample(source: Tensor, grid: Tensor) -> Tensor:
    """Bilinear, so that positions get a gradient; the border replicated. source (N, C, H, W), grid (N, H, W, 2)."""
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def sample_backward(grad: Tensor, source: Tensor, grid: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `sample` with respect to its source (N, C, H, W), and along u to the shift (N, 1, H, W)."""
    d_source, d_grid = torch.ops.aten.grid_sampler_2d_backward(grad, source, grid, 0, 1, False, [True, True])
    n, _, h, w = source.shape
    return d_source, torch.mv(d_grid.view(-1, 2), step.view(2)).view(n, 1, h, w)
