"""JPEG: ITU T.81, annex B. What follows the end of the picture (a video, a second picture) is ignored."""

from __future__ import annotations

import io
import re
import struct

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from argan.photos.formats import exif as exif_format
from argan.photos.formats.picture import (
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
    MAX_SEGMENTS,
    PhotoError,
    PhotoLimits,
    PictureFile,
    bounded_profile,
)

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan, 00 is stuffed and D0 to D7 are restarts
TABLES = {0xDB, 0xDD, 0xE0, 0xEE}  # quantisation, restart interval, and what tells RGB from YCbCr: JFIF, Adobe
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers of a picture; not Huffman's and arithmetic tables
END = b"\xff\xd9"


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError."""
    segments, exif, size, scans, at = [content[:2]], b"", (0, 0), 0, 2
    profile: dict[int, bytes] = {}
    for _ in range(MAX_SEGMENTS):
        start = MARKER.search(content, at)
        if start is None:
            raise PhotoError("truncated: it has no end")
        at, marker = start.end(), content[start.end() - 1]
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack(">H", content[at : at + 2].rjust(2, b"\0"))
        body, end = content[at + 2 : at + length], at + length
        if length < 2 or end > len(content):
            raise PhotoError("truncated: a segment ends outside the file")
        if marker == 0xE1 and body[:6] == b"Exif\0\0" and not exif:
            exif = body[6:]
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            profile.setdefault(body[12], body[14:])
        elif marker in TABLES or marker in range(0xC0, 0xD0):
            segments.append(content[at - 2 : end])
            if marker in FRAMES and len(body) >= 6:
                _, height, width, _ = struct.unpack(">BHHB", body[:6])
                size = (width, height)
                limits.check(width, height)
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS or scans * size[0] * size[1] > MAX_SCANNED_PIXELS:
                raise PhotoError(f"bomb: a JPEG of {size[0]} x {size[1]} pixels with {scans} scans or more")
            following = MARKER.search(content, end)
            if following is None:
                raise PhotoError("truncated: it has no end")
            segments.append(content[at - 2 : following.start()])
            end = following.start()
        at = end
    else:
        raise PhotoError(f"bomb: a JPEG of more than {MAX_SEGMENTS:,} segments")
    if not scans or not size[0]:
        raise PhotoError("damaged: a JPEG without a picture")

    def decode(reduction: int, extra: bytes = b"") -> tuple[Image.Image, int]:
        image = JpegImageFile(io.BytesIO(b"".join((*segments, extra, END))))
        power = next(k for k in (8, 4, 2, 1) if k <= reduction)  # what its transform can do
        image.draft(None, (max(1, size[0] // power), max(1, size[1] // power)))
        image.load()
        return image, next(k for k in (1, 2, 4, 8) if image.width * k >= size[0])

    def is_complete() -> bool:
        """A decoder that has all its data ignores any that follow."""
        return decode(8)[0].tobytes() == decode(8, bytes(range(1, 255)) * 16)[0].tobytes()

    icc = bounded_profile(b"".join(profile[i] for i in sorted(profile)))
    return PictureFile(
        "JPEG", *size, exif_format.orientation(exif), exif_format.readable(exif), icc, decode, is_complete=is_complete
    )
