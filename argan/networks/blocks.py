"""The layers that generator, discriminator and estimator share."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from argan.config.schema import Training

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through it (He et al., 2015)


def channel_widths(config: Training, finest: int) -> list[int]:
    """Channels at 4, 8, ... resolution: doubling towards the coarse end, up to the maximum."""
    levels = int(math.log2(config.resolution)) - 1  # 4x4 is level 0
    return [min(config.channels_max, finest * 2 ** (levels - 1 - i)) for i in range(levels)]


def initialise(layer: nn.Conv2d | nn.Linear, gain: float = GAIN) -> None:
    """Normal weights that keep the variance times gain^2, no bias."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def conv(cin: int, cout: int, kernel: int = 3, gain: float = GAIN, bias: bool = True) -> nn.Conv2d:
    """An initialised convolution that keeps height and width."""
    layer = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=bias)
    initialise(layer, gain)
    return layer


def upsample(x: Tensor) -> Tensor:
    """Twice as large, of the same type: CUDA's autocast would make it float32, and what it is joined with too."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False).to(x.dtype)


class ResidualBlock(nn.Module):
    """x + f(x) with f = conv, leaky ReLU, conv and its last layer started at zero: no normalisation needed (Fixup).

    (N, C_in, H, W) -> (N, C_out, H, W). Where the width changes a 1x1 convolution carries x.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.skip = conv(cin, cout, 1, gain=1.0, bias=False) if cin != cout else nn.Identity()
        self.first = conv(cin, cout)
        self.second = conv(cout, cout)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.leaky_relu(x, SLOPE))
        return self.skip(x) + self.second(F.leaky_relu(y, SLOPE))
