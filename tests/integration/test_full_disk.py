"""A disk that fills up in training."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Trains on the small disk argv[1] until it is full, then again with room
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from argan.errors import UserError
from trainings import small, train
photos = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
folder, filler = Path(sys.argv[1]) / "c", Path(sys.argv[1]) / "filler"
def fill_disk(images, row):
    if images == 48:  # another program fills the disk, except for half of a checkpoint
        room, size = os.statvfs(sys.argv[1]), next(folder.glob("*.safetensors")).stat().st_size
        filler.write_bytes(bytes(room.f_bavail * room.f_bsize - size // 2))
try:
    train(small(checkpoint_every=16), photos, folder, on_row=fill_disk)
except UserError as error:
    print("error:", error)
print(*sorted(path.name for path in folder.iterdir()))
filler.unlink()
print(train(small(checkpoint_every=16), photos, folder).images)
"""


def test_a_disk_that_fills_up_in_training_leaves_the_last_good_state(tmp_path: Path) -> None:
    """A real file system of 2 MB: three checkpoints of this training fit, until something else takes their place."""
    disk = tmp_path / "disk"
    disk.mkdir()
    private_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private_mounts, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts here, so no small disk")
    commands = f'mount -t tmpfs -o size=2m tmpfs {disk} && exec "$0" -c "$1" {disk}'
    done = subprocess.run(
        [*private_mounts, "sh", "-c", commands, sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
    )
    assert done.returncode == 0, done.stderr
    error, files, resumed, images = done.stdout.splitlines()
    assert re.fullmatch(
        r"error: cannot write \S+/c/0000000000\d\d\.safetensors: .*[Nn]o space left.*run the same command again", error
    )
    assert "000000000032.safetensors" in files and "tmp" not in files
    assert (resumed, images) == ("resuming at 32 of 96 images", "96")
