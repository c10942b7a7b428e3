"""One photo file -> upright sRGB pixels and what its EXIF says, or a short reason why not.

JPEG, PNG, WebP, TIFF; HEIC with the package pillow-heif, camera raw with rawpy. What a file is, its content says, not its
name. Limits hold before a pixel is decoded. Whoever needs a small picture gets one decoded small: JPEG by its DCT, others by a
box filter, both free of aliases and never below twice the wanted size, so that the one downscale to come is what shapes it.

Decisions, where files leave room:
- a damaged ICC profile is ignored, the pixels taken for sRGB: it says nothing about them, nearly all cameras write sRGB,
  and colour does not carry the defocus;
- transparency is laid on white where it is a rounded corner; a photo that is cut out is refused: the background whose
  blur is the signal is gone;
- an animation is refused: no photograph, and its frames are copies of each other. Of many TIFF pages and of JPEGs that hold
  several pictures (gain maps, stereo), the first is the photograph;
- 16 bits become 8 by their upper byte; floating point has no known white and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan.photos import photo_file
from argan.photos.formats import ifd
from argan.photos.icc import to_srgb
from argan.photos.photo_file import PhotoError, PhotoLimits

Pixels = NDArray[np.uint8]
TargetScale = Callable[
    [int, int], float
]  # (width, height) of the upright photo -> the scale at which it is used, above 0

MARGIN = 2  # a photo is never decoded below this many times the wanted size
CUT_OUT = 0.02  # share of transparent pixels above which a photo is a cut-out


@dataclass(frozen=True)
class Exif:
    """What the camera says, each None where it is missing or makes no sense."""

    aperture: float | None = None  # f-number
    focal_length: float | None = None  # millimetres, the lens's own
    taken: str | None = None  # ISO 8601, seconds, in the camera's local time
    camera: str | None = None


@dataclass(frozen=True)
class DecodedPhoto:
    """A decoded photo. pixels (h, w, 3) uint8 sRGB, upright; one of them is 1 / reduction of the photo's own across."""

    pixels: Pixels
    width: int  # of the photo itself, upright
    height: int
    reduction: int
    format: str
    icc: str  # none, srgb, converted, damaged
    exif: Exif


@dataclass(frozen=True)
class DecodeFailure:
    """Why there is no photo: what kind of fault, a colon, details."""

    reason: str


def decode(
    photo: Path | bytes,
    target_scale: TargetScale | None = None,
    limits: PhotoLimits = photo_file.DEFAULT,
    *,
    name: str = "",
) -> DecodedPhoto | DecodeFailure:
    """Decode a file, or its content with `name` (see `photo_file.identify`). Nothing is raised, whatever the file holds.

    target_scale: called with the upright (width, height) once they are known; the photo is then decoded at MARGIN times the
    scale it returns or above. None: at full size.
    """
    try:
        content = photo_file.load(photo, limits) if isinstance(photo, Path) else photo
        name = name or (photo.name if isinstance(photo, Path) else "")
        return _decode(photo_file.identify(content, limits, name), target_scale)
    except Exception as error:  # decoders meet broken files with anything
        return DecodeFailure(photo_file.reason(error))


def load(path: Path, limits: PhotoLimits = photo_file.DEFAULT) -> bytes | DecodeFailure:
    """A file's content, with a reason in place of an exception."""
    try:
        return photo_file.load(path, limits)
    except (PhotoError, OSError) as error:
        return DecodeFailure(photo_file.reason(error))


def _decode(file: photo_file.PictureFile, target_scale: TargetScale | None) -> DecodedPhoto:
    width, height = (file.width, file.height) if file.orientation < 5 else (file.height, file.width)
    reduction = _reduction(target_scale, width, height)
    image, reduced = file.decode(reduction)
    if image.mode == "1":
        raise PhotoError("no photograph: 1 bit a pixel")
    image = _on_white(image)
    if reduction // reduced > 1:
        image = image.reduce(reduction // reduced)
        reduced *= reduction // reduced
    image, icc = to_srgb(image, file.profile)
    if file.format == "RAW":
        icc = "converted"
    pixels = np.asarray(image)
    file.check_complete(pixels)
    pixels = photo_file.upright(pixels, file.orientation)
    return DecodedPhoto(pixels, width, height, reduced, file.format, icc, _exif(file.exif))


def _reduction(target_scale: TargetScale | None, width: int, height: int) -> int:
    """The whole number by which the photo may be made smaller at once."""
    if target_scale is None:
        return 1
    scale = target_scale(width, height)
    return max(1, int(1 / (MARGIN * scale) + 1e-9)) if scale > 0 else 1


def _on_white(image: Image.Image) -> Image.Image:
    """Without transparency: laid on white; cut-outs refused."""
    if image.has_transparency_data:
        counts = image.convert("RGBA").getchannel("A").histogram()
        clear = sum(counts[:250]) / (image.width * image.height)
        if clear > CUT_OUT:
            raise PhotoError(f"cut out: {clear:.0%} of it transparent, no background left")
    return photo_file.on_white(image)


def _exif(content: bytes | None) -> Exif:
    """Damaged EXIF counts as none, field by field."""
    try:
        top = ifd.first(content or b"")
    except ifd.Damaged:
        return Exif()
    camera = top.text(272)[:64] or None
    try:
        shot = top.below(34665)
    except ifd.Damaged:
        return Exif(camera=camera)
    return Exif(
        _within(shot.real(33437), 0.3, 200), _within(shot.real(37386), 0.5, 10_000), _date(shot.text(36867)), camera
    )


def _within(number: float | None, low: float, high: float) -> float | None:
    return round(number, 3) if number is not None and math.isfinite(number) and low <= number <= high else None


def _date(text: str) -> str | None:
    try:
        date = datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return date.isoformat() if 1826 <= date.year <= 2200 else None  # no photograph is older
