"""Checkpoints: atomic, fingerprinted, and the newest valid one wins."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from argan import files
from argan.errors import UserError
from argan.training import checkpoint
from pipelines.train import checkpoints


def fill(folder: Path, images: int, mark: str = "a", keep: int = 9) -> Path:
    return checkpoint.save(
        folder, images, {"x": torch.full((3,), float(images))}, {"fingerprint": mark, "images": images}, keep
    )


def test_newest_by_number_not_by_time(tmp_path: Path) -> None:
    fill(tmp_path, 200)
    fill(tmp_path, 100)
    found = checkpoint.newest(tmp_path, "a", print)
    assert found is not None and found[1]["images"] == 200 and torch.equal(found[0]["x"], torch.full((3,), 200.0))


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_one_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, 100)
    newest = fill(tmp_path, 200)
    content = newest.read_bytes()
    newest.write_bytes(
        {"truncated": content[: len(content) - 5], "empty": b"", "foreign": b"PK\x03\x04 not ours" * 10}[damage]
    )
    said: list[str] = []
    found = checkpoint.newest(tmp_path, "a", said.append)
    assert found is not None and found[1]["images"] == 100
    assert len(said) == 1 and newest.name in said[0]


def test_another_fingerprint_starts_fresh_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path, 100, mark="other")
    said: list[str] = []
    assert checkpoint.newest(tmp_path, "a", said.append) is None
    assert "starting fresh" in said[0]
    assert list(tmp_path.glob("*.safetensors")), "what is refused is not deleted"


def test_a_later_checkpoint_of_another_training_hides_none_and_costs_none(tmp_path: Path) -> None:
    fill(tmp_path, 900, mark="other")
    for images in (100, 200, 300):
        fill(tmp_path, images, keep=2)
    found = checkpoint.newest(tmp_path, "a", lambda line: None)
    assert found is not None and found[1]["images"] == 300
    assert sorted(int(p.stem) for p in tmp_path.glob("*.safetensors")) == [200, 300, 900]


def test_fingerprint_changes_with_params_and_data() -> None:
    base = checkpoint.fingerprint({"a": 1}, "data")
    assert base == checkpoint.fingerprint({"a": 1}, "data")
    assert len({base, checkpoint.fingerprint({"a": 2}, "data"), checkpoint.fingerprint({"a": 1}, "other")}) == 3


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


SCRIPT = """
import os, sys, numpy as np
from pathlib import Path
from argan.config.schema import training
from argan.training.loop import train
from pipelines import guarded
small = {"images": 96, "batch": 8, "latent": 8, "generator_channels": 4, "discriminator_channels": 8, "channels_max": 16,
         "checkpoint_every": 16, "log_every": 16, "samples_every": 48, "penalty_every": 2, "prior_fade": 48}
photos = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
folder = Path(sys.argv[1])
def watch(images, row):
    if images == 48 and len(sys.argv) > 2:  # somebody else fills the disk, but for half of a checkpoint
        room, size = os.statvfs(folder), next(folder.glob("*.safetensors")).stat().st_size
        Path(sys.argv[2]).write_bytes(bytes(room.f_bavail * room.f_bsize - size // 2))
guarded(lambda: print(train(training("quick", small), photos, folder, data="d", watch=watch).images))
"""


@pytest.mark.pipeline
def test_a_disk_that_fills_up_in_training_leaves_the_last_good_state(tmp_path: Path) -> None:
    """A real file system of 2 MB: three checkpoints of this training fit, until something else takes their place."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run = f"mount -t tmpfs -o size=2m tmpfs {disk} && "
    run += f"{sys.executable} -c '{SCRIPT}' {disk}/c {disk}/junk; "
    run += f"code=$?; ls {disk}/c; rm {disk}/junk; {sys.executable} -c '{SCRIPT}' {disk}/c; exit $code"
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts here, so no small disk")
    done = subprocess.run([*space, "sh", "-c", run], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"error: cannot write \S+/c/0000000000\d\d\.safetensors: .*[Nn]o space left.*run the same command again\n",
        done.stderr,
    ), done.stderr
    assert "000000000032.safetensors" in done.stdout and "tmp" not in done.stdout
    assert "resuming at 32 of 96 images" in done.stdout and done.stdout.endswith("96\n")


def test_reading_what_is_not_there_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        checkpoint.read_tensors(tmp_path / "generator.safetensors")


def test_of_other_trainings_the_one_that_ran_last_stays(tmp_path: Path) -> None:
    """Though what it writes lies in folders within, as where both ways round are tried."""
    for age, name in enumerate("ab"):
        checkpoints(tmp_path, name)
        os.utime(tmp_path / name, (age, age))
    checkpoints(tmp_path, "a")
    checkpoints(tmp_path, "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
