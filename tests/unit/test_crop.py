"""The crop stage: what is no photo is refused and told, copies never straddle splits, and exact depth follows its photo."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from archives import bird_files, flower_files, thumbnails, zipped
from conftest import ROOT
from loopback import Server, serving

from argan.config import params, schema
from argan.effects.iris import Iris
from argan.errors import UserError
from argan.photos.sources import birds, faces
from argan.photos.store import Photos
from pipelines.crop import crop
from pipelines.fetch import fetch

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
    ("change", "told"),
    [
        (lambda raw: raw.update(photos=raw["photos"][:50]), "photos.npy is uint8"),
        (lambda raw: raw.update(photos=raw["photos"] / 255), "photos.npy is float64"),
        (lambda raw: raw.update(disparity=raw["disparity"][:3]), "disparity.npy is float32"),
        (lambda raw: raw.update(splits=[]), "is damaged"),
    ],
)
def test_raw_data_that_does_not_fit_together(raw: dict[str, Any], tmp_path: Path, change: Any, told: str) -> None:
    change(raw)
    save(raw)
    with pytest.raises(UserError, match=told):
        crop("meadow", settings(tmp_path))


def test_missing_raw_data_is_one_line(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data/raw/meadow"):
        crop("meadow", settings(tmp_path))


# ---- published datasets, from their archives to the store ----


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")
    with serving() as made:
        yield made


def domain(name: str, files: dict[str, bytes], server: Server) -> schema.Params:
    """The domain as it is in params.yaml, at 32 px, with its files from this machine's server."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = {
        file: {"url": server.offer(f"/{file}", data), "sha256": hashlib.sha256(data).hexdigest()}
        for file, data in files.items()
    }
    content[name] |= {"preset": "quick", "files": given}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return params.load()


def brought_in(name: str, settings: schema.Params) -> tuple[Photos, pd.Series, np.ndarray]:
    """The store, the rows of the photos with masks, and the masks."""
    fetch(name, settings)
    crop(name, settings)
    truth = Path("data/truth") / name
    if not (truth / "masks.npy").exists():
        return Photos.open(f"data/photos/{name}"), pd.Series(dtype=int), np.empty(0)
    return (
        Photos.open(f"data/photos/{name}"),
        pd.read_parquet(truth / "masks.parquet")["photo"],
        np.load(truth / "masks.npy"),
    )


def follow(store: Photos, rows: pd.Series, masks: np.ndarray) -> None:
    """Masks are of held-out photos, and lie on the subject, which is brighter than all else in the test's photos."""
    assert masks.dtype == np.uint8 and masks.shape[1:] == store.pixels.shape[1:3] and len(rows) == len(masks) > 0
    assert "train" not in set(store.index["split"].iloc[rows])
    for row, mask in zip(rows, masks, strict=True):
        bright, subject = store.pixels[row].min(axis=2) > 200, mask > 127
        assert (bright & subject).sum() > 0.7 * (bright | subject).sum() > 100  # JPEG blurs the edges of flowers' masks
        assert np.abs(np.argwhere(bright).mean(axis=0) - np.argwhere(subject).mean(axis=0)).max() < 1


def test_flowers_from_their_archives_to_the_store(server: Server) -> None:
    store, rows, masks = brought_in("flowers", domain("flowers", flower_files(), server))
    assert store.pixels.shape == (12, 32, 32, 3)
    assert store.index.groupby("split").size().to_dict() == {"train": 3, "validation": 3, "test": 6}
    assert (store.index["crop_size"] == 40).all()
    follow(store, rows, masks)
    assert len(masks) == 8  # of one photo there is none, and those of training photos stay where they came
    card = Path("data/photos/flowers/card.md").read_text()
    assert "Nilsback" in card and "**Licence**" in card and "official" in card
    assert "masks" not in {path.stem for path in Path("data/photos").rglob("*")}
    told = json.loads(Path("data/photos/flowers/quality.json").read_text())
    assert "3 to learn from, at least 500" in told["unfit"][0]
    lens = Iris.load(store.folder)
    assert lens is not None and lens.looked == 3 and "Aperture not known" in lens.told, "of training photos alone"


def test_birds_come_with_their_box_in_the_middle(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birds, "VALIDATION", 0.4)  # of twenty, a tenth may be none
    store, rows, masks = brought_in("birds", domain("birds", bird_files(), server))
    assert {"train", "validation", "test"} == set(store.index["split"])
    follow(store, rows, masks)
    by_source = store.index.set_index("source")
    for i, row in enumerate(birds.rows(Path("data/raw/birds"))):
        assert row.box is not None
        cut = by_source.loc[row.image.relative_to("data/raw/birds").as_posix()]
        left, _, width, height = row.box
        # The box and, around it, three fifths of the square; where the photo ends, the square stays in it
        assert cut["crop_size"] == pytest.approx(min(40, max(32, (width * height / 0.4) ** 0.5)), abs=1.5), i
        middle = min(max(left + width / 2, cut["crop_size"] / 2), 50 - cut["crop_size"] / 2)
        assert cut["crop_left"] + cut["crop_size"] / 2 == pytest.approx(middle, abs=1.5)


def test_faces_come_from_a_file_of_the_users(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "PHOTOS", 12)
    monkeypatch.setattr(faces, "TRAINING", 6)
    store, _, masks = brought_in("faces", domain("faces", {"thumbnails128x128.zip": zipped(thumbnails())}, server))
    assert store.pixels.shape == (12, 32, 32, 3) and len(masks) == 0
    assert "CC BY-NC-SA" in Path("data/photos/faces/card.md").read_text()
    assert "No exact depth" in Path("data/truth/faces/README.md").read_text()
