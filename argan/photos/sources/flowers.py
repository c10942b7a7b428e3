"""Oxford Flowers 102: 8,189 photographs of flowers, with a mask of the flower for most.

photos/jpg/image_00001.jpg      as 102flowers.tgz has them
masks/segmim/segmim_00001.jpg   as 102segmentations.tgz has them: what is not flower is blue
setid.mat                       the official splits, by number
imagelabels.mat                 a category from 1 to 102 for each
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from argan.errors import UserError
from argan.photos import photo_file
from argan.photos.sources.dataset import Dataset, DatasetPhoto, RemoteFile
from argan.photos.sources.mat import read_integers

# Oxford's two servers of the same files.
MIRRORS = ("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", "https://thor.robots.ox.ac.uk/flowers/102/")
SPLITS = {"trnid": "train", "valid": "validation", "tstid": "test"}


def photos(folder: Path) -> list[DatasetPhoto]:
    """A row per photograph, by number. Raises UserError when the files do not belong together."""
    official = {name: _numbers(folder / "setid.mat", name) for name in SPLITS}
    labels = _numbers(folder / "imagelabels.mat", "labels")
    split_of = {int(number): name for name, numbers in official.items() for number in numbers}
    if len(split_of) != sum(len(numbers) for numbers in official.values()):
        raise UserError("setid.mat puts a photograph into two splits; fetch it again")
    if set(split_of) != set(range(1, len(labels) + 1)):
        raise UserError(
            f"setid.mat splits {len(split_of)} photographs, imagelabels.mat names {len(labels)}; fetch them again"
        )
    result = []
    for number, name in sorted(split_of.items()):
        image = folder / "photos" / "jpg" / f"image_{number:05d}.jpg"
        mask = folder / "masks" / "segmim" / f"segmim_{number:05d}.jpg"
        if not image.is_file():
            raise UserError(f"102flowers.tgz lacks jpg/{image.name}, which setid.mat names; fetch it again")
        result.append(
            DatasetPhoto(
                image, name, SPLITS[name], label=int(labels[number - 1]), mask=mask if mask.is_file() else None
            )
        )
    return result


def foreground(mask: Path) -> np.ndarray:
    """(H, W) bool: flower. The rest is (0, 0, 254), give or take what JPEG does to edges."""
    red, green, blue = np.moveaxis(photo_file.pixels(mask), -1, 0)
    return ~((red < 32) & (green < 32) & (blue > 222))


def _numbers(path: Path, name: str) -> np.ndarray:
    arrays = read_integers(path)
    if name not in arrays or not len(arrays[name]):
        raise UserError(f"{path.name}: no numbers are called '{name}'; fetch it again")
    return arrays[name]


def _remote(name: str, **details: object) -> RemoteFile:
    return RemoteFile(name, tuple(mirror + name for mirror in MIRRORS), **details)  # type: ignore[arg-type]


FLOWERS = Dataset(
    name="flowers",
    title="Oxford Flowers 102",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    licence=(
        "The publishers state no licence. The photographs come from the web and stay their photographers': "
        "for research; ask before anything else."
    ),
    citation=(
        "M-E. Nilsback and A. Zisserman. Automated flower classification over a large number of classes. "
        "Indian Conference on Computer Vision, Graphics and Image Processing, 2008."
    ),
    splits="official: trnid 1,020 (train), valid 1,020 (validation), tstid 6,149 (test); the test part is the largest",
    files=(
        _remote(
            "102flowers.tgz",
            sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            md5="52808999861908f626f3c1f4e79d11fa",
            size=344_862_509,
            into="photos",
            suffixes=frozenset({".jpg"}),
        ),
        _remote(
            "imagelabels.mat",
            sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            md5="e0620be6f572b9609742df49c70aed4d",
            size=502,
        ),
        _remote(
            "setid.mat",
            sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            md5="a5357ecc9cb78c4bef273ce3793fc85c",
            size=14_989,
        ),
        # Of this one only an md5 is known: it finds damage, not malice. Pin a sha256 of your own where that matters.
        _remote(
            "102segmentations.tgz",
            md5="51375996b6c4f367a4b9f4492d7ecef5",
            size=203_577_493,
            into="masks",
            suffixes=frozenset({".jpg"}),
            masks=True,
        ),
    ),
    photos=photos,
    foreground=foreground,
)
