"""The differentiable camera aperture: from an all-in-focus image and its disparity to a light field and a photo.

Convention, everywhere: disparity is signed, 0 in the focal plane, larger = nearer the camera, measured as the shift
between the centre of the aperture and its rim at scale 1, as a fraction of image *width* (on both axes). Hence it means
the same at every resolution. u is a place on the lens as the photographer sees it from behind the camera, (right, down): a
point behind the focal plane becomes the aperture upright, one before it turned by 180 degrees. Source: Kaneko, CVPR 2021,
section 3 (after Srinivasan et al., CVPR 2018).

Two renderers answer the same question:

- ``gather`` (the paper's): every ray looks up the image where its disparity sends it. No occlusion, and therefore
  render(I, D) == render(I, -D): it cannot tell near from far.
- ``occlusion``: the scene is cut into fronto-parallel disparity layers, each blurred by the aperture and composited
  from far to near. A defocused near object spills over what is behind it, a far one is cut off by what is before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from argan.optics import gather, occlusion

Renderer = Literal["gather", "occlusion"]


@dataclass(frozen=True)
class Aperture:
    """A square grid of `size` x `size` views u in [-1, 1]^2, centred on 0, under a disc mask.

    With size 5 the coordinates are {-1, -1/2, 0, 1/2, 1} and the disc leaves the four corners out: 21 of 25 views.
    The weights are equal inside the disc, 0 outside, and sum to 1.
    """

    size: int = 5

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"aperture size must be odd and positive, to have a view at its centre; got {self.size}")

    @property
    def views(self) -> int:
        return self.size**2

    @property
    def offsets(self) -> Tensor:
        """(V, 2) float32: (u_x, u_y) of each view, row by row from the top left."""
        half = self.size // 2
        line = torch.arange(-half, half + 1) / max(half, 1)
        uy, ux = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([ux, uy], -1).reshape(-1, 2)

    @property
    def weights(self) -> Tensor:
        """(V,) float32, summing to 1. A view counts when it lies within a quarter of a cell, the distance of two views, of the
        unit disc: the least round margin that keeps 21 of 5 x 5 views, and so the least blur beyond the rim."""
        cell = 2 / (self.size - 1) if self.size > 1 else 0.0
        inside = (self.offsets.norm(dim=1) <= 1 + cell / 4).float()
        return inside / inside.sum()

    @property
    def moving(self) -> Tensor:
        """(V,) bool: the views that count and lie off the centre. The central one sees the image as it is."""
        return (self.weights > 0) & self.offsets.any(1)


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
    _check(disparity, disparity)
    disparity = as_float32(disparity)
    frame = _Frame(disparity)
    return torch.cat([frame.look_up(disparity, disparity, step) for step in frame.steps(aperture.offsets)], 1)


def refined_rays(disparity: Tensor, aperture: Aperture, expansion: DepthExpansion | None) -> Tensor:
    """M = D~ + T(D~), (N, 1, H, W) -> (N, V, H, W); D~ where there is no T.

    T knows the views it was trained with. For a finer aperture what it adds there is interpolated between them.
    """
    rays = ray_disparity(disparity, aperture)
    if expansion is None:
        return rays
    if aperture.views == expansion.views:
        return expansion(rays)
    known, (n, _, h, w) = Aperture(math.isqrt(expansion.views)), disparity.shape
    coarse = ray_disparity(disparity, known)
    added = (expansion(coarse) - coarse).permute(0, 2, 3, 1).reshape(-1, 1, known.size, known.size)
    added = F.interpolate(added, (aperture.size, aperture.size), mode="bilinear", align_corners=True)
    return rays + added.view(n, h, w, aperture.views).permute(0, 3, 1, 2)


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

    image (N, C, H, W); disparity (N, 1, H, W); scale (N,), s = 0 gives the image exactly in every view. Returns
    (N, V, C, H, W), the views in the order of `aperture.offsets`. Differentiable. Raises ValueError on any other shape.
    """
    _check(image, disparity, scale)
    image, disparity, scale = (as_float32(t) for t in (image, disparity, scale))
    frame, s = _Frame(image), scale[:, None, None, None]
    steps = frame.steps(aperture.offsets)
    if renderer == "occlusion":
        stack, levels = _layers(image, disparity, layers, disparity_max)
        # Moved apart, layers leave cracks, and in a single view nothing else fills them: under all lies, faintly, the gather's.
        under = FAINT * F.pad(image, (0, 0, 0, 0, 0, 1), value=1)
        stack = torch.cat([under[:, None], stack], 1)
        moves = torch.cat([disparity, levels[:, None, None].expand(len(image), -1, *image.shape[2:])], 1)
        flat = stack.flatten(0, 1)  # every layer of every image moves by its own s d
        shift = (s * moves).flatten(0, 1)[:, None]
        views = [_composite(frame.look_up(flat, shift, step).view_as(stack)) for step in steps]
    else:
        rays = refined_rays(disparity, aperture, expansion)
        views = [frame.look_up(image, s * rays[:, v : v + 1], step) for v, step in enumerate(steps)]
    return torch.where(s[:, None] == 0, image[:, None], torch.stack(views, 1))


