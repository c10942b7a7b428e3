"""A champion's scores: those it was registered with, and those on the photos of today."""

from __future__ import annotations

import json
from pathlib import Path

from argan.config.schema import Params
from argan.errors import UserError
from argan.evaluation.gate import Scores
from pipelines import CACHE


def registered_scores(folder: Path) -> Scores:
    """Those the version in `folder` was registered with; none, on unknown photos, where they are missing or damaged."""
    try:
        return Scores.from_json(json.loads((folder / "evaluation" / "scores.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, UserError):
        return Scores("unknown photos")


def rescore(folder: Path, domain: str, params: Params) -> Scores:
    """Its scores on the validation photos of `data/photos/<domain>` as they are. Raises UserError."""
    import torch

    from argan.evaluation.evaluate import validation_scores

    photos, truth = (Path("data") / kind / domain for kind in ("photos", "truth"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return validation_scores(folder, photos, truth, params.evaluate, cache=CACHE, device=device)
