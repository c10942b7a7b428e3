"""The depth estimator: disparity, and the error to expect of it, from one photo."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from argan.guided_filter import guided_filter
from argan.networks.blocks import SLOPE, ResidualBlock, conv, upsample
from argan.optics import as_float32


class Estimator(nn.Module):
    """A small U-Net: photo (N, 3, H, W) in [-1, 1] -> disparity (N, 1, H, W), same convention as the generator's.

    H and W multiples of 8. Two by two pixels are folded into channels on the way in and unfolded on the way out: nothing of the
    blur is lost and the most expensive level is spared. It is distilled from generated pairs, and is what `argan depth` runs.
    A second head predicts the error of the disparity; it sees the first one's features and does not shape them.
    """

    def __init__(self, channels: int, disparity_max: float) -> None:
        super().__init__()
        self.channels, self.disparity_max = channels, disparity_max
        c = channels
        self.stem = conv(12, c)
        self.level0 = ResidualBlock(c, c)
        self.level1 = ResidualBlock(c, 2 * c)
        self.level2 = ResidualBlock(2 * c, 4 * c)
        self.up1, self.up0 = ResidualBlock(6 * c, 2 * c), ResidualBlock(3 * c, c)
        self.head = conv(c, 4, gain=0.1)
        self.doubt = conv(c, 4, gain=0.1)  # the uncertainty head; the name is part of the weight files
        assert self.doubt.bias is not None
        nn.init.constant_(self.doubt.bias, -2)  # an eighth of the range, about where errors lie in the end

    def forward(self, photos: Tensor) -> Tensor:
        return self.with_error(photos)[0]

    def with_error(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Disparity, and the mean absolute error to expect of it: both (N, 1, H, W), in the same unit."""
        x0 = self.level0(self.stem(F.pixel_unshuffle(photos, 2)))  # N C H/2 W/2
        x1 = self.level1(F.avg_pool2d(x0, 2))  # N 2C H/4 W/4
        x2 = self.level2(F.avg_pool2d(x1, 2))  # N 4C H/8 W/8
        y = self.up1(torch.cat([x1, upsample(x2)], 1))
        y = self.up0(torch.cat([x0, upsample(y)], 1))
        y = F.leaky_relu(y, SLOPE)
        disparity = self.disparity_max * torch.tanh(F.pixel_shuffle(as_float32(self.head(y)), 2))
        uncertainty = F.pixel_shuffle(as_float32(self.doubt(y.detach())), 2)
        return disparity, self.disparity_max * torch.sigmoid(uncertainty)


@torch.inference_mode()
def estimate(student: Estimator, photos: Tensor) -> Tensor:
    """photos (N, 3, H, W) in [-1, 1], H and W multiples of 8 -> disparity (N, 1, H, W).

    The mean over a flip, brought to follow the photo's edges by the guided filter: the network's output is right in the mean
    over a surface and patchy from pixel to pixel, since generated surfaces are less smooth than real ones.
    """
    return estimate_with_error(student, photos)[0]


@torch.inference_mode()
def estimate_with_error(student: Estimator, photos: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and the mean absolute error to expect (N, 1, H, W): where the two flips disagree, at least by that much."""
    n = photos.shape[0]
    disparity, error = student.with_error(torch.cat([photos, photos.flip(3)]))
    upright, flipped = disparity[:n], disparity[n:].flip(3)
    uncertainty = torch.maximum((error[:n] + error[n:].flip(3)) / 2, (upright - flipped).abs() / 2)
    # Patchy, as the disparity is before the filter
    uncertainty = F.avg_pool2d(uncertainty, 5, 1, padding=2, count_include_pad=False)
    return guided_filter((upright + flipped) / 2, photos), uncertainty
