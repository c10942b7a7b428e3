"""Training on a disk that fills up."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, numpy as np
from pathlib import Path
from argan.config.schema import training
from argan.training.loop import train
from pipelines.stage import run_command
small = {"images": 96, "batch": 8, "latent": 8, "generator_channels": 4, "discriminator_channels": 8, "channels_max": 16,
         "checkpoint_every": 16, "log_every": 16, "samples_every": 48, "penalty_every": 2, "prior_fade": 48}
photos = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
folder = Path(sys.argv[1])
def watch(images, row):
    if images == 48 and len(sys.argv) > 2:  # somebody else fills the disk, but for half of a checkpoint
        room, size = os.statvfs(folder), next(folder.glob("*.safetensors")).stat().st_size
        Path(sys.argv[2]).write_bytes(bytes(room.f_bavail * room.f_bsize - size // 2))
run_command(lambda: print(train(training("quick", small), photos, folder, data="d", watch=watch).images))
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
