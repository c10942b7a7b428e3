"""The models that the studio offers: those in models/ and those in the registry. Safe to use from many threads."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from argan import load
from argan.errors import UserError
from argan.inference.model import MODELS, Model

MAX_LOADED = 3  # models held in memory
MAX_VERSIONS = 20  # newest versions of a registered model that are offered, beside the champion
REFRESH_SECONDS = 30.0  # until the registry is read again


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be picked."""

    reference: str
    domain: str
    version: str

    @property
    def label(self) -> str:
        return f"{self.domain} · {self.version}"


class ModelCatalog:
    """The models there are. `first` is the one named on the command line; it is offered wherever it lies."""

    def __init__(self, first: str | None = None) -> None:
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock, self._refreshing = threading.RLock(), threading.Lock()
        self._registered: list[ModelEntry] = []
        self._refreshed_at = -REFRESH_SECONDS
        self._preferred: ModelEntry | None = None
        if first is not None:
            self._preferred = ModelEntry(first, self._load(first).domain, first)
        elif not self._local():
            self._refreshed_at, _ = time.monotonic(), self._refreshing.acquire()
            self._refresh()
            champions = [entry for entry in self._registered if "champion" in entry.version] or self._registered
            if not champions:
                raise UserError(
                    "there is no model, neither in models/ nor in the registry; train one (make repro), or name a folder: "
                    "argan studio FOLDER"
                )
            self._preferred = champions[0]

    def entries(self) -> list[ModelEntry]:
        """What lies in models/, and what the registry held when it was last read. It is read in the background."""
        if time.monotonic() - self._refreshed_at > REFRESH_SECONDS and self._refreshing.acquire(blocking=False):
            self._refreshed_at = time.monotonic()
            threading.Thread(target=self._refresh, daemon=True, name="registry").start()
        entries = [*self._local(), *self._registered]
        if self._preferred and self._preferred.reference not in (entry.reference for entry in entries):
            entries.insert(0, self._preferred)
        return entries

    @property
    def default(self) -> str:
        """The model a page opens with."""
        return (self._preferred or self._local()[0]).reference

    def get(self, reference: str) -> Model:
        """The model, loaded. Only what is offered is loaded. Raises UserError."""
        with self._lock:
            if reference not in self._loaded and reference not in (entry.reference for entry in self.entries()):
                raise UserError(f"the model '{reference}' is not offered here any more; pick another")
            return self._load(reference)

    def _load(self, reference: str) -> Model:
        with self._lock:
            model = self._loaded.pop(reference, None) or load(reference)
            self._loaded[reference] = model
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return model

    @staticmethod
    def _local() -> list[ModelEntry]:
        folders = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
        return [ModelEntry(name, name, "in models/") for name in folders if not name.startswith(".")]

    def _refresh(self) -> None:
        from argan import registry

        try:
            catalogue, entries = registry.open_catalogue(registry.tracking_uri()), []
            for model in catalogue.models():
                for i, version in enumerate(catalogue.versions(model.name)):
                    aliases = sorted(alias for alias, number in model.aliases.items() if number == version.number)
                    if aliases or i < MAX_VERSIONS:
                        label = f"version {version.number}" + (f", {' and '.join(aliases)}" if aliases else "")
                        entries.append(ModelEntry(f"models:/{model.name}/{version.number}", model.domain, label))
            self._registered = entries
        except UserError:  # away: the models in models/ are still there
            self._registered = []
        finally:
            self._refreshing.release()
