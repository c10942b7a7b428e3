"""Generated photographs against real ones: distances of features beside their floor, precision and recall."""

from __future__ import annotations

from typing import Any

import numpy as np

from argan.evaluation.arrays import Maps, Rows
from argan.metrics import (
    frechet_distance,
    kernel_distance,
    kernel_distance_parts,
    precision_recall,
)
from argan.metrics.neighbours import NEIGHBOUR


def distance_metrics(generated: Maps, real: Maps, substitutes: Maps, groups: Rows) -> dict[str, Any]:
    """fid, kid and their floors, precision and recall, from features (n, F).

    substitutes: of real photos in the place of the generated ones; groups: near duplicates among `real` have the same number.
    The Fréchet distance falls with the number of photos, so that it and its floor are of equally many, `fid_images`.
    """
    parts = kernel_distance_parts(generated, real, groups=groups)
    enough = min(len(generated), len(real)) > NEIGHBOUR
    precision, recall = precision_recall(generated, real) if enough else (None, None)
    count = min(len(generated), len(substitutes))
    return {
        "fid": frechet_distance(generated[:count], real),
        "fid_floor": frechet_distance(substitutes[:count], real),
        "fid_images": count,
        "kid": kernel_distance(generated, real),
        "kid_se": float(parts.std(ddof=1) / np.sqrt(len(parts))) if len(parts) > 1 else None,
        "kid_floor": kernel_distance(substitutes, real),
        "precision": precision,
        "recall": recall,
    }
