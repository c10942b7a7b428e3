"""Tensors in safetensors files with a JSON description, written atomically; nothing is ever pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from argan.errors import UserError
from argan.files import atomic


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Tensors and a JSON-able description in one safetensors file, atomically. Raises OSError where it cannot be written."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"meta": json.dumps(meta or {}, sort_keys=True)})
        except SafetensorError as error:  # the system's own message, a full disk for one
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The reverse of `write_tensors`. Raises UserError for a file that is missing, truncated or not safetensors."""
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


def strip_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, under the rest of their names."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
