"""What scores and cached features depend on besides photographs and networks: the code that computes them, and its environment."""

from __future__ import annotations

from functools import cache

import torch

from argan import dependencies

ROOT = "argan.evaluation.evaluate"
NOT_SCORED = {  # what evaluation imports and no score depends on, and why
    "argan.__init__": "names the parts of the package",
    "argan.dependencies": "identifies the code",
    "argan.errors": "the class of an error",
    "argan.files": "writes files, whatever is in them",
    "argan.html": "draws",
    "argan.visualization": "draws",
    "argan.evaluation.figures": "draws",
    "argan.evaluation.plots": "draws",
    "argan.evaluation.report": "draws",
    "argan.metrics.__init__": "names the parts of the package",
    "argan.evaluation.cache": "stores what was computed; what that depends on is in its keys",
    "argan.evaluation.revision": "identifies the code",
    "argan.evaluation.bootstrap": "compares scores and gives them intervals; the scores are what they are",
    "argan.evaluation.gate": "compares scores",
    "argan.effects.bokeh": "for a user's photo; scenes are photographed by the renderer that trained them",
    "argan.effects.iris": "for a user's bokeh",
    "argan.inference.novelty": "for a user's photo",
    "argan.photos.photograph": "opens a user's photo; evaluation reads the store",
    "argan.registry": "locates a model; what is evaluated is its folder",
    "argan.photos.sources": "downloads weights, whose hash is pinned beside their address",
}


@cache
def code_revision() -> str:
    """A short hash of the code that decides what the scores are: scores of two revisions do not compare."""
    return dependencies.revision(dependencies.closure((ROOT,), NOT_SCORED))


def environment() -> dict[str, str]:
    """The part of a cache key that is the same for all features computed by this installation."""
    return {"code": code_revision(), "torch": torch.__version__, "cuda": str(torch.cuda.is_available())}
