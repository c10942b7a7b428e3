"""The embedded domain: procedural flower photographs with exact depth, through a camera of its own."""
