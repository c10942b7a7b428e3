"""Photographs of one's own: read upright with all that is to be kept of them, and written as PNG with it.

Values are kept as they are in the file, 8 or 16 bits, beside the colour profile that says what they mean; only what a PNG cannot
say is converted (CMYK, transparency, camera raw).
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from argan.errors import UserError
from argan.files import atomic

PIXELS = 120_000_000  # the largest sensors have as many
ORIENTATION = 0x0112  # EXIF
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")


class TooManyPixels(UserError):
    """A photograph with more pixels than its reader takes."""


@dataclass(frozen=True)
class Photograph:
    """A photograph, upright."""

    pixels: NDArray[Any]  # (H, W, 3) uint8 or uint16, RGB in the colours of the profile
    icc: bytes | None = None  # the profile; None: sRGB
    exif: bytes | None = None  # with the orientation set to upright

    @property
    def seen(self) -> NDArray[np.uint8]:
        """The same in 8 bits, as networks see it; the profile is left out of account, as in most photographs it may be."""
        return self.pixels if self.pixels.dtype == np.uint8 else (self.pixels >> 8).astype(np.uint8)


def read(path: str | Path, pixels: int = PIXELS) -> Photograph:
    """Read JPEG, PNG, WebP, TIFF, HEIC or camera raw, of at most `pixels` pixels.

    Raises UserError naming the file and why it is refused; TooManyPixels before anything is decoded.
    """
    path = Path(path)
    if path.suffix.lower() in RAW:
        return Photograph(_raw(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is our own
            _heif(path)
            with Image.open(path) as image:
                return _read(path, image, pixels)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; name the photos in it, such as {path}/*.jpg") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is refused, too large: {error}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no photo in a known format") from error
    except Exception as error:  # decoders meet broken files with anything
        raise UserError(f"{path} cannot be read ({error or type(error).__name__}); it may be cut off") from error


def _read(path: Path, image: Image.Image, most: int) -> Photograph:
    if image.width * image.height > most:
        raise TooManyPixels(
            f"{path} is refused, too large: {image.width} x {image.height} pixels, more than {most / 1e6:g} million"
        )
    if getattr(image, "is_animated", False) and image.format in ("GIF", "WEBP", "PNG"):
        raise UserError(f"{path} is an animation, not a photo; save one frame of it")
    facts = image.getexif()
    turn = facts.get(ORIENTATION, 1)
    pixels: NDArray[Any]
    icc = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    if image.format in ("PNG", "TIFF") and (deep := _sixteen(path)) is not None:
        pixels = _turned(deep, turn)
    else:
        pixels = eight(ImageOps.exif_transpose(image))
    facts[ORIENTATION] = 1
    return Photograph(pixels, icc, facts.tobytes() if len(facts) > 1 else None)


def eight(image: Image.Image) -> NDArray[np.uint8]:
    """Any picture as uint8 (H, W, 3): 16 bits shortened, what is transparent on white."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        return np.repeat((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _sixteen(path: Path) -> NDArray[np.uint16] | None:
    """(H, W, 3) of a file with 16 bits a channel, which Pillow cannot hold in colour; None for any other."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] != 16:
        return None  # bits a channel; a TIFF is not told from its first bytes
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, 2)
    colours = pixels[..., 2::-1]
    if pixels.shape[2] == 4:  # transparent: on white
        alpha = pixels[..., 3:].astype(np.float32) / 65535
        colours = (colours * alpha + 65535 * (1 - alpha)).round()
    return np.ascontiguousarray(colours, dtype=np.uint16)


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright, as EXIF's orientation tells."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _heif(path: Path) -> None:
    if path.suffix.lower() in (".heic", ".heif", ".hif"):
        from argan.sources.decode import register_heif

        register_heif()


def _raw(path: Path) -> NDArray[np.uint8]:
    from argan.sources import decode

    content = decode.attempt(path)
    photo = content if isinstance(content, decode.Refused) else decode.decode(content, name=path.name)
    if isinstance(photo, decode.Refused):
        raise UserError(f"{path} cannot be read ({photo.reason})")
    return photo.pixels


def write_png(path: Path, pixels: NDArray[Any], icc: bytes | None = None, exif: bytes | None = None) -> None:
    """`png`, into a file, atomically."""
    content = png(pixels, icc, exif)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def png(pixels: NDArray[Any], icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """(H, W, 3) uint8 or uint16 -> a PNG with its profile and EXIF."""
    settings = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # of photos the smallest, and the fastest
    fine, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]), settings)
    if not fine:
        raise ValueError(f"no PNG can be made of {pixels.dtype} {pixels.shape}")
    content = encoded.tobytes()
    header = 8 + 25  # signature and IHDR
    extra = b""
    if icc:
        extra += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))
    if exif:
        extra += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    return content[:header] + extra + content[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
