"""Features that were computed before: extracting them is most of what evaluation takes.

A file per set of photos, named by the hash of all that its features depend on. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from argan.errors import UserError
from argan.files import atomic

Features = NDArray[np.float32]
MAX_FILES = 64  # four a domain and one a model; 16 MB each for 2,000 photos of 2,048 features


class Cache:
    """`with Cache.at(folder) as cache`; without a folder what is written lasts as long as the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def at(cls, folder: Path | None) -> Iterator[Cache]:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder} cannot be a folder ({error.strerror}); move what is there away") from error
            yield cls(folder)
            return
        with TemporaryDirectory() as name:
            yield cls(Path(name))

    def find(self, **key: Any) -> Features | None:
        """The features (N, F), memory-mapped, that were stored under the same key (numbers and texts); None if there are none."""
        path = self._path(key)
        try:
            features = _read(path)
            os.utime(path)  # the longest unused go first
        except Exception:  # missing, or damaged in whatever way: it is made again
            return None
        return features

    @contextmanager
    def put(self, **key: Any) -> Iterator[Writer]:
        """A writer of features, chunk by chunk; when the block ended well, its `features` are what was written."""
        path = self._path(key)
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                writer = Writer(file)
                yield writer
                writer.close()
            writer.features = _read(temporary)  # open from here on, whoever clears the folder away
        with suppress(OSError):  # others may clear up at the same time
            for oldest in sorted(self.folder.glob("*.npy"), key=lambda p: p.stat().st_mtime)[:-MAX_FILES]:
                oldest.unlink(missing_ok=True)

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}.npy"


def _read(path: Path) -> Features:
    features: Features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.dtype != np.dtype("<f4") or features.ndim != 2 or path.stat().st_size != Writer.HEAD + features.nbytes:
        raise ValueError(f"{path} is damaged")
    return features


class Writer:
    """An .npy file (N, F) float32 whose N is known at the end only."""

    HEAD = 128  # bytes: what numpy's header takes for any shape of ours

    def __init__(self, file: Any) -> None:
        self.file, self.rows, self.columns = file, 0, 0
        self.features: Features = np.empty((0, 0), np.float32)
        file.write(bytes(self.HEAD))

    def __call__(self, features: Features) -> None:
        self.file.write(np.ascontiguousarray(features, np.float32).data)
        self.rows, self.columns = self.rows + len(features), features.shape[1]

    def close(self) -> None:
        self.file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.columns)}
        np.lib.format.write_array_header_1_0(self.file, header)
        if self.file.tell() != self.HEAD:
            raise ValueError(f"an .npy header of {self.file.tell()} bytes, not {self.HEAD}")
