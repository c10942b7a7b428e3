"""The photo store: written atomically, checked when opened, and a fingerprint of content and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from argan.errors import UserError
from argan.photos import store as photos
from argan.photos.store import Photos

NONE = pd.DataFrame(columns=["source", "reason"])


def store(folder: Path, count: int = 6, seed: int = 0, split: list[str] | None = None) -> Photos:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    index = pd.DataFrame(
        {
            "source": [f"scene {i}" for i in range(count)],
            "sha256": [photos.sha256(photo) for photo in pixels],
            "width": 8,
            "height": 8,
            "crop_left": 0,
            "crop_top": 0,
            "crop_size": 8,
            "split": split or ["train"] * (count - 2) + ["validation", "test"],
        }
    )
    photos.write(folder, pixels, index, NONE)
    return Photos.open(folder)


def test_a_store_reads_back_memory_mapped_and_read_only(tmp_path: Path) -> None:
    opened = store(tmp_path / "meadow")
    assert isinstance(opened.pixels, np.memmap)
    assert not opened.pixels.flags.writeable
    assert len(opened) == 6
    assert opened.rows("validation").tolist() == [4]
    assert opened.split("train").shape == (4, 8, 8, 3)
    assert [photos.sha256(photo) for photo in opened.pixels] == opened.index["sha256"].tolist()
    assert (tmp_path / "meadow" / "quarantine.csv").read_text() == "source,reason\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meadow"]


def test_fingerprint_tells_content_and_splits(tmp_path: Path) -> None:
    same, again = store(tmp_path / "a"), store(tmp_path / "b")
    other = store(tmp_path / "c", seed=1)
    moved = store(tmp_path / "d", split=["train"] * 3 + ["validation"] * 2 + ["test"])
    assert same.fingerprint == again.fingerprint
    assert len({same.fingerprint, other.fingerprint, moved.fingerprint}) == 3


def test_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown split 'trian'"):
        store(tmp_path / "a").rows("trian")


@pytest.mark.parametrize("name", ["photos.npy", "index.parquet"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damage_is_one_clear_line(tmp_path: Path, name: str, damage: str) -> None:
    store(tmp_path / "a")
    file = tmp_path / "a" / name
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.write_text("no such thing")
    with pytest.raises(UserError, match=str(tmp_path / "a")) as caught:
        Photos.open(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert "dvc repro" in str(caught.value)


def test_pixels_and_index_must_belong_together(tmp_path: Path) -> None:
    store(tmp_path / "a")
    store(tmp_path / "b", count=5)
    (tmp_path / "b" / "index.parquet").replace(tmp_path / "a" / "index.parquet")
    with pytest.raises(UserError, match=r"5 rows in index.parquet, 6 in photos.npy"):
        Photos.open(tmp_path / "a")


def test_floats_are_no_photos(tmp_path: Path) -> None:
    store(tmp_path / "a")
    np.save(tmp_path / "a" / "photos.npy", np.zeros((6, 8, 8, 3)))
    with pytest.raises(UserError, match="float64"):
        Photos.open(tmp_path / "a")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store(tmp_path / "a").fingerprint

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(UserError, match="No space left on device"):
        store(tmp_path / "a", seed=1)
    monkeypatch.undo()
    assert Photos.open(tmp_path / "a").fingerprint == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_rows_are_written_in_chunks(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(7, 4, 4)).astype(np.float32)
    photos.write_rows(tmp_path / "a.npy", whole.shape, np.float32, [whole[:3], whole[3:4], whole[4:]])
    assert np.array_equal(np.load(tmp_path / "a.npy"), whole)
