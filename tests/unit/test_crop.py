"""The crop stage: what is no photo is refused and reported, copies never straddle splits, and exact depth follows its photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from argan.config import params, schema
from argan.effects.iris import Iris
from argan.errors import UserError
from argan.photos.store import Photos
from pipelines.crop import crop

COUNT, TRAIN = 60, 40


def settings(folder: Path, refused_max: float = 0.1) -> schema.Params:
    (folder / "params.yaml").write_text(
        f"domains: [meadow]\ncrop: {{refused_max: {refused_max}}}\nmeadow: {{source: meadow, validation: 16, test: 16}}\n"
    )
    return params.load(folder / "params.yaml")


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    return {
        "photos": random.integers(0, 256, (COUNT, 32, 32, 3), np.uint8),
        "disparity": random.normal(size=(COUNT - TRAIN, 32, 32)).astype(np.float32),
        "splits": {"train": [0, TRAIN], "validation": [TRAIN, 50], "test": [50, COUNT]},
    }


def save(raw: dict[str, Any]) -> None:
    folder = Path("data/raw/meadow")
    folder.mkdir(parents=True)
    np.save(folder / "photos.npy", raw["photos"])
    np.save(folder / "disparity.npy", raw["disparity"])
    (folder / "scenes.json").write_text(json.dumps({"count": COUNT, "seed": 0, "splits": raw["splits"]}))


def test_good_photos_pass_unchanged(raw: dict[str, Any], tmp_path: Path) -> None:
    save(raw)
    crop("meadow", settings(tmp_path))
    store = Photos.open("data/photos/meadow")
    assert np.array_equal(store.pixels, raw["photos"])
    assert [len(store.rows(split)) for split in ("train", "validation", "test")] == [40, 10, 10]
    lens = Iris.load(store.folder)
    assert lens is not None and lens.outline is None and lens.looked == TRAIN
    assert json.loads((store.folder / "quality.json").read_text())["measured_at"] == 32, "there are no larger ones"
    assert "Aperture not known: no out-of-focus highlights in 40 photos" in (store.folder / "report.html").read_text()
    assert np.array_equal(np.load("data/truth/meadow/disparity.npy"), raw["disparity"])


def test_refused_photos_are_told_and_depth_follows_its_photo(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["photos"][3] = 128  # constant
    raw["photos"][45] = raw["photos"][7]  # a held-out copy of a training photo: would be a leak
    save(raw)
    crop("meadow", settings(tmp_path))
    quarantine = pd.read_csv("data/photos/meadow/quarantine.csv")
    assert quarantine["source"].tolist() == ["scene 3", "scene 45"]
    assert "constant" in quarantine["reason"][0]
    assert quarantine["reason"][1] == "exact copy of scene 7"
    store = Photos.open("data/photos/meadow")
    assert len(store) == COUNT - 2
    assert store.index["sha256"].is_unique
    truth = pd.read_parquet("data/truth/meadow/index.parquet")["photo"]
    disparity = np.load("data/truth/meadow/disparity.npy")
    assert set(store.index["split"].iloc[truth]) == {"validation", "test"}
    for row, depth in zip(truth, disparity, strict=True):
        scene = int(store.index["source"].iloc[row].split()[1])
        assert np.array_equal(depth, raw["disparity"][scene - TRAIN])
        assert np.array_equal(store.pixels[row], raw["photos"][scene])


def test_too_many_refused_photos_stop_the_stage(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["photos"][:10] = 0
    save(raw)
    with pytest.raises(UserError, match=r"10 of 60 photos refused, more than crop.refused_max 0.1 .*scene 0, constant"):
        crop("meadow", settings(tmp_path))
    assert not Path("data/photos/meadow").exists()


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (lambda raw: raw.update(photos=raw["photos"][:50]), "photos.npy is uint8"),
        (lambda raw: raw.update(photos=raw["photos"] / 255), "photos.npy is float64"),
        (lambda raw: raw.update(disparity=raw["disparity"][:3]), "disparity.npy is float32"),
        (lambda raw: raw.update(splits=[]), "is damaged"),
    ],
)
def test_raw_data_that_does_not_fit_together(raw: dict[str, Any], tmp_path: Path, change: Any, output: str) -> None:
    change(raw)
    save(raw)
    with pytest.raises(UserError, match=output):
        crop("meadow", settings(tmp_path))


def test_missing_raw_data_is_one_line(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data/raw/meadow"):
        crop("meadow", settings(tmp_path))
