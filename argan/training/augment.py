"""Augmentation of what the discriminator sees, blind to blur: reals and fakes alike, after rendering.

Flip, integer translation, colour and moderate cut-out leave the defocus cue alone. Blur, noise, compression, rescaling and
rotation would destroy it and have no place here. After DiffAugment (Zhao et al., NeurIPS 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from argan.config.schema import Training


def draw_numbers(count: int, config: Training, random: Generator) -> Tensor:
    """The random numbers that `augment` takes for `count` photos, (count, k) in [0, 1); each photo has its row."""
    k = 1 + 3 * bool(config.augment_color) + 2 * bool(config.augment_translate) + 2 * bool(config.augment_cutout)
    return torch.rand(k, count, generator=random, device=random.device).T


def augment(photos: Tensor, config: Training, draw: Tensor) -> Tensor:
    """photos (N, 3, H, W) in [-1, 1], their rows of `draw` -> the same shape; differentiable in the photos."""
    numbers = iter(draw.to(photos.device).unbind(1))
    photos = flip(photos, next(numbers))
    if config.augment_color:
        photos = color(photos, config.augment_color, next(numbers), next(numbers), next(numbers))
    if config.augment_translate:
        photos = translate(photos, config.augment_translate, next(numbers), next(numbers))
    if config.augment_cutout:
        photos = cutout(photos, config.augment_cutout, next(numbers), next(numbers))
    return photos


# Below, x, y and the like are such numbers, (N,) in [0, 1).


def flip(photos: Tensor, x: Tensor) -> Tensor:
    """Left-right, half of them."""
    return torch.where(_each(x < 0.5), photos.flip(3), photos)


def color(photos: Tensor, strength: float, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness +-strength/2, saturation and contrast x (1 +- strength/2). Contrast is changed about each photo's mean."""
    b, s, c = ((_each(x).to(photos) - 0.5) * strength for x in (brightness, saturation, contrast))
    photos = photos + b
    grey = photos.mean(1, keepdim=True)
    photos = grey + (photos - grey) * (1 + s)
    mean = photos.mean((1, 2, 3), keepdim=True)
    return mean + (photos - mean) * (1 + c)


def translate(photos: Tensor, reach: float, x: Tensor, y: Tensor) -> Tensor:
    """By whole pixels up to `reach` of the size (a fraction of a pixel would blur), zeros coming in."""
    n, c, h, w = photos.shape
    py, px = int(h * reach), int(w * reach)
    dy, dx = ((u * (2 * p + 1)).long()[:, None] for u, p in ((y, py), (x, px)))
    padded = F.pad(photos, [px, px, py, py])
    rows = (torch.arange(h, device=photos.device) + dy)[:, None, :, None].expand(n, c, h, w + 2 * px)
    columns = (torch.arange(w, device=photos.device) + dx)[:, None, None, :].expand(n, c, h, w)
    return padded.gather(2, rows).gather(3, columns)


def cutout(photos: Tensor, size: float, x: Tensor, y: Tensor) -> Tensor:
    """A square of `size` of the frame is zeroed at a random place."""
    _, _, h, w = photos.shape
    y0, x0 = (y * h - size * h / 2)[:, None, None], (x * w - size * w / 2)[:, None, None]
    y, x = torch.arange(h, device=photos.device)[:, None], torch.arange(w, device=photos.device)
    hole = (y >= y0) & (y < y0 + size * h) & (x >= x0) & (x < x0 + size * w)
    return photos * ~hole[:, None]


def _each(x: Tensor) -> Tensor:
    return x[:, None, None, None]
