"""Whether AR-GAN can learn from a collection is told by numbers that follow what is in the photos; the page survives them."""

from __future__ import annotations

import json
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from argan import meadow
from argan.config import schema
from argan.config.schema import Floors
from argan.errors import UserError
from argan.photos import ingest, quality, report, sharpness
from argan.photos import store as photos
from argan.photos.folder import find_photos
from argan.photos.report import About
from pipelines import train

FLOORS = Floors(photos=50)


@cache
def in_focus(count: int = 100) -> np.ndarray:
    return np.stack([meadow.all_in_focus(i, 64, 0) for i in range(count)])


@cache
def with_defocus(count: int = 100) -> np.ndarray:
    return meadow.photographs(count, 64, 0)[0]


def store(folder: Path, pixels: np.ndarray, quarantine: Any = (), **columns: Any) -> Path:
    n = len(pixels)
    index = pd.DataFrame({name: [0] * n for name in photos.COLUMNS})
    index = index.assign(
        source=[f"{i}.jpg" for i in range(n)], sha256=[photos.sha256(p) for p in pixels], split="train"
    )
    index.loc[n - 2 :, "split"] = "test"
    measured = [sharpness.pack(sharpness.sharpness(p)) for p in pixels]
    index = index.assign(width=640, height=480, crop_size=480, sharpness=measured)
    photos.write(folder, pixels, index, pd.DataFrame(quarantine, columns=["source", "reason"]))
    if columns:
        index.assign(**columns).to_parquet(folder / "index.parquet")
    return folder


def output(folder: Path, floors: Floors = FLOORS) -> dict[str, Any]:
    return report.write(folder, About("flowers of mine"), floors)


def moved(pixels: np.ndarray) -> np.ndarray:
    """Each photo's subject somewhere else."""
    random = np.random.default_rng(0)
    return np.stack([np.roll(p, random.integers(0, 64, 2), (0, 1)) for p in pixels])


def test_photographs_with_a_subject_in_focus_in_the_middle_are_fit(tmp_path: Path) -> None:
    found = output(store(tmp_path / "s", with_defocus()))
    assert found["unfit"] == [] and found["defocus"] > 0.4 and found["centered"] > 0.1
    assert "Fit for training" in (tmp_path / "s" / "report.html").read_text()


@pytest.mark.parametrize(
    ("pixels", "parameter"),
    [
        (in_focus, "defocus_min"),
        (lambda: np.stack([cv2.GaussianBlur(p, (0, 0), 2) for p in in_focus()]), "defocus_min"),
        (lambda: np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3)).astype(np.uint8), "defocus_min"),
        (
            lambda: np.full((100, 64, 64, 3), 128, np.uint8) + np.arange(100, dtype=np.uint8)[:, None, None, None],
            "defocus_min",
        ),
        (lambda: moved(with_defocus()), "centered_min"),
        (lambda: with_defocus()[:49], "photos_min"),
    ],
    ids=["in focus", "blurred", "noise", "flat", "moved", "few"],
)
def test_what_cannot_work_is_told_with_its_number(tmp_path: Path, pixels: Any, parameter: str) -> None:
    found = output(store(tmp_path / "s", pixels()))
    assert len(found["unfit"]) == 1 and f"crop.{parameter}" in found["unfit"][0]
    number = {"defocus_min": f"{found['defocus']:.1%}", "centered_min": f"{found['centered']:+.3f}", "photos_min": "47"}
    assert number[parameter] in found["unfit"][0]


def test_training_does_not_begin_on_photos_that_are_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, config = in_focus(), schema.training("64")
    assert pixels.shape[1] == config.resolution
    monkeypatch.chdir(tmp_path)
    folder = store(Path("data/photos/mine"), pixels)
    output(folder)
    with pytest.raises(UserError, match=r"mine: AR-GAN cannot learn .*No defocus: .*report\.html.*lower the floor"):
        train.open_photos("mine", config)
    output(folder, Floors(photos=50, defocus=0.0, centered=-1.0))
    train.open_photos("mine", config)


