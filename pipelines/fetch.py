"""Fetch: a domain's photographs as they come, into data/raw/<domain>/."""

from __future__ import annotations

from pathlib import Path

from argan.config.schema import Collection, Meadow, Params, Published
from argan.meadow import dataset as meadow_dataset
from argan.photos import collection
from argan.photos.sources import DATASETS, dataset
from pipelines.stage import run_stage, say

REFUSED_SHOWN = 20  # entries of archives that were not unpacked, named in the log


def fetch(domain: str, params: Params) -> None:
    """Make, download or collect the domain's photographs, by its source."""
    settings, raw = params.domain(domain), Path("data/raw") / domain

    def tell(line: str) -> None:
        say(f"{domain}: {line}")

    if isinstance(settings, Meadow):
        meadow_dataset.write_raw(settings, raw, tell)
    elif isinstance(settings, Collection):
        frozen = collection.freeze(domain, settings.revision, raw, say=tell)
        tell(f"{len(frozen.index):,} photos of the collection at revision {frozen.revision}")
    elif isinstance(settings, Published):
        downloads = Path("data/downloads") / domain
        fetched = dataset.fetch(DATASETS[settings.source], raw, downloads, overrides=settings.files, say=tell)
        for entry, reason in fetched.refused[:REFUSED_SHOWN]:
            tell(f"not unpacked: {entry}: {reason}")


if __name__ == "__main__":
    run_stage(fetch)
