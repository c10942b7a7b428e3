"""A domain of photo files, published or a collection: what is taken in, its store, its lens, and where it comes from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from argan.config.schema import Collection as CollectionSettings
from argan.config.schema import Published
from argan.effects.iris import Iris
from argan.files import swapped
from argan.photos import lens, truth
from argan.photos.collection import Collection
from argan.photos.crop import Box, Rule
from argan.photos.folder import printable
from argan.photos.ingest import ingest
from argan.photos.prepare import SourceFile
from argan.photos.report import About
from argan.photos.sources import DATASETS
from argan.photos.store import Photos

PROGRESS_SECONDS = 10.0  # between two lines of progress

Say = Callable[[str], None]


@dataclass(frozen=True)
class DomainFiles:
    """What is to be taken in, and by its source the mask of the subject, where one is published."""

    files: list[SourceFile]
    masks: dict[str, Path] = field(default_factory=dict)


def about(domain: str, settings: Published | CollectionSettings) -> About:
    if isinstance(settings, Published):
        dataset = DATASETS[settings.source]
        return About(dataset.title, dataset.homepage, dataset.licence, dataset.citation, dataset.splits)
    return About(f"the collection {domain}", splits="by the hash of each group of near duplicates: 80, 10 and 10 %")


def write_store(
    settings: Published | CollectionSettings, raw: Path, folder: Path, truth_folder: Path, refused_max: float, say: Say
) -> None:
    """Photo files, through `ingest`, and the masks; photos that the store in `folder` held before are not decoded again."""
    size, source = settings.resolution, domain_files(settings, raw)
    rule = Rule(**settings.crop.model_dump())
    with swapped(folder) as new:
        report = ingest(
            source.files,
            new,
            size,
            rule=rule,
            previous=folder,
            refused_max=refused_max,
            progress=_progress(say),
        )
        iris = _measure_lens(source.files, Photos.open(new), folder)
        iris.save(new)
    foreground = DATASETS[settings.source].foreground if isinstance(settings, Published) else None
    masks = truth.write_masks(truth_folder, Photos.open(folder), source.masks, foreground, say)
    refused = ", ".join(f"{count:,} {kind}" for kind, count in report.refused.items()) or "none"
    say(
        f"{report.photos:,} photos of {size} x {size} px, {report.decoded:,} decoded now; refused: {refused}; "
        f"{report.groups:,} groups of near duplicates; masks of {masks:,} held-out photos"
    )
    say(iris.summary)


def domain_files(settings: Published | CollectionSettings, raw: Path) -> DomainFiles:
    """Of the folder that the fetch stage made."""
    if isinstance(settings, CollectionSettings):
        return DomainFiles(Collection.open(raw.name, raw.parent).files())
    files, masks = [], {}
    for photo in DATASETS[settings.source].photos(raw):
        source = photo.image.relative_to(raw).as_posix()
        box = None if photo.box is None else Box(*(round(edge) for edge in photo.box))
        files.append(SourceFile(photo.image, source, box=box, split=photo.split))
        if photo.mask is not None and photo.split != "train":
            masks[source] = photo.mask
    return DomainFiles(files, masks)


def _measure_lens(files: list[SourceFile], store: Photos, previous: Path) -> Iris:
    """Of the photos to train on alone: what is held out must not shape the model."""
    paths = {printable(file.source): file.path for file in files}
    table = store.index.loc[store.rows("train"), ["source", "file_sha256"]]
    return lens.measure(
        {digest: paths[source] for source, digest in table.itertuples(index=False, name=None)}, previous
    )


def _progress(say: Say) -> Callable[[int, int], None]:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            say(f"{done:,}/{total:,} photos")

    return progress
