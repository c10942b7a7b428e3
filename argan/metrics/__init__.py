"""Numbers about photos and about depth. Importing this needs no torch; `features` (the extractors) does."""

from argan.metrics.depth import depth_scores, depth_scores_per_photo, mask_auc
from argan.metrics.frechet import frechet_distance, kernel_distance, kernel_distance_parts
from argan.metrics.neighbours import precision_recall

__all__ = [
    "depth_scores",
    "depth_scores_per_photo",
    "frechet_distance",
    "kernel_distance",
    "kernel_distance_parts",
    "mask_auc",
    "precision_recall",
]
