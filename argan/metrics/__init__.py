"""Numbers about photos and about depth. Importing this needs no torch; `features` (the extractors) does."""

from argan.metrics.depth import depth_scores, depth_scores_per_photo
from argan.metrics.frechet import frechet_distance, kernel_distance

__all__ = ["depth_scores", "depth_scores_per_photo", "frechet_distance", "kernel_distance"]
