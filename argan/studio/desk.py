"""What lies on the desk: the models at hand and the photographs that pages have brought. Safe to use from many threads."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from argan import model as models
from argan import photograph
from argan.errors import UserError
from argan.model import Estimate, Model
from argan.studio import work
from argan.studio.work import Pixels, Relief, Scene

LOADED = 3  # models held in memory
PHOTOS = 24  # photographs held, about 15 MB each
FILES = 48  # made for download and kept until that many newer ones are
FILE_BYTES = 128 << 20
PIXELS = 60_000_000
ASKED = 30.0  # seconds until the registry is asked again


@dataclass(frozen=True)
class Offer:
    """A model that can be picked."""

    reference: str
    domain: str
    version: str


class Shelf:
    """The models there are. `first` is the one named on the command line; it is offered wherever it lies."""

    def __init__(self, first: str | None) -> None:
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock, self._asking = threading.RLock(), threading.Lock()
        self._registered: list[Offer] = []
        self._asked = -ASKED
        self._named: Offer | None = None
        if first is not None:
            made = self._hold(first)
            self._named = Offer(first, made.domain, "" if first == made.domain else first)

    def offers(self) -> list[Offer]:
        """At once: what lies in models/, and what the registry said when it was last asked. It is asked behind the scenes."""
        if time.monotonic() - self._asked > ASKED and self._asking.acquire(blocking=False):
            self._asked = time.monotonic()
            threading.Thread(target=self._ask, daemon=True, name="registry").start()
        local = [
            Offer(path.parent.name, path.parent.name, "in models/")
            for path in sorted(models.MODELS.glob("*/config.json"))
            if not path.parent.name.startswith(".")
        ]
        found = [*local, *self._registered]
        if self._named and self._named.reference not in (offer.reference for offer in found):
            found.insert(0, self._named)
        return found

    def default(self) -> str:
        """The model a page opens with. Raises UserError where there is none."""
        if self._named:
            return self._named.reference
        if not (found := self.offers()):
            raise UserError("there is no model in models/; train one (make repro), or name a folder: argan studio FOLDER")
        return found[0].reference

    def get(self, reference: str) -> Model:
        """The model, loaded. Only what is offered is loaded. Raises UserError."""
        with self._lock:
            if reference not in self._loaded and reference not in (offer.reference for offer in self.offers()):
                raise UserError(f"the model '{reference}' is not offered here any more; pick another")
            return self._hold(reference)

    def _hold(self, reference: str) -> Model:
        with self._lock:
            made = self._loaded.pop(reference, None) or Model.load(reference)
            self._loaded[reference] = made
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return made

    def _ask(self) -> None:
        from argan.registry import versions

        try:
            self._registered = [
                Offer(
                    f"models:/{found.name}/{found.version}",
                    found.name.removeprefix("argan-"),
                    f"version {found.version}" + (f", {' and '.join(found.aliases)}" if found.aliases else ""),
                )
                for found in versions()
            ]
        except UserError:  # away: the models in models/ are still there
            self._registered = []
        finally:
            self._asking.release()


class Scenes:
    """Generated scenes, a grid of them at a time; the last few grids are kept."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf, self._lock = shelf, threading.Lock()
        self._cached = lru_cache(16)(self._made)

    def get(self, reference: str, scene: Scene) -> Relief:
        scene.checked()
        wanted: tuple[Scene, ...] = (scene,)
        if scene.to is None and scene.index < work.GRID:  # its neighbours on the page will be asked for next
            wanted = tuple(Scene(scene.seed, i, scene.truncation) for i in range(work.GRID))
        model = self._shelf.get(reference)
        with self._lock:  # one pass at a time, and whoever waits for the same one finds it made
            return self._cached(model, wanted)[wanted.index(scene)]

    @staticmethod
    def _made(model: Model, wanted: tuple[Scene, ...]) -> list[Relief]:
        return work.scenes(model, list(wanted))


def _read(path: Path) -> Photo:
    taken = photograph.read(path)
    height, width = taken.pixels.shape[:2]
    if width * height > PIXELS:
        raise UserError(
            f"{path} is too large: {width} x {height} pixels; the studio takes up to {PIXELS // 1_000_000} million"
        )
    return Photo(path, path.name, width, height, work.reduced(taken.pixels, work.PREVIEW), taken.icc)


@dataclass
class Photo:
    """A photograph that a page has brought, and what models said of it."""

    path: Path
    name: str
    width: int
    height: int
    preview: Pixels  # at most work.PREVIEW pixels
    icc: bytes | None
    said: dict[str, Estimate] = field(default_factory=dict)  # of the preview, by model
    reliefs: dict[str, Relief] = field(default_factory=dict)
    latest: int = 0  # number of the newest preview that was asked for
    lock: Any = field(default_factory=threading.Lock)


class Desk:
    """Photographs and files for download, under names that cannot be guessed: nobody sees another page's."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf, self.folder = shelf, folder
        self._photos: OrderedDict[str, Photo | Path] = OrderedDict()  # a file until it is read
        self.scenes = Scenes(shelf)
        self._files: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()

    def place(self, name: str) -> Path:
        """A new path that ends in `name`."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder / (Path(name.replace("\\", "/")).name[-100:] or "photo")

    def received(self, path: Path) -> str:
        """Note a file that has come; it is read when it is first looked at, in its turn."""
        with self._lock:
            self._photos[path.parent.name] = path
            while len(self._photos) > PHOTOS:
                token, _ = self._photos.popitem(last=False)
                shutil.rmtree(self.folder / token, ignore_errors=True)
        return path.parent.name

    def photo(self, token: str) -> Photo:
        """Raises UserError, with the photo's name, for what is no photo or too large, and when it is held no more."""
        with self._lock:
            if token not in self._photos:
                raise UserError("this photo is not held any more; please drop it again")
            self._photos.move_to_end(token)
            held = self._photos[token]
        if isinstance(held, Photo):
            return held
        try:
            read = _read(held)
        except UserError as error:
            with self._lock:
                self._photos.pop(token, None)
            shutil.rmtree(held.parent, ignore_errors=True)
            raise UserError(str(error).replace(str(held), held.name)) from error
        with self._lock:
            if token in self._photos:
                self._photos[token] = read
        return read

    def estimate(self, photo: Photo, reference: str) -> Estimate:
        """Of the preview; asked for once a model."""
        model = self.shelf.get(reference)
        with photo.lock:
            if reference not in photo.said:
                photo.said[reference] = model.estimate(photo.preview)
            return photo.said[reference]

    def relief(self, photo: Photo, reference: str) -> Relief:
        said = self.estimate(photo, reference)
        with photo.lock:
            if reference not in photo.reliefs:
                photo.reliefs[reference] = Relief(photo.preview, said.disparity, photo.preview)
            return photo.reliefs[reference]

    def keep(self, path: Path) -> str:
        """A file for download: the last part of its address."""
        with self._lock:
            self._files[path.parent.name] = path
            while len(self._files) > FILES:
                _, old = self._files.popitem(last=False)
                shutil.rmtree(old.parent, ignore_errors=True)
        return path.parent.name

    def file(self, token: str) -> Path | None:
        with self._lock:
            return self._files.get(token)