def shallow(seed: int, size: int) -> np.ndarray:
    """A textured disc in focus in the middle of a background of which only soft edges are left."""
    random = np.random.default_rng(seed)
    back, front = (
        cv2.resize(random.integers(0, 256, (n, n, 3)).astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
        for n in (16, 32)
    )
    disc = cv2.circle(np.zeros((size, size), np.float32), (size // 2, size // 2), size // 3, 1.0, -1)[..., None]
    return (front * disc + cv2.GaussianBlur(back, (0, 0), size / 24) * (1 - disc)).astype(np.uint8)


def silhouettes(seed: int, size: int) -> np.ndarray:
    """Black stalks and heads, all in focus, before a sky that brightens towards the sun."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    sky = 255 * np.exp(-np.hypot(x - random.uniform(0.3, 0.7), y - random.uniform(0.3, 0.7)) / 0.35)
    photo = np.stack([sky, sky * 0.6, sky * 0.3], -1).astype(np.uint8)
    for _ in range(12):
        at, top = random.integers(0, size, 2).tolist()
        foot = (at + int(random.integers(-40, 40)), size)
        cv2.line(photo, foot, (at, top), (5, 5, 5), int(random.integers(2, 8)))
        cv2.circle(photo, (at, top), int(random.integers(4, 16)), (5, 5, 5), -1)
    return photo


def defocus(photos: list[np.ndarray]) -> np.ndarray:
    return quality.defocus(np.stack([sharpness.sharpness(photo) for photo in photos]))[0]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_defocus_is_soft_edges_beside_sharp_ones(size: int) -> None:
    with_blur, without = (
        [cv2.resize(make(i, 256), (size, size), interpolation=cv2.INTER_AREA) for i in range(20)]
        for make in (shallow, silhouettes)
    )
    assert defocus(with_blur).min() > quality.DEFOCUS > defocus(without).max(), "a sky has no edge to be soft"
    assert not defocus([cv2.GaussianBlur(photo, (0, 0), 2) for photo in with_blur]).any(), "nothing is in focus"


def test_the_verdict_is_of_the_photographs_whatever_the_preset(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for i in range(8):
        content = cv2.imencode(".jpg", shallow(i, 260), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (tmp_path / "files" / f"{i}.jpg").write_bytes(content.tobytes())
    found = {}
    for size in (32, 64, 128):
        folder = tmp_path / str(size)
        folder.mkdir()
        ingest.ingest(find_photos(tmp_path / "files"), folder, size, processes=0)
        found[size] = output(folder, Floors(photos=1, defocus=0.5))
        cells = pd.read_parquet(folder / "index.parquet")["sharpness"].tolist()
        assert found[size]["measured_at"] == 128 and cells == found.setdefault("cells", cells)
    numbers = [{name: found[size][name] for name in ("defocus", "centered", "unfit")} for size in (32, 64, 128)]
    assert numbers[0] == numbers[1] == numbers[2] and numbers[0]["defocus"] == 1 and numbers[0]["centered"] > 0.3


def test_blur_that_the_presets_size_hides_is_a_warning_and_no_verdict(tmp_path: Path) -> None:
    photos = [shallow(i, 128) for i in range(60)]
    slight = [cv2.addWeighted(p, 0.45, cv2.GaussianBlur(p, (0, 0), 1.2), 0.55, 0) for p in photos]
    small = np.stack([cv2.resize(p, (16, 16), interpolation=cv2.INTER_AREA) for p in slight])
    measured = [sharpness.pack(sharpness.sharpness(p)) for p in photos]
    found = output(store(tmp_path / "s", small, sharpness=measured))
    assert found["unfit"] == [] and found["defocus"] == 1 and found["defocus_at_size"] < 0.15
    assert len(found["warnings"]) == 1 and "At 16 px blur shows in" in found["warnings"][0]
    assert all(found["warnings"][0] in (tmp_path / "s" / name).read_text() for name in ("report.html", "card.md"))


def test_a_store_that_was_not_measured_is_one_line(tmp_path: Path) -> None:
    folder = store(tmp_path / "s", in_focus()[:4])
    pd.read_parquet(folder / "index.parquet").drop(columns="sharpness").to_parquet(folder / "index.parquet")
    with pytest.raises(UserError, match=r"index\.parquet has no column sharpness: .* delete .*dvc repro"):
        output(folder)


def test_packed_cells_come_back() -> None:
    cells = sharpness.sharpness(in_focus()[0])
    cells[0, 0] = np.nan
    assert np.allclose(sharpness.unpack([sharpness.pack(cells)] * 2), cells, atol=0.004, equal_nan=True)


def test_textureless_sky_does_not_count_as_blur() -> None:
    sky = in_focus()[0].copy()
    sky[:32] = 200
    cells = sharpness.sharpness(sky)
    assert np.isnan(cells[:3]).all() and np.isfinite(cells[5:]).all()


class Tags(HTMLParser):
    """What the page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_runs_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=http://x.org/a.png>'
    folder = store(
        tmp_path / "s", with_defocus()[:20], [(evil, f"{evil}: {evil}")], source=[f"{evil}{i}" for i in range(20)]
    )
    report.write(folder, About(evil, evil, evil, evil, evil), FLOORS)
    page = (folder / "report.html").read_text()
    tags = Tags(page).seen
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    assert all(str(attributes["src"]).startswith("data:image/") for tag, attributes in tags if tag == "img")
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert len([1 for tag, _ in tags if tag == "img"]) >= 20


def test_groups_cameras_and_refusals_are_shown_and_broken_ones_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (tmp_path / "good.png").write_bytes(cv2.imencode(".png", with_defocus()[0])[1].tobytes())
    refused = [("cut.jpg", "truncated: at once"), ("good.png", "too small: 64"), ("gone.jpg", "empty: 0 bytes")]
    facts = {
        "group": ["a", "a", "b", *(f"g{i}" for i in range(17))],
        "aperture": [2.8, 5.6, *[np.nan] * 18],
        "focal_length": [50.0, *[np.nan] * 19],
        "taken": ["2020-05-01T10:00:00", *[None] * 19],
        "camera": ["Box", *[None] * 19],
    }
    folder = store(tmp_path / "s", with_defocus()[:20], refused, **facts)
    found = report.write(folder, About("mine"), FLOORS, lambda source: tmp_path / source)
    assert (found["near_duplicate_groups"], found["near_duplicates"]) == (1, 2)
    assert found["refused_kinds"] == {"truncated": 1, "too small": 1, "empty": 1}
    assert (found["aperture_known"], found["aperture_median"], found["taken"]) == (2, 4.2, ["2020-05-01"] * 2)
    page, card = (folder / "report.html").read_text(), (folder / "card.md").read_text()
    assert page.count("<tr>") == page.count("</tr>") and "Aperture (2 photos)" in page and "too small: 64" in page
    assert "Box (1)" in card and "f/4.2" in card and "2020-05-01" in card
    assert json.loads((folder / "quality.json").read_text()) == found


def test_the_same_store_gives_the_same_bytes_and_one_photo_is_enough_for_a_page(tmp_path: Path) -> None:
    folder = store(tmp_path / "s", with_defocus()[:1])
    output(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    output(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
