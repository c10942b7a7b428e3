"""Augmentation of what the discriminator sees, blind to blur: reals and fakes alike, after rendering.

Flip, integer translation, colour and moderate cut-out leave the defocus cue alone. Blur, noise, compression, rescaling and
rotation would destroy it and have no place here. After DiffAugment (Zhao et al., NeurIPS 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from argan.params import Training


def augment(photos: Tensor, config: Training, random: Generator) -> Tensor:
    """photos (N, 3, H, W) in [-1, 1] -> the same shape; every image its own draw; differentiable in the photos."""
    photos = flip(photos, random)
    if config.augment_color:
        photos = color(photos, config.augment_color, random)
    if config.augment_translate:
        photos = translate(photos, config.augment_translate, random)
    if config.augment_cutout:
        photos = cutout(photos, config.augment_cutout, random)
    return photos


def flip(photos: Tensor, random: Generator) -> Tensor:
    """Left-right, half of them."""
    mirrored = torch.rand(len(photos), generator=random, device=random.device).to(photos.device) < 0.5
    return torch.where(mirrored[:, None, None, None], photos.flip(3), photos)


def color(photos: Tensor, strength: float, random: Generator) -> Tensor:
    """Brightness +-strength/2, saturation and contrast x (1 +- strength/2). Contrast is changed about each photo's mean."""
    draw = (torch.rand(3, len(photos), 1, 1, 1, generator=random, device=random.device) - 0.5).to(photos) * strength
    photos = photos + draw[0]
    grey = photos.mean(1, keepdim=True)
    photos = grey + (photos - grey) * (1 + draw[1])
    mean = photos.mean((1, 2, 3), keepdim=True)
    return mean + (photos - mean) * (1 + draw[2])


def translate(photos: Tensor, reach: float, random: Generator) -> Tensor:
    """By whole pixels up to `reach` of the size (a fraction of a pixel would blur), zeros coming in."""
    n, c, h, w = photos.shape
    py, px = int(h * reach), int(w * reach)
    dy = torch.randint(0, 2 * py + 1, (n, 1), generator=random, device=random.device).to(photos.device)
    dx = torch.randint(0, 2 * px + 1, (n, 1), generator=random, device=random.device).to(photos.device)
    padded = F.pad(photos, [px, px, py, py])
    rows = (torch.arange(h, device=photos.device) + dy)[:, None, :, None].expand(n, c, h, w + 2 * px)
    columns = (torch.arange(w, device=photos.device) + dx)[:, None, None, :].expand(n, c, h, w)
    return padded.gather(2, rows).gather(3, columns)


def cutout(photos: Tensor, size: float, random: Generator) -> Tensor:
    """A square of `size` of the frame is zeroed at a random place."""
    n, _, h, w = photos.shape
    y0 = (torch.rand(n, 1, 1, generator=random, device=random.device) * h).to(photos.device) - size * h / 2
    x0 = (torch.rand(n, 1, 1, generator=random, device=random.device) * w).to(photos.device) - size * w / 2
    y, x = torch.arange(h, device=photos.device)[:, None], torch.arange(w, device=photos.device)
    hole = (y >= y0) & (y < y0 + size * h) & (x >= x0) & (x < x0 + size * w)
    return photos * ~hole[:, None]
