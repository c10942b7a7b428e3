"""One image a thread: how the compiled kernels share a batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def parallel_for(scale: Tensor, work: Callable[[int, Any], None]) -> None:
    """work(i, scale[i]) on every image i, in this thread and as many more as torch would use. Raises what a worker raised.

    In threads of its own: those of torch belong to torch, and once woken keep a core busy for milliseconds, waiting for more.
    """
    scales = scale.detach().numpy()
    images = iter(range(len(scales)))  # the next free thread takes the next image: a closed aperture takes no time

    def work_through() -> None:
        for i in images:
            work(i, scales[i])

    threads = min(torch.get_num_threads(), len(scales))
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        others = [pool.submit(work_through) for _ in range(threads - 1)]
        work_through()
        for other in others:
            other.result()


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor in planes, as an array: the same memory if it is contiguous already."""
    return tensor.detach().contiguous().numpy()
