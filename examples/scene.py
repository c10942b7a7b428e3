"""A scene for a 3D tool: a photograph, or a scene that the model makes up, as GLB and PLY.

    python examples/scene.py meadow                # a new scene -> scene.glb, scene.ply
    python examples/scene.py meadow photo.jpg      # a photograph

Open scene.glb in Blender (File > Import > glTF 2.0) or any viewer of glTF, scene.ply in MeshLab or CloudCompare. +Y is up,
the camera stood at the origin and looked along -Z, and 1 is the distance it was focused at.
"""

import sys
from pathlib import Path

import trimesh

import argan
from argan.effects.mesh import write_glb, write_ply
from argan.inference.edges import fit_to_edges
from argan.inference.photo import read_photo
from argan.visualization import enlarge


def main(model: str, photo: str | None = None, out: str = "scene") -> None:
    loaded = argan.load(model)
    if photo:
        picture = read_photo(photo)
        disparity = loaded.depth(picture)
    else:
        scene = loaded.sample(1, seed=3, truncation=0.8)
        factor = max(1, 256 // loaded.config.resolution)  # smooth, rather than blocks of colour
        picture = enlarge(scene.images, factor)[0]
        disparity = fit_to_edges(scene.disparity[0], picture, pixel=factor / 2)

    write_glb(Path(f"{out}.glb"), picture, disparity)
    write_ply(Path(f"{out}.ply"), picture, disparity)

    # What a 3D tool will find: two textured layers, what was seen and what is hidden behind its edges
    for name, part in trimesh.load(f"{out}.glb").geometry.items():
        print(f"{name}: {len(part.vertices)} vertices, {len(part.faces)} triangles")
    near, far = -trimesh.load(f"{out}.glb").bounds[::-1, 2]
    print(f"from {near:.2f} to {far:.2f} times the focused distance, in {out}.glb and {out}.ply")


if __name__ == "__main__":
    main(*sys.argv[1:])
