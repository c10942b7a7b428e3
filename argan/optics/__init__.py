"""Rendering of defocus: the aperture, the light field, and the photo they make (paper, section 3)."""

from argan.optics.aperture import Aperture
from argan.optics.lookup import as_float32
from argan.optics.rays import DepthExpansion, ray_disparity, refined_rays
from argan.optics.rendering import light_field, render

__all__ = [
    "Aperture",
    "DepthExpansion",
    "as_float32",
    "light_field",
    "ray_disparity",
    "refined_rays",
    "render",
]
