"""One photo file -> upright sRGB pixels and what its EXIF tells, or a short reason why not.

JPEG, PNG, WebP, TIFF; HEIC with the package pillow-heif, camera raw with rawpy. What a file is, its content says, not its
name. Limits hold before a pixel is decoded. Whoever needs a small picture gets one decoded small: JPEG by its DCT, others by a
box filter, both free of aliases and never below twice the wanted size, so that the one downscale to come is what shapes it.

Decisions, where files leave room:
- a damaged ICC profile is passed over, the pixels taken for sRGB: it says nothing about them, nearly all cameras write sRGB,
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

from argan.photos import photo_file, tiff
from argan.photos.icc import to_srgb
from argan.photos.photo_file import RAW, SUFFIXES, Limits, Refusal

__all__ = ["MARGIN", "RAW", "SUFFIXES", "Exif", "Limits", "Photo", "Refused", "attempt", "decode"]

Pixels = NDArray[np.uint8]
Wanted = Callable[[int, int], float]  # (width, height) of the upright photo -> the scale at which it is wanted, above 0

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
class Photo:
    """A decoded photo. pixels (h, w, 3) uint8 sRGB, upright; one of them is 1 / reduction of the photo's own across."""

    pixels: Pixels
    width: int  # of the photo itself, upright
    height: int
    reduction: int
    format: str
    icc: str  # none, srgb, converted, damaged
    exif: Exif


@dataclass(frozen=True)
class Refused:
    """Why there is no photo: what kind of fault, a colon, details."""

    reason: str


def decode(
    photo: Path | bytes, wanted: Wanted | None = None, limits: Limits = photo_file.DEFAULT, *, name: str = ""
) -> Photo | Refused:
    """Decode a file, or its content with `name` (see `photo_file.identify`). Nothing is raised, whatever the file holds.

    wanted: asked with the upright (width, height) once they are known; the photo is then decoded at MARGIN times the scale it
    returns or above. None: at full size.
    """
    try:
        content = photo_file.load(photo, limits) if isinstance(photo, Path) else photo
        name = name or (photo.name if isinstance(photo, Path) else "")
        return _decoded(photo_file.identify(content, limits, name), wanted)
    except Exception as error:  # decoders meet broken files with anything
        return Refused(photo_file.reason(error))


def attempt(path: Path, limits: Limits = photo_file.DEFAULT) -> bytes | Refused:
    """A file's content, with a reason in the place of an exception."""
    try:
        return photo_file.load(path, limits)
    except (Refusal, OSError) as error:
        return Refused(photo_file.reason(error))


def _decoded(file: photo_file.File, wanted: Wanted | None) -> Photo:
    width, height = (file.width, file.height) if file.orientation < 5 else (file.height, file.width)
    reduction = _reduction(wanted, width, height)
    image, done = file.image(reduction)
    if image.mode == "1":
        raise Refusal("no photograph: 1 bit a pixel")
    image = _opaque(image)
    if reduction // done > 1:
        image = image.reduce(reduction // done)
        done *= reduction // done
    image, icc = to_srgb(image, file.profile)
    if file.format == "RAW":
        icc = "converted"
    pixels = np.asarray(image)
    end = pixels[-max(1, len(pixels) // 50) :]
    if (
        np.ptp(end, (0, 1)).max() == 0 and not file.whole()
    ):  # what is missing of a JPEG that was closed again is an even grey
        raise Refusal("truncated: its data end before the picture does")
    return Photo(photo_file.upright(pixels, file.orientation), width, height, done, file.format, icc, _exif(file.exif))


def _reduction(wanted: Wanted | None, width: int, height: int) -> int:
    """The whole number by which the photo may be made smaller at once."""
    if wanted is None:
        return 1
    scale = wanted(width, height)
    return max(1, int(1 / (MARGIN * scale) + 1e-9)) if scale > 0 else 1


def _opaque(image: Image.Image) -> Image.Image:
    """Without transparency: laid on white; cut-outs refused."""
    if image.has_transparency_data:
        counts = image.convert("RGBA").getchannel("A").histogram()
        clear = sum(counts[:250]) / (image.width * image.height)
        if clear > CUT_OUT:
            raise Refusal(f"cut out: {clear:.0%} of it transparent, no background left")
    return photo_file.opaque(image)


def _exif(content: bytes | None) -> Exif:
    """Damaged EXIF counts as none, field by field."""
    try:
        top = tiff.first(content or b"")
    except tiff.Damaged:
        return Exif()
    camera = top.text(272)[:64] or None
    try:
        shot = top.below(34665)
    except tiff.Damaged:
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
