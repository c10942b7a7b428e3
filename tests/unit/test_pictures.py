"""Pictures hold what they were given, where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from argan.evaluation import plots as report
from argan.optics import Aperture
from argan.visualization import disparity_colors, enlarge, grid, light_field_gif, panel


def photos(n: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (n, size, size, 3), dtype=np.uint8)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_same_disparity_has_the_same_color() -> None:
    colors = disparity_colors(np.array([[-0.2, -0.1, 0.0, 0.1, 0.2, np.nan]]), 0.1)[0]
    assert colors[2].tolist() == [255, 255, 191]  # the focal plane
    assert colors[0].tolist() == colors[1].tolist() == [0x31, 0x36, 0x95]  # far, and beyond the range
    assert colors[3].tolist() == colors[4].tolist() == [0xA5, 0x00, 0x26]  # near
    assert colors[5].tolist() == [128, 128, 128]  # unknown
    assert disparity_colors(np.zeros((2, 5, 7)), 0.1).shape == (2, 5, 7, 3)
    with pytest.raises(ValueError, match="positive"):
        disparity_colors(np.zeros((2, 2)), 0.0)


def test_nearer_is_redder_all_the_way() -> None:
    line = disparity_colors(np.linspace(-0.1, 0.1, 101)[None], 0.1)[0].astype(int)
    warmth = line[:, 0] - line[:, 2]
    assert (np.diff(warmth) >= -8).all()
    assert warmth[0] < -90
    assert warmth[-1] > 90
    assert len({tuple(c) for c in line}) > 95  # nothing is lost in a plateau


def test_a_grid_puts_every_image_in_its_place() -> None:
    images = photos(5)
    sheet = grid(images, columns=3, gap=2)
    assert sheet.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    for i, image in enumerate(images):
        y, x = 2 + i // 3 * 10, 2 + i % 3 * 10
        assert np.array_equal(sheet[y : y + 8, x : x + 8], image)
    assert (sheet[12:, 22:] == 255).all()  # where the sixth would be
    assert grid(images, 3, gap=2, upscale=4).shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    with pytest.raises(ValueError, match="at least one column"):
        grid(images, 0)


def test_enlarging_keeps_the_picture() -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 16).astype(np.uint8)[None, None, :, None], (1, 16, 16, 3))
    large = enlarge(np.ascontiguousarray(smooth), 4)
    assert large.shape == (1, 64, 64, 3)
    assert np.abs(large[0, ::4, 1::4].astype(int) - smooth[0]).max() < 10
    assert enlarge(smooth, 1) is smooth


def test_a_panel_holds_its_pictures_under_their_headings() -> None:
    rows = list(photos(6, 40).reshape(2, 3, 40, 40, 3))
    sheet = panel(rows, ["a", "b", "c"], ["first\n+0.50", "second"], title="Title", note="note")
    flat = sheet.reshape(sheet.shape[0], -1)
    for row in rows:
        for image in row:
            wanted = image[0].ravel()
            hits = [y for y in range(len(flat)) if wanted.tobytes() in flat[y].tobytes()]
            assert len(hits) == 1
            y = hits[0]
            assert image[-1].tobytes() in flat[y + 39].tobytes()
    taller = panel(rows, ["a", "b", "c"]).shape
    assert taller[0] < sheet.shape[0]
    assert taller[1] < sheet.shape[1]


def test_a_light_field_goes_round_the_rim(tmp_path: Path) -> None:
    """Each view is filled with a grey of its own: the frames must be the rim's, each next to the one before."""
    offsets = Aperture().offsets.numpy()
    views = np.stack([np.full((12, 12, 3), 10 * i, np.uint8) for i in range(25)])
    path = tmp_path / "new" / "light_field.gif"
    light_field_gif(views, path, upscale=2)
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
        assert gif.size == (24, 24)
        assert gif.n_frames == 12
        seen = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            seen.append(round(np.asarray(gif.convert("RGB")).mean() / 10))
    assert len(set(seen)) == 12
    assert np.abs(offsets[seen]).max(1).tolist() == [1.0] * 12
    steps = np.linalg.norm(np.diff(offsets[[*seen, seen[0]]], axis=0), axis=1)
    assert steps.max() < 0.75
    assert list(path.parent.iterdir()) == [path]  # nothing half written beside it
    with pytest.raises(ValueError, match="odd number squared"):
        light_field_gif(views[:24], path)


def test_training_curves_are_thinned_and_end_where_training_did(tmp_path: Path) -> None:
    history = pd.DataFrame(
        {"images": range(16, 16 * 1801, 16), "loss_d": 0.1, "loss_g": 2.0, "anything": 1.0, "penalty": np.nan}
    )
    report.training(history, tmp_path)
    kept = pd.read_csv(tmp_path / "training.csv")
    assert 400 < len(kept) <= 500
    assert kept["images"].iloc[-1] == history["images"].iloc[-1]
    assert list(kept.columns) == list(history.columns)
    assert read(tmp_path / "training.png").std() > 5


def test_curves_of_a_training_without_a_row(tmp_path: Path) -> None:
    report.training(pd.DataFrame({"images": []}), tmp_path)
    assert (tmp_path / "training.csv").read_text() == "images\n"
    assert not (tmp_path / "training.png").exists()


def test_the_depth_panel_shows_worst_to_best(tmp_path: Path) -> None:
    n = 9
    images = photos(n, 32)
    score = np.array([0.5, -0.9, np.nan, 0.1, 0.95, 0.3, 0.2, 0.9, -0.5])
    maps = np.zeros((n, 32, 32), np.float32)
    names = ["photo", "exact", "estimated", "prior"]
    shown = report.chosen(score)
    rows = [i for _, i in shown]
    labels = [name for name, _ in shown]
    report.depth(images[rows], [maps[rows], maps[rows], maps[0]], labels, 0.1, names, "title", tmp_path / "depth.png")
    sheet = read(tmp_path / "depth.png")
    rows = []
    for i in (1, 8, 6, 5, 7, 4):  # the two worst, the two about the median, the two best
        wanted = enlarge(images[i : i + 1], 4)[0]
        (y,) = (y for y in range(len(sheet) - 128) if wanted[0].tobytes() in sheet[y].tobytes())
        assert wanted[-1].tobytes() in sheet[y + 127].tobytes()
        rows.append(y)
    assert rows == sorted(rows)
