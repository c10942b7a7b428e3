"""FFHQ thumbnails: 70,000 aligned faces at 128 x 128, fetched by hand since their licence must be accepted.

photos/.../00000.png ... 69999.png   as thumbnails128x128.zip has them, in folders of a thousand
ffhq-dataset-v2.json                 optional: with it, every single thumbnail is checked by the publishers' own md5
"""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

from argan.errors import UserError
from argan.photos.sources.dataset import Dataset, DatasetPhoto, RemoteFile, held_out

PHOTOS = 70_000
TRAINING = 60_000  # the first ones, say the publishers
TEST = 0.5  # of the official validation part: the publishers have none
METADATA = "ffhq-dataset-v2.json"
ENTRY = re.compile(
    rb'"thumbnail":\s*\{[^{}]*?"file_path":\s*"thumbnails128x128/\d{5}/(\d{5})\.png"[^{}]*?"file_md5":\s*"([0-9a-f]{32})"'
)
BY_HAND = (
    "FFHQ is under CC BY-NC-SA 4.0 (non-commercial) and lies on Google Drive, where no program can accept that for you; "
    "read https://github.com/NVlabs/ffhq-dataset, fetch zips/thumbnails128x128.zip by hand, and name your copy in params.yaml"
)


def photos(folder: Path) -> list[DatasetPhoto]:
    """A row per photograph, by number. Raises UserError when one is missing or not the publishers' own."""
    images = {int(path.stem): path for path in (folder / "photos").rglob("*.png") if re.fullmatch(r"\d{5}", path.stem)}
    if lacking := sorted(set(range(PHOTOS)) - set(images)):
        raise UserError(
            f"thumbnails128x128.zip lacks {len(lacking):,} of {PHOTOS:,} thumbnails (the first: {lacking[0]:05d}.png); "
            "fetch it again, whole; a smaller selection is a collection of your own"
        )
    result = []
    for number in range(PHOTOS):
        split = "train"
        if number >= TRAINING:
            split = "test" if held_out(f"{number:05d}", TEST) else "validation"
        result.append(DatasetPhoto(images[number], "training" if number < TRAINING else "validation", split))
    return result


def checked_photos(folder: Path) -> list[DatasetPhoto]:
    """`photos`, each thumbnail held against the publishers' metadata where the user gave that too."""
    result = photos(folder)
    if not (folder / METADATA).is_file():
        return result
    published = _published(folder / METADATA)
    for number, photo in enumerate(result):
        md5 = hashlib.md5(photo.image.read_bytes(), usedforsecurity=False).hexdigest()
        if published.get(number) != md5:
            raise UserError(
                f"thumbnails128x128.zip: {photo.image.name} is not what {METADATA} describes; fetch it again"
            )
    return result


def _published(path: Path) -> dict[int, str]:
    """md5 of each thumbnail. By searching, not parsing: as Python objects the file's 255 MB would be gigabytes."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return {int(entry[1]): entry[2].decode() for entry in ENTRY.finditer(text)}
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"{path.name} cannot be read ({error}); fetch it again") from error


FACES = Dataset(
    name="faces",
    title="Flickr-Faces-HQ, thumbnails",
    homepage="https://github.com/NVlabs/ffhq-dataset",
    licence=(
        "CC BY-NC-SA 4.0 by NVIDIA Corporation for the dataset: non-commercial, cite the paper, tell changes, share alike. "
        "Each photograph has its photographer's licence (CC BY 2.0, CC BY-NC 2.0, public domain, CC0 or U.S. Government Works), "
        "named in ffhq-dataset-v2.json."
    ),
    citation=(
        "T. Karras, S. Laine and T. Aila. A style-based generator architecture for generative adversarial networks. CVPR 2019."
    ),
    splits="official: training 60,000, validation 10,000; half of validation, by the hash of the number, is test",
    files=(
        # The publishers tell no hash of the archive (of each thumbnail, in the metadata): pin your own copy's, or give both files.
        RemoteFile("thumbnails128x128.zip", (), into="photos", suffixes=frozenset({".png"}), by_hand=BY_HAND),
        # This md5 is in the publishers' own download program; they tell no sha256.
        RemoteFile(
            METADATA, (), md5="425ae20f06a4da1d4dc0f46d40ba5fd6", size=267_793_842, optional=True, by_hand=BY_HAND
        ),
    ),
    photos=photos,
    checked_photos=checked_photos,
)
