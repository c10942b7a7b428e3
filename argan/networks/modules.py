"""The generator of scenes (all-in-focus image and disparity from one latent) and the discriminator of photos.

Two recipes, one interface. `modern`: residual networks without normalisation, after R3GAN (Huang et al., NeurIPS 2024),
scaled down. `paper`: the HoloGAN-like generator (Nguyen-Phuoc et al., ICCV 2019) flattened to 2D with adaptive instance
normalisation, and its instance-normalised, spectrally normalised discriminator (Kaneko 2021, supplement).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import spectral_norm

from argan.config.params import Training
from argan.networks.mixture import Mixture
from argan.optics import Aperture, DepthExpansion, exact, light_field, render, to_light, to_values

M = TypeVar("M", bound=nn.Module)

SLOPE = 0.2  # of every leaky ReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through it (He et al., 2015)


def _widths(config: Training, finest: int) -> list[int]:
    """Channels at 4, 8, ... resolution: doubling towards the coarse end, up to the maximum."""
    levels = int(math.log2(config.resolution)) - 1  # 4x4 is level 0
    return [min(config.channels_max, finest * 2 ** (levels - 1 - i)) for i in range(levels)]


def _initialise(layer: nn.Conv2d | nn.Linear, gain: float = GAIN) -> None:
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _conv(cin: int, cout: int, kernel: int = 3, gain: float = GAIN, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=bias)
    _initialise(layer, gain)
    return layer


class ResidualBlock(nn.Module):
    """x + f(x) with f = conv, leaky ReLU, conv and its last layer started at zero: no normalisation needed (Fixup).

    (N, C_in, H, W) -> (N, C_out, H, W). Where the width changes a 1x1 convolution carries x.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.skip = _conv(cin, cout, 1, gain=1.0, bias=False) if cin != cout else nn.Identity()
        self.first = _conv(cin, cout)
        self.second = _conv(cout, cout)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.leaky_relu(x, SLOPE))
        return self.skip(x) + self.second(F.leaky_relu(y, SLOPE))


