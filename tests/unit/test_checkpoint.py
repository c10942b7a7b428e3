"""Checkpoints: atomic, fingerprinted, and the newest valid one wins."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from argan import files
from argan.errors import UserError
from argan.tensors import read_tensors
from argan.training import checkpoint


def fill(folder: Path, images: int, mark: str = "a", keep: int = 9) -> Path:
    return checkpoint.save(
        folder, images, {"x": torch.full((3,), float(images))}, {"fingerprint": mark, "images": images}, keep
    )


def test_newest_by_number_not_by_time(tmp_path: Path) -> None:
    fill(tmp_path, 200)
    fill(tmp_path, 100)
    loaded = checkpoint.newest(tmp_path, "a", print)
    assert loaded is not None and loaded[1]["images"] == 200 and torch.equal(loaded[0]["x"], torch.full((3,), 200.0))


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, 100)
    newest = fill(tmp_path, 200)
    content = newest.read_bytes()
    newest.write_bytes(
        {"truncated": content[: len(content) - 5], "empty": b"", "foreign": b"PK\x03\x04 not ours" * 10}[damage]
    )
    messages: list[str] = []
    loaded = checkpoint.newest(tmp_path, "a", messages.append)
    assert loaded is not None and loaded[1]["images"] == 100
    assert len(messages) == 1 and newest.name in messages[0]


def test_another_fingerprint_starts_fresh_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path, 100, mark="other")
    messages: list[str] = []
    assert checkpoint.newest(tmp_path, "a", messages.append) is None
    assert "starting fresh" in messages[0]
    assert list(tmp_path.glob("*.safetensors")), "what is refused is not deleted"


def test_a_later_checkpoint_of_another_training_hides_none_and_costs_none(tmp_path: Path) -> None:
    fill(tmp_path, 900, mark="other")
    for images in (100, 200, 300):
        fill(tmp_path, images, keep=2)
    loaded = checkpoint.newest(tmp_path, "a", lambda line: None)
    assert loaded is not None and loaded[1]["images"] == 300
    assert sorted(int(p.stem) for p in tmp_path.glob("*.safetensors")) == [200, 300, 900]


def test_fingerprint_changes_with_params_and_data() -> None:
    base = checkpoint.fingerprint({"a": 1}, "data")
    assert base == checkpoint.fingerprint({"a": 1}, "data")
    assert len({base, checkpoint.fingerprint({"a": 2}, "data"), checkpoint.fingerprint({"a": 1}, "other")}) == 3


def test_another_meaning_of_tensors_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.fingerprint({"a": 1}, "data")
    monkeypatch.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
    assert checkpoint.fingerprint({"a": 1}, "data") != before


def test_retention(tmp_path: Path) -> None:
    for images in (100, 200, 300):
        fill(tmp_path, images, keep=2)
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == ["000000000200", "000000000300"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(UserError, match=r"a\.json.*space"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"], "no temporary is left behind"


def test_what_a_kill_in_the_middle_of_a_write_left_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, 100)
    half = tmp_path / ".000000000200.safetensors.abc.tmp"
    half.write_bytes(b"half")
    assert checkpoint.newest(tmp_path, "a", print) is not None and not half.exists()


def test_reading_what_is_not_there_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        read_tensors(tmp_path / "generator.safetensors")


def test_of_other_trainings_the_one_that_ran_last_stays(tmp_path: Path) -> None:
    """Though what it writes lies in folders within, as where both ways round are tried."""
    for age, name in enumerate("ab"):
        checkpoint.training_folder(tmp_path, name, print)
        os.utime(tmp_path / name, (age, age))
    checkpoint.training_folder(tmp_path, "a", print)
    checkpoint.training_folder(tmp_path, "c", print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
