"""Rendering of defocus: the aperture, the light field, and the photo they make (paper, section 3)."""

from argan.optics.rendering import (
    FAINT,
    Aperture,
    DepthExpansion,
    as_float32,
    light_field,
    linear_to_srgb,
    ray_disparity,
    refined_rays,
    render,
    srgb_to_linear,
)

__all__ = [
    "FAINT",
    "Aperture",
    "DepthExpansion",
    "as_float32",
    "light_field",
    "linear_to_srgb",
    "ray_disparity",
    "refined_rays",
    "render",
    "srgb_to_linear",
]
