"""Rendering of defocus: the aperture, the light field, and the photo they make (paper, section 3)."""

from argan.optics.rendering import (
    FAINT,
    Aperture,
    DepthExpansion,
    exact,
    light_field,
    ray_disparity,
    refined_rays,
    render,
    to_light,
    to_values,
)

__all__ = [
    "FAINT",
    "Aperture",
    "DepthExpansion",
    "exact",
    "light_field",
    "ray_disparity",
    "refined_rays",
    "render",
    "to_light",
    "to_values",
]
