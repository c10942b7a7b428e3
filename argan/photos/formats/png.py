"""PNG: third edition (W3C). Text, which may be of any length, is skipped."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from argan.photos.formats import exif as exif_format
from argan.photos.formats.picture import (
    MAX_PROFILE_BYTES,
    Animated,
    PhotoError,
    PhotoLimits,
    PictureFile,
)
from argan.photos.icc import of_gamma

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 200_000  # some programs write 8 KiB each
SRGB_GAMMA = 45_455  # gAMA of sRGB, in 100,000ths
GAMMAS = range(1000, 1_000_001)  # values of gAMA that make sense
GAMMA_TOLERANCE = 0.05  # relative: nearer to sRGB is sRGB, as for libpng
INFLATE_STEP = 1 << 20  # bytes that are unpacked at a time to check them
END = b"\0\0\0\0IEND\xaeB`\x82"
DECODED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks that the decoder is given
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type, of those with 16 bits


@dataclass
class _Chunks:
    """What the chunks of a file say."""

    header: bytes = b""
    decoded: list[bytes] = field(default_factory=list)  # complete chunks
    frames: int = 1
    exif: bytes = b""
    icc: bytes = b""
    cicp: bytes = b""
    gamma: int = SRGB_GAMMA


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError."""
    chunks = _read_chunks(content, limits)
    if not chunks.header:
        raise PhotoError("damaged: a PNG without a header")
    if chunks.frames > 1:
        raise Animated(f"animated: {chunks.frames} frames, not a photograph")
    unlike_srgb = chunks.gamma in GAMMAS and abs(chunks.gamma / SRGB_GAMMA - 1) > GAMMA_TOLERANCE
    if not chunks.icc and not chunks.cicp and unlike_srgb:
        chunks.icc = of_gamma(100_000 / chunks.gamma)
    width, height, bits, colour_type = struct.unpack(">IIBB", chunks.header[:10])
    interlaced = chunks.header[12]
    file = b"".join((SIGNATURE, *(chunk for chunk in chunks.decoded if chunk[4:8] != b"IEND"), END))

    def decode(reduction: int) -> tuple[Image.Image, int]:
        image = PngImageFile(io.BytesIO(file))
        image.load()
        if image.mode.startswith("I"):  # grey of 16 bits
            return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)), 1
        return image, 1

    def decode_16_bit() -> NDArray[np.uint16]:
        if colour_type == 0 and not any(chunk[4:8] == b"tRNS" for chunk in chunks.decoded):
            return np.asarray(PngImageFile(io.BytesIO(file))).astype(np.uint16)[..., None]
        if interlaced:
            PngImageFile(io.BytesIO(file)).load()
        _check_data(chunks.decoded, 0 if interlaced else height, 1 + 2 * width * CHANNELS[colour_type])
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16:
            raise PhotoError("damaged: a PNG of 16 bits that cannot be read")
        if pixels.ndim == 2:
            return pixels[..., None].astype(np.uint16)
        return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]].astype(np.uint16)

    return PictureFile(
        "PNG",
        width,
        height,
        exif_format.orientation(chunks.exif),
        exif_format.readable(chunks.exif),
        chunks.icc or None,
        decode,
        decode_16_bit if bits == 16 else None,
        cicp=chunks.cicp or None,
    )


def _read_chunks(content: bytes, limits: PhotoLimits) -> _Chunks:
    chunks = _Chunks()
    for kind, at, end in _spans(content):
        data = memoryview(content)[at:end]
        if kind == b"IHDR" and not chunks.header:
            chunks.header = bytes(data)
            if len(data) != 13:
                raise PhotoError("damaged: a PNG whose header is too short")
            limits.check(*struct.unpack(">II", data[:8]))
        elif kind == b"acTL" and len(data) == 8:
            (chunks.frames,) = struct.unpack(">I", data[:4])
        elif kind == b"eXIf":
            chunks.exif = bytes(data).removeprefix(b"Exif\0\0")
        elif kind == b"iCCP":
            chunks.icc = _inflated(bytes(data).partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        elif kind == b"cICP" and len(data) == 4:
            chunks.cicp = bytes(data)
        elif kind == b"gAMA" and len(data) == 4 and chunks.gamma:
            (chunks.gamma,) = struct.unpack(">I", data)
        elif kind == b"sRGB":
            chunks.gamma = 0  # what gAMA says is an approximation of it
        if kind in DECODED:
            if end + 4 > len(content):
                raise PhotoError("truncated: a PNG that ends within its data")
            chunks.decoded.append(content[at - 8 : end + 4])
    return chunks


def _spans(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the data of each chunk; of one that is cut off, as much as there is."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(content):
            return
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, at + 8, min(at + 8 + length, len(content))
        if kind == b"IEND":
            return
        at += 12 + length
    raise PhotoError(f"bomb: a PNG of more than {MAX_CHUNKS:,} chunks")


def _check_data(chunks: list[bytes], rows: int, stride: int) -> None:
    """Raise PhotoError where the data are not what they should be: OpenCV would write to stderr and return what it has.

    rows of `stride` bytes, each of which begins with the number of its filter; 0: of unknown lengths.
    """
    stream, size = zlib.decompressobj(), 0
    try:
        for chunk in chunks:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise PhotoError("damaged: a checksum of the PNG is wrong")
            packed = chunk[8:-4] if chunk[4:8] == b"IDAT" else b""
            while packed:
                unpacked = stream.decompress(packed, INFLATE_STEP)
                packed = stream.unconsumed_tail
                filters = unpacked[-size % stride :: stride] if rows and size < rows * stride else b""
                if max(filters, default=0) > 4:
                    raise PhotoError("damaged: a row of the PNG has no known filter")
                size += len(unpacked)
    except zlib.error as error:
        raise PhotoError(f"damaged: {error}") from error
    if not stream.eof or size < rows * stride:
        raise PhotoError("truncated: a PNG whose rows are not all there")


def _inflated(data: bytes, most: int) -> bytes:
    """Empty where it is damaged or larger."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, most)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else unpacked
