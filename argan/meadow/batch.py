"""Photographs of the meadow with exact depth, each from its seed and index alone, by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from argan.meadow.camera import Lens, develop, expose, paint, surface
from argan.meadow.scene import draw_lens, scene
from argan.meadow.surfaces import Array

RESOLUTIONS = (32, 256)  # inclusive; below, a petal is less than a pixel
CHUNK = 64  # photos a worker makes at a time: about a second of work, so that cores finish together
SMALL = 256  # below this many photos, starting workers takes longer than they save


def rngs(index: int, seed: int) -> tuple[Generator, Generator]:
    """Two streams of a photo, from (seed, index) alone: for its lens and for its scene."""
    return tuple(np.random.Generator(np.random.PCG64([seed, index, k])) for k in (0, 1))  # type: ignore[return-value]


def photograph(
    index: int, resolution: int, seed: int, pinhole: bool = False, depth: bool = True
) -> tuple[NDArray[np.uint8], Array | None]:
    """One photo (R, R, 3) and its exact disparity (R, R), or None without `depth`."""
    for_lens, for_scene = rngs(index, seed)
    camera, view = Lens(0.0) if pinhole else draw_lens(for_lens), scene(for_scene, resolution)
    painted = [paint(view.litter, resolution, view.floor), *(paint(plant, resolution) for plant in view.plants)]
    layers = [layer for layer in painted if layer is not None]
    return develop(expose(layers, camera, resolution), view.gain), surface(layers, resolution) if depth else None


def all_in_focus(index: int, resolution: int, seed: int) -> NDArray[np.uint8]:
    """The pinhole picture (R, R, 3) of the same scene, for judging only."""
    check(resolution)
    with one_thread():
        return photograph(index, resolution, seed, pinhole=True, depth=False)[0]


def aperture(index: int, seed: int) -> float:
    """The true aperture scale of a photo, for judging only."""
    return draw_lens(rngs(index, seed)[0]).aperture


def check(resolution: int, count: int = 0) -> None:
    if not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise ValueError(f"meadow: resolution {resolution} is outside {RESOLUTIONS[0]}..{RESOLUTIONS[1]}")
    if count < 0:
        raise ValueError(f"meadow: count {count} is negative")


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread: its pool costs more than it gives on pictures this small, and forks badly."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def chunk(first: int, count: int, resolution: int, seed: int, depth: bool) -> tuple[NDArray[np.uint8], Array | None]:
    """Photos first .. first + count, in this process."""
    photos = np.empty((count, resolution, resolution, 3), np.uint8)
    disparity = np.empty((count, resolution, resolution), np.float32) if depth else None
    with one_thread():
        for i in range(count):
            photos[i], exact = photograph(first + i, resolution, seed, depth=depth)
            if disparity is not None:
                disparity[i] = exact
    return photos, disparity


def photographs(
    count: int, resolution: int, seed: int, *, start: int = 0, depth: bool = True, processes: int | None = None
) -> tuple[NDArray[np.uint8], Array | None]:
    """photos (count, R, R, 3) uint8 sRGB and disparity (count, R, R) float32, or None without `depth`.

    Photo i depends on (seed, start + i) alone, whatever the chunking or the number of processes.
    """
    check(resolution, count)
    workers = min(processes or os.cpu_count() or 1, -(-count // CHUNK), 32)
    if workers <= 1 or (count < SMALL and processes is None):
        return chunk(start, count, resolution, seed, depth)
    photos = np.empty((count, resolution, resolution, 3), np.uint8)
    disparity = np.empty((count, resolution, resolution), np.float32) if depth else None
    firsts = range(0, count, CHUNK)
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to answer
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=quiet) as pool:
        jobs = [pool.submit(chunk, start + a, min(CHUNK, count - a), resolution, seed, depth) for a in firsts]
        try:
            for a, job in zip(firsts, jobs, strict=True):
                part, truth = job.result()
                photos[a : a + len(part)] = part
                if disparity is not None and truth is not None:
                    disparity[a : a + len(part)] = truth
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else it would first make all the others
            raise
    return photos, disparity
