"""Parameters: the schema of params.yaml and the presets."""
