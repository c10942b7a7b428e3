"""One process of small trainings: worker.py FOLDER CHANGES [launch COUNT], by itself or started by torchrun.

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
from trainings import small

from argan.tensors import write_tensors
from argan.training import distributed, sign
from argan.training.distributed import Processes
from argan.training.job import Observer, TrainingJob
from pipelines.stage import run_command, say

CHANGES = {
    "checkpoint_every": 16,
    "augment_color": 0.4,
    "augment_translate": 0.1,
    "augment_cutout": 0.25,
    "precision": "float32",
}


def train(folder: Path, changes: dict[str, Any], processes: Processes) -> None:
    """Train, and write the result."""
    photos = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    data = f"d{os.environ.get('ODD', '') if processes.rank else ''}"
    observer = Observer(on_row=lambda images, row: say(f"row at {images} from {processes.rank}"), say=say)
    job = TrainingJob(small(**CHANGES | changes), photos, data, processes=processes, observer=observer)
    result, _ = sign.train(job, folder / "checkpoints")
    if processes.rank == 0:
        rows = {str(row["images"]): torch.tensor(list(row.values())) for row in result.history}
        write_tensors(folder / "result.safetensors", result.generator.state_dict() | rows)


def work() -> None:
    with distributed.process_group(torch.device("cpu")) as group:
        folder = Path(sys.argv[1])
        (folder / f"pid{group.rank}").write_text(str(os.getpid()))
        for i, changes in enumerate(json.loads(sys.argv[2])):
            train(folder / str(i), changes, group)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # in which what Adam makes of rounding is nothing
    if sys.argv[3:4] == ["launch"]:
        sys.exit(distributed.launch(int(sys.argv[4]), sys.argv[:3]))
    run_command(work)
