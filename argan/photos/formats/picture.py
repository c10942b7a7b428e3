"""What the readers of all formats share: the limits, the errors, and a picture whose header was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 120_000_000  # the largest sensors have as many; 30,000 x 30,000 would be 2.7 GB
MAX_FILE_BYTES = 256 << 20  # an uncompressed TIFF of 45 megapixels with 16 bits a colour
MAX_SCANS = 100  # of a progressive JPEG: cameras and editors write about ten, each is a pass over all pixels
MAX_SCANNED_PIXELS = 2_000_000_000  # pixels times scans: 16 scans of the largest sensor
MAX_SEGMENTS = 10_000  # of a JPEG or a WebP: 256 MiB of full ones are 4,096
MAX_PROFILE_BYTES = 4 << 20  # of a colour profile: those of printers have one or two million


class PhotoError(Exception):
    """Why a file is not read: the kind of fault, a colon, details. In one line."""


class UnknownFormat(PhotoError):
    """It is empty, or in none of the formats that are read."""


class TooLarge(PhotoError):
    """It has more pixels than allowed."""


class Animated(PhotoError):
    """It holds an animation."""


@dataclass(frozen=True)
class PhotoLimits:
    """What is refused before it is decoded."""

    file_bytes: int = MAX_FILE_BYTES
    pixels: int = MAX_PIXELS
    shorter: int = 1  # pixels of the shorter side at least: nothing is upscaled

    def check(self, width: int, height: int) -> None:
        """Raises PhotoError for a size that is too large or too small."""
        if width * height > self.pixels:
            raise TooLarge(f"bomb: {width} x {height} pixels, more than {self.pixels / 1e6:g} million")
        if min(width, height) < self.shorter:
            raise PhotoError(f"too small: {width} x {height} pixels, the shorter side must have {self.shorter}")


@dataclass(frozen=True)
class PictureFile:
    """A picture whose header was read and is within the limits. Sizes are as stored, before `orientation` is applied."""

    format: str  # JPEG, PNG, WEBP, TIFF, HEIF or RAW
    width: int
    height: int
    orientation: int  # 1 to 8, as in EXIF
    exif: bytes | None  # as stored, without the header Exif\0\0
    profile: bytes | None  # ICC
    decoder: Callable[[int], tuple[Image.Image, int]]  # see `decode`
    decode_16_bit: Callable[[], NDArray[np.uint16]] | None = None  # (H, W, 1 to 4): grey or RGB, alpha; None: 8 bits
    cicp: bytes | None = None  # of a PNG: how its colours are coded (ITU-T H.273), before any profile
    is_complete: Callable[[], bool] = lambda: True  # whether the data reach the end of the picture; costs a decode

    def decode(self, reduction: int = 1) -> tuple[Image.Image, int]:
        """The pixels, 8 bits in the file's own mode, not rotated; and by how much each side is smaller than the file's.

        reduction: the most that this may be; formats that decode faster at a smaller scale make use of it. Raises PhotoError,
        or what its decoder raises of a damaged file (see `photo_file.reason`).
        """
        return self.decoder(reduction)

    def check_complete(self, pixels: NDArray[Any]) -> None:
        """Raises PhotoError where `pixels` (H, W, C), as stored, end in one even colour because the data end before them.

        Decoders fill what is missing of a JPEG that was closed again with an even grey. So this must see the pixels before
        they are rotated upright: the last rows as stored may be the left or right edge of the photo.
        """
        last = pixels[-max(1, len(pixels) // 50) :]
        if np.ptp(last, (0, 1)).max() == 0 and not self.is_complete():
            raise PhotoError("truncated: its data end before the picture does")


def bounded_profile(profile: bytes) -> bytes | None:
    return profile if 0 < len(profile) <= MAX_PROFILE_BYTES else None
