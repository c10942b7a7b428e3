"""Checkpoints: atomic, fingerprinted, resumable.

A checkpoint is one safetensors file `<images seen>.safetensors`. Its fingerprint (params, data, schema) must match, else training
starts fresh and reports it. A damaged file is skipped, by name, in favour of the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from argan.errors import UserError
from argan.interrupt import uninterrupted_save
from argan.tensors import read_tensors, write_tensors

SCHEMA = 1  # raise when the meaning of a stored tensor changes


def fingerprint(params: dict[str, Any], data: str) -> str:
    """One short hash of everything that makes two trainings the same training."""
    text = json.dumps({"schema": SCHEMA, "params": params, "data": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_folder(home: Path, fingerprint: str, say: Callable[[str], None]) -> Path:
    """The folder of the training with this fingerprint within `home`. The previous training's folder stays, to be resumed should
    the params change back; older ones are removed."""
    folder = home / fingerprint
    others = sorted((p for p in home.iterdir() if p.is_dir() and p != folder), key=lambda p: p.stat().st_mtime)
    if others and not folder.exists():
        say(f"params, photos or code are not those of the checkpoints in {others[-1]}: starting fresh (those stay)")
    for old in others[:-1]:
        say(f"removing the checkpoints in {old}: those of the training before stay, and of none older")
        shutil.rmtree(old)
    folder.mkdir(exist_ok=True)
    os.utime(folder)  # files written into subfolders do not change its time
    return folder


def save(folder: Path, images: int, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint at `images` seen, and remove earlier ones beyond the newest `keep`.

    However slow the disk, no signal's watchdog cuts it off (`argan.interrupt`).
    """
    path = folder / f"{images:012d}.safetensors"
    with uninterrupted_save():
        write_tensors(path, tensors, meta)
        for old in [p for p in _newest_first(folder) if int(p.stem) <= images][keep:]:
            old.unlink()
    return path


def newest(
    folder: Path, fingerprint: str, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest valid checkpoint with this fingerprint, or None to start fresh. Every rejected file is reported through `say`.

    Temporary files left by a kill in the middle of a write are removed: only one training at a time uses a folder.
    """
    for temporary in folder.glob(".*.safetensors.*.tmp"):
        temporary.unlink()
    foreign = None
    for path in _newest_first(folder):
        try:
            tensors, meta = read_tensors(path)
        except UserError as error:
            say(f"checkpoint passed over: {error}")
            continue
        if meta.get("fingerprint") != fingerprint:
            foreign = foreign or path
            continue
        return tensors, meta
    if foreign:
        say(f"{foreign} belongs to other params or photos: starting fresh")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.glob("*.safetensors") if p.stem.isdigit()), key=lambda p: int(p.stem), reverse=True
    )
