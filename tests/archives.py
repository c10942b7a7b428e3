"""Archives of the true layouts of the published datasets, small, and a server that offers them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loopback import Server
from PIL import Image, ImageDraw
from scipy.io import savemat

from argan.photos.sources.dataset import Dataset, RemoteFile

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
SUBJECT = (15, 10, 35, 30)  # of photos of 50 x 40 pixels: brighter than all around it


def picture(seed: int, kind: str, size: tuple[int, int] = (50, 40)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 220, (size[1] // 5, size[0] // 5, 3), np.uint8)
    image = Image.fromarray(noise).resize(size)
    ImageDraw.Draw(image).ellipse(SUBJECT, fill=(255, 255, 255))
    return encoded(image, kind)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def disc(back: object, fore: object, mode: str, kind: str) -> bytes:
    image = Image.new(mode, (50, 40), back)  # type: ignore[arg-type]
    ImageDraw.Draw(image).ellipse(SUBJECT, fill=fore)  # type: ignore[arg-type]
    return encoded(image, kind)


def tgz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in sorted({name.rsplit("/", 1)[0] for name in files if "/" in name}):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def mat(packed: bool = True, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=packed)
    return buffer.getvalue()


def flower_files(lost: str = "") -> dict[str, bytes]:
    """Twelve flowers as Oxford packs them; of the last there is no mask."""
    photos = {f"jpg/image_{i:05d}.jpg": picture(i, "JPEG") for i in range(1, 13)}
    masks = {f"segmim/segmim_{i:05d}.jpg": disc((0, 0, 254), (200, 80, 120), "RGB", "JPEG") for i in range(1, 12)}
    ids = {"trnid": [4, 5, 6], "valid": [1, 9, 12], "tstid": [2, 3, 7, 8, 10, 11]}
    return {
        "102flowers.tgz": tgz({name: data for name, data in photos.items() if name != lost}),
        "imagelabels.mat": mat(labels=np.array([[77] * 6 + [102] * 6], np.uint8)),
        "setid.mat": mat(**{name: np.array([numbers], np.uint16) for name, numbers in ids.items()}),
        "102segmentations.tgz": tgz(masks),
    }


def bird_files(lost: str = "", change: Callable[[dict[str, str]], object] = lambda tables: None) -> dict[str, bytes]:
    """Forty birds as Caltech packs them, with what else lies in the archive."""
    names = [f"{kind}/{kind[4:]}_{i:04d}_{796100 + i}.jpg" for kind in SPECIES for i in range(20)]
    numbered = list(enumerate(names, 1))
    tables = {
        "images.txt": "".join(f"{i} {name}\n" for i, name in numbered),
        "image_class_labels.txt": "".join(f"{i} {int(name[:3])}\n" for i, name in numbered),
        "train_test_split.txt": "".join(f"{i} {i % 2}\n" for i, _ in numbered),
        "bounding_boxes.txt": "".join(f"{i} {i / 2:.1f} 10.0 20.0 21.5\n" for i, _ in numbered),
        "classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n",
        "attributes/image_attribute_labels.txt": "1 1 0 3 27.7\n",
    }
    change(tables)
    root = {f"CUB_200_2011/{name}": text.encode() for name, text in tables.items()}
    photos = {f"CUB_200_2011/images/{name}": picture(i, "JPEG") for i, name in numbered if name != lost}
    masks = {f"segmentations/{name[:-4]}.png": disc(0, 204, "L", "PNG") for name in names}
    return {
        "CUB_200_2011.tgz": tgz({"attributes.txt": b"1 has_bill_shape::curved\n", **root, **photos}),
        "segmentations.tgz": tgz(masks),
    }


def thumbnails(count: int = 12) -> dict[str, bytes]:
    photos = {f"thumbnails128x128/{i // 5 * 1000:05d}/{i:05d}.png": picture(i, "PNG", (128, 128)) for i in range(count)}
    return {"thumbnails128x128/LICENSE.txt": b"CC BY-NC-SA 4.0", **photos}


def metadata(photos: dict[str, bytes]) -> bytes:
    entry = {}
    for name, data in photos.items():
        if name.endswith(".png"):
            file = {"file_url": "https://drive.google.com/uc?id=1", "file_path": name, "file_size": len(data)}
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            large = {"file_path": name.replace("thumbnails128x128", "images1024x1024"), "file_md5": "0" * 32}
            entry[str(int(name[-9:-4]))] = {
                "category": "training",
                "metadata": {"photo_title": '{"thumbnail": {', "author": "x"},
                "image": {**large, "pixel_size": [1024, 1024], "face_landmarks": [[131.6, 453.8]]},
                "thumbnail": {**file, "file_md5": md5, "pixel_size": [128, 128], "pixel_md5": "1" * 32},
            }
    return json.dumps(entry).encode()


def served(dataset: Dataset, server: Server, files: dict[str, bytes]) -> Dataset:
    """The dataset with its files on this machine's server, and the hashes of these."""

    def moved(remote: RemoteFile) -> RemoteFile:
        data = files[remote.name]
        url = server.offer(f"/{remote.name}", data)
        return replace(remote, urls=(url,), sha256=hashlib.sha256(data).hexdigest(), md5=None, size=len(data))

    return replace(dataset, files=tuple(moved(remote) if remote.name in files else remote for remote in dataset.files))
