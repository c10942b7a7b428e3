"""The differentiable camera aperture: from an all-in-focus image and its disparity to a light field and a photo.

Convention, everywhere: disparity is signed, 0 in the focal plane, larger = nearer the camera, measured as the shift
between the centre of the aperture and its rim at scale 1, as a fraction of image *width* (on both axes). Hence it means
the same at every resolution. Source: Kaneko, CVPR 2021, section 3 (after Srinivasan et al., CVPR 2018).

Two renderers answer the same question:

- ``gather`` (the paper's): every ray looks up the image where its disparity sends it. No occlusion, and therefore
  render(I, D) == render(I, -D): it cannot tell near from far.
- ``occlusion``: the scene is cut into fronto-parallel disparity layers, each blurred by the aperture and composited from
  far to near. A defocused near object spills over what is behind it, a defocused far one is cut off by what is before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Renderer = Literal["gather", "occlusion"]

# Views gathered at a time. Few enough that a chunk of a 64-pixel batch of 16 stays in a CPU's cache (16*3*64*64*4 bytes is
# 0.8 MB a view), many enough that the per-call overhead vanishes. The full stack of 25 views is never held.
VIEWS_PER_CHUNK = 3


@dataclass(frozen=True)
class Aperture:
    """A square grid of `size` x `size` views u in [-1, 1]^2, centred on 0, under a disc mask.

    With size 5 the coordinates are {-1, -1/2, 0, 1/2, 1} and the disc leaves the four corners out: 21 of 25 views.
    The weights are equal inside the disc, 0 outside, and sum to 1.
    """

    size: int = 5

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"aperture size must be odd and positive, so that a view is at the centre; got {self.size}")

    @property
    def views(self) -> int:
        return self.size**2

    @property
    def offsets(self) -> Tensor:
        """(V, 2) float32: (u_x, u_y) of each view, row by row from the top left."""
        line = torch.linspace(-1, 1, self.size) if self.size > 1 else torch.zeros(1)
        uy, ux = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([ux, uy], -1).reshape(-1, 2)

    @property
    def weights(self) -> Tensor:
        """(V,) float32, summing to 1. A view counts when its cell's centre is within half a cell of the unit disc."""
        half_cell = 1 / (self.size - 1) if self.size > 1 else 0.0
        inside = (self.offsets.norm(dim=1) <= 1 + half_cell / 2).float()
        return inside / inside.sum()


