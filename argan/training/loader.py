"""Photographs for training: their order, and their way onto the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from argan.training.device import free_bytes, to_device

CHUNK = 4096  # photos copied at a time: no second copy of all of them in memory


class PhotoOrder:
    """Which photos a step sees: a fresh permutation every epoch, as a function of (seed, images seen)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, images: int, batch: int) -> np.ndarray:
        """The positions, 0 to count - 1, of the `batch` photos that follow after `images` seen."""
        positions = np.empty(batch, np.int64)
        for i in range(batch):
            epoch, position = divmod(images + i, self.count)
            if epoch != self._epoch:
                self._epoch = epoch
                self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            positions[i] = self._permutation[position]
        return positions


class Loader:
    """The photos `rows` of an array (N, R, R, 3) uint8, as (B, 3, R, R) uint8 on the device, by position in `rows`.

    They stay on the device (for a CPU: in memory) where they take no more than `share` of the bytes that are free there beside the
    `needed` ones; otherwise each batch is read from `photos`, a memory map, whose pages the system caches as long as it can.
    """

    def __init__(
        self, photos: np.ndarray, rows: np.ndarray, device: torch.device, share: float = 0.5, needed: int = 0
    ) -> None:
        self.photos, self.rows, self.device = photos, rows, device
        self.resident: Tensor | None = None
        if len(rows) * photos[:1].nbytes <= share * (free_bytes(device) - needed):
            resident = torch.empty(len(rows), *photos.shape[1:], dtype=torch.uint8, device=device)
            for chunk in torch.arange(len(rows)).split(CHUNK):
                resident[chunk[0] : chunk[-1] + 1] = torch.from_numpy(photos[rows[chunk.numpy()]])
            self.resident = resident.permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, positions: np.ndarray) -> Tensor:
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(positions), self.device)]
        return to_device(torch.from_numpy(self.photos[self.rows[positions]]), self.device).permute(0, 3, 1, 2)
