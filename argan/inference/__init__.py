"""A trained model in use: scenes, depth of photographs, latent vectors, novelty, ONNX."""
