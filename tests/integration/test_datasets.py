"""Published datasets, from their archives to the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from archives import bird_files, flower_files, thumbnails, zipped
from conftest import ROOT
from loopback import Server, serving

from argan.config import params, schema
from argan.effects.iris import Iris
from argan.photos.sources import birds, faces
from argan.photos.store import Photos
from pipelines.crop import crop
from pipelines.fetch import fetch


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
    output = json.loads(Path("data/photos/flowers/quality.json").read_text())
    assert "3 to learn from, at least 500" in output["unfit"][0]
    lens = Iris.load(store.folder)
    assert lens is not None and lens.looked == 3 and "Aperture not known" in lens.summary, "of training photos alone"


def test_birds_come_with_their_box_in_the_middle(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birds, "VALIDATION", 0.4)  # of twenty, a tenth may be none
    store, rows, masks = brought_in("birds", domain("birds", bird_files(), server))
    assert {"train", "validation", "test"} == set(store.index["split"])
    follow(store, rows, masks)
    by_source = store.index.set_index("source")
    for i, row in enumerate(birds.photos(Path("data/raw/birds"))):
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
