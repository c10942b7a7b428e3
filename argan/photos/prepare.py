"""What is done to one photo, in a process of its own: read, hash, decode, check, cut out. It imports neither pandas nor torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.photos import crop, decode, sharpness
from argan.photos.crop import Box, Rule
from argan.photos.decode import DecodeFailure, Exif
from argan.photos.duplicates import perceptual_hash
from argan.photos.photo_file import PhotoLimits

cv2.setNumThreads(1)  # the processes share the cores already
SEEN = 256  # pixels (decoded at twice that) of the shorter side, in which sharp and soft can still be told apart
FLAT = 2  # levels between the darkest and the brightest pixel, in every colour, of what is no picture


@dataclass(frozen=True)
class SourceFile:
    """A photo to take in. `source` names it in the index; the other facts where they are known beforehand.

    sha256: of the bytes, trusted, so that a file known from before is not even read (photos kept by content hash).
    box: the subject. split: the official one.
    """

    path: Path
    source: str
    sha256: str | None = None
    box: Box | None = None
    split: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A photo taken in: pixels (size, size, 3) uint8, and what the index says of it."""

    pixels: NDArray[np.uint8]
    sha256: str  # of the file's bytes
    width: int  # of the photo, upright
    height: int
    crop: Box
    phash: int
    sharpness: bytes  # of its places, packed
    format: str
    exif: Exif


@dataclass(frozen=True)
class Known:
    """A file whose bytes were taken in, or refused, before."""

    sha256: str


@dataclass(frozen=True)
class Fault:
    """A photo refused: why, and the hash of its bytes where they could be read."""

    reason: str
    sha256: str = ""


@dataclass(frozen=True)
class Prepare:
    """`prepare(file)` with its settings; goes to other processes whole. known: hashes of files not to decode again."""

    size: int
    rule: Rule = field(default_factory=Rule)
    limits: PhotoLimits = field(default_factory=PhotoLimits)
    known: frozenset[str] = field(default_factory=frozenset)

    def __call__(self, file: SourceFile) -> Prepared | Known | Fault:
        content = decode.load(file.path, self.limits)
        if isinstance(content, DecodeFailure):
            return Fault(content.reason)
        digest = hashlib.sha256(content).hexdigest()
        if digest in self.known:
            return Known(digest)
        try:
            return self._prepared(file, content, digest)
        except MemoryError:
            return Fault("too large: not enough memory", digest)
        except Exception as error:  # one odd photo must not end the work on all others
            return Fault(f"damaged: {' '.join(str(error).split())[:100] or type(error).__name__}", digest)

    def _prepared(self, file: SourceFile, content: bytes, digest: str) -> Prepared | Fault:
        def target_scale(width: int, height: int) -> float:
            # At least what sharpness is measured at: the measure is then the same whatever size is asked for
            scale = max(self.size, sharpness.SIZE) / crop.side(self.rule, width, height, self.size, file.box)
            return max(scale, SEEN / min(width, height)) if self.rule.where == "sharpness" else scale

        limits = replace(self.limits, shorter=max(self.limits.shorter, self.size))
        photo = decode.decode(content, target_scale, limits, name=file.path.name)
        if isinstance(photo, DecodeFailure):
            return Fault(photo.reason, digest)
        box = crop.square(self.rule, photo.width, photo.height, self.size, file.box, photo.pixels)
        pixels = crop.cut(photo.pixels, photo.reduction, box, self.size)
        if int(np.ptp(pixels, (0, 1)).max()) < FLAT:
            return Fault("constant: every pixel has the same value", digest)
        measured = min(sharpness.SIZE, box.width)  # nothing is upscaled
        square = pixels
        if self.size != measured:
            # As `crop.cut` scales, without what albumentations takes to be called: half a millisecond
            region = crop.region(photo.pixels, photo.reduction, box)
            square = np.asarray(cv2.resize(region, (measured, measured), interpolation=cv2.INTER_AREA), np.uint8)
        return Prepared(
            pixels,
            digest,
            photo.width,
            photo.height,
            box,
            perceptual_hash(photo.pixels),
            sharpness.pack(sharpness.sharpness(square)),
            photo.format,
            photo.exif,
        )
