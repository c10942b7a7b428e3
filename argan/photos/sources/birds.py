"""Caltech-UCSD Birds-200-2011: 11,788 photographs of birds, each with a box and a mask of the bird.

photos/CUB_200_2011/images/<class>/<name>.jpg   and images.txt, image_class_labels.txt, train_test_split.txt,
                                                bounding_boxes.txt: a line per photograph, its number first
masks/segmentations/<class>/<name>.png          grey: how many of the annotators called it bird
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from argan.errors import UserError
from argan.photos import photo_file
from argan.photos.sources.dataset import Dataset, DatasetPhoto, RemoteFile, held_out

VALIDATION = 0.1  # of the official training part: the publishers have none
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")


def photos(folder: Path) -> list[DatasetPhoto]:
    """A row per photograph, by number. Raises UserError when the files do not belong together."""
    root = folder / "photos" / "CUB_200_2011"
    names, labels, training, boxes = (_table(root / name) for name in TABLES)
    for name, table in zip(TABLES[1:], (labels, training, boxes), strict=True):
        if table.keys() != names.keys():
            raise UserError(f"CUB_200_2011.tgz: {name} and images.txt do not name the same photographs; fetch it again")
    there = {str(path.relative_to(root / "images").as_posix()): path for path in (root / "images").glob("*/*.jpg")}
    result = []
    for number, (name, *_) in names.items():
        if name not in there:
            raise UserError(f"CUB_200_2011.tgz lacks images/{name}, which images.txt names; fetch it again")
        try:
            left, top, width, height = map(float, boxes[number])
            label, train = int(labels[number][0]), {"0": False, "1": True}[training[number][0]]
            if not (width > 0 and height > 0):
                raise ValueError(f"a box of {width:g} x {height:g}")
        except (ValueError, KeyError) as error:
            raise UserError(
                f"CUB_200_2011.tgz: a table is damaged at photograph {number} ({error}); fetch it again"
            ) from error
        split = ("validation" if held_out(name, VALIDATION) else "train") if train else "test"
        mask = (folder / "masks" / "segmentations" / name).with_suffix(".png")
        result.append(
            DatasetPhoto(
                there[name],
                "train" if train else "test",
                split,
                label=label,
                box=(left, top, width, height),
                mask=mask if mask.is_file() else None,
            )
        )
    return result


def foreground(mask: Path) -> np.ndarray:
    """(H, W) bool: called bird by more than half of the annotators."""
    return photo_file.pixels(mask)[..., 0] > 127


def _table(path: Path) -> dict[int, list[str]]:
    """What follows the number at the start of each line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        table = {int(number): rest for number, *rest in lines}
    except (OSError, ValueError) as error:
        raise UserError(f"CUB_200_2011.tgz: {path.name} cannot be read ({error}); fetch it again") from error
    if not lines or len(table) != len(lines) or not all(table.values()):
        raise UserError(
            f"CUB_200_2011.tgz: {path.name} is empty, names a number twice, or has short lines; fetch it again"
        )
    return table


BIRDS = Dataset(
    name="birds",
    title="Caltech-UCSD Birds-200-2011",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    licence=(
        "For non-commercial research and education. The publishers do not own the photographs, "
        "which come from Flickr and stay their photographers'."
    ),
    citation=(
        "C. Wah, S. Branson, P. Welinder, P. Perona and S. Belongie. The Caltech-UCSD Birds-200-2011 Dataset. "
        "California Institute of Technology, CNS-TR-2011-001, 2011."
    ),
    splits="official: train 5,994, test 5,794; a tenth of train, by the hash of the name, is validation",
    files=(
        RemoteFile(
            "CUB_200_2011.tgz",
            (
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "https://s3.amazonaws.com/fast-ai-imageclas/CUB_200_2011.tgz",
            ),
            sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            md5="97eceeb196236b17998738112f37df78",
            size=1_150_585_339,
            into="photos",
            suffixes=frozenset({".jpg", *(f"/cub_200_2011/{name}" for name in TABLES)}),
        ),
        RemoteFile(
            "segmentations.tgz",
            ("https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",),
            sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
            md5="4d47ba1228eae64f2fa547c47bc65255",
            size=39_272_883,
            into="masks",
            suffixes=frozenset({".png"}),
            masks=True,
        ),
    ),
    photos=photos,
    foreground=foreground,
)
