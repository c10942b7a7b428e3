"""Commands that make new scenes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argan.cli.common import ModelArgument, OutOption, app, make_folder, progress, write_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@app.command()
def sample(
    model: ModelArgument,
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds, other scenes; the same seed, the same scenes.")] = 0,
    truncation: Annotated[
        float, typer.Option(min=0, max=2, help="Below 1: scenes nearer to the mean one, fewer that failed.")
    ] = 1.0,
    views: Annotated[
        int, typer.Option(help="Views along each side of the aperture, odd: more make a wide blur smooth.")
    ] = 5,
    out: OutOption = Path("scenes"),
) -> None:
    """Make new scenes: an image all in focus, its photo through the full aperture, and its disparity.

    Writes <i>_image.png, <i>_photo.png and <i>_disparity.npy for each, and grid.png and light_field.gif to look at.
    """
    import numpy as np

    from argan import load
    from argan import visualization as pictures

    loaded = load(model)
    make_folder(out)
    resolution, shown = loaded.config.resolution, min(count, 32)
    upscale = max(1, 128 // resolution)
    tiles: list[NDArray[np.uint8]] = []
    for first, scenes in progress(enumerate_batches(loaded.stream(count, seed, truncation, views)), count, "scenes"):
        colors = pictures.disparity_colors(scenes.disparity, loaded.config.disparity_max)
        for i, (image, photo, disparity) in enumerate(
            zip(scenes.images, scenes.photos, scenes.disparity, strict=True), first
        ):
            pictures.write_png(out / f"{i}_image.png", image)
            pictures.write_png(out / f"{i}_photo.png", photo)
            write_array(out / f"{i}_disparity.npy", disparity)
            if i < shown:
                tiles += [image, colors[i - first], photo]
    columns = 3 * min(4, shown)  # in threes: image in focus, disparity, photo
    pictures.write_png(out / "grid.png", pictures.grid(np.stack(tiles), columns, upscale=upscale))
    fields = [loaded.light_field(i, seed, truncation) for i in range(min(4, count))]
    pictures.light_field_gif(np.concatenate(fields, 2), out / "light_field.gif", upscale=upscale)
    typer.echo(f"{count} scenes in {out}/; look at {out / 'grid.png'} and {out / 'light_field.gif'}")


def enumerate_batches(stream: Iterable[Any]) -> Iterable[tuple[int, Any]]:
    """(index of the first scene, scenes) of each batch."""
    first = 0
    for scenes in stream:
        yield first, scenes
        first += len(scenes.images)
