"""WebP: RFC 9649. Pillow's decoder allocates a picture as it opens it, so its size is read before."""

from __future__ import annotations

import io
import struct

from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from argan.photos.formats import exif as exif_format
from argan.photos.formats.picture import (
    MAX_SEGMENTS,
    Animated,
    PhotoError,
    PhotoLimits,
    PictureFile,
    bounded_profile,
)


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError."""
    exif, icc, frames, size, at = b"", b"", 0, (0, 0), 12
    for _ in range(MAX_SEGMENTS):
        if at + 8 > len(content):
            break
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        body = content[at + 8 : at + 8 + length]
        if kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"ICCP":
            icc = body
        elif (announced := _size(kind, body))[0]:
            limits.check(*announced)
            size = size if size[0] else announced
        at += 8 + length + length % 2
    else:
        raise PhotoError(f"bomb: a WebP of more than {MAX_SEGMENTS:,} chunks")
    if frames > 1:
        raise Animated(f"animated: {frames} frames, not a photograph")
    if not size[0]:
        raise PhotoError("damaged: a WebP without a picture")

    def decode(reduction: int) -> tuple[Image.Image, int]:
        if len(content) < 8 + struct.unpack("<I", content[4:8])[0]:
            raise PhotoError("truncated: a WebP that ends before its end")
        image = WebPImageFile(io.BytesIO(content))
        limits.check(*image.size)
        image.load()
        return image, 1

    return PictureFile(
        "WEBP", *size, exif_format.orientation(exif), exif_format.readable(exif), bounded_profile(icc), decode
    )


def _size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height that a chunk announces; (0, 0) where it announces none."""
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return 0, 0
