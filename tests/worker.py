"""One process of small trainings, as torchrun or `distributed.launch` starts it: worker.py FOLDER CHANGES [launch COUNT].

CHANGES is a JSON list; each training of it has a folder of its own, 0, 1, ...
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from argan.config.schema import training
from argan.tensors import write_tensors
from argan.training import distributed as processes
from argan.training import sign
from argan.training.distributed import Processes
from pipelines.stage import run_command, say

SMALL = {
    "images": 96, "batch": 8, "latent": 8, "generator_channels": 4, "discriminator_channels": 8, "channels_max": 16,
    "checkpoint_every": 16, "log_every": 16, "samples_every": 48, "penalty_every": 2, "prior_fade": 48,
    "augment_color": 0.4, "augment_translate": 0.1, "augment_cutout": 0.25, "precision": "float32",
}  # fmt: skip


def small(folder: Path, changes: dict[str, Any], group: Processes) -> None:
    """Train, and write what came of it."""
    photos = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    trained, _ = sign.train(
        training("quick", SMALL | changes), photos, folder / "checkpoints",
        data=f"d{os.environ.get('ODD', '') if group.rank else ''}", processes=group,
        watch=lambda images, row: say(f"row at {images} from {group.rank}"), say=say,
    )  # fmt: skip
    if group.rank == 0:
        rows = {str(row["images"]): torch.tensor(list(row.values())) for row in trained.history}
        write_tensors(folder / "result.safetensors", trained.generator.state_dict() | rows)


def work() -> None:
    with processes.process_group(processes.device("cpu")) as group:
        folder = Path(sys.argv[1])
        (folder / f"pid{group.rank}").write_text(str(os.getpid()))
        for i, changes in enumerate(json.loads(sys.argv[2])):
            small(folder / str(i), changes, group)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # in which what Adam makes of rounding is nothing
    if sys.argv[3:4] == ["launch"]:
        sys.exit(processes.launch(int(sys.argv[4]), sys.argv[:3]))
    run_command(work)