def _up(x: Tensor) -> Tensor:
    """Twice as large, of the same type: CUDA's autocast would make it float32, and what it is joined with too."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False).to(x.dtype)


class Scene(nn.Module):
    """Base of the generators: a trunk ends in features, two branches read image and disparity from them.

    forward: latents (N, Z), standard normal -> image (N, 3, R, R) in [-1, 1], all in focus, and disparity (N, 1, R, R) in
    (-disparity_max, disparity_max), signed, 0 in the focal plane, larger = nearer, fraction of image width.
    `expansion` is T of the gather renderer, `mixture` says through which apertures scenes are photographed in training: they sit
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
        self.mixture = Mixture(config)

    def photograph(
        self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1, aperture: Aperture | None = None
    ) -> Tensor:
        """The photos of scenes through apertures scale (N,), by the renderer that training uses: `argan.optics.rendering.render`.

        A lens adds up light; with `light` "display" it adds up pixel values, as in the paper. s = 0 gives the image exactly.
        `widen` stretches the range of the occlusion renderer's layers at the same spacing, for scenes focused elsewhere.
        `aperture` may have more views than the one of training.
        """
        linear = self.light == "linear"
        photo = render(
            to_light(image) if linear else image, disparity, aperture or self.aperture, scale,
            expansion=self.expansion, renderer=self.renderer,
            layers=(self.layers - 1) * widen + 1, disparity_max=self.disparity_max * widen,
        )  # fmt: skip
        return torch.where(scale[:, None, None, None] == 0, image, to_values(photo)) if linear else photo

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor, aperture: Aperture | None = None) -> Tensor:
        """The same, view by view: `argan.optics.rendering.light_field`. Pixel values; their light is what adds up to the photo."""
        linear = self.light == "linear"
        views = light_field(
            to_light(image) if linear else image, disparity, aperture or self.aperture, scale,
            expansion=self.expansion, renderer=self.renderer, layers=self.layers, disparity_max=self.disparity_max,
        )  # fmt: skip
        return to_values(views) if linear else views

    def _heads(self, image: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(exact(image)), self.disparity_max * torch.tanh(exact(disparity))


class _InstanceNorm(torch.autograd.Function):
    """(x - mean) / deviation over each image's pixels, a channel at a time: (N, C, H, W), channels last in and out.

    torch's own works on planes: reordered there and back, it takes as long as the convolution before it. Statistics are float32,
    the result and what is kept for the backward pass are of x's type: said here, since autocast's lists differ between devices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        centred = pixels - pixels.mean(1, keepdim=True, dtype=_wide(x))
        rate = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        y = (centred * rate).to(x.dtype)
        ctx.save_for_backward(y, rate)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, rate = ctx.saved_tensors
        n, c, h, w = grads[0].shape
        given, wide = grads[0].permute(0, 2, 3, 1).reshape(n, h * w, c).to(rate.dtype), y.to(rate.dtype)
        given = (given - given.mean(1, keepdim=True) - wide * (given * wide).mean(1, keepdim=True)) * rate
        return given.to(y.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _Styled(nn.Module):
    """Upsample, convolve, and take scale and shift from the latent (adaptive instance normalisation)."""

    def __init__(self, cin: int, cout: int, latent: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = _conv(cin, cout)
        self.style = nn.Linear(latent, 2 * cout)
        _initialise(self.style, gain=0.5)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = _InstanceNorm.apply(self.conv(_up(x) if self.up else x))
        scale, shift = self.style(z)[:, :, None, None].chunk(2, 1)
        return F.leaky_relu(x * (1 + scale) + shift, SLOPE)


class ModernGenerator(Scene):
    """The latent sets the coarse layout (a learned basis at 4x4) and, as style, every level above it."""

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        widths = _widths(config, config.generator_channels)
        z = config.latent
        self.basis = nn.Linear(z, widths[0] * 16)
        _initialise(self.basis, gain=1.0)
        # The trunk ends one level below the full resolution: image and depth share what and where, not texture.
        pairs = zip([widths[0], *widths[:-2]], widths[:-1], strict=True)
        self.trunk = nn.ModuleList(_Styled(cin, cout, z, up=i > 0) for i, (cin, cout) in enumerate(pairs))
        self.branches = _Styled(widths[-2], 2 * widths[-1], z, up=True)  # half of its channels each
        self.image_head = _conv(widths[-1], 3, gain=1.0)
        self.disparity_head = _conv(widths[-1], 1, gain=0.1)  # starts near the focal plane, inside tanh's linear part

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


class ModernDiscriminator(nn.Module):
    """Photos (N, 3, R, R) in [-1, 1] -> realness (N,).

    It starts by folding 2x2 pixels into channels: nothing is lost (an average would hide the blur it must see) and the most
    expensive level is spared. `discriminator_channels` is the width at half resolution.
    """

    def __init__(self, config: Training) -> None:
        super().__init__()
        widths = _widths(config, config.discriminator_channels // 2)[-2::-1]
        self.stem = _conv(12, widths[0], gain=1.0)
        self.first = ResidualBlock(widths[0], widths[0])
        self.blocks = nn.ModuleList(ResidualBlock(cin, cout) for cin, cout in pairwise(widths))
        self.basis = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1])  # 4x4 -> 1x1, one filter a channel
        _initialise(self.basis, gain=1.0)
        self.head = nn.Linear(widths[-1], 1)
        _initialise(self.head, gain=1.0)

    def forward(self, photos: Tensor) -> Tensor:
        x = self.first(self.stem(F.pixel_unshuffle(photos, 2)))  # N C1 R/2 R/2
        for block in self.blocks:
            x = block(F.avg_pool2d(x, 2))  # down to N C 4 4
        x = self.basis(F.leaky_relu(x, SLOPE)).flatten(1)
        return exact(self.head(x).squeeze(1))


class PaperDiscriminator(nn.Module):
    def __init__(self, config: Training) -> None:
        super().__init__()
        widths = _widths(config, config.discriminator_channels)[::-1]
        self.stem = spectral_norm(_conv(3, widths[0]))
        self.blocks = nn.ModuleList(
            spectral_norm(nn.Conv2d(cin, cout, 5, stride=2, padding=2)) for cin, cout in pairwise(widths)
        )
        self.head = spectral_norm(nn.Linear(widths[-1] * 16, 1))

    def forward(self, photos: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(photos), SLOPE)
        for block in self.blocks:
            x = F.leaky_relu(F.instance_norm(block(x)), SLOPE)
        return exact(self.head(x.flatten(1)).squeeze(1))


class Estimator(nn.Module):
    """A small U-Net: photo (N, 3, H, W) in [-1, 1] -> disparity (N, 1, H, W), same convention as the generator's.

    H and W multiples of 8. Two by two pixels are folded into channels on the way in and unfolded on the way out: nothing of the
    blur is lost and the most expensive level is spared. It is distilled from generated pairs, and is what `argan depth` runs.
    A second head says how far off the disparity will be; it sees the first one's features and does not shape them.
    """

    def __init__(self, channels: int, disparity_max: float) -> None:
        super().__init__()
        self.channels, self.disparity_max = channels, disparity_max
        c = channels
        self.stem = _conv(12, c)
        self.level0, self.level1, self.level2 = (
            ResidualBlock(c, c),
            ResidualBlock(c, 2 * c),
            ResidualBlock(2 * c, 4 * c),
        )
        self.up1, self.up0 = ResidualBlock(6 * c, 2 * c), ResidualBlock(3 * c, c)
        self.head = _conv(c, 4, gain=0.1)
        self.doubt = _conv(c, 4, gain=0.1)
        assert self.doubt.bias is not None
        nn.init.constant_(self.doubt.bias, -2)  # an eighth of the range, about where errors lie in the end

    def forward(self, photos: Tensor) -> Tensor:
        return self.with_error(photos)[0]

    def with_error(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Disparity, and the mean absolute error to expect of it: both (N, 1, H, W), in the same unit."""
        x0 = self.level0(self.stem(F.pixel_unshuffle(photos, 2)))  # N C H/2 W/2
        x1 = self.level1(F.avg_pool2d(x0, 2))  # N 2C H/4 W/4
        x2 = self.level2(F.avg_pool2d(x1, 2))  # N 4C H/8 W/8
        y = self.up1(torch.cat([x1, _up(x2)], 1))
        y = self.up0(torch.cat([x0, _up(y)], 1))
        y = F.leaky_relu(y, SLOPE)
        disparity = self.disparity_max * torch.tanh(F.pixel_shuffle(exact(self.head(y)), 2))
        doubt = F.pixel_shuffle(exact(self.doubt(y.detach())), 2)
        return disparity, self.disparity_max * torch.sigmoid(doubt)


def from_uint8(photos: Tensor) -> Tensor:
    """Photos as stored, uint8 of any shape -> float in [-1, 1], as networks take them."""
    return photos.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [-1, 1] -> uint8 (N, H, W, 3), on the CPU."""
    pixels: NDArray[np.uint8] = (
        (images.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return pixels


def placed(module: M, device: torch.device) -> M:
    """On its device, channels last: the layout in which a CPU's and a GPU's convolutions run without reordering."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,return-value]


def rounds(config: Training, device: torch.device) -> bool:
    """Whether convolutions are in bfloat16. `train.precision` auto: where the device has units for it that are the faster ones:
    AMX of a CPU, AVX-512 BF16 of any but Intel's, a GPU since Ampere. Elsewhere it would be slower."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    # Intel's AVX-512 BF16 does twice the products at half the rate, and rounding comes on top (docs/results.md)
    return can.get("amx_tile", False) or (can.get("avx512_bf16", False) and "Intel" not in can.get("cpu_name", ""))


def mixed(config: Training, device: torch.device) -> Callable[[], torch.autocast]:
    """The context that networks are trained in: convolutions and matrix products in bfloat16 where `rounds`, the rest in float32.

    Optics, losses and penalties stay outside. A context holds rounded weights: enter a new one after every update.
    """
    enabled = rounds(config, device)
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def generator(config: Training) -> Scene:
    return ModernGenerator(config) if config.recipe == "modern" else PaperGenerator(config)


def discriminator(config: Training) -> nn.Module:
    return ModernDiscriminator(config) if config.recipe == "modern" else PaperDiscriminator(config)
