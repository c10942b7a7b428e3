"""A champion's scores: those it was registered with, and those on the photos of today."""

from __future__ import annotations

import json
from pathlib import Path

from argan.config.schema import Params
from argan.errors import UserError
from argan.evaluation.gate import Scores
from pipelines import CACHE


def registered(folder: Path) -> Scores:
    """What the version in `folder` was registered with; nothing, on unknown photos, where that is not kept or damaged."""
    try:
        return Scores.of(json.loads((folder / "evaluation" / "scores.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, UserError):
        return Scores("unknown photos")


def today(folder: Path, domain: str, params: Params) -> Scores:
    """What it scores on the validation photos of `data/photos/<domain>` as they are. Raises UserError."""
    import torch

    from argan.evaluation import evaluate as evaluation

    photos, truth = (Path("data") / kind / domain for kind in ("photos", "truth"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return evaluation.scores(folder, photos, truth, params.evaluate, cache=CACHE, device=device)
