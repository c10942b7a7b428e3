"""DoF mixture learning: through which aperture a scene is photographed (Kaneko 2021, section 4.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from argan.config.schema import Training

BINS = 8  # parts of the learned distribution: an eighth of the full aperture is half a pixel of blur at 32 px
GAIN = 10.0  # Adam moves a parameter by its rate, whatever its meaning: a share then follows within some thousand steps
SPREAD = 0.5  # sigma of the half-normal, of the full aperture, where it is cut off: the one draw in twenty beyond


class ApertureMixture(nn.Module):
    """The distribution of aperture scales: an aperture per image, independent of its latent.

    s = 0 with probability `aperture_zero`, so that the all-in-focus image itself is judged; else s = least + (1 - least) h with
    `least` = `aperture_min` and h by `apertures`:

    - uniform: h uniform in [0, 1];
    - bernoulli: h = 1, the full aperture or none;
    - half-normal: density falling as exp(-h^2 / (2 SPREAD^2)): most lenses are stopped down;
    - learned: piecewise constant in BINS equal parts of [0, 1], whose shares are trained with the generator. Which part an image
      falls in is a choice without a gradient: `choice_loss` is the score function's (Williams 1992). Look at the depth of such a
      model: apertures open up, and with an older recipe until the whole scene was out of focus, depth inside out (docs/tried.md).
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        self.kind, self.zero, self.least = config.apertures, config.aperture_zero, config.aperture_min
        self.logits = nn.Parameter(torch.zeros(BINS)) if self.kind == "learned" else None

    def forward(self, chance: Tensor) -> Tensor:
        """Aperture scales (N,) from random numbers `chance` (N, 2), uniform in [0, 1): which aperture, and whether it is closed."""
        h = self._quantile(chance[:, 0])
        return torch.where(chance[:, 1] < self.zero, torch.zeros_like(h), self.least + (1 - self.least) * h)

    def draw(self, count: int, random: Generator, device: torch.device | None = None) -> Tensor:
        """`count` aperture scales, (count,) on `device`."""
        return self(aperture_noise(count, random).to(device or "cpu"))

    @property
    def shares(self) -> list[float]:
        """Of the learned distribution: the probability of each part, from nearly closed to open, of the apertures not closed."""
        return [] if self.logits is None else self._probabilities().tolist()

    def choice_loss(self, chance: Tensor, cost: Tensor) -> Tensor:
        """Its gradient is that of the expected `cost` (N,) of images with respect to the learned shares. Its value means nothing.

        log 2, what images cost when the discriminator is in doubt, is taken off: that lessens the noise and biases nothing.
        """
        assert self.logits is not None
        likely = F.log_softmax(GAIN * self.logits, 0)[self._bin(chance[:, 0])[0]]
        open_ = (chance[:, 1] >= self.zero).to(likely)
        return ((cost.detach() - math.log(2)) * open_ * likely).mean()

    def _quantile(self, u: Tensor) -> Tensor:
        if self.kind == "bernoulli":
            return torch.ones_like(u)
        if self.kind == "half-normal":
            end = SPREAD * math.sqrt(2)
            return (end * torch.erfinv(u * math.erf(1 / end))).clamp(max=1)
        if self.kind == "learned":
            part, within = self._bin(u)
            return (part + within) / BINS
        return u

    def _bin(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The part that holds the quantile u (N,), and where within it, 0..1."""
        share = self._probabilities()
        ends = share.cumsum(0)
        part = torch.searchsorted(ends, u, right=True).clamp(max=BINS - 1)
        return part, ((u - ends[part]) / share[part] + 1).clamp(0, 1)

    @torch.no_grad()
    def _probabilities(self) -> Tensor:
        assert self.logits is not None
        return F.softmax(GAIN * self.logits, 0)


def aperture_noise(count: int, random: Generator) -> Tensor:
    """Random numbers (count, 2) that `Mixture` makes apertures of."""
    return torch.rand(2, count, generator=random, device=random.device).T
