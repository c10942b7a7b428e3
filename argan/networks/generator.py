"""The generator of scenes: an all-in-focus image and its disparity from one latent.

Two recipes, one interface. `modern`: residual networks without normalisation, after R3GAN (Huang et al., NeurIPS 2024),
scaled down. `paper`: the HoloGAN-like generator (Nguyen-Phuoc et al., ICCV 2019) flattened to 2D with adaptive instance
normalisation (Kaneko 2021, supplement).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from argan.color import light_to_pixels, pixels_to_light
from argan.config.schema import Training
from argan.networks.blocks import SLOPE, channel_widths, conv, initialise, upsample
from argan.networks.mixture import ApertureMixture
from argan.optics import Aperture, DepthExpansion, as_float32, light_field, render


class SceneGenerator(nn.Module):
    """Base of the generators: a trunk ends in features, two branches read image and disparity from them.

    forward: latents (N, Z), standard normal -> image (N, 3, R, R) in [-1, 1], all in focus, and disparity (N, 1, R, R) in
    (-disparity_max, disparity_max), signed, 0 in the focal plane, larger = nearer, fraction of image width.
    `expansion` is T of the gather renderer, `mixture` the distribution of apertures in training: they sit
    here so that they share the optimiser and the EMA.
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        self.latent = config.latent
        self.disparity_max = config.disparity_max
        self.renderer, self.layers, self.light = config.renderer, config.layers, config.light
        self.aperture = Aperture()
        self.expansion = (
            DepthExpansion(self.aperture.views, config.disparity_max)
            if config.renderer == "gather" and config.expansion
            else None
        )
        self.mixture = ApertureMixture(config)

    def photograph(
        self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1, aperture: Aperture | None = None
    ) -> Tensor:
        """The photos of scenes through apertures scale (N,), by the renderer that training uses: `argan.optics.render`.

        A lens adds up light; with `light` "display" it adds up pixel values, as in the paper. s = 0 gives the image exactly.
        `widen` stretches the range of the occlusion renderer's layers at the same spacing, for scenes focused elsewhere.
        `aperture` may have more views than the one of training.
        """
        linear = self.light == "linear"
        photo = render(
            pixels_to_light(as_float32(image)) if linear else image,
            disparity,
            aperture or self.aperture,
            scale,
            expansion=self.expansion,
            renderer=self.renderer,
            layers=(self.layers - 1) * widen + 1,
            disparity_max=self.disparity_max * widen,
        )
        return torch.where(scale[:, None, None, None] == 0, image, light_to_pixels(photo)) if linear else photo

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor, aperture: Aperture | None = None) -> Tensor:
        """The same, view by view: `argan.optics.light_field`. Pixel values; their light is what adds up to the photo."""
        linear = self.light == "linear"
        views = light_field(
            pixels_to_light(as_float32(image)) if linear else image,
            disparity,
            aperture or self.aperture,
            scale,
            expansion=self.expansion,
            renderer=self.renderer,
            layers=self.layers,
            disparity_max=self.disparity_max,
        )
        return light_to_pixels(views) if linear else views

    def _heads(self, image: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(as_float32(image)), self.disparity_max * torch.tanh(as_float32(disparity))


class ModernGenerator(SceneGenerator):
    """The latent sets the coarse layout (a learned basis at 4x4) and, as style, every level above it."""

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        widths = channel_widths(config, config.generator_channels)
        z = config.latent
        self.basis = nn.Linear(z, widths[0] * 16)
        initialise(self.basis, gain=1.0)
        # The trunk ends one level below the full resolution: image and depth share what and where, not texture.
        pairs = zip([widths[0], *widths[:-2]], widths[:-1], strict=True)
        self.trunk = nn.ModuleList(_StyledBlock(cin, cout, z, up=i > 0) for i, (cin, cout) in enumerate(pairs))
        self.branches = _StyledBlock(widths[-2], 2 * widths[-1], z, up=True)  # half of its channels each
        self.image_head = conv(widths[-1], 3, gain=1.0)
        self.disparity_head = conv(widths[-1], 1, gain=0.1)  # starts near the focal plane, inside tanh's linear part

    def start(self, latents: Tensor) -> Tensor:
        return F.leaky_relu(self.basis(latents).view(len(latents), -1, 4, 4), SLOPE)  # N C0 4 4

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        x = self.start(latents)
        for block in self.trunk:
            x = block(x, latents)  # N C_i 4*2^i, up to R/2
        image, disparity = self.branches(x, latents).chunk(2, 1)
        return self._heads(self.image_head(image), self.disparity_head(disparity))


class PaperGenerator(ModernGenerator):
    """HoloGAN's: a learned constant at 4x4, the latent enters as style alone."""

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.constant = nn.Parameter(torch.randn(1, self.basis.out_features // 16, 4, 4))
        del self.basis

    def start(self, latents: Tensor) -> Tensor:
        return self.constant.expand(len(latents), -1, -1, -1)


class _InstanceNorm(torch.autograd.Function):
    """(x - mean) / deviation over each image's pixels, a channel at a time: (N, C, H, W), channels last in and out.

    torch's own works on planes: reordered there and back, it takes as long as the convolution before it. Statistics are float32,
    the result and what is saved for the backward pass are of x's type, whatever autocast's lists on this device.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        centred = pixels - pixels.mean(1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        rate = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        y = (centred * rate).to(x.dtype)
        ctx.save_for_backward(y, rate)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, rate = ctx.saved_tensors
        n, c, h, w = grads[0].shape
        grad_y, wide_y = grads[0].permute(0, 2, 3, 1).reshape(n, h * w, c).to(rate.dtype), y.to(rate.dtype)
        grad_x = (grad_y - grad_y.mean(1, keepdim=True) - wide_y * (grad_y * wide_y).mean(1, keepdim=True)) * rate
        return grad_x.to(y.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


class _StyledBlock(nn.Module):
    """Upsample, convolve, and take scale and shift from the latent (adaptive instance normalisation)."""

    def __init__(self, cin: int, cout: int, latent: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = conv(cin, cout)
        self.style = nn.Linear(latent, 2 * cout)
        initialise(self.style, gain=0.5)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = _InstanceNorm.apply(self.conv(upsample(x) if self.up else x))
        scale, shift = self.style(z)[:, :, None, None].chunk(2, 1)
        return F.leaky_relu(x * (1 + scale) + shift, SLOPE)


def build_generator(config: Training) -> SceneGenerator:
    """The untrained generator of the configured recipe."""
    return ModernGenerator(config) if config.recipe == "modern" else PaperGenerator(config)
