"""The aperture: the views of the lens that a photo averages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Aperture:
    """A square grid of `size` x `size` views u in [-1, 1]^2, centred on 0, under a disc mask.

    With size 5 the coordinates are {-1, -1/2, 0, 1/2, 1} and the disc leaves the four corners out: 21 of 25 views.
    The weights are equal inside the disc, 0 outside, and sum to 1.
    """

    size: int = 5

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"aperture size must be odd and positive, to have a view at its centre; got {self.size}")

    @property
    def views(self) -> int:
        return self.size**2

    @property
    def offsets(self) -> Tensor:
        """(V, 2) float32: (u_x, u_y) of each view, row by row from the top left."""
        half = self.size // 2
        line = torch.arange(-half, half + 1) / max(half, 1)
        uy, ux = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([ux, uy], -1).reshape(-1, 2)

    @property
    def weights(self) -> Tensor:
        """(V,) float32, summing to 1. A view counts when it lies within a quarter of a cell, the distance of two views, of the
        unit disc: the least round margin that keeps 21 of 5 x 5 views, and so the least blur beyond the rim."""
        cell = 2 / (self.size - 1) if self.size > 1 else 0.0
        inside = (self.offsets.norm(dim=1) <= 1 + cell / 4).float()
        return inside / inside.sum()

    @property
    def moving(self) -> Tensor:
        """(V,) bool: the views that count and lie off the centre. The central one sees the image as it is."""
        return (self.weights > 0) & self.offsets.any(1)
