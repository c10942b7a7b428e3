"""Integer arrays from a MATLAB file, by scipy, which may crash on a damaged one: check the pinned hash before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from argan.errors import UserError

LARGEST = 2**53  # integers below it are exact in floating point


def read_integers(path: Path) -> dict[str, np.ndarray]:
    """Every real array of a MATLAB file, by name, flattened in MATLAB's order: int64.

    Raises UserError when the file is missing, damaged, of another version of the format, or holds other than integers.
    """
    try:
        arrays = loadmat(path, appendmat=False)
        real = {name: a for name, a in arrays.items() if isinstance(a, np.ndarray) and a.dtype.kind in "iuf"}
        return {name: _integers(array) for name, array in real.items()}
    except Exception as error:  # scipy meets damaged files with anything
        raise UserError(f"{path.name} cannot be read ({' '.join(str(error).split())}); fetch it again") from error


def _integers(array: np.ndarray) -> np.ndarray:
    if not (np.isfinite(array) & (array == np.round(array)) & (np.abs(array.astype(float)) < LARGEST)).all():
        raise ValueError("an array that holds no integers")
    return array.ravel(order="F").astype(np.int64)
