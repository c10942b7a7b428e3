"""The discriminator of photos: `modern` (after R3GAN, Huang et al., NeurIPS 2024) or `paper` (Kaneko 2021, supplement)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from argan.config.schema import Training
from argan.networks.blocks import SLOPE, ResidualBlock, channel_widths, conv, initialise
from argan.optics import as_float32


class ModernDiscriminator(nn.Module):
    """Photos (N, 3, R, R) in [-1, 1] -> realness (N,).

    It starts by folding 2x2 pixels into channels: nothing is lost (an average would hide the blur it must see) and the most
    expensive level is spared. `discriminator_channels` is the width at half resolution.
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        widths = channel_widths(config, config.discriminator_channels // 2)[-2::-1]
        self.stem = conv(12, widths[0], gain=1.0)
        self.first = ResidualBlock(widths[0], widths[0])
        self.blocks = nn.ModuleList(ResidualBlock(cin, cout) for cin, cout in pairwise(widths))
        self.basis = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1])  # 4x4 -> 1x1, one filter a channel
        initialise(self.basis, gain=1.0)
        self.head = nn.Linear(widths[-1], 1)
        initialise(self.head, gain=1.0)

    def forward(self, photos: Tensor) -> Tensor:
        x = self.first(self.stem(F.pixel_unshuffle(photos, 2)))  # N C1 R/2 R/2
        for block in self.blocks:
            x = block(F.avg_pool2d(x, 2))  # down to N C 4 4
        x = self.basis(F.leaky_relu(x, SLOPE)).flatten(1)
        return as_float32(self.head(x).squeeze(1))


class PaperDiscriminator(nn.Module):
    def __init__(self, config: Training) -> None:
        super().__init__()
        widths = channel_widths(config, config.discriminator_channels)[::-1]
        self.stem = spectral_norm(conv(3, widths[0]))
        self.blocks = nn.ModuleList(
            spectral_norm(nn.Conv2d(cin, cout, 5, stride=2, padding=2)) for cin, cout in pairwise(widths)
        )
        self.head = spectral_norm(nn.Linear(widths[-1] * 16, 1))

    def forward(self, photos: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(photos), SLOPE)
        for block in self.blocks:
            x = F.leaky_relu(F.instance_norm(block(x)), SLOPE)
        return as_float32(self.head(x.flatten(1)).squeeze(1))


def build_discriminator(config: Training) -> nn.Module:
    """The untrained discriminator of the configured recipe."""
    return ModernDiscriminator(config) if config.recipe == "modern" else PaperDiscriminator(config)
