"""Numba's kernels compiled once, before anything copies the package with its cache: half a minute in a fresh clone, then 1 s."""

from __future__ import annotations

import numpy as np


def compile_kernels() -> None:
    """Call what a small pipeline run and the command line use, at the smallest sizes."""
    import torch

    from argan.effects import bokeh, lightfield
    from argan.meadow.batch import photographs
    from argan.optics.aperture import Aperture
    from argan.optics.rendering import render

    photographs(1, 32, 0, processes=1)
    image = torch.zeros(2, 3, 16, 16, requires_grad=True)
    disparity = torch.zeros(2, 1, 16, 16, requires_grad=True)
    for renderer in ("gather", "occlusion"):
        render(image, disparity, Aperture(), torch.ones(2), renderer=renderer).sum().backward()
    photo, depth = np.full((24, 32, 3), 100, np.uint8), np.zeros((24, 32), np.float32)
    depth[8:16, 8:24] = 0.02
    bokeh.refocus(photo, depth, 0.5)
    lightfield.LightField(photo, depth).view(1, 0)
