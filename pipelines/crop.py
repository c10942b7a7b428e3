"""Crop: data/raw/<domain>/ -> the photo store data/photos/<domain>/ and, apart from it, data/truth/<domain>/."""

from __future__ import annotations

from pathlib import Path

from argan.config.schema import Collection, Meadow, Params, Published
from argan.meadow import dataset as meadow_dataset
from argan.photos import domain as photo_domain
from argan.photos import report
from argan.photos.report import About
from pipelines.stage import run_stage, say

MEADOW = About("meadow", licence="Made by this program: free to use.", splits="by number; the last are held out")


def crop(domain: str, params: Params) -> None:
    """Check every photo, refuse what is none, and write the store and, apart from it, what judges depth."""
    settings = params.domain(domain)
    raw, store, truth = (Path("data") / part / domain for part in ("raw", "photos", "truth"))

    def tell(line: str) -> None:
        say(f"{domain}: {line}")

    about = MEADOW
    if isinstance(settings, Meadow):
        tell(meadow_dataset.write_store(raw, store, truth, params.crop.refused_max))
    elif isinstance(settings, Published | Collection):
        photo_domain.write_store(settings, raw, store, truth, params.crop.refused_max, tell)
        about = photo_domain.about(domain, settings)
    numbers = report.write(store, about, params.crop.floors, lambda source: raw / source)
    for reason in numbers["unfit"]:
        tell(f"not fit for training. {reason}")
    for warning in numbers["warnings"]:
        tell(warning)
    tell(f"see {store}/report.html")


if __name__ == "__main__":
    run_stage(crop)
