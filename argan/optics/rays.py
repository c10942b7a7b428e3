"""The disparity that rays through the lens meet, and the network T that refines it (Kaneko, CVPR 2021, section 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from argan.optics.aperture import Aperture
from argan.optics.lookup import Frame, as_float32, check_shapes


class DepthExpansion(nn.Module):
    """T: refines the rays' disparity jointly over all views, M = D~ + T(D~). Zero at initialisation, so M = D~.

    Input and output (N, V, H, W). Kaneko 2021, section 3; its L1 tie is `argan.training.losses.expansion_tie`.
    """

    def __init__(self, views: int, scale: float, channels: int = 32) -> None:
        super().__init__()
        self.views = views
        self.scale = scale  # disparities are ~0.05: bring them to order 1 inside the network
        self.body = nn.Sequential(
            nn.Conv2d(views, channels, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, views, 3, padding=1, padding_mode="replicate"),
        )
        last = self.body[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, rays: Tensor) -> Tensor:
        return rays + self.scale * torch.tanh(self.body(rays / self.scale))


def ray_disparity(disparity: Tensor, aperture: Aperture) -> Tensor:
    """D~(x, u) = D(x + u D(x)): the disparity met by the ray through pixel x and view u.

    disparity (N, 1, H, W) -> (N, V, H, W). Differentiable.
    """
    check_shapes(disparity, disparity)
    disparity = as_float32(disparity)
    frame = Frame(disparity)
    return torch.cat([frame.look_up(disparity, disparity, step) for step in frame.steps(aperture.offsets)], 1)


def refined_rays(disparity: Tensor, aperture: Aperture, expansion: DepthExpansion | None) -> Tensor:
    """M = D~ + T(D~), (N, 1, H, W) -> (N, V, H, W); D~ where there is no T.

    T has the views it was trained with. For another aperture its refinement T(D~) is interpolated between those views.
    """
    rays = ray_disparity(disparity, aperture)
    if expansion is None:
        return rays
    if aperture.views == expansion.views:
        return expansion(rays)
    trained, (n, _, h, w) = Aperture(math.isqrt(expansion.views)), disparity.shape
    coarse = ray_disparity(disparity, trained)
    refinement = (expansion(coarse) - coarse).permute(0, 2, 3, 1).reshape(-1, 1, trained.size, trained.size)
    refinement = F.interpolate(refinement, (aperture.size, aperture.size), mode="bilinear", align_corners=True)
    return rays + refinement.view(n, h, w, aperture.views).permute(0, 3, 1, 2)
