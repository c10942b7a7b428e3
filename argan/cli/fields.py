"""Commands for light fields, three dimensions, and the space of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argan.cli.common import (
    ModelArgument,
    OutOption,
    app,
    bar,
    check_outputs,
    make_folder,
    process_photos,
    progress,
    write_array,
)
from argan.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from argan.inference.model import Model

Maybe = Annotated[
    list[Path] | None, typer.Argument(metavar="[PHOTO...]", help="Photographs; without any, scenes are made.")
]
Count = Annotated[int, typer.Option(min=1, help="How many scenes, when no photo is given.")]
Seed = Annotated[int, typer.Option(min=0, help="Other seeds, other scenes.")]
Truncation = Annotated[float, typer.Option(min=0, max=2, help="Below 1: scenes nearer to the mean one.")]
SCENE = 256  # pixels at which a scene is shown that was made smaller
LONGEST = {"gif": 512, "mp4": 720, "webp": 4096}  # pixels: a GIF packs badly, and VP9 slowly
FAR = 0.75  # of what the mean photo scores: a projection that is no nearer shows some other scene
QUILT = 4096  # pixels of a quilt's longer side, at most


@app.command()
def lightfield(
    model: ModelArgument,
    photos: Maybe = None,
    count: Count = 1,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Longest side of what is made, in pixels.")] = 1024,
    parallax: Annotated[
        float, typer.Option(min=0, max=0.25, help="How far things move in animation and quilt, as a part of the width.")
    ] = 0.02,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Columns of the quilt.")] = 8,
    rows: Annotated[int, typer.Option(min=1, max=20, help="Rows of the quilt.")] = 6,
    out: OutOption = Path("lightfield"),
) -> None:
    """See photographs, or new scenes, from other places: views, an animation, a quilt for holographic displays.

    Writes <stem>.gif, <stem>.webp and <stem>.mp4 (the camera goes round the aperture), <stem>_qs<columns>x<rows>a<aspect>.png
    (a quilt) and <stem>.views/<row>_<column>.png, the 5 x 5 views through the model's full aperture, from the top left: of
    a scene, the model's own light field.
    """
    import numpy as np

    from argan import load
    from argan.effects import lightfield
    from argan.effects.animation import write_animation
    from argan.effects.layered_depth_image import limit_size
    from argan.photos import photograph

    loaded = load(model)

    def one(stem: str, photo: NDArray[np.uint8], disparity: Any, own: NDArray[np.uint8] | None) -> None:
        photo, disparity = limit_size(photo, disparity, size)
        views = own if own is not None else lightfield.LightField(photo, disparity).views(lightfield.aperture_grid())
        make_folder(out / f"{stem}.views")
        for i, view in enumerate(views):
            photograph.write_png(out / f"{stem}.views" / f"{i // 5}_{i % 5}.png", view)
        del views  # up to a gigabyte
        moved = lightfield.scale_parallax(disparity, parallax)
        frames = lightfield.LightField(photo, moved).views(lightfield.circle())
        for suffix, longest in LONGEST.items():
            shown = np.stack([limit_size(frame, disparity, longest)[0] for frame in frames])
            write_animation(shown, out / f"{stem}.{suffix}")
        small = lightfield.LightField(*limit_size(photo, moved, QUILT // max(columns, rows))).views(
            lightfield.sweep(columns * rows)
        )
        name = lightfield.quilt_name(stem, columns, rows, small.shape[2] / small.shape[1])
        photograph.write_png(out / name, lightfield.quilt(small, columns, rows))

    endings = (*(f".{suffix}" for suffix in LONGEST), ".views", f"_qs{columns}x{rows}a*.png")
    _each(loaded, photos, count, seed, truncation, out, endings, one)


@app.command()
def mesh(
    model: ModelArgument,
    photos: Maybe = None,
    count: Count = 1,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Vertices along the longest side.")] = 512,
    relief: Annotated[float, typer.Option(min=0, help="Stretches depth: 1 is the model's own, 0 is flat.")] = 1.0,
    out: OutOption = Path("mesh"),
) -> None:
    """Turn photographs, or new scenes, into textured meshes and point clouds.

    Writes <stem>.glb (glTF: +Y up, the camera at the origin looks along -Z, the focal plane at distance 1) and <stem>.ply, the
    same as coloured points. What an object hides is continued from the background around it.
    """
    from argan import load
    from argan.effects.mesh import write_glb, write_ply

    def one(stem: str, photo: NDArray[np.uint8], disparity: Any, own: NDArray[np.uint8] | None) -> None:
        write_glb(out / f"{stem}.glb", photo, disparity, size, relief)
        write_ply(out / f"{stem}.ply", photo, disparity, 2 * size, relief)

    _each(load(model), photos, count, seed, truncation, out, (".glb", ".ply"), one)


@app.command()
def interpolate(
    model: ModelArgument,
    seeds: Annotated[list[int], typer.Option("--from", min=0, help="A scene's seed; two or more, in order.")],
    frames: Annotated[int, typer.Option(min=1, max=1000, help="Pictures from one scene to the next.")] = 24,
    truncation: Truncation = 1.0,
    out: OutOption = Path("interpolation"),
) -> None:
    """Walk from scene to scene and back to the first: photo and depth side by side.

    Scene 0 of every --from SEED is passed, along the sphere on which latents lie. Writes interpolation.gif, .webp and .mp4.
    """
    import numpy as np

    from argan import load
    from argan import visualization as pictures
    from argan.effects.animation import write_animation
    from argan.inference import latents

    if len(seeds) < 2:
        raise UserError("a way goes from one scene to another; give --from SEED twice or more")
    loaded = load(model)
    keys = np.concatenate([loaded.latents([0], seed, truncation) for seed in seeds])
    points = latents.trajectory(keys, frames)
    make_folder(out)
    shown = []
    for part in progress(np.array_split(points, max(1, len(points) // 32)), max(1, len(points) // 32), "scenes"):
        scenes = loaded.scenes(part)
        colors = pictures.disparity_colors(scenes.disparity, loaded.config.disparity_max)
        shown.append(np.concatenate([scenes.photos, colors], 2))
    pages = pictures.enlarge(np.concatenate(shown), max(1, SCENE // loaded.config.resolution))
    for suffix in ("gif", "webp", "mp4"):
        write_animation(pages, out / f"interpolation.{suffix}")
    typer.echo(f"{len(pages)} pictures in {out}/interpolation.gif, .webp and .mp4")


@app.command()
def project(
    model: ModelArgument,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A photograph.", show_default=False)],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the search.")] = 300,
    starts: Annotated[int, typer.Option(min=1, max=64, help="Scenes it starts from; the best one is kept.")] = 8,
    seed: Seed = 0,
    out: OutOption = Path("projection"),
) -> None:
    """Find the generated scene that is nearest to a photograph, with its depth and its light field.

    Writes <stem>.png (the photo as the model sees it, the scene's photo, all in focus, its disparity), <stem>.latent.npy,
    <stem>.disparity.npy, <stem>.gif (its light field) and <stem>.json: rmse (0..255) beside what the domain's mean photo and a
    picture of one colour score, and the aperture found. The model knows its own domain only: of other photos expect little.
    """
    import numpy as np

    from argan import load
    from argan import visualization as pictures
    from argan.files import write_json
    from argan.inference import latents

    check_outputs([photo], out, (".png", ".gif", ".json", ".latent.npy", ".disparity.npy"))
    loaded = load(model)
    with bar("steps") as report:
        found = latents.project(
            loaded, photo, steps=steps, starts=starts, seed=seed, progress=report or (lambda done, total: None)
        )
    make_folder(out)
    colors = pictures.disparity_colors(found.disparity, loaded.config.disparity_max)
    table = np.stack([found.target, found.photo, found.image, colors])
    upscale = max(1, SCENE // loaded.config.resolution)
    pictures.write_png(out / f"{photo.stem}.png", pictures.grid(table, 4, upscale=upscale))
    pictures.light_field_gif(found.views, out / f"{photo.stem}.gif", upscale=upscale)
    write_array(out / f"{photo.stem}.latent.npy", found.latent)
    write_array(out / f"{photo.stem}.disparity.npy", found.disparity)
    numbers = {
        name: round(getattr(found, name), 4) for name in ("rmse", "rmse_start", "rmse_mean", "rmse_flat", "aperture")
    }
    write_json(out / f"{photo.stem}.json", numbers)
    far = found.rmse > FAR * min(found.rmse_mean, found.rmse_flat)
    typer.echo(
        f"distance {found.rmse:.1f} of 255 (the domain's mean photo: {found.rmse_mean:.1f}, one colour: {found.rmse_flat:.1f}), "
        f"aperture {found.aperture:.2f}, in {out}/"
        + "; that is far: it is another scene, with a depth of its own"
        * far
    )


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write, .onnx.")] = Path(
        "estimator.onnx"
    ),
) -> None:
    """Write the depth estimator as ONNX, for runtimes other than torch; the two are compared before it is put in place."""
    from argan import load
    from argan.inference.onnx_export import export_onnx

    worst = export_onnx(load(model), out)
    typer.echo(f"{out}: onnxruntime and torch agree to {worst:.1g}")


def _each(
    loaded: Model,
    photos: list[Path] | None,
    count: int,
    seed: int,
    truncation: float,
    out: Path,
    endings: Sequence[str],
    one: Any,
) -> None:
    """one(stem, photo, disparity, the model's own views or None) for every photo, or for every new scene."""
    import numpy as np

    from argan.inference.edges import fit_to_edges
    from argan.inference.photo import read_photo
    from argan.visualization import enlarge

    if photos:

        def taken(path: Path) -> None:
            pixels = read_photo(path)
            one(path.stem, pixels, loaded.depth(pixels), None)

        process_photos(photos, out, endings, taken)
        return
    make_folder(out)
    factor = max(1, SCENE // loaded.config.resolution)
    for i in progress(range(count), count, "scenes"):
        scene = loaded.scenes(loaded.latents([i], seed, truncation))
        image = enlarge(scene.images, factor)[0]
        disparity = scene.disparity[0] if factor == 1 else fit_to_edges(scene.disparity[0], image, pixel=factor / 2)
        one(str(i), image, np.asarray(disparity), enlarge(loaded.light_field(i, seed, truncation), factor))
    typer.echo(f"{count} scenes in {out}/")
