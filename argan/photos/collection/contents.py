"""An opened collection: what it holds, read from its preview and its photos."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from argan.errors import UserError
from argan.photos.prepare import SourceFile

HOME = Path("data/collections")
UNMEASURED = "Not measured: the numbers are gone or of an earlier version. Add anything and they are made again."


@dataclass(frozen=True)
class Collection:
    """An opened collection. index: a row per photo, the columns of `ingest`."""

    name: str
    folder: Path
    index: pd.DataFrame
    quarantine: pd.DataFrame

    @classmethod
    def open(cls, name: str, home: Path = HOME) -> Collection:
        """Raises UserError where there is none, or it is damaged."""
        folder = home / name
        try:
            index = pd.read_parquet(folder / "preview" / "index.parquet")
            quarantine = pd.read_csv(folder / "preview" / "quarantine.csv", keep_default_na=False, dtype=str)
        except FileNotFoundError as error:
            known = ", ".join(names(home)) or "none yet"
            raise UserError(
                f"there is no collection '{name}' (known: {known}); make it with `argan collection add {name} SOURCE`"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}/preview is damaged ({' '.join(str(error).split())[:200]}); delete that folder and add anything: "
                f"what is in {folder}/photos stays, and is looked through again"
            ) from error
        return cls(name, folder, index, quarantine)

    @classmethod
    def empty(cls, name: str, home: Path = HOME) -> Collection:
        """One without photos, not written anywhere."""
        index = pd.DataFrame(columns=["source", "file_sha256", "split"])
        return cls(name, home / name, index, pd.DataFrame(columns=["source", "reason", "file_sha256"]))

    @property
    def revision(self) -> str:
        """16 hexadecimal digits that change with the photos and with how they are split."""
        table = self.index[["file_sha256", "group", "split"]].sort_values("file_sha256")
        return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]

    @property
    def quality(self) -> dict[str, Any] | None:
        """The numbers beside its report, see `quality.measure`; None where they are gone, damaged or of an earlier version."""
        try:
            numbers = json.loads((self.folder / "preview" / "quality.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return numbers if isinstance(numbers, dict) and "measured_at" in numbers else None

    @property
    def unfit(self) -> list[str]:
        """Why AR-GAN cannot learn from it; empty where it can."""
        numbers = self.quality
        return [UNMEASURED] if numbers is None else list(numbers["unfit"])

    def files(self) -> list[SourceFile]:
        """The photos, to take in: hashes known, splits fixed. Those that are gone from the disk are left out."""
        paths = photo_paths(self.folder)
        rows = self.index[["source", "file_sha256", "split"]].itertuples(index=False, name=None)
        return [
            SourceFile(paths[digest], source, digest, split=split) for source, digest, split in rows if digest in paths
        ]


def photo_paths(folder: Path) -> dict[str, Path]:
    """The photos of a collection's folder that are on the disk, by the hash of their bytes."""
    return {path.stem: path for path in folder.glob("photos/??/*") if re.fullmatch("[0-9a-f]{64}", path.stem)}


def names(home: Path = HOME) -> list[str]:
    """Of the collections there are, sorted."""
    return sorted(path.parent.parent.name for path in home.glob("[!.]*/preview/index.parquet"))
