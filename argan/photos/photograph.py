"""Photographs of one's own: read upright with all that is to be kept of them, and written as PNG with it.

Values are kept as they are in the file, 8 or 16 bits, beside the colour profile that says what they mean; only what a PNG cannot
say is converted (CMYK, transparency, camera raw).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan.errors import UserError
from argan.files import atomic
from argan.photos import photo_file
from argan.photos.formats import exif as exif_format
from argan.photos.icc import grey_to_srgb, to_srgb
from argan.photos.photo_file import MAX_PIXELS, PhotoLimits

__all__ = ["MAX_PIXELS", "Photograph", "TooManyPixels", "png", "read", "to_8_bit", "write_png"]


class TooManyPixels(UserError):
    """The photograph has more pixels than allowed; nothing was decoded."""


@dataclass(frozen=True)
class Photograph:
    """A photograph, upright."""

    pixels: NDArray[Any]  # (H, W, 3) uint8 or uint16, RGB in the colours of the profile
    icc: bytes | None = None  # the profile; None: sRGB
    exif: bytes | None = None  # with the orientation set to upright
    cicp: bytes | None = None  # PNG's code of the colours, which goes before the profile

    @property
    def in_8_bits(self) -> NDArray[np.uint8]:
        """The same in 8 bits, as networks see it; the profile is left out of account, as in most photographs it may be."""
        return self.pixels if self.pixels.dtype == np.uint8 else (self.pixels >> 8).astype(np.uint8)


def read(path: str | Path, pixels: int = MAX_PIXELS) -> Photograph:
    """Read JPEG, PNG, WebP, TIFF, HEIC or camera raw, identified by content.

    pixels: the most that are decoded. Raises TooManyPixels where the photograph has more, UserError for any other reason, each
    naming the file.
    """
    path, limits = Path(path), PhotoLimits(pixels=pixels)
    try:
        return _photograph(photo_file.identify(photo_file.load(path, limits), limits, path.name))
    except photo_file.TooLarge as error:
        size = str(error).removeprefix("bomb: ")
        raise TooManyPixels(f"{path} is refused, too large: {size}; make it smaller") from error
    except photo_file.Animated as error:
        raise UserError(f"{path} is an animation, not a photo; save one frame of it") from error
    except photo_file.UnknownFormat as error:
        empty = " (it is empty)" * str(error).startswith("empty")
        raise UserError(
            f"{path} is no photo in a known format{empty}; save it as JPEG, PNG, WebP, TIFF or HEIC"
        ) from error
    except Exception as error:  # decoders meet broken files with anything
        if path.is_dir():
            raise UserError(f"{path} is a folder; name the photos in it, such as {path}/*.jpg") from error
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{path} is not there") from error
        reason = photo_file.reason(error)
        cut = "; it may be cut off" * reason.startswith(("truncated", "damaged"))
        raise UserError(f"{path} cannot be read ({reason}){cut}") from error


def _photograph(file: photo_file.PictureFile) -> Photograph:
    icc = file.profile
    pixels: NDArray[Any]
    if file.decode_16_bit is not None:
        pixels = _on_white(file.decode_16_bit())
        if pixels.shape[2] == 1:
            pixels, icc = grey_to_srgb(pixels, icc), None
    else:
        image = photo_file.on_white(file.decode()[0])
        if image.mode not in ("RGB", "YCbCr"):
            # A PNG is to hold RGB, which profiles of grey and of inks do not describe
            image, icc = to_srgb(image, icc)[0], None
        pixels = np.asarray(image.convert("RGB"))
    file.check_complete(pixels)
    pixels = photo_file.upright(pixels, file.orientation)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, 2)
    return Photograph(pixels, icc, exif_format.upright(file.exif) if file.exif else None, file.cicp)


def _on_white(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(H, W, 1 or 3) of 16 bits; what is transparent is laid on white."""
    colours = 1 if samples.shape[2] < 3 else 3
    if samples.shape[2] == colours:
        return samples
    alpha = samples[..., colours:].astype(np.float32) / 65535
    return (samples[..., :colours] * alpha + 65535 * (1 - alpha)).round().astype(np.uint16)


def to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Any picture as uint8 (H, W, 3): 16 bits shortened, what is transparent on white."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        return np.repeat((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    return np.array(photo_file.on_white(image).convert("RGB"))


def write_png(
    path: Path, pixels: NDArray[Any], icc: bytes | None = None, exif: bytes | None = None, cicp: bytes | None = None
) -> None:
    """`png`, into a file, atomically."""
    content = png(pixels, icc, exif, cicp)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def png(pixels: NDArray[Any], icc: bytes | None = None, exif: bytes | None = None, cicp: bytes | None = None) -> bytes:
    """(H, W, 3) uint8 or uint16 -> a PNG with its profile, EXIF and cICP."""
    settings = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # of photos the smallest, and the fastest
    fine, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]), settings)
    if not fine:
        raise ValueError(f"no PNG can be made of {pixels.dtype} {pixels.shape}")
    content = encoded.tobytes()
    header = 8 + 25  # signature and IHDR
    extra = _chunk(b"cICP", cicp) if cicp else b""
    if icc:
        extra += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))
    if exif:
        extra += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return content[:header] + extra + content[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
