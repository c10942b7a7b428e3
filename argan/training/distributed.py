"""Several processes, on one machine or many, that train as one: torchrun's, or those started here, a process per GPU.

Every process has the whole model and all photographs, takes its share of each batch, and averages gradients with the others in one
message per player (as stylegan3 does). Not torch's DDP wrapper: a step calls the discriminator twice, once frozen, differentiates
it twice for R1 and R2, and takes parts of the batch one after the other; hooks on parameters that fire by themselves fit none of
that. What a batch holds is drawn for the whole of it in every process, so weights do not depend on how many there are, but for
the rounding of sums.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from argan.errors import UserError
from argan.interrupt import grace_seconds

T = TypeVar("T")

RESUME_HINT = "run the same command again to resume from the last checkpoint"
TIMEOUT = timedelta(minutes=30)  # of a process that waits for another; a dead one is noticed at once


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by itself where there is but one, at no cost."""

    rank: int = 0
    count: int = 1
    control: Any = None  # a gloo group: the CPUs' own channel, so that agreeing waits for no GPU

    def slices(self, batch: int, accumulate: int) -> list[slice]:
        """The rows of a batch that are this process's, in `accumulate` parts. Raises UserError where they cannot be even."""
        size, rest = divmod(batch, self.count * accumulate)
        if rest:
            raise UserError(
                f"train.batch {batch} cannot be shared evenly by {self.count} processes x train.accumulate {accumulate}; "
                "change one of them so that it divides"
            )
        first = self.rank * accumulate * size
        return [slice(first + i * size, first + (i + 1) * size) for i in range(accumulate)]

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, in one message."""
        if self.count == 1:
            return
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        _raise_if_lost(lambda: dist.all_reduce(flat))
        flat /= self.count
        parts = flat.split([t.numel() for t in tensors])
        torch._foreach_copy_(
            [t.detach() for t in tensors], [p.view(t.shape) for p, t in zip(parts, tensors, strict=True)]
        )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all of them get the same answer."""
        if self.count == 1:
            return flag
        total = torch.tensor([float(flag)])
        _raise_if_lost(lambda: dist.all_reduce(total, group=self.control))
        return bool(total.item())

    def broadcast(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        _raise_if_lost(lambda: dist.broadcast_object_list(box, src=0, group=self.control))
        return box[0]

    def require_equal(self, what: str, value: str) -> None:
        """Raises UserError unless all processes have the same value: machines may have other photos or other code."""
        if self.count == 1:
            return
        values = [""] * self.count
        _raise_if_lost(lambda: dist.all_gather_object(values, value, group=self.control))
        if different := [i for i, other in enumerate(values) if other != values[0]]:
            raise UserError(
                f"process {different[0]} has other {what} than process 0; bring every machine to the same state"
            )


def _raise_if_lost(communicate: Callable[[], object]) -> None:
    try:
        communicate()
    except RuntimeError as error:  # a connection that closed, whatever the backend calls it
        reason = " ".join(str(error).split())
        raise UserError(
            f"a process of this training was lost, so all of them end ({reason[:120]}); {RESUME_HINT}"
        ) from error


@contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """This process among its peers, as torchrun set it up in the environment; alone without.

    Whichever process meets a UserError first reports it, in one line; all of them end with exit code 2. Any other exception is
    reported by its process as usual, and by the others as the loss of that process.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or "RANK" not in os.environ:
        yield Processes()
        return
    dist.init_process_group("gloo" if device.type == "cpu" else "nccl", timeout=TIMEOUT)
    control = dist.group.WORLD if device.type == "cpu" else dist.new_group(backend="gloo", timeout=TIMEOUT)
    processes = Processes(dist.get_rank(), dist.get_world_size(), control)
    try:
        yield processes
    except UserError as error:
        if not dist.is_initialized():  # it has left the others
            raise
        if _first_to_report(processes):
            print(f"error: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # a message that a lost process will never answer may hang an orderly exit
    leave()


def leave() -> None:
    """Leave the process group: what follows is this process's alone. All of them do so at the same point."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _first_to_report(processes: Processes) -> bool:
    try:
        return dist.distributed_c10d._get_default_store().add("argan/reported", 1) == 1
    except RuntimeError:  # the first process held the store, and is gone
        return processes.rank == 1


def process_count(device: torch.device, batch: int, accumulate: int, say: Callable[[str], None]) -> int:
    """How many processes to start here: one per visible GPU, as many as share the batch evenly; 1 under torchrun or on a CPU."""
    if "RANK" in os.environ or device.type == "cpu":
        return 1
    gpus = torch.cuda.device_count()
    count = next(n for n in range(gpus, 0, -1) if batch % (n * accumulate) == 0 or n == 1)
    if count < gpus:
        say(f"{count} of {gpus} GPUs: a batch of {batch} in {accumulate} parts is not shared evenly by more")
    return count


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `python ARGUMENTS` as `count` processes of one training on this machine, as torchrun does; returns their exit code.

    When one ends badly the others are ended; a signal is passed on to all, who have 30 s to save and leave, or ARGAN_GRACE_SECONDS
    where that is longer.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(max(30, math.ceil(grace_seconds()))))  # 30 is its own
    # The processes report themselves what matters
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=f"argan-{os.getpid()}",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # it could not report it itself
            name = signal.Signals(-failure.exitcode).name
            print(
                f"error: process {rank} of {count} was killed by {name}, so all of them end; {RESUME_HINT}",
                file=sys.stderr,
            )
            return 2
        return failure.exitcode
    return 0
