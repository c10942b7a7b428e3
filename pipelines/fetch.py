"""Fetch: a domain's photographs as they come, into data/raw/<domain>/."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from argan import meadow
from argan.config.schema import Collection, Meadow, Params, Published
from argan.files import swapped
from argan.photos.store import write_rows
from pipelines.stage import run_stage, say

CHUNK = 2000  # scenes between two lines of progress
TOLD = 20  # entries of archives that were not unpacked, named in the log


def fetch(domain: str, params: Params) -> None:
    """Make, download or collect the domain's photographs, by its source."""
    settings, raw = params.domain(domain), Path("data/raw") / domain
    if isinstance(settings, Meadow):
        _meadow(domain, settings, raw)
    elif isinstance(settings, Collection):
        from argan.photos import collection

        frozen = collection.freeze(domain, settings.revision, raw, say=lambda line: say(f"{domain}: {line}"))
        say(f"{domain}: {len(frozen.index):,} photos of the collection at revision {frozen.revision}")
    elif isinstance(settings, Published):
        from argan.photos.sources import DATASETS
        from argan.photos.sources.dataset import Own
        from argan.photos.sources.dataset import fetch as fetched

        own = {name: Own(**given.model_dump()) for name, given in settings.files.items()}
        downloads = Path("data/downloads") / domain
        got = fetched(DATASETS[settings.source], raw, downloads, own=own, say=lambda line: say(f"{domain}: {line}"))
        for entry, reason in got.refused[:TOLD]:
            say(f"{domain}: not unpacked: {entry}: {reason}")


def _meadow(domain: str, settings: Meadow, raw: Path) -> None:
    """Make the meadow's photographs. Exact depth is kept of the held-out scenes alone: training has none to peep at."""
    resolution = settings.resolution
    shape = (resolution, resolution)
    train = settings.photos - settings.validation - settings.test
    began = time.perf_counter()
    held_out = []

    def chunks() -> Iterator[np.ndarray]:
        edges = sorted({*range(0, settings.photos, CHUNK), train, settings.photos})
        for start, stop in pairwise(edges):
            photos, disparity = meadow.photographs(
                stop - start, resolution, settings.seed, start=start, depth=start >= train
            )
            if disparity is not None:
                held_out.append(disparity)
            yield photos
            say(f"{domain}: {stop}/{settings.photos} photographs, {stop / (time.perf_counter() - began):.0f}/s")

    with swapped(raw) as new:
        write_rows(new / "photos.npy", (settings.photos, *shape, 3), np.uint8, chunks())
        write_rows(new / "disparity.npy", (settings.photos - train, *shape), np.float32, held_out)
        scenes = {
            "count": settings.photos,
            "seed": settings.seed,
            "resolution": resolution,
            "splits": {
                "train": [0, train],
                "validation": [train, train + settings.validation],
                "test": [train + settings.validation, settings.photos],
            },
        }
        (new / "scenes.json").write_text(json.dumps(scenes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(fetch)
