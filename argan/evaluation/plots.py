"""What evaluation shows: curves, photographs, scenes, depth against the truth, refocusing. Arrays and tables in, files out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from argan.files import atomic, write_text
from argan.visualization import Pixels, disparity_colors, enlarge, grid, panel, write_png

ROWS = 500  # of training.csv: more than a plot has pixels for, few enough to read and diff
SIDE = 128  # about how wide a photo is shown, in pixels: small ones are enlarged by a whole factor
LEGEND = "disparity: blue lies behind the focal plane, pale yellow in it, red in front of it"
TITLES = {
    "loss": "losses",
    "penalty": "gradient penalty",
    "prior": "distance from the center prior",
    "smoothness": "roughness of disparity",
    "disparity_std": "spread of disparity in a scene (share of its range)",
    "image_std": "spread of a pixel over scenes",
}


def training(history: pd.DataFrame, folder: Path) -> None:
    """training.csv (at most ROWS rows, the last among them) and, if there is a curve, training.png.

    history: a row per log interval, `images` and any numbers; names that begin with `loss` share a plot.
    """
    step = max(1, -(-len(history) // ROWS))
    kept = history.iloc[::-step].iloc[::-1]
    write_text(folder / "training.csv", kept.to_csv(index=False, float_format="%.6g"))
    names = [name for name in kept.columns if name != "images"]
    panels = [[n for n in names if n.startswith("loss")], *([n] for n in names if not n.startswith("loss"))]
    panels = [p for p in panels if p]
    if not panels:
        return
    columns = min(3, len(panels))
    figure = Figure(figsize=(4.4 * columns, 2.6 * -(-len(panels) // columns)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for i, group in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, i + 1)
        for name, color in zip(group, ("#2166ac", "#d73027", "#4d9221", "#762a83"), strict=False):
            known = kept[["images", name]].dropna()
            axes.plot(
                known["images"] / 1000,
                known[name],
                color=color,
                linewidth=1.3,
                label=name.removeprefix("loss_").upper(),
            )
        if len(group) > 1:
            axes.legend(frameon=False, fontsize=8)
        key = "loss" if group[0].startswith("loss") else group[0]
        axes.set_title(TITLES.get(key, key.replace("_", " ")), fontsize=9, loc="left")
        axes.set_xlabel("thousand images seen", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic(folder / "training.png") as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def photographs(photos: Pixels, path: Path, columns: int = 8) -> None:
    """Generated photos (N, H, W, 3) as a sheet."""
    write_png(path, grid(photos, columns, upscale=_factor(photos)))


def scenes(
    image: Pixels, disparity: ArrayLike, photos: list[Pixels], apertures: list[float], disparity_max: float, path: Path
) -> None:
    """Generated scenes, a row each: image (N, H, W, 3), disparity (N, H, W), and a photo (N, H, W, 3) for every aperture."""
    columns = [image, disparity_colors(disparity, disparity_max), *photos]
    rows = [enlarge(np.stack(row), _factor(image)) for row in zip(*columns, strict=True)]
    names = ["all in focus", "disparity", *(f"aperture {s:.2g}" for s in apertures)]
    write_png(path, panel(rows, names, title="Generated scenes", note=LEGEND))


def refocus(shots: list[Pixels], disparity: ArrayLike, disparity_max: float, path: Path) -> None:
    """The same scenes (N, H, W, 3) with the focal plane moved from far to near, a column each, after their disparity."""
    columns = [disparity_colors(disparity, disparity_max), *shots]
    rows = [enlarge(np.stack(row), _factor(shots[0])) for row in zip(*columns, strict=True)]
    names = ["disparity", "focus far", *[""] * (len(shots) - 2), "focus near"]
    write_png(path, panel(rows, names, title="Refocused at full aperture", note=LEGEND))


def chosen(spearman: NDArray[np.float64]) -> list[tuple[str, int]]:
    """Which photos to show: two of the worst, of the median and of the best by rank correlation (N,); those without have NaN."""
    order = np.argsort(spearman, kind="stable")[: int(np.isfinite(spearman).sum())].tolist()
    middle = len(order) // 2
    parts = (("worst", order[:2]), ("median", order[max(middle - 1, 0) : middle + 1]), ("best", order[-2:]))
    return [(name, i) for name, part in parts for i in part]


def depth(
    photos: Pixels,
    maps: list[NDArray[np.float32]],
    labels: list[str],
    disparity_max: float,
    names: list[str],
    title: str,
    path: Path,
) -> None:
    """A row a photo (N, H, W, 3) with its label and its maps of disparity, each (N, H, W) or (H, W) for all; `names` of columns."""
    rows = []
    for i, photo in enumerate(photos):
        colors = disparity_colors(np.stack([each[i] if each.ndim == 3 else each for each in maps]), disparity_max)
        rows.append(enlarge(np.concatenate([photo[None], colors]), _factor(photos)))
    write_png(path, panel(rows, names, labels, title=title, note=LEGEND))


def _factor(images: Pixels) -> int:
    return max(1, SIDE // images.shape[1])
