"""Commands for photographs of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argan.cli.common import ModelArgument, OutOption, PhotosArgument, app, process_photos, write_array
from argan.errors import UserError


@app.command()
def depth(model: ModelArgument, photos: PhotosArgument, out: OutOption = Path("depth")) -> None:
    """Estimate the depth of photographs.

    Writes <stem>.disparity.npy, float32 at the photo's own height and width, larger = nearer, 0 in the focal plane, in
    shift between the centre and the rim of the aperture as a fraction of the photo's width; <stem>.depth.png, its picture:
    red is near, blue is far; and <stem>.confidence.png: white where the model is sure. A photo unlike those the model learned
    from is named.
    """
    from argan import load
    from argan import visualization as pictures

    loaded = load(model)

    def one(photo: Path) -> None:
        estimate = loaded.estimate(photo)
        write_array(out / f"{photo.stem}.disparity.npy", estimate.disparity)
        pictures.write_png(out / f"{photo.stem}.depth.png", pictures.depth_colors(estimate.disparity))
        pictures.write_png(out / f"{photo.stem}.confidence.png", (estimate.confidence * 255).round().astype("uint8"))
        if estimate.warning:
            typer.echo(f"warning: {photo}: {estimate.warning}", err=True)

    process_photos(photos, out, (".disparity.npy", ".depth.png", ".confidence.png"), one)


@app.command()
def bokeh(
    model: ModelArgument,
    photos: PhotosArgument,
    aperture: Annotated[
        float,
        typer.Option(min=0, help="Opening: 0 leaves the photo as it is, 1 is the model's full aperture, more is more."),
    ] = 1.0,
    focus: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y",
            help="What to focus on: a pixel of the upright photo, from its top left; or fractions of width and height, "
            "when both are within 0..1.  [default: the centre]",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="Of the aperture: disc, cat's eye, 5 to 9 blades, such as '7 blades'; or collection, as measured from the "
            "photographs that the model learned from, where they show it."
        ),
    ] = "disc",
    out: OutOption = Path("bokeh"),
) -> None:
    """Give photographs a shallow depth of field.

    Writes <stem>.bokeh.png at the photo's own size, upright, with its colour profile, its EXIF, and its 16 bits where it has them.
    """
    from argan import load
    from argan.photos import photograph

    focus_point = _focus(focus)
    loaded = load(model)
    loaded.aperture_shape(shape)  # an unknown shape is one error, not one for each photo

    def one(path: Path) -> None:
        photo = photograph.read(path)
        blurred = loaded.bokeh(photo, aperture, focus_point, shape)
        photograph.write_png(out / f"{path.stem}.bokeh.png", blurred, photo.icc, photo.exif, photo.cicp)

    process_photos(photos, out, (".bokeh.png",), one)


def _focus(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--focus must be two numbers X,Y, such as 640,360 or 0.5,0.4; got '{text}'") from error
    return x, y
