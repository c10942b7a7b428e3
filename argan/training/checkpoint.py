"""Checkpoints: atomic, fingerprinted, resumable. Safetensors with a JSON header; nothing is ever pickled.

A checkpoint is one file `<images seen>.safetensors`. Its fingerprint (params, data, schema) must match, else training starts
fresh and says so. A damaged file is passed over, by name, for the one before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from argan.errors import UserError
from argan.files import atomic
from argan.interrupt import uninterrupted_save

SCHEMA = 1  # raise when the meaning of a stored tensor changes


def fingerprint(params: dict[str, Any], data: str) -> str:
    """One short hash of everything that makes two trainings the same training."""
    text = json.dumps({"schema": SCHEMA, "params": params, "data": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Tensors and a JSON-able description, in one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"meta": json.dumps(meta or {}, sort_keys=True)})
        except SafetensorError as error:  # what the system said, a full disk for one
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The reverse of `write_tensors`. Raises UserError for a file that is missing, half written or something else."""
    try:
        with safe_open(path, framework="pt") as file:
            names, header = list(file.keys()), file.metadata() or {}
            return {name: file.get_tensor(name) for name in names}, json.loads(header.get("meta", "{}"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; train the model first (dvc repro)") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); delete it and run the stage again"
        ) from error


def save(folder: Path, images: int, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of `images` seen and drop what came before it but for the newest `keep` in all.

    However slow the disk, no signal's watchdog cuts it off (`argan.interrupt`).
    """
    path = folder / f"{images:012d}.safetensors"
    with uninterrupted_save():
        write_tensors(path, tensors, meta)
        for old in [p for p in _numbered(folder) if int(p.stem) <= images][keep:]:
            old.unlink()
    return path


def newest(folder: Path, print_: str, say: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest valid checkpoint whose fingerprint is `print_`, or None to start fresh. Whatever is refused is said.

    What a kill in the middle of a write has left is removed: only one training at a time uses a folder.
    """
    for half in folder.glob(".*.safetensors.*.tmp"):
        half.unlink()
    foreign = None
    for path in _numbered(folder):
        try:
            tensors, meta = read_tensors(path)
        except UserError as error:
            say(f"checkpoint passed over: {error}")
            continue
        if meta.get("fingerprint") != print_:
            foreign = foreign or path
            continue
        return tensors, meta
    if foreign:
        say(f"{foreign} belongs to other params or photos: starting fresh")
    return None


def _numbered(folder: Path) -> list[Path]:
    return sorted(
        (p for p in folder.glob("*.safetensors") if p.stem.isdigit()), key=lambda p: int(p.stem), reverse=True
    )
