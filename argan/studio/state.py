"""What the studio holds: uploaded photographs, generated scenes and files to download. Safe to use from many threads."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from argan.errors import UserError
from argan.photos import photograph
from argan.studio import images
from argan.studio.catalog import ModelCatalog
from argan.studio.images import DepthImage, Pixels, SceneAddress

MAX_PHOTOS = 12  # photographs held: up to 20 MB of memory each, and uploads.FILE_BYTES of disk
MAX_FILES = 24  # made for download, until gradio has its own copy


@dataclass
class UploadedPhoto:
    """An uploaded photograph, and its depth by the models it was shown with."""

    token: str
    path: Path
    width: int
    height: int
    preview: Pixels
    icc: bytes | None
    depth_images: OrderedDict[str, DepthImage] = field(default_factory=OrderedDict)  # by model
    lock: Any = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.path.name


class StudioState:
    """Photographs are held under tokens that cannot be guessed: no page sees another page's."""

    def __init__(self, catalog: ModelCatalog, folder: Path) -> None:
        self.catalog, self.folder = catalog, folder
        self._photos: OrderedDict[str, UploadedPhoto] = OrderedDict()
        self._files: deque[Path] = deque()
        self._lock, self._generation_lock = threading.Lock(), threading.Lock()
        self._generate = lru_cache(16)(lambda model, scenes: images.generate(model, scenes))

    def scene(self, reference: str, scene: SceneAddress) -> DepthImage:
        """A generated scene. Its neighbours are made with it: the page asks for them next. The last few grids are kept."""
        model = self.catalog.get(reference)
        addresses = tuple(images.neighbours(scene))
        if scene not in addresses:
            addresses = (scene,)
        with self._generation_lock:  # one pass at a time: whoever waits for the same one finds it in the cache
            return self._generate(model, addresses)[addresses.index(scene)]

    def add_photo(self, path: Path) -> UploadedPhoto:
        """Take in a file. Raises UserError, with the file's name, where it is no photo."""
        source = _read(path)
        target = self._new_path(path.name)
        try:
            os.link(path, target)  # what gradio was sent, it deletes in time
        except OSError:
            shutil.copyfile(path, target)
        height, width = source.pixels.shape[:2]
        token = target.parent.name
        photo = UploadedPhoto(token, target, width, height, images.reduced(source.in_8_bits), source.icc)
        with self._lock:
            self._photos[token] = photo
            while len(self._photos) > MAX_PHOTOS:
                _, old = self._photos.popitem(last=False)
                shutil.rmtree(old.path.parent, ignore_errors=True)
        return photo

    def photo(self, token: str) -> UploadedPhoto:
        """Raises UserError when it is held no more."""
        with self._lock:
            if token not in self._photos:
                raise UserError("this photo is not held any more; please drop it again")
            self._photos.move_to_end(token)
            return self._photos[token]

    def depth_image(self, reference: str, token: str) -> DepthImage:
        """A photograph with its depth; a model is asked once."""
        photo = self.photo(token)
        model = self.catalog.get(reference)
        with photo.lock:
            if reference not in photo.depth_images:
                photo.depth_images[reference] = images.estimate_photo(model, photo.preview, photo.icc)
                while len(photo.depth_images) > 2:
                    photo.depth_images.popitem(last=False)
            return photo.depth_images[reference]

    def shown(self, value: Mapping[str, Any]) -> DepthImage:
        """What a viewer of the page shows: {model, photo} or {model, scene}. Raises UserError."""
        if value.get("photo"):
            return self.depth_image(str(value["model"]), str(value["photo"]))
        try:
            return self.scene(str(value["model"]), SceneAddress(**value["scene"]))
        except (KeyError, TypeError) as error:
            raise UserError("there is nothing to show yet: open a scene, or drop a photo") from error

    def write_bokeh(self, token: str, reference: str, aperture: float, focus: tuple[float, float], shape: str) -> Path:
        """The photograph at full size through an aperture: what `argan bokeh` writes, in a new file. Raises UserError."""
        held = self.photo(token)
        self.depth_image(reference, token).through(aperture, focus, shape, 64)  # says at once what is wrong
        source = _read(held.path)
        blurred = self.catalog.get(reference).bokeh(source, aperture, focus, shape)
        path = self.new_file(f"{held.path.stem}.bokeh.png")
        photograph.write_png(path, blurred, source.icc, source.exif)
        return path

    def new_file(self, name: str) -> Path:
        """A new path that ends in `name`, for a file that is fetched at once."""
        path = self._new_path(name)
        with self._lock:
            self._files.append(path)
            while len(self._files) > MAX_FILES:
                shutil.rmtree(self._files.popleft().parent, ignore_errors=True)
        return path

    def _new_path(self, name: str) -> Path:
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder / (Path(name.replace("\\", "/")).name[-100:] or "photo")


def _read(path: Path) -> photograph.Photograph:
    """What is wrong names the file, not where it lies."""
    try:
        return photograph.read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error
