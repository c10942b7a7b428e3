"""TIFF: which strips or tiles hold the pixels, checked, and decoded to 8 or 16 bits.

Pillow's own reader rotates, warns and gives up by tags that have nothing to do with pixels, and holds no more than 8 bits of a
colour. So the pixels of a file are described to it by a new directory of only the tags that matter, after the same data; and
16 bits a sample are described as what it holds without loss, a grey picture with all samples of a row side by side.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from argan.photos.formats import exif as exif_format
from argan.photos.formats import ifd
from argan.photos.formats.ifd import MAX_STRIPS, Damaged, Directory, Values, write_directory
from argan.photos.formats.picture import (
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
    PhotoError,
    PhotoLimits,
    PictureFile,
    bounded_profile,
)

MAX_TILE_EXCESS = (
    4  # pixels that tiles may decode for each one of the picture: the last column and row of tiles overhang
)
MAX_SHARED = 4  # times the file's bytes that its strips or tiles have together: some writers store equal tiles once
BAND = 1 << 25  # samples that are decoded at once: 64 MiB

# Tags that describe the pixels: TIFF 6.0 and its supplements. 320 is the palette, 347 JPEG's tables, 529 to 532 YCbCr.
WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_LENGTHS, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, ICC_PROFILE = 338, 339, 34675
SINGLE = (256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323)  # of one number each
MULTIPLE = (258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532)

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5  # values of COLOURS
CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # of colour, by COLOURS: 3 palette, 6 YCbCr, 8 LAB
PREMULTIPLIED, STRAIGHT = 1, 2  # values of EXTRA_SAMPLES that are alpha
UNCOMPRESSED, JPEG = 1, 7  # values of COMPRESSION
PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions that know predictors: LZW, deflate twice, LZMA, Zstandard
LOSSLESS = (UNCOMPRESSED, 32773, *PREDICTED)  # and PackBits


@dataclass(frozen=True)
class Layout:
    """How the first picture of a file is stored; checked, so that decoding is bounded by its pixels."""

    directory: Directory
    width: int
    height: int
    bits: int
    colours: int  # PhotometricInterpretation
    samples: int
    alpha: int  # ExtraSamples of the first sample that is no colour: 0 none, else PREMULTIPLIED or STRAIGHT
    tile: tuple[int, int] | None  # width, height
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def compression(self) -> int:
        return self.directory.number(COMPRESSION, UNCOMPRESSED)

    @property
    def planes(self) -> int:
        """Pictures of one sample each, one after the other; 1: samples lie side by side."""
        return self.samples if self.directory.number(PLANAR, 1) == 2 else 1

    @property
    def strip_rows(self) -> int:
        return min(max(1, self.directory.number(STRIP_ROWS, self.height)), self.height)

    @property
    def tiles_across(self) -> int:
        return -(-self.width // self.tile[0]) if self.tile and min(self.tile) > 0 else 1


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError, ifd.Damaged."""
    directory = ifd.first(content)
    limits.check(directory.number(WIDTH, 0), directory.number(HEIGHT, 0))
    layout = read_layout(directory)
    if layout.compression == JPEG:
        _check_scans(layout)
    deep = layout.bits == 16
    if deep and layout.colours not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK):
        raise PhotoError(f"damaged: 16 bits in colours (number {layout.colours}) that are not read; save it in RGB")

    def decode(reduction: int) -> tuple[Image.Image, int]:
        if deep and layout.colours == CMYK:
            return Image.fromarray((decode_samples(layout)[..., :4] >> 8).astype(np.uint8), "CMYK"), 1
        if deep:
            samples = (decode_16_bit() >> 8).astype(np.uint8)
            return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples), 1
        image = TiffImageFile(io.BytesIO(pixels_only(layout)))
        image.load()
        return image, 1

    def decode_16_bit() -> NDArray[np.uint16]:
        return _colours_and_alpha(decode_samples(layout), layout)

    return PictureFile(
        "TIFF",
        layout.width,
        layout.height,
        exif_format.orientation(content),
        exif_format.from_directory(directory) or None,
        bounded_profile(directory.data(ICC_PROFILE)),
        decode,
        decode_16_bit if deep and layout.colours != CMYK else None,
    )


def _check_scans(layout: Layout) -> None:
    """Raise PhotoError where the JPEGs within have too many scans."""
    content, count = layout.directory.content, len(layout.offsets)
    parts = zip(layout.offsets, layout.lengths, strict=True)
    scans = sum(content.count(b"\xff\xda", at, at + length) for at, length in parts)
    if scans > MAX_SCANS * count or scans // count * layout.width * layout.height > MAX_SCANNED_PIXELS:
        raise PhotoError(f"bomb: {scans:,} scans in a TIFF of {count:,} JPEGs")


