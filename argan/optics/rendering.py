"""The differentiable camera aperture: from an all-in-focus image and its disparity to a light field and a photo.

Convention, everywhere: disparity is signed, 0 in the focal plane, larger = nearer the camera, measured as the shift
between the centre of the aperture and its rim at scale 1, as a fraction of image *width* (on both axes). Hence it means
the same at every resolution. u is a place on the lens as the photographer sees it from behind the camera, (right, down): a
point behind the focal plane becomes the aperture upright, one before it turned by 180 degrees. Source: Kaneko, CVPR 2021,
section 3 (after Srinivasan et al., CVPR 2018).

Two renderers:

- ``gather`` (the paper's): every ray looks up the image where its disparity sends it. No occlusion, and therefore
  render(I, D) == render(I, -D): it cannot tell near from far.
- ``occlusion``: the scene is cut into fronto-parallel disparity layers, each blurred by the aperture and composited
  from far to near. A defocused near object spills over what is behind it, a far one is cut off by what is before it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from argan.optics.aperture import Aperture
from argan.optics.gather import Gather
from argan.optics.layered import Layered, blur_layers, composite, layer_levels, slice_layers
from argan.optics.lookup import Frame, as_float32, check_shapes
from argan.optics.rays import DepthExpansion, refined_rays

Renderer = Literal["gather", "occlusion"]

FAINT = 1e-4  # coverage that shows where there is no other, and weighs nothing elsewhere


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
    check_shapes(image, disparity, scale)
    image, disparity, scale = (as_float32(t) for t in (image, disparity, scale))
    frame, s = Frame(image), scale[:, None, None, None]
    steps = frame.steps(aperture.offsets)
    if renderer == "occlusion":
        stack, levels = slice_layers(image, disparity, layers, disparity_max)
        # Layers moved apart leave cracks, which nothing else fills in a single view: under all lies, faintly, the gather's view.
        gathered = FAINT * F.pad(image, (0, 0, 0, 0, 0, 1), value=1)
        stack = torch.cat([gathered[:, None], stack], 1)
        moves = torch.cat([disparity, levels[:, None, None].expand(len(image), -1, *image.shape[2:])], 1)
        flat = stack.flatten(0, 1)  # every layer of every image moves by its own s d
        shift = (s * moves).flatten(0, 1)[:, None]
        views = [composite(frame.look_up(flat, shift, step).view_as(stack)) for step in steps]
    else:
        rays = refined_rays(disparity, aperture, expansion)
        views = [frame.look_up(image, s * rays[:, v : v + 1], step) for v, step in enumerate(steps)]
    return torch.where(s[:, None] == 0, image[:, None], torch.stack(views, 1))


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
    check_shapes(image, disparity, scale)
    image, disparity, scale = (as_float32(t) for t in (image, disparity, scale))
    rays = disparity
    if renderer == "gather" and expansion is not None:
        rays = refined_rays(disparity, aperture, expansion)[:, aperture.moving]
    with torch.autocast(image.device.type, enabled=False):
        if renderer == "gather":
            photo = Gather.apply(image, rays, aperture, scale)
        elif image.device.type == "cpu":
            photo = Layered.apply(image, disparity, aperture, scale, layer_levels(disparity, layers, disparity_max))
        else:
            stack, levels = slice_layers(image, disparity, layers, disparity_max)
            photo = composite(blur_layers(stack, levels, scale, aperture))
        if image.device.type == "cpu":
            return photo  # the compiled kernels pass over a closed aperture
    return torch.where(scale[:, None, None, None] == 0, image, photo)
