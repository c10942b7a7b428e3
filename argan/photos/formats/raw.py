"""Camera raw, with the optional package rawpy."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

from PIL import Image

from argan.photos.formats import exif as exif_format
from argan.photos.formats import ifd
from argan.photos.formats.picture import PhotoError, PhotoLimits, PictureFile

SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
    *(".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")  # Olympus, Panasonic, Sigma, Minolta


def is_raw(content: bytes) -> bool:
    """Whether its first bytes are those of a raw format that does not look like TIFF."""
    return (
        content[:15] == b"FUJIFILMCCD-RAW"
        or content[:4] in SIGNATURES
        or content[4:12] == b"ftypcrx "
        or (content[:2] == b"II" and content[8:10] == b"CR")
    )


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError, and what rawpy raises of a damaged file."""
    try:
        import rawpy  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise PhotoError("camera raw without a decoder: pip install rawpy") from None
    with rawpy.imread(io.BytesIO(content)) as raw:
        sizes = raw.sizes
        width, height = (sizes.iheight, sizes.iwidth) if sizes.flip in (5, 6) else (sizes.iwidth, sizes.iheight)
    limits.check(width, height)

    def decode(reduction: int) -> tuple[Image.Image, int]:
        half = reduction > 1  # a pixel of every 2 x 2 of the sensor
        with rawpy.imread(io.BytesIO(content)) as raw:
            return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)), 1 + half

    return PictureFile("RAW", width, height, 1, _exif(content) or None, None, decode)


def _exif(content: bytes) -> bytes:
    """Most raw files are TIFF-like, and what EXIF says is where a TIFF has it; empty for the others."""
    if content[:2] in (b"II", b"MM"):
        order = "<" if content[:1] == b"I" else ">"
        with suppress(ifd.Damaged):
            offset = struct.unpack_from(order + "I", content, 4)[0]
            return exif_format.from_directory(ifd.directory(content, offset, order, big=False))
    return b""
