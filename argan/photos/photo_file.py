"""The one place where picture files are opened: what a file is, within which limits, and its pixels as they are stored.

A file's content decides what it is, never its name. Only JPEG, PNG, WebP, TIFF, HEIC and camera raw are read, each by its own
decoder called by name (`argan.photos.formats`); none of the others that Pillow knows is tried, some of which start other
programs. All limits hold before a pixel is decoded, and decoders are given what they need of a file and no more: no text, no
EXIF, no trailing video. That bounds their work, which nothing can interrupt, by the number of pixels.

`argan.photos.photograph` makes full-quality photographs of it, `argan.photos.decode` small ones for collections.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan.photos.formats import heif, ifd, jpeg, png, raw, tiff, webp
from argan.photos.formats.picture import (
    MAX_PIXELS,
    Animated,
    PhotoError,
    PhotoLimits,
    PictureFile,
    TooLarge,
    UnknownFormat,
)

__all__ = [
    "MAX_PIXELS",
    "RAW_SUFFIXES",
    "SUFFIXES",
    "Animated",
    "PhotoError",
    "PhotoLimits",
    "PictureFile",
    "TooLarge",
    "UnknownFormat",
    "identify",
    "load",
    "on_white",
    "pixels",
    "reason",
    "upright",
]

RAW_SUFFIXES = raw.SUFFIXES
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif"),
    *RAW_SUFFIXES,
)
DEFAULT = PhotoLimits()

T = TypeVar("T", bound=np.generic)


def load(path: Path, limits: PhotoLimits = DEFAULT) -> bytes:
    """A regular file's content. Raises PhotoError, OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PhotoError("no regular file")  # to open a pipe would wait for ever
    if status.st_size > limits.file_bytes:
        raise PhotoError(f"file too large: {status.st_size >> 20} MiB, more than {limits.file_bytes >> 20}")
    with path.open("rb") as file:
        return file.read(limits.file_bytes + 1)


def identify(content: bytes, limits: PhotoLimits = DEFAULT, name: str = "") -> PictureFile:
    """What a file is, from its content. Raises PhotoError where it is none of the formats, or exceeds the limits.

    name: of use only for a TIFF with the suffix of a camera raw, whose maker's tags are not known.
    """
    if not content:
        raise UnknownFormat("empty: 0 bytes")
    try:
        if content[:3] == b"\xff\xd8\xff":
            return jpeg.read(content, limits)
        if content[:8] == png.SIGNATURE:
            return png.read(content, limits)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return webp.read(content, limits)
        if content[4:8] == b"ftyp" and content[8:12] in heif.BRANDS:
            return heif.read(content, limits)
        if raw.is_raw(content):
            return raw.read(content, limits)
        if ifd.is_tiff(content):
            is_raw = name.lower().endswith(RAW_SUFFIXES) or ifd.is_raw(ifd.first(content))
            return raw.read(content, limits) if is_raw else tiff.read(content, limits)
    except ifd.Damaged as error:
        has_kind = re.match(r"(no photograph|truncated|bomb): ", str(error))
        raise PhotoError(str(error) if has_kind else f"damaged: {error}") from error
    if content[:4] == b"GIF8":
        raise Animated("not an image: a GIF, which is for animations")
    raise UnknownFormat("not an image: no JPEG, PNG, WebP, TIFF, HEIC or camera raw")


def upright(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """(H, W, C), rotated and mirrored as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def reason(error: BaseException) -> str:
    """Why a decoder failed, in one line: the kind of fault, a colon, details."""
    if isinstance(error, PhotoError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "not there"
    if isinstance(error, PermissionError):
        return "not readable: permission denied"
    if isinstance(error, MemoryError):
        return "too large: not enough memory"
    words = ("truncated", "end of file", "premature", "unexpected end")
    if isinstance(error, EOFError) or any(word in text.lower() for word in words):
        return f"truncated: {text.removeprefix('truncated: ')[:100]}" if text else "truncated"
    return f"damaged: {(text or type(error).__name__)[:100]}"


def on_white(image: Image.Image) -> Image.Image:
    """Without a palette and without transparency, which is laid on white."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def pixels(path: str | os.PathLike[str], longest: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a file made by a program (a mask, a plot), as stored; at most `longest` pixels on its longer side.

    Raises PhotoError and OSError, each with a reason in one line.
    """
    file = identify(load(Path(path)))
    try:
        largest = max(file.width, file.height)
        image = on_white(file.decode(max(1, largest // (2 * longest)) if longest else 1)[0])
        if longest:
            image.thumbnail((longest, longest))
        return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise PhotoError(reason(error)) from error