class DepthExpansion(nn.Module):
    """T: refines the rays' disparity jointly over all views, M = D~ + T(D~). Zero at initialisation, so M = D~.

    Input and output (N, V, H, W). Kaneko 2021, section 3; its L1 tie is `argan.objective.expansion_tie`.
    """

    def __init__(self, views: int, scale: float, channels: int = 32) -> None:
        super().__init__()
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

    disparity (N, 1, H, W) -> (N, V, H, W).
    """
    _check(disparity, disparity)
    disparity = _coordinates_dtype(disparity)
    n, _, h, w = disparity.shape
    offsets = aperture.offsets.to(disparity)
    return _gather(disparity, disparity, offsets).reshape(n, aperture.views, h, w)


def light_field(
    image: Tensor,
    disparity: Tensor,
    aperture: Aperture,
    scale: Tensor,
    *,
    expansion: DepthExpansion | None = None,
    renderer: Renderer = "gather",
    layers: int = 5,
    disparity_max: float | None = None,
) -> Tensor:
    """All views L(x, u) = I(x + s u M(x, u)), bilinear, the border replicated.

    image (N, C, H, W); disparity (N, 1, H, W); scale (N,), s = 0 gives the image exactly in every view.
    Returns (N, V, C, H, W), the views in the order of `aperture.offsets`.
    """
    _check(image, disparity, scale)
    image, disparity, scale = (_coordinates_dtype(t) for t in (image, disparity, scale))
    n, c, h, w = image.shape
    offsets = aperture.offsets.to(image)
    if renderer == "occlusion":
        stack, levels = _layers(image, disparity, layers, disparity_max)
        shift = scale[:, None, None, None] * levels[None, :, None, None] * offsets[None, None]  # (N, K, V, 2)
        views = [_composite(_shift(stack, shift[:, :, v])) for v in range(aperture.views)]
        field = torch.stack(views, 1)
    else:
        rays = ray_disparity(disparity, aperture)
        if expansion is not None:
            rays = expansion(rays)
        rays = rays * scale[:, None, None, None]
        field = torch.stack(
            [_gather(image, rays[:, v : v + 1], offsets[v : v + 1]).reshape(n, c, h, w) for v in range(aperture.views)], 1
        )
    return torch.where(scale[:, None, None, None, None] == 0, image[:, None], field)


def render(
    image: Tensor,
    disparity: Tensor,
    aperture: Aperture,
    scale: Tensor,
    *,
    expansion: DepthExpansion | None = None,
    renderer: Renderer = "gather",
    layers: int = 5,
    disparity_max: float | None = None,
) -> Tensor:
    """The photo P(x) = sum_u A(u) L(x, u) taken with aperture scale s, without ever storing the light field.

    image (N, C, H, W) in any range; disparity (N, 1, H, W); scale (N,), s = 0 gives the image exactly. Returns
    (N, C, H, W). Differentiable once in image and disparity (and in T's parameters). Sampling coordinates stay float32
    under mixed precision. The occlusion renderer averages each layer over the aperture before compositing, where
    `light_field` composites view by view: the two agree wherever at most one layer at a time is defocused.
    """
    _check(image, disparity, scale)
    image, disparity, scale = (_coordinates_dtype(t) for t in (image, disparity, scale))
    weights = aperture.weights.to(image)
    used = weights > 0
    offsets, weights = aperture.offsets.to(image)[used], weights[used]
    if renderer == "occlusion":
        stack, levels = _layers(image, disparity, layers, disparity_max)
        photo = _composite(_blur(stack, levels, scale, aperture))
    elif expansion is not None:
        rays = expansion(ray_disparity(disparity, aperture))[:, used]
        photo = _Gather.apply(image, None, rays, offsets, weights, scale)
    else:
        photo = _Gather.apply(image, disparity, None, offsets, weights, scale)
    return torch.where(scale[:, None, None, None] == 0, image, photo)


# ---------------------------------------------------------------------------------------------------------------------
# The gather


def _check(image: Tensor, disparity: Tensor, scale: Tensor | None = None) -> None:
    n, _, h, w = image.shape
    if disparity.shape != (n, 1, h, w):
        raise ValueError(f"disparity must be {(n, 1, h, w)} to go with image {tuple(image.shape)}, got {tuple(disparity.shape)}")
    if scale is not None and scale.shape != (n,):
        raise ValueError(f"scale must be ({n},), one aperture an image, got {tuple(scale.shape)}")


def _coordinates_dtype(tensor: Tensor) -> Tensor:
    """float32 at least: a half-precision coordinate cannot address a pixel of a 256-pixel row, let alone a part of it."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _grid(rays: Tensor, offsets: Tensor) -> Tensor:
    """Sampling positions x + u d(x) of V views stacked along the height, for one call of grid_sample.

    rays (N, V or 1, H, W) in image widths; offsets (V, 2). Returns (N, V*H, W, 2), normalised to [-1, 1].
    """
    n, _, h, w = rays.shape
    v = len(offsets)
    x = (torch.arange(w, device=rays.device, dtype=rays.dtype) * 2 + 1) / w - 1
    y = (torch.arange(h, device=rays.device, dtype=rays.dtype) * 2 + 1) / h - 1
    gx = x[None, None, None, :] + rays * (2 * offsets[:, 0])[None, :, None, None]  # a width is 2 in normalised units
    gy = y[None, None, :, None] + rays * (2 * offsets[:, 1] * (w / h))[None, :, None, None]
    return torch.stack([gx, gy], -1).reshape(n, v * h, w, 2)


def _sample(source: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _gather(source: Tensor, rays: Tensor, offsets: Tensor) -> Tensor:
    """source(x + u rays(x)) for every view: (N, C, V*H, W)."""
    return _sample(source, _grid(rays, offsets))


def _sample_backward(grad: Tensor, source: Tensor, grid: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.grid_sampler_2d_backward(grad, source, grid, 0, 1, False, mask)  # bilinear, border


class _Gather(torch.autograd.Function):
    """P = sum_u A(u) I(x + s u M(x, u)), a few views at a time, forward and backward.

    Either `disparity` is given, and M = D~ is found on the way (and again in the backward pass, which needs nothing else
    recomputed: the derivative of a bilinear look-up does not need its value), or `rays` = M (N, V, H, W) is.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, disparity: Tensor | None, rays: Tensor | None, offsets: Tensor, weights: Tensor, scale: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, disparity, rays, offsets, weights, scale)
        n, c, h, w = image.shape
        photo = torch.zeros_like(image)
        for a in range(0, len(offsets), VIEWS_PER_CHUNK):
            u, weight = offsets[a : a + VIEWS_PER_CHUNK], weights[a : a + VIEWS_PER_CHUNK]
            if disparity is not None:
                m = _gather(disparity, disparity, u).view(n, len(u), h, w)
            else:
                assert rays is not None
                m = rays[:, a : a + VIEWS_PER_CHUNK]
            views = _gather(image, m * scale[:, None, None, None], u).view(n, c, len(u), h, w)
            photo += torch.einsum("ncvhw,v->nchw", views, weight)
        return photo

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        image, disparity, rays, offsets, weights, scale = ctx.saved_tensors
        n, c, h, w = image.shape
        grad_image = torch.zeros_like(image)
        grad_disparity = torch.zeros_like(disparity) if disparity is not None else None
        grad_rays = torch.empty_like(rays) if rays is not None else None
        s = scale[:, None, None, None]
        for a in range(0, len(offsets), VIEWS_PER_CHUNK):
            u, weight = offsets[a : a + VIEWS_PER_CHUNK], weights[a : a + VIEWS_PER_CHUNK]
            v = len(u)
            if disparity is not None:
                ray_grid = _grid(disparity, u)
                m = _sample(disparity, ray_grid).view(n, v, h, w)
            else:
                m = rays[:, a : a + VIEWS_PER_CHUNK]
            grad_views = (grad[:, :, None] * weight[:, None, None]).reshape(n, c, v * h, w)
            d_image, d_grid = _sample_backward(grad_views, image, _grid(m * s, u), [True, True])
            grad_image += d_image
            d_m = _grid_backward(d_grid, u, n, h, w) * s
            if disparity is not None:
                assert grad_disparity is not None
                d_disparity, d_ray_grid = _sample_backward(d_m.reshape(n, 1, v * h, w), disparity, ray_grid, [True, True])
                grad_disparity += d_disparity + _grid_backward(d_ray_grid, u, n, h, w).sum(1, keepdim=True)
            else:
                assert grad_rays is not None
                grad_rays[:, a : a + VIEWS_PER_CHUNK] = d_m
        return grad_image, grad_disparity, grad_rays, None, None, None


def _grid_backward(d_grid: Tensor, offsets: Tensor, n: int, h: int, w: int) -> Tensor:
    """The gradient of `_grid` with respect to rays: (N, V*H, W, 2) -> (N, V, H, W)."""
    step = 2 * offsets * torch.tensor([1.0, w / h], dtype=offsets.dtype, device=offsets.device)
    return torch.einsum("nvhwc,vc->nvhw", d_grid.view(n, len(offsets), h, w, 2), step)


# ---------------------------------------------------------------------------------------------------------------------
# The layers


def _layers(image: Tensor, disparity: Tensor, count: int, disparity_max: float | None) -> tuple[Tensor, Tensor]:
    """Cut the scene into `count` layers of equal disparity steps, from far to near.

    A pixel belongs to its two nearest layers, linearly (a hat function): that is what gives disparity its gradient.
    Returns the premultiplied layers (N, K, C+1, H, W), the last channel their coverage, and the levels (K,).
    """
    reach = float(disparity.detach().abs().max()) if disparity_max is None else disparity_max
    levels = torch.linspace(-1, 1, count, dtype=image.dtype, device=image.device) * max(reach, 1e-6)
    step = levels[1] - levels[0]
    coverage = (1 - (disparity.clamp(-reach, reach) - levels[None, :, None, None]).abs() / step).clamp(min=0)
    coverage = coverage[:, :, None]
    return torch.cat([image[:, None] * coverage, coverage], 2), levels


def _shift(stack: Tensor, shift: Tensor) -> Tensor:
    """Every layer at x + shift. stack (N, K, C, H, W); shift (N, K, 2) in image widths."""
    n, k, c, h, w = stack.shape
    flat = stack.reshape(n * k, c, h, w)
    ones = torch.ones(n * k, 1, h, w, dtype=stack.dtype, device=stack.device)
    x = _grid(ones * shift.reshape(-1, 2)[:, :1, None, None], torch.tensor([[1.0, 0.0]]).to(stack))
    y = _grid(ones * shift.reshape(-1, 2)[:, 1:, None, None], torch.tensor([[0.0, 1.0]]).to(stack))
    return _sample(flat, torch.stack([x[..., 0], y[..., 1]], -1)).view(n, k, c, h, w)


def _blur(stack: Tensor, levels: Tensor, scale: Tensor, aperture: Aperture) -> Tensor:
    """Each layer averaged over the aperture: a convolution, since a layer's disparity is constant.

    The kernel is the aperture's own grid of views splatted bilinearly at s d u, so that a single layer gives exactly
    what the gather gives. stack (N, K, C, H, W) -> the same.
    """
    n, k, c, h, w = stack.shape
    radius = max(1, int(torch.ceil(levels.abs().max() * w)))  # scale is at most 1 in training
    radius = max(1, int(torch.ceil(levels.abs().max() * scale.max() * w))) if scale.max() > 1 else radius
    line = aperture.offsets[: aperture.size, 0].to(stack)
    shift = scale[:, None, None] * levels[None, :, None] * line * w  # (N, K, size) pixels
    taps = torch.arange(-radius, radius + 1, dtype=stack.dtype, device=stack.device)
    hat = (1 - (taps - shift[..., None]).abs()).clamp(min=0)  # (N, K, size, taps)
    weights = aperture.weights.to(stack).view(aperture.size, aperture.size)
    kernel = torch.einsum("yx,nkyj,nkxi->nkji", weights, hat, hat)
    flat = F.pad(stack.reshape(1, n * k * c, h, w), [radius] * 4, mode="replicate")
    kernels = kernel[:, :, None].expand(n, k, c, *kernel.shape[2:]).reshape(n * k * c, 1, *kernel.shape[2:])
    return F.conv2d(flat, kernels, groups=n * k * c).view(n, k, c, h, w)


def _composite(stack: Tensor) -> Tensor:
    """Far to near with the over operator. stack (N, K, C+1, H, W), premultiplied, K from far to near -> (N, C, H, W).

    Divided by the total coverage: a surface between two layers is not transparent, and what a near object hid in the
    image is filled from what is visible beside it.
    """
    total = stack[:, 0]
    for k in range(1, stack.shape[1]):
        total = stack[:, k] + total * (1 - stack[:, k, -1:])
    return total[:, :-1] / total[:, -1:].clamp(min=1e-6)
