"""What lies on the desk: the models at hand and the photographs that pages have brought. Safe to use from many threads."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from argan import load
from argan.errors import UserError
from argan.inference.model import MODELS, Model
from argan.photos import photograph
from argan.studio import work
from argan.studio.work import Pixels, Relief, Scene

LOADED = 3  # models held in memory
PHOTOS = 12  # photographs held: up to 20 MB of memory each, and uploads.FILE_BYTES of disk
FILES = 24  # made for download, until gradio has its own copy
NEWEST = 20  # versions of a registered model that are offered, beside the champion
ASKED = 30.0  # seconds until the registry is asked again


@dataclass(frozen=True)
class Offer:
    """A model that can be picked."""

    reference: str
    domain: str
    version: str

    @property
    def label(self) -> str:
        return f"{self.domain} · {self.version}"


class Shelf:
    """The models there are. `first` is the one named on the command line; it is offered wherever it lies."""

    def __init__(self, first: str | None = None) -> None:
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock, self._asking = threading.RLock(), threading.Lock()
        self._registered: list[Offer] = []
        self._asked = -ASKED
        self._named: Offer | None = None
        if first is not None:
            self._named = Offer(first, self._hold(first).domain, first)
        elif not self._local():
            self._asked, _ = time.monotonic(), self._asking.acquire()
            self._ask()
            champions = [offer for offer in self._registered if "champion" in offer.version] or self._registered
            if not champions:
                raise UserError(
                    "there is no model, neither in models/ nor in the registry; train one (make repro), or name a folder: "
                    "argan studio FOLDER"
                )
            self._named = champions[0]

    def offers(self) -> list[Offer]:
        """At once: what lies in models/, and what the registry said when it was last asked. It is asked behind the scenes."""
        if time.monotonic() - self._asked > ASKED and self._asking.acquire(blocking=False):
            self._asked = time.monotonic()
            threading.Thread(target=self._ask, daemon=True, name="registry").start()
        found = [*self._local(), *self._registered]
        if self._named and self._named.reference not in (offer.reference for offer in found):
            found.insert(0, self._named)
        return found

    @property
    def default(self) -> str:
        """The model a page opens with."""
        return (self._named or self._local()[0]).reference

    def get(self, reference: str) -> Model:
        """The model, loaded. Only what is offered is loaded. Raises UserError."""
        with self._lock:
            if reference not in self._loaded and reference not in (offer.reference for offer in self.offers()):
                raise UserError(f"the model '{reference}' is not offered here any more; pick another")
            return self._hold(reference)

    def _hold(self, reference: str) -> Model:
        with self._lock:
            made = self._loaded.pop(reference, None) or load(reference)
            self._loaded[reference] = made
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return made

    @staticmethod
    def _local() -> list[Offer]:
        folders = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
        return [Offer(name, name, "in models/") for name in folders if not name.startswith(".")]

    def _ask(self) -> None:
        from argan import registry

        try:
            catalogue, found = registry.open_catalogue(registry.tracking_uri()), []
            for model in catalogue.models():
                for i, version in enumerate(catalogue.versions(model.name)):
                    aliases = sorted(alias for alias, number in model.aliases.items() if number == version.number)
                    if aliases or i < NEWEST:
                        told = f"version {version.number}" + (f", {' and '.join(aliases)}" if aliases else "")
                        found.append(Offer(f"models:/{model.name}/{version.number}", model.domain, told))
            self._registered = found
        except UserError:  # away: the models in models/ are still there
            self._registered = []
        finally:
            self._asking.release()


@dataclass
class Photo:
    """A photograph that a page has brought, and what models said of it."""

    token: str
    path: Path
    width: int
    height: int
    preview: Pixels
    icc: bytes | None
    reliefs: OrderedDict[str, Relief] = field(default_factory=OrderedDict)  # by model
    lock: Any = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.path.name


class Desk:
    """Photographs lie here under names that cannot be guessed: nobody sees another page's."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.shelf, self.folder = shelf, folder
        self._photos: OrderedDict[str, Photo] = OrderedDict()
        self._files: deque[Path] = deque()
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._made = lru_cache(16)(lambda model, scenes: work.scenes(model, scenes))

    def scene(self, reference: str, scene: Scene) -> Relief:
        """A generated scene. Its neighbours are made with it: the page asks for them next. The last few grids are kept."""
        model = self.shelf.get(reference)
        wanted = tuple(work.neighbours(scene))
        if scene not in wanted:
            wanted = (scene,)
        with self._making:  # one pass at a time, and whoever waits for the same one finds it made
            return self._made(model, wanted)[wanted.index(scene)]

    def receive(self, path: Path) -> Photo:
        """Take in a file. Raises UserError, with the file's name, where it is no photo."""
        taken = _read(path)
        kept = self._place(path.name)
        try:
            os.link(path, kept)  # what gradio was sent, it deletes in time
        except OSError:
            shutil.copyfile(path, kept)
        height, width = taken.pixels.shape[:2]
        token = kept.parent.name
        photo = Photo(token, kept, width, height, work.reduced(taken.in_8_bits), taken.icc)
        with self._lock:
            self._photos[token] = photo
            while len(self._photos) > PHOTOS:
                _, old = self._photos.popitem(last=False)
                shutil.rmtree(old.path.parent, ignore_errors=True)
        return photo

    def photo(self, token: str) -> Photo:
        """Raises UserError when it is held no more."""
        with self._lock:
            if token not in self._photos:
                raise UserError("this photo is not held any more; please drop it again")
            self._photos.move_to_end(token)
            return self._photos[token]

    def relief(self, reference: str, token: str) -> Relief:
        """A photograph with its depth; a model is asked once."""
        photo = self.photo(token)
        model = self.shelf.get(reference)
        with photo.lock:
            if reference not in photo.reliefs:
                photo.reliefs[reference] = work.photograph(model, photo.preview, photo.icc)
                while len(photo.reliefs) > 2:
                    photo.reliefs.popitem(last=False)
            return photo.reliefs[reference]

    def shown(self, stage: Mapping[str, Any]) -> Relief:
        """What a stage of the page shows: {model, photo} or {model, scene}. Raises UserError."""
        if stage.get("photo"):
            return self.relief(str(stage["model"]), str(stage["photo"]))
        try:
            return self.scene(str(stage["model"]), Scene(**stage["scene"]))
        except (KeyError, TypeError) as error:
            raise UserError("there is nothing to show yet: open a scene, or drop a photo") from error

    def develop(self, token: str, reference: str, aperture: float, focus: tuple[float, float], shape: str) -> Path:
        """The photograph at full size through an aperture: what `argan bokeh` writes, in a new file. Raises UserError."""
        held = self.photo(token)
        self.relief(reference, token).through(aperture, focus, shape, 64)  # says at once what is wrong
        taken = _read(held.path)
        made = self.shelf.get(reference).bokeh(taken, aperture, focus, shape)
        path = self.place(f"{held.path.stem}.bokeh.png")
        photograph.write_png(path, made, taken.icc, taken.exif)
        return path

    def place(self, name: str) -> Path:
        """A new path that ends in `name`, for a file that is fetched at once."""
        path = self._place(name)
        with self._lock:
            self._files.append(path)
            while len(self._files) > FILES:
                shutil.rmtree(self._files.popleft().parent, ignore_errors=True)
        return path

    def _place(self, name: str) -> Path:
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder / (Path(name.replace("\\", "/")).name[-100:] or "photo")


def _read(path: Path) -> photograph.Photograph:
    """What is wrong names the file, not where it lies."""
    try:
        return photograph.read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error
