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

from argan import meadow, photos
from argan.errors import UserError
from argan.params import Floors
from argan.sources import report, sharpness
from argan.sources.report import About
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


def told(folder: Path, floors: Floors = FLOORS) -> dict[str, Any]:
    return report.write(folder, About("flowers of mine"), floors)


def moved(pixels: np.ndarray) -> np.ndarray:
    """Each photo's subject somewhere else."""
    random = np.random.default_rng(0)
    return np.stack([np.roll(p, random.integers(0, 64, 2), (0, 1)) for p in pixels])


def test_photographs_with_a_subject_in_focus_in_the_middle_are_fit(tmp_path: Path) -> None:
    found = told(store(tmp_path / "s", with_defocus()))
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
    found = told(store(tmp_path / "s", pixels()))
    assert len(found["unfit"]) == 1 and f"crop.{parameter}" in found["unfit"][0]
    number = {"defocus_min": f"{found['defocus']:.1%}", "centered_min": f"{found['centered']:+.3f}", "photos_min": "47"}
    assert number[parameter] in found["unfit"][0]


def test_training_does_not_begin_on_photos_that_are_not_fit(tmp_path: Path) -> None:
    folder = store(tmp_path / "s", in_focus())
    told(folder)
    with pytest.raises(UserError, match=r"mine: AR-GAN cannot learn .*No defocus: .*report\.html.*lower the floor"):
        train._fit("mine", folder)
    told(folder, Floors(photos=50, defocus=0.0, centered=-1.0))
    train._fit("mine", folder)


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
    told(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    told(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