def _colours_and_alpha(samples: NDArray[np.uint16], layout: Layout) -> NDArray[np.uint16]:
    """(H, W, samples) as stored -> (H, W, 1 to 4): grey with black at 0, or RGB, and straight alpha where there is any."""
    colours = 1 if layout.colours in (WHITE_IS_ZERO, BLACK_IS_ZERO) else 3
    if layout.colours == WHITE_IS_ZERO:
        samples[..., 0] = 65535 - samples[..., 0]
    if not layout.alpha:
        return samples[..., :colours]
    samples = samples[..., : colours + 1]
    if layout.alpha == PREMULTIPLIED:
        alpha = np.maximum(samples[..., colours:], 1).astype(np.float32)
        samples[..., :colours] = (samples[..., :colours] / alpha * 65535).clip(0, 65535).round()
    return samples


def read_layout(directory: Directory) -> Layout:
    """Raises Damaged where there is no picture, or its parts do not fit its size."""
    width, height = directory.number(WIDTH, 0), directory.number(HEIGHT, 0)
    samples = directory.number(SAMPLES, 1)
    bits = _bits(directory, width, height, samples)
    tile = (
        (directory.number(TILE_WIDTH, 0), directory.number(TILE_HEIGHT, 0)) if TILE_WIDTH in directory.entries else None
    )
    offsets = directory.numbers(TILE_OFFSETS if tile else STRIP_OFFSETS)
    lengths = directory.numbers(TILE_LENGTHS if tile else STRIP_LENGTHS)
    colours = directory.number(COLOURS, BLACK_IS_ZERO)
    channels = CHANNELS.get(colours, samples)
    alpha = directory.number(EXTRA_SAMPLES, 0) if samples > channels else 0
    alpha = alpha if alpha in (PREMULTIPLIED, STRAIGHT) else 0
    layout = Layout(directory, width, height, bits, colours, samples, alpha, tile, offsets, lengths)
    count = layout.tiles_across * -(-height // max(1, tile[1] if tile else layout.strip_rows)) * layout.planes
    if not lengths and len(offsets) == 1 and layout.compression == UNCOMPRESSED:
        lengths = (-(-width * bits * samples // 8) * height,)  # left out by old writers
    if len(offsets) > MAX_STRIPS or len(offsets) < count or len(lengths) < count or (tile and min(tile) < 1):
        raise Damaged(f"it has {len(offsets):,} strips or tiles where {count:,} are needed")
    tiled = layout.tiles_across * tile[0] * -(-height // tile[1]) * tile[1] if tile else 0
    if tile and tiled > MAX_TILE_EXCESS * max(width * height, 1 << 20):
        raise Damaged(f"its tiles of {tile[0]} x {tile[1]} do not fit {width} x {height} pixels")
    offsets, lengths, size = offsets[:count], lengths[:count], len(directory.content)
    if any(at + length > size for at, length in zip(offsets, lengths, strict=True)):
        raise Damaged("truncated: its pixels end outside the file")
    if sum(lengths) > MAX_SHARED * size:
        raise Damaged("bomb: its strips or tiles share the same bytes")
    if samples < channels:
        raise Damaged(f"it has {samples} samples a pixel where its colours need {channels}")
    return Layout(directory, width, height, bits, colours, samples, alpha, tile, offsets, lengths)


def _bits(directory: Directory, width: int, height: int, samples: int) -> int:
    """Bits of a sample. Raises Damaged where samples are not integers of one size."""
    bits = set(directory.numbers(BITS, (1,))[:samples])
    formats = set(directory.numbers(SAMPLE_FORMAT, (1,))[:samples])
    if width < 1 or height < 1 or not 1 <= samples <= 64 or not bits:
        raise Damaged(f"it describes {width} x {height} pixels of {samples} samples")
    if formats & {3, 6}:
        raise Damaged("no photograph: floating point without a white")
    if formats & {2, 5}:
        raise Damaged("no photograph: signed numbers without a white")
    if len(bits) > 1 or max(bits) not in (1, 2, 4, 8, 16):
        raise Damaged(f"no photograph: {' and '.join(map(str, sorted(bits)))} bits a sample")
    return max(bits)


def pixels_only(layout: Layout) -> bytes:
    """The file with no tags but those of its pixels, for Pillow to decode."""
    directory = layout.directory
    entries, order = directory.entries, directory.order
    values = {tag: (4, 1, struct.pack(order + "I", directory.number(tag, 0))) for tag in SINGLE if tag in entries}
    values |= {tag: (entries[tag].kind, entries[tag].count, directory.data(tag)) for tag in MULTIPLE if tag in entries}
    if layout.tile is None and STRIP_LENGTHS not in values:
        values[STRIP_LENGTHS] = (4, 1, struct.pack(order + "I", layout.lengths[0]))
    return _with_directory(directory, values)


def _with_directory(original: Directory, values: Values) -> bytes:
    """The file with a directory of these values, after all that was there, in place of its first."""
    at = len(original.content) + len(original.content) % 2
    head = original.content[: 8 if original.big else 4] + struct.pack(
        original.order + ("Q" if original.big else "I"), at
    )
    directory = write_directory(values, at, original.order, original.big)
    padding = bytes(at - len(original.content))
    return b"".join((head, memoryview(original.content)[len(head) :], padding, directory))


def decode_samples(layout: Layout) -> NDArray[np.uint16]:
    """(H, W, samples) of a picture with 16 bits a sample, as stored. Raises Damaged, and OSError where its data are cut off."""
    if layout.compression not in LOSSLESS:
        raise Damaged(f"16 bits in a compression (number {layout.compression}) that is not read; save it uncompressed")
    predictor = layout.compression in PREDICTED and layout.directory.number(PREDICTOR, 1)
    if predictor not in (False, 1, 2):
        raise Damaged(f"16 bits with a predictor (number {predictor}) that is not read; save it uncompressed")
    if layout.directory.number(FILL_ORDER, 1) != 1:
        raise Damaged("16 bits whose order within bytes is turned round; save it again")
    interleaved = layout.samples if layout.planes == 1 else 1
    pixels = np.empty((layout.height, layout.width, layout.samples), np.uint16)
    per_plane = len(layout.offsets) // layout.planes
    for plane in range(layout.planes):
        out = pixels if interleaved > 1 or layout.samples == 1 else pixels[..., plane : plane + 1]
        parts = slice(plane * per_plane, (plane + 1) * per_plane)
        _decode_plane(layout, layout.offsets[parts], layout.lengths[parts], interleaved, out)
    if predictor == 2:
        step = layout.tile[0] if layout.tile else layout.width
        for left in range(0, layout.width, step):
            block = pixels[:, left : left + step]
            np.cumsum(block, axis=1, dtype=np.uint16, out=block)
    return pixels


def _decode_plane(
    layout: Layout, offsets: Sequence[int], lengths: Sequence[int], interleaved: int, out: NDArray[np.uint16]
) -> None:
    """Decode strips or tiles into `out` (H, W, interleaved samples), in bands of complete rows of them."""
    content, order = layout.directory.content, layout.directory.order
    rows = layout.tile[1] if layout.tile else layout.strip_rows
    if layout.compression == UNCOMPRESSED and layout.tile is None:
        for i, (at, length) in enumerate(zip(offsets, lengths, strict=True)):
            strip = out[i * rows : (i + 1) * rows]
            if length < 2 * strip.size:
                raise Damaged("truncated: a strip is shorter than its rows")
            strip[...] = np.frombuffer(content, order + "u2", strip.size, at).reshape(strip.shape)
        return
    across = layout.tiles_across
    band = max(1, BAND // (rows * layout.width * interleaved))  # rows of strips or tiles at once
    for i in range(0, len(offsets) // across, band):
        target = out[i * rows : (i + band) * rows]
        parts = slice(i * across, (i + band) * across)
        data = b"".join(content[at : at + n] for at, n in zip(offsets[parts], lengths[parts], strict=True))
        grey = _grey_tiff(layout, data, lengths[parts], interleaved, len(target), rows)
        # Not Image.open: its limit is of pixels, and a row here has a pixel for each sample
        with TiffImageFile(io.BytesIO(grey)) as image:
            target[...] = np.asarray(image).reshape(target.shape)


def _grey_tiff(layout: Layout, data: bytes, lengths: Sequence[int], interleaved: int, height: int, rows: int) -> bytes:
    """A TIFF of 16-bit grey whose strips or tiles are `data`: all samples of a row side by side."""
    order, padding = layout.directory.order, bytes(len(data) % 2)
    starts = [8, *itertools.accumulate(lengths, initial=8)][1:-1]
    numbers: dict[int, Sequence[int]] = {
        WIDTH: [layout.width * interleaved],
        HEIGHT: [height],
        BITS: [16],
        COMPRESSION: [layout.compression],
        COLOURS: [BLACK_IS_ZERO],
        SAMPLES: [1],
    }
    if layout.tile:
        numbers |= {TILE_WIDTH: [layout.tile[0] * interleaved], TILE_HEIGHT: [layout.tile[1]]}
        numbers |= {TILE_OFFSETS: starts, TILE_LENGTHS: lengths}
    else:
        numbers |= {STRIP_OFFSETS: starts, STRIP_ROWS: [rows], STRIP_LENGTHS: lengths}
    values = {tag: (4, len(n), struct.pack(f"{order}{len(n)}I", *n)) for tag, n in numbers.items()}
    at = 8 + len(data) + len(padding)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + data + padding + write_directory(values, at, order, False)
