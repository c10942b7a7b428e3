"""The device that trains: chosen, configured, filled without waiting for it, and its free memory."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor

from argan.config.schema import Training
from argan.errors import UserError
from argan.networks.precision import uses_bfloat16

REPORT_SECONDS = 10.0  # within which the process that reports why all of them end has done so


def select_device(wanted: str) -> torch.device:
    """`train.device`: auto, cpu or cuda; of several GPUs that of this process among those torchrun started on this machine.

    Only counts GPUs: a CUDA context, some 500 MB of the GPU, is for the process that trains (`configure_device`), not for one
    that launches others. Raises UserError for a GPU that is not there, and for fewer GPUs than processes.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "has no CUDA in it" if torch.version.cuda is None else "finds no GPU or no driver"
        raise UserError(f"train.device is cuda, but torch {torch.__version__} {why}; set train.device to auto or cpu")
    rank, processes = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    gpus = torch.cuda.device_count()
    if processes > gpus:
        if rank:  # one of them reports it for all; torchrun ends the others
            time.sleep(REPORT_SECONDS)
            sys.exit(2)
        raise UserError(
            f"{processes} processes were started on this machine, which has {gpus} GPUs, and each needs one of its own; "
            f"start {gpus} (torchrun --nproc-per-node {gpus}), or set train.device to cpu"
        )
    return torch.device("cuda", rank)


def configure_device(config: Training, device: torch.device) -> str:
    """Make `device` this process's own, and choose its precision and algorithms. Returns a description; "" for a CPU.

    To be called by the process that trains, once, before it joins others: the first to create a CUDA context. Convolutions take
    bfloat16 (`train.precision`), or TF32 unless float32 is asked for; matrix products outside autocast, those of the renderer and
    of the guided filter, stay float32, since TF32 has 10 bits for a position. Shapes are the same in every step, so cuDNN may try
    its algorithms once and keep the fastest. Raises UserError for a GPU that cannot be used.
    """
    if device.type != "cuda":
        return ""
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{device} cannot be used ({reason}); free it, or set train.device to cpu") from error
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = config.precision != "float32"
    torch.backends.cudnn.benchmark = True
    kind = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
    if uses_bfloat16(config, device):
        kind = "bfloat16"
    return f"convolutions in {kind}, the renderer in float32 without TF32, cudnn.benchmark on"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the copy waits for nothing that the device has to do before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Bytes that a process may still take there. Processes on one CPU share."""
    if device.type == "cuda":
        # What torch holds and does not use, of a training before this one, is free to this process too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    available = min(int(psutil.virtual_memory().available), _left_to_container())
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _left_to_container(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Of a container's limit (cgroup 2), counting files in memory that can go; endless where there is none."""
    try:
        numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(numbers["inactive_file"])
        return max(int((group / "memory.max").read_text()) - used, 0)
    except (OSError, ValueError, KeyError):  # no such file; "max"
        return sys.maxsize
