"""The embedded domain: procedural flower photographs with exact depth, through a camera of its own."""

from argan.meadow.batch import SMALL, all_in_focus, aperture, chunk, photographs

__all__ = ["SMALL", "all_in_focus", "aperture", "chunk", "photographs"]
