"""Photographs as a model takes them: read from a file or an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from argan.errors import UserError
from argan.photos import photograph
from argan.photos.photograph import Photograph

Pixels = NDArray[np.uint8]
Photo = str | Path | Image.Image | Pixels | Photograph


def read_photo(photo: Photo) -> Pixels:
    """A photograph, upright, as uint8 (H, W, 3). Raises UserError naming the file and why it is refused."""
    if isinstance(photo, Photograph):
        return photo.in_8_bits
    if isinstance(photo, str | Path):
        return photograph.read(photo).in_8_bits
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.size == 0:
            raise UserError(f"a photo as an array must be uint8 (H, W, 3), got {photo.dtype} {photo.shape}")
        photo = Image.fromarray(photo)
    try:
        return photograph.to_8_bit(ImageOps.exif_transpose(photo))
    except Exception as error:  # decoders meet broken files with anything
        raise UserError(f"the photo cannot be read ({error or type(error).__name__}); it may be cut off") from error