FAINT = 1e-4  # coverage that shows where there is no other, and weighs nothing elsewhere


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
    (N, C, H, W). Differentiable once in image and disparity (and in T's parameters). Everything but T stays float32
    under mixed precision. The occlusion renderer averages each layer over the aperture before compositing, where
    `light_field` composites view by view: the two agree wherever at most one layer at a time is defocused. Raises
    ValueError on any other shape.
    """
    _check(image, disparity, scale)
    image, disparity, scale = (as_float32(t) for t in (image, disparity, scale))
    rays = disparity
    if renderer == "gather" and expansion is not None:
        rays = refined_rays(disparity, aperture, expansion)[:, aperture.moving]
    with torch.autocast(image.device.type, enabled=False):
        if renderer == "gather":
            photo = _Gather.apply(image, rays, aperture, scale)
        elif image.device.type == "cpu":
            photo = _Occlusion.apply(image, disparity, aperture, scale, _levels(disparity, layers, disparity_max))
        else:
            stack, levels = _layers(image, disparity, layers, disparity_max)
            photo = _composite(_blur(stack, levels, scale, aperture))
        if image.device.type == "cpu":
            return photo  # a closed aperture is passed over there
    return torch.where(scale[:, None, None, None] == 0, image, photo)


def srgb_to_linear(values: Tensor) -> Tensor:
    """Pixel values in [-1, 1], sRGB -> light in 0..1 (IEC 61966-2-1), which is what a lens adds up. Differentiable."""
    v = (as_float32(values).clamp(-1, 1) + 1) / 2
    return torch.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """The reverse of `to_light`."""
    x = light.clamp(0, 1)
    # what is dark takes the straight part: kept from the power's gradient, which is endless at 0
    return 2 * torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055) - 1


def _check(image: Tensor, disparity: Tensor, scale: Tensor | None = None) -> None:
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"image must be floating point (N, C, H, W), got {image.dtype} {tuple(image.shape)}")
    n, _, h, w = image.shape
    if disparity.shape != (n, 1, h, w):
        got = tuple(disparity.shape)
        raise ValueError(f"disparity must be {(n, 1, h, w)} to go with image {tuple(image.shape)}, got {got}")
    if scale is not None and scale.shape != (n,):
        raise ValueError(f"scale must be ({n},), one aperture an image, got {tuple(scale.shape)}")


def as_float32(tensor: Tensor) -> Tensor:
    """float32 at least: a half-precision coordinate cannot address a pixel of a 256-pixel row, let alone part of it.

    And planes in memory, which is how they are looked up, where convolutions may have left pixels.
    """
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous()


# ---------------------------------------------------------------------------------------------------------------------
# The gather


class _Frame:
    """Positions in an H x W image, in the units of grid_sample: -1 to 1 from edge to edge."""

    def __init__(self, like: Tensor) -> None:
        h, w = like.shape[-2:]
        x, y = (((torch.arange(n, dtype=like.dtype, device=like.device) * 2 + 1) / n - 1) for n in (w, h))
        self.centres = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])[:, None]  # 2 1 H W
        self.width = like.new_tensor([2, 2 * w / h])  # an image width along x and along y

    def steps(self, offsets: Tensor) -> Tensor:
        """u, given in image widths, in these units: (V, 2) -> (V, 2, 1, 1, 1)."""
        return (offsets.to(self.width) * self.width)[:, :, None, None, None]

    def grid(self, shift: Tensor, step: Tensor) -> Tensor:
        """x + u shift(x). shift (N, 1, H, W) -> (N, H, W, 2), stored as two planes, x and y: the fastest to make."""
        return torch.addcmul(self.centres, shift.transpose(0, 1), step).permute(1, 2, 3, 0)

    def look_up(self, source: Tensor, shift: Tensor, step: Tensor) -> Tensor:
        """source(x + u shift(x)). source (N, C, H, W), shift (N, 1, H, W) -> (N, C, H, W)."""
        return _sample(source, self.grid(shift, step))


def _sample(source: Tensor, grid: Tensor) -> Tensor:
    """Bilinear, so that positions get a gradient; the border replicated."""
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_backward(grad: Tensor, source: Tensor, grid: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_sample` with respect to its source (N, C, H, W), and along u to the shift (N, 1, H, W)."""
    d_source, d_grid = torch.ops.aten.grid_sampler_2d_backward(grad, source, grid, 0, 1, False, [True, True])
    n, _, h, w = source.shape
    return d_source, torch.mv(d_grid.view(-1, 2), step.view(2)).view(n, 1, h, w)


class _Gather(torch.autograd.Function):
    """P(x) = 1/V sum_u I(x + s u M(x, u)), a view at a time, forward and backward.

    rays: D (N, 1, H, W), and M = D~ is found on the way (and again in the backward pass); or M itself, (N, V - 1, H, W)
    for the views off the centre. The central view is the image as it is. s and 1/V are factors, multiplied in once.
    On a CPU `argan.optics.gather` does it; elsewhere, torch's own look-up.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, rays: Tensor, aperture: Aperture, scale: Tensor) -> Tensor:
        ctx.save_for_backward(image, rays, scale)
        ctx.views = aperture.offsets[aperture.moving].to(image)
        if image.device.type == "cpu":
            return gather.forward(image, rays, ctx.views * image.shape[3], scale)
        return _gather(image, rays, ctx.views, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, rays, scale = ctx.saved_tensors
        if image.device.type == "cpu":
            return *gather.backward(grads[0], image, rays, ctx.views * image.shape[3], scale), None, None
        return *_gather_backward(grads[0].contiguous(), image, rays, ctx.views, scale), None, None


def _gather(image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> Tensor:
    frame = _Frame(image)
    steps, scaled, photo = frame.steps(views), scale[:, None, None, None] * rays, image.clone()
    for v, step in enumerate(steps):
        shift = frame.look_up(scaled, rays, step) if rays.shape[1] == 1 else scaled[:, v : v + 1]
        photo += frame.look_up(image, shift, step)
    return photo.div_(len(steps) + 1)


def _gather_backward(grad: Tensor, image: Tensor, rays: Tensor, views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    frame, s = _Frame(image), scale[:, None, None, None]
    steps, scaled = frame.steps(views), s * rays
    d_image, d_rays, d_scaled = grad.clone(), torch.zeros_like(rays), torch.zeros_like(rays)
    with torch.autocast(image.device.type, enabled=False):
        for v, step in enumerate(steps):
            if rays.shape[1] == 1:
                grid = frame.grid(rays, step)
                shift = _sample(scaled, grid)
            else:
                shift = scaled[:, v : v + 1]
            part, d_shift = _sample_backward(grad, image, frame.grid(shift, step), step)
            d_image += part
            if rays.shape[1] == 1:
                part, along = _sample_backward(d_shift, scaled, grid, step)
                d_scaled += part
                d_rays += along
            else:
                d_scaled[:, v : v + 1] = d_shift
    return d_image.div_(len(steps) + 1), (d_rays + s * d_scaled).div_(len(steps) + 1)


# ---------------------------------------------------------------------------------------------------------------------
# The layers


class _Occlusion(torch.autograd.Function):
    """`_layers`, `_blur` and `_composite` on a CPU, by `occlusion`: no layer is stored, all are made again backwards."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, disparity: Tensor, aperture: Aperture, scale: Tensor, levels: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, disparity, scale, levels)
        ctx.weights = aperture.weights.view(aperture.size, aperture.size)
        return occlusion.forward(image, disparity, ctx.weights, scale, levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, disparity, scale, levels = ctx.saved_tensors
        return *occlusion.backward(grads[0], image, disparity, ctx.weights, scale, levels), None, None, None


def _layers(image: Tensor, disparity: Tensor, count: int, disparity_max: float | None) -> tuple[Tensor, Tensor]:
    """Cut the scene into `count` layers of equal disparity steps, from far to near.

    A pixel belongs to its two nearest layers, linearly (a hat function): that is what gives disparity its gradient.
    Returns the premultiplied layers (N, K, C+1, H, W), the last channel their coverage, and the levels (K,).
    """
    levels = _levels(disparity, count, disparity_max)
    step = levels[1] - levels[0]
    within = torch.minimum(torch.maximum(disparity, levels[0]), levels[-1])
    coverage = (1 - (within - levels[None, :, None, None]).abs() / step).clamp(min=0)
    coverage = coverage[:, :, None]
    return torch.cat([image[:, None] * coverage, coverage], 2), levels


def _levels(disparity: Tensor, count: int, disparity_max: float | None) -> Tensor:
    """The disparities of the layers, (K,), from far to near, one of them 0."""
    if count < 3 or count % 2 == 0:
        raise ValueError(f"layers must be odd and at least 3, so that one lies in the focal plane; got {count}")
    reach = float(disparity.detach().abs().max()) if disparity_max is None else disparity_max
    return torch.linspace(-1, 1, count, dtype=disparity.dtype, device=disparity.device) * max(reach, 1e-6)


def _blur(stack: Tensor, levels: Tensor, scale: Tensor, aperture: Aperture) -> Tensor:
    """Each layer averaged over the aperture: it moves as a whole, since its disparity is constant.

    Views in a row of the aperture share their step down, and rows of equal weights (the disc of 5 x 5 has two kinds) their sum
    along the row. So the blur is a sum of a few products down X across^T with matrices of look-ups, exactly those of the gather:
    that is what a GPU is best at, and no radius need be known, which would be waited for. stack (N, K, C, H, W) -> the same.
    """
    h, w = stack.shape[3:]
    kinds, kind_of = torch.unique(aperture.weights.view(aperture.size, aperture.size), dim=0, return_inverse=True)
    line = aperture.offsets[: aperture.size, 0].tolist()
    shift = scale[:, None] * levels * w  # (N, K) pixels, from the centre of the aperture to its rim
    blurred = torch.zeros_like(stack)
    for p, weights in enumerate(kinds.tolist()):
        across = sum(weight * _moved(w, u * shift) for u, weight in zip(line, weights, strict=True) if weight)
        down = sum(_moved(h, u * shift) for u, kind in zip(line, kind_of.tolist(), strict=True) if kind == p)
        blurred = blurred + torch.einsum("nkyj,nkcji,nkxi->nkcyx", down, stack, across)
    return blurred


def _moved(size: int, shift: Tensor) -> Tensor:
    """The look-up at x + shift as a matrix: linear, the border replicated. shift (N, K) pixels -> (N, K, size, size)."""
    x = torch.arange(size, dtype=shift.dtype, device=shift.device)
    at = (x + shift[..., None]).clamp(0, size - 1)
    return (1 - (at[..., None] - x).abs()).clamp(min=0)


def _composite(stack: Tensor) -> Tensor:
    """Far to near with the over operator. stack (N, K, C+1, H, W), premultiplied, K from far to near -> (N, C, H, W).

    Divided by the total coverage: a surface between two layers is not transparent, and what a near object hid in the
    image is filled from what is visible beside it.
    """
    total, *nearer = stack.unbind(1)
    for layer in nearer:
        total = layer + total * (1 - layer[:, -1:])
    return total[:, :-1] / total[:, -1:].clamp(min=1e-6)
