"""What is made of a photograph and its depth: bokeh, layered depth images, light fields, meshes; measuring an iris."""
