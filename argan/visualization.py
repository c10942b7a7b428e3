"""Pictures: one colour scale for disparity, grids, labelled panels, light fields that move. Arrays in, uint8 out; no torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

# From far to near: blues, pale yellow in the focal plane, reds (ColorBrewer's 11-class RdYlBu, readable to the colour-blind).
SCALE = [
    "#313695",
    "#4575b4",
    "#74add1",
    "#abd9e9",
    "#e0f3f8",
    "#ffffbf",
    "#fee090",
    "#fdae61",
    "#f46d43",
    "#d73027",
    "#a50026",
]
_ANCHORS = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in SCALE], dtype=np.float64)

PAPER, INK, FAINT = (255, 255, 255), (34, 34, 34), (118, 118, 118)


def disparity_colors(disparity: ArrayLike, disparity_max: float) -> Pixels:
    """Disparity (..., H, W) in [-disparity_max, disparity_max] -> RGB (..., H, W, 3), the same colour for the same value.

    Blue is behind the focal plane, pale yellow in it, red before it; beyond the range the last colour stays. What is not
    finite (unknown) is grey.
    """
    if not disparity_max > 0:
        raise ValueError(f"disparity_max must be positive, got {disparity_max}")
    d = np.asarray(disparity, dtype=np.float64)
    position = (np.clip(np.nan_to_num(d / disparity_max), -1, 1) + 1) / 2 * (len(SCALE) - 1)
    rgb = np.stack([np.interp(position, np.arange(len(SCALE)), _ANCHORS[:, c]) for c in range(3)], -1)
    return np.where(np.isfinite(d)[..., None], rgb, 128).round().astype(np.uint8)


def depth_colors(disparity: NDArray[Any]) -> Pixels:
    """The same, over the range of one photograph: (H, W) -> (H, W, 3)."""
    return disparity_colors(disparity, max(float(np.abs(disparity).max()), 1e-6))


def enlarge(images: Pixels, factor: int) -> Pixels:
    """(N, H, W, 3) -> (N, factor*H, factor*W, 3), bicubic: a small photo looks like a photo, not like tiles."""
    if factor == 1:
        return images
    size = (images.shape[2] * factor, images.shape[1] * factor)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images])


def grid(images: Pixels, columns: int, gap: int = 4, upscale: int = 1) -> Pixels:
    """images (N, H, W, 3) row by row on white paper, the last row filled up with paper -> one picture (H', W', 3)."""
    if images.ndim != 4 or images.shape[3] != 3 or len(images) == 0 or columns < 1:
        raise ValueError(
            f"a grid needs uint8 images (N, H, W, 3) and at least one column, got {images.shape} and {columns}"
        )
    images = enlarge(images, upscale)
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), PAPER, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = image
    return sheet


def panel(
    rows: Sequence[Pixels],
    columns: Sequence[str],
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    note: str = "",
    gap: int = 6,
) -> Pixels:
    """A table of pictures: every row (C, H, W, 3) uint8, a heading a column, a label (lines split by a line feed) a row.

    Returns one picture (H', W', 3); `title` stands above the table, `note` small below it.
    """
    size = 15
    head, text, small = _font(size + 4), _font(size), _font(size - 2)
    _, h, w, _ = np.shape(rows[0])
    lines = [line for label in labels or () for line in label.split("\n")]
    left = gap + (max(_width(line, text) for line in lines) + gap if lines else 0)
    column_width = max(w, max(_width(name, text) for name in columns))
    above = (34 if title else 0) + 26
    width = max(left + len(columns) * (column_width + gap) + gap, _width(title, head) + 2 * gap)
    height = above + len(rows) * (h + gap) + (24 * (note.count("\n") + 1) if note else gap)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, 8), title, INK, head)
    for c, name in enumerate(columns):
        x = left + c * (column_width + gap) + column_width / 2
        draw.text((x, above - 6), name, INK, text, anchor="ms")
    for r, row in enumerate(rows):
        y = above + r * (h + gap)
        if labels:
            draw.multiline_text((gap, y + h / 2), labels[r], INK, text, anchor="lm", spacing=5)
        for c, image in enumerate(row):
            x = left + c * (column_width + gap) + (column_width - w) // 2
            sheet.paste(Image.fromarray(np.ascontiguousarray(image)), (x, y))
    if note:
        draw.multiline_text((gap, height - 8), note, FAINT, small, anchor="ld", spacing=5)
    return np.asarray(sheet)


def light_field_gif(views: Pixels, path: Path, *, upscale: int = 1, milliseconds: int = 80) -> None:
    """Write an endless GIF of the camera going round the rim of the aperture: near and far things move against each other.

    views (V, H, W, 3) uint8, V = size^2 in the order of `Aperture.offsets`. One palette for all frames, so that nothing
    flickers. Written atomically.
    """
    from argan.files import atomic

    frames = enlarge(views[_rim(len(views))], upscale)
    sheet = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    pages = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    content = io.BytesIO()
    pages[0].save(content, "GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0, disposal=1)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getvalue())


def write_png(path: Path, picture: Pixels) -> None:
    """(H, W, 3) or (H, W) uint8 -> a PNG, atomically. Of a photograph, `photograph.write_png` keeps what belongs to it."""
    from argan.files import atomic

    with atomic(path) as temporary:
        temporary.write_bytes(png(picture))


def png(picture: Pixels) -> bytes:
    """The same, as the bytes of the file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", compress_level=4)  # a large photo is written sooner
    return content.getvalue()


def _rim(views: int) -> list[int]:
    """Indices of the outermost ring of a size x size grid of views without its corners, in the order of their angle."""
    size = round(views**0.5)
    if size * size != views or size % 2 == 0:
        raise ValueError(f"a light field has an odd number squared of views, got {views}")
    if size == 1:
        return [0]
    line = np.linspace(-1, 1, size)
    ring = [(x, y) for y in range(size) for x in range(size) if (x in (0, size - 1)) != (y in (0, size - 1))]
    ring.sort(key=lambda at: np.arctan2(line[at[1]], line[at[0]]))
    return [y * size + x for x, y in ring]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(np.ceil(font.getlength(line)))
