"""The gather renderer (Kaneko, CVPR 2021, section 3): every ray looks up the image where its disparity sends it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from argan.optics import gather_cpu
from argan.optics.aperture import Aperture
from argan.optics.lookup import Frame, sample, sample_backward


class Gather(torch.autograd.Function):
    """P(x) = 1/V sum_u I(x + s u M(x, u)), a view at a time, forward and backward.

    rays: D (N, 1, H, W), and M = D~ is computed on the way (and again in the backward pass); or M itself, (N, V - 1, H, W)
    for the views off the centre. The central view is the image as it is. s and 1/V are factors, multiplied in once.
    On a CPU `argan.optics.gather_cpu` does it; elsewhere, torch's own look-up.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, rays: Tensor, aperture: Aperture, scale: Tensor) -> Tensor:
        ctx.save_for_backward(image, rays, scale)
        ctx.views = aperture.offsets[aperture.moving].to(image)
        if image.device.type == "cpu":
            return gather_cpu.forward(image, rays, ctx.views * image.shape[3], scale)
        return forward(image, rays, ctx.views, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, rays, scale = ctx.saved_tensors
        if image.device.type == "cpu":
            return *gather_cpu.backward(grads[0], image, rays, ctx.views * image.shape[3], scale), None, None
        return *backward(grads[0].contiguous(), image, rays, ctx.views, scale), None, None


def forward(image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> Tensor:
    """The photo by torch's look-up. views (V, 2): u, in image widths per unit of disparity."""
    frame = Frame(image)
    steps, scaled, photo = frame.steps(views), scale[:, None, None, None] * rays, image.clone()
    for v, step in enumerate(steps):
        shift = frame.look_up(scaled, rays, step) if rays.shape[1] == 1 else scaled[:, v : v + 1]
        photo += frame.look_up(image, shift, step)
    return photo.div_(len(steps) + 1)


def backward(grad: Tensor, image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `forward` with respect to image and rays."""
    frame, s = Frame(image), scale[:, None, None, None]
    steps, scaled = frame.steps(views), s * rays
    d_image, d_rays, d_scaled = grad.clone(), torch.zeros_like(rays), torch.zeros_like(rays)
    with torch.autocast(image.device.type, enabled=False):
        for v, step in enumerate(steps):
            if rays.shape[1] == 1:
                grid = frame.grid(rays, step)
                shift = sample(scaled, grid)
            else:
                shift = scaled[:, v : v + 1]
            part, d_shift = sample_backward(grad, image, frame.grid(shift, step), step)
            d_image += part
            if rays.shape[1] == 1:
                part, along = sample_backward(d_shift, scaled, grid, step)
                d_scaled += part
                d_rays += along
            else:
                d_scaled[:, v : v + 1] = d_shift
    return d_image.div_(len(steps) + 1), (d_rays + s * d_scaled).div_(len(steps) + 1)
