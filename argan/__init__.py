"""Depth and depth of field from ordinary photographs alone: aperture rendering generative adversarial networks.

    import argan
    model = argan.load("meadow")             # a domain in models/, a folder, or models:/argan-meadow@champion
    scenes = model.sample(count=16, seed=0)  # images in focus, photos, disparity
    disparity = model.depth("photo.jpg")     # float32, the photo's own size, larger = nearer
    picture = model.bokeh("photo.jpg", aperture=2.0, focus=(640, 360))

Importing `argan` alone costs nothing: torch comes with the first submodule that needs it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argan.inference.model import Model

_SUBMODULES = ("effects", "evaluation", "inference", "metrics", "networks", "optics", "photos", "training")


def load(model: str | Path) -> Model:
    """A trained model: a domain in models/, a folder, or a registry reference such as models:/argan-meadow@champion.

    Raises argan.errors.UserError, one clear line, when it is not there, half written or something else.
    """
    from argan.inference.model import Model

    if str(model).startswith("models:"):
        from argan.registry import download

        return Model.load(download(str(model)))
    return Model.load(model)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"argan.{name}")
    raise AttributeError(f"module 'argan' has no attribute '{name}'")
