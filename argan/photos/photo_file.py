"""The one place where picture files are opened: what a file is, within which limits, and its pixels as they are stored.

A file's content decides what it is, never its name. Only JPEG, PNG, WebP, TIFF, HEIC and camera raw are read, each by its own
decoder called by name; none that Pillow happens to know is tried, some of which start other programs. All limits hold before a
pixel is decoded, and decoders are given what they need of a file and no more: no text, no EXIF, no trailing video. That bounds
their work, which nothing can interrupt, by the number of pixels.

`argan.photos.photograph` makes full-quality photographs of it, `argan.photos.decode` small ones for collections.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from argan.photos import tiff
from argan.photos.icc import of_gamma

PIXELS = 120_000_000  # the largest sensors have as many; 30,000 x 30,000 would be 2.7 GB
FILE_BYTES = 256 << 20  # an uncompressed TIFF of 45 megapixels with 16 bits a colour
SCANS = 100  # of a progressive JPEG: cameras and editors write about ten, each is a pass over all pixels
SCANNED = 2_000_000_000  # pixels times scans: 16 scans of the largest sensor
SEGMENTS = 10_000  # of a JPEG or a WebP: 256 MiB of full ones are 4,096
CHUNKS = 200_000  # of a PNG: some programs write 8 KiB each
SRGB_GAMMA = 45_455  # PNG's gAMA of sRGB, in 100,000ths
PIECE = 1 << 20  # bytes that are unpacked at a time to look at them
PROFILE = 4 << 20  # bytes of a colour profile: those of printers have one or two million
EXIF = 1 << 20  # bytes of EXIF: in a JPEG 64 KiB at most, elsewhere as many are more than any camera writes

RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
    *(".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", *RAW)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_RAW_HEADS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")  # Olympus, Panasonic, Sigma, Minolta
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan, 00 is stuffed and D0 to D7 are restarts
_JPEG_TABLES = {0xDB, 0xDD, 0xE0, 0xEE}  # quantisation, restart interval, and what tells RGB from YCbCr: JFIF, Adobe
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers of a picture; not Huffman's and arithmetic tables
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


T = TypeVar("T", bound=np.generic)


class Refusal(Exception):
    """Why a file is not read: the kind of fault, a colon, details. In one line."""


class Unknown(Refusal):
    """It is empty, or in none of the formats that are read."""


class TooLarge(Refusal):
    """It has more pixels than allowed."""


class Animated(Refusal):
    """It holds a film."""


@dataclass(frozen=True)
class Limits:
    """What is refused before it is decoded."""

    file_bytes: int = FILE_BYTES
    pixels: int = PIXELS
    shorter: int = 1  # pixels of the shorter side at least: nothing is upscaled

    def check(self, width: int, height: int) -> None:
        if width * height > self.pixels:
            raise TooLarge(f"bomb: {width} x {height} pixels, more than {self.pixels / 1e6:g} million")
        if min(width, height) < self.shorter:
            raise Refusal(f"too small: {width} x {height} pixels, the shorter side must have {self.shorter}")


@dataclass(frozen=True)
class File:
    """A picture whose header was read and found within the limits. Sizes are as stored, before `orientation` is applied."""

    format: str  # JPEG, PNG, WEBP, TIFF, HEIF or RAW
    width: int
    height: int
    orientation: int  # 1 to 8, as in EXIF
    exif: bytes | None  # as stored, without the header Exif\0\0
    profile: bytes | None  # ICC
    decode: Callable[[int], tuple[Image.Image, int]]  # see `image`
    sixteen: Callable[[], NDArray[np.uint16]] | None = None  # (H, W, 1 to 4): grey or RGB, alpha; None: 8 bits
    cicp: bytes | None = None  # of a PNG: how its colours are coded (ITU-T H.273), before any profile
    whole: Callable[[], bool] = lambda: True  # whether the data go to the end of the picture; costs a decode

    def image(self, reduction: int = 1) -> tuple[Image.Image, int]:
        """The pixels, 8 bits in the file's own mode, not turned; and by how much each side is smaller than the file's.

        reduction: the most that this may be; formats that are decoded small sooner make use of it. Raises Refusal, or what its
        decoder raises of a damaged file (see `reason`).
        """
        return self.decode(reduction)


DEFAULT = Limits()


def load(path: Path, limits: Limits = DEFAULT) -> bytes:
    """A regular file's content. Raises Refusal, OSError."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise Refusal("no regular file")  # to open a pipe would wait for ever
    if facts.st_size > limits.file_bytes:
        raise Refusal(f"file too large: {facts.st_size >> 20} MiB, more than {limits.file_bytes >> 20}")
    with path.open("rb") as file:
        return file.read(limits.file_bytes + 1)


def identify(content: bytes, limits: Limits = DEFAULT, name: str = "") -> File:
    """What a file is, from its content. Raises Refusal where it is none of the formats, or goes beyond the limits.

    name: of use only for a TIFF with the suffix of a camera raw, whose maker's tags are not known.
    """
    if not content:
        raise Unknown("empty: 0 bytes")
    try:
        if content[:3] == b"\xff\xd8\xff":
            return _jpeg(content, limits)
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(content, limits)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content, limits)
        if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
            return _heif(content, limits)
        if (
            content[:15] == b"FUJIFILMCCD-RAW"
            or content[:4] in _RAW_HEADS
            or content[4:12] == b"ftypcrx "
            or (content[:2] == b"II" and content[8:10] == b"CR")
        ):
            return _raw(content, limits)
        if tiff.is_tiff(content):
            return _tiff(content, limits, name.lower())
    except tiff.Damaged as error:
        known = re.match(r"(no photograph|truncated|bomb): ", str(error))
        raise Refusal(str(error) if known else f"damaged: {error}") from error
    if content[:4] == b"GIF8":
        raise Animated("not an image: a GIF, which is for animations")
    raise Unknown("not an image: no JPEG, PNG, WebP, TIFF, HEIC or camera raw")


def upright(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """(H, W, C), turned and mirrored as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def reason(error: BaseException) -> str:
    """Why a decoder failed, in one line: the kind of fault, a colon, details."""
    if isinstance(error, Refusal):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "not there"
    if isinstance(error, PermissionError):
        return "not readable: permission denied"
    if isinstance(error, MemoryError):
        return "too large: not enough memory"
    if isinstance(error, EOFError) or any(
        word in text.lower() for word in ("truncated", "end of file", "premature", "unexpected end")
    ):
        return f"truncated: {text.removeprefix('truncated: ')[:100]}" if text else "truncated"
    return f"damaged: {(text or type(error).__name__)[:100]}"


# ---- JPEG ----


def _jpeg(content: bytes, limits: Limits) -> File:
    """ITU T.81, annex B. What lies behind the end of the picture (a video, a second picture) is nobody's business."""
    kept, exif, size, scans, at = [content[:2]], b"", (0, 0), 0, 2
    profile: dict[int, bytes] = {}
    for _ in range(SEGMENTS):
        found = _JPEG_MARKER.search(content, at)
        if found is None:
            raise Refusal("truncated: it has no end")
        at, marker = found.end(), content[found.end() - 1]
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack(">H", content[at : at + 2].rjust(2, b"\0"))
        body, end = content[at + 2 : at + length], at + length
        if length < 2 or end > len(content):
            raise Refusal("truncated: a segment ends outside the file")
        if marker == 0xE1 and body[:6] == b"Exif\0\0" and not exif:
            exif = body[6:]
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            profile.setdefault(body[12], body[14:])
        elif marker in _JPEG_TABLES or marker in range(0xC0, 0xD0):
            kept.append(content[at - 2 : end])
            if marker in _JPEG_FRAMES and len(body) >= 6:
                _, height, width, _ = struct.unpack(">BHHB", body[:6])
                size = (width, height)
                limits.check(width, height)
        elif marker == 0xDA:
            scans += 1
            if scans > SCANS or scans * size[0] * size[1] > SCANNED:
                raise Refusal(f"bomb: a JPEG of {size[0]} x {size[1]} pixels with {scans} scans or more")
            after = _JPEG_MARKER.search(content, end)
            if after is None:
                raise Refusal("truncated: it has no end")
            kept.append(content[at - 2 : after.start()])
            end = after.start()
        at = end
    else:
        raise Refusal(f"bomb: a JPEG of more than {SEGMENTS:,} segments")
    if not scans or not size[0]:
        raise Refusal("damaged: a JPEG without a picture")

    def decoded(reduction: int, behind: bytes = b"") -> tuple[Image.Image, int]:
        image = JpegImageFile(io.BytesIO(b"".join((*kept, behind, b"\xff\xd9"))))
        power = next(k for k in (8, 4, 2, 1) if k <= reduction)  # what its transform can do
        image.draft(None, (max(1, size[0] // power), max(1, size[1] // power)))
        image.load()
        return image, next(k for k in (1, 2, 4, 8) if image.width * k >= size[0])

    def whole() -> bool:
        """A decoder that has got all its data never looks at more of them."""
        return decoded(8)[0].tobytes() == decoded(8, bytes(range(1, 255)) * 16)[0].tobytes()

    icc = b"".join(profile[i] for i in sorted(profile))
    return File("JPEG", *size, _turn(exif), _kept(exif), _bounded(icc, PROFILE), decoded, whole=whole)


def _turn(exif: bytes) -> int:
    return tiff.orientation(exif) if exif else 1


def _kept(exif: bytes) -> bytes | None:
    """EXIF that can be read, at least to its first directory."""
    try:
        return exif if tiff.first(exif[: EXIF + 1]) and len(exif) <= EXIF else None
    except tiff.Damaged:
        return None


def _bounded(data: bytes, most: int) -> bytes | None:
    return data if 0 < len(data) <= most else None


# ---- PNG ----


def _png(content: bytes, limits: Limits) -> File:
    """PNG, third edition (W3C). Text, which may be of any length, is passed over."""
    kept, exif, icc, frames, header = [content[:8]], b"", b"", 1, b""
    gamma, cicp = SRGB_GAMMA, b""
    for kind, at, end in _png_chunks(content):
        if kind == b"IHDR" and not header:
            header = content[at:end]
            if len(header) != 13:
                raise Refusal("damaged: a PNG whose header is too short")
            limits.check(*struct.unpack(">II", header[:8]))
        elif kind == b"acTL" and end - at == 8:
            frames = struct.unpack(">I", content[at : at + 4])[0]
        elif kind == b"eXIf":
            exif = content[at:end].removeprefix(b"Exif\0\0")
        elif kind == b"iCCP":
            icc = _inflated(content[at:end].partition(b"\0")[2][1:], PROFILE)
        elif kind == b"cICP" and end - at == 4:
            cicp = content[at:end]
        elif kind == b"gAMA" and end - at == 4 and gamma:
            gamma = struct.unpack(">I", content[at:end])[0]
        elif kind == b"sRGB":
            gamma = 0  # what gAMA says is an approximation of it
        if kind in _PNG_NEEDED:
            if end + 4 > len(content):
                raise Refusal("truncated: a PNG that ends within its data")
            kept.append(content[at - 8 : end + 4])
    if not header:
        raise Refusal("damaged: a PNG without a header")
    if frames > 1:
        raise Animated(f"animated: {frames} frames, not a photograph")
    if (
        not icc and not cicp and gamma in range(1000, 1_000_001) and abs(gamma / SRGB_GAMMA - 1) > 0.05
    ):  # as libpng tells
        icc = of_gamma(100_000 / gamma)
    width, height, bits, colours = struct.unpack(">IIBB", header[:10])
    needed = b"".join((*(part for part in kept if part[4:8] != b"IEND"), _PNG_END))

    def decoded(reduction: int) -> tuple[Image.Image, int]:
        image = PngImageFile(io.BytesIO(needed))
        image.load()
        if image.mode.startswith("I"):  # grey of 16 bits
            return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)), 1
        return image, 1

    def sixteen() -> NDArray[np.uint16]:
        if colours == 0 and not any(part[4:8] == b"tRNS" for part in kept[1:]):
            return np.asarray(PngImageFile(io.BytesIO(needed))).astype(np.uint16)[..., None]
        if header[12]:  # interlaced
            PngImageFile(io.BytesIO(needed)).load()
        rows = 0 if header[12] else height
        _check_png(kept[1:], rows, 1 + 2 * width * {0: 1, 2: 3, 4: 2, 6: 4}[colours])
        pixels = cv2.imdecode(np.frombuffer(needed, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16:
            raise Refusal("damaged: a PNG of 16 bits that cannot be read")
        if pixels.ndim == 2:
            return pixels[..., None].astype(np.uint16)
        return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]].astype(np.uint16)

    deep = sixteen if bits == 16 else None
    return File("PNG", width, height, _turn(exif), _kept(exif), icc or None, decoded, deep, cicp=cicp or None)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the data of each chunk; of one that is cut off, as much as there is."""
    at = 8
    for _ in range(CHUNKS):
        if at + 8 > len(content):
            return
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, at + 8, min(at + 8 + length, len(content))
        if kind == b"IEND":
            return
        at += 12 + length
    raise Refusal(f"bomb: a PNG of more than {CHUNKS:,} chunks")


def _check_png(parts: list[bytes], rows: int, stride: int) -> None:
    """Raise Refusal where the data are not what they should be: OpenCV would write to stderr and return what it has.

    rows of `stride` bytes, each of which begins with the number of its filter; 0: of unknown lengths.
    """
    stream, done = zlib.decompressobj(), 0
    try:
        for part in parts:
            if zlib.crc32(part[4:-4]) != int.from_bytes(part[-4:], "big"):
                raise Refusal("damaged: a checksum of the PNG is wrong")
            left = part[8:-4] if part[4:8] == b"IDAT" else b""
            while left:
                out = stream.decompress(left, PIECE)
                left = stream.unconsumed_tail
                if rows and done < rows * stride and max(out[-done % stride :: stride], default=0) > 4:
                    raise Refusal("damaged: a row of the PNG has no known filter")
                done += len(out)
    except zlib.error as error:
        raise Refusal(f"damaged: {error}") from error
    if not stream.eof or done < rows * stride:
        raise Refusal("truncated: a PNG whose rows are not all there")


def _inflated(data: bytes, most: int) -> bytes:
    """Empty where it is damaged or larger."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, most)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else out


# ---- WebP ----


def _webp(content: bytes, limits: Limits) -> File:
    """RFC 9649. Pillow's decoder makes room for a picture as it opens it: the size is read before."""
    exif, icc, frames, size, at = b"", b"", 0, (0, 0), 12
    for _ in range(SEGMENTS):
        if at + 8 > len(content):
            break
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        body = content[at + 8 : at + 8 + length]
        found = (0, 0)
        if kind == b"VP8X" and len(body) >= 10:
            found = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif kind == b"VP8 " and len(body) >= 10:
            found = tuple(n & 0x3FFF for n in struct.unpack("<HH", body[6:10]))  # type: ignore[assignment]
        elif kind == b"VP8L" and len(body) >= 5:
            packed = int.from_bytes(body[1:5], "little")
            found = (1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"ICCP":
            icc = body
        if found[0]:
            limits.check(*found)
            size = size if size[0] else found
        at += 8 + length + length % 2
    else:
        raise Refusal(f"bomb: a WebP of more than {SEGMENTS:,} chunks")
    if frames > 1:
        raise Animated(f"animated: {frames} frames, not a photograph")
    if not size[0]:
        raise Refusal("damaged: a WebP without a picture")

    def decoded(reduction: int) -> tuple[Image.Image, int]:
        if len(content) < 8 + struct.unpack("<I", content[4:8])[0]:
            raise Refusal("truncated: a WebP that ends before its end")
        image = WebPImageFile(io.BytesIO(content))
        limits.check(*image.size)
        image.load()
        return image, 1

    return File("WEBP", *size, _turn(exif), _kept(exif), _bounded(icc, PROFILE), decoded)


# ---- TIFF ----


def _tiff(content: bytes, limits: Limits, name: str) -> File:
    if name.endswith(RAW):
        return _raw(content, limits)
    found = tiff.first(content)
    if tiff.is_raw(found):
        return _raw(content, limits)
    limits.check(found.number(256, 0), found.number(257, 0))
    layout = tiff.layout(found)
    exif, icc = tiff.exif_of(found), found.data(34675)
    if layout.compression == 7:  # JPEG within
        scans = sum(
            content.count(b"\xff\xda", at, at + n) for at, n in zip(layout.offsets, layout.lengths, strict=True)
        )
        pieces = len(layout.offsets)
        if scans > SCANS * pieces or scans // pieces * layout.width * layout.height > SCANNED:
            raise Refusal(f"bomb: {scans:,} scans in a TIFF of {pieces:,} JPEGs")

    def decoded(reduction: int) -> tuple[Image.Image, int]:
        if layout.bits == 16 and layout.colours == 5:
            return Image.fromarray((tiff.sixteen(layout)[..., :4] >> 8).astype(np.uint8), "CMYK"), 1
        if layout.bits == 16:
            samples = (sixteen() >> 8).astype(np.uint8)
            return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples), 1
        image = TiffImageFile(io.BytesIO(tiff.plain(layout)))
        image.load()
        return image, 1

    def sixteen() -> NDArray[np.uint16]:
        samples = tiff.sixteen(layout)
        colours = 1 if layout.colours in (0, 1) else 3
        if layout.colours == 0:
            samples[..., 0] = 65535 - samples[..., 0]
        if not layout.alpha:
            return samples[..., :colours]
        made = samples[..., : colours + 1]
        if layout.alpha == 1:  # colours come multiplied by it
            alpha = np.maximum(made[..., colours:], 1).astype(np.float32)
            made[..., :colours] = (made[..., :colours] / alpha * 65535).clip(0, 65535).round()
        return made

    if layout.bits == 16 and layout.colours not in (0, 1, 2, 5):
        raise Refusal(f"damaged: 16 bits in colours (number {layout.colours}) that are not read; save it in RGB")
    deep = sixteen if layout.bits == 16 and layout.colours != 5 else None
    turn, profile = tiff.orientation(content), _bounded(icc, PROFILE)
    return File("TIFF", layout.width, layout.height, turn, exif or None, profile, decoded, deep)


# ---- HEIC and camera raw ----


def _heif(content: bytes, limits: Limits) -> File:
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise Refusal("HEIC without a decoder: pip install pillow-heif") from None
    try:
        image = HeifImageFile(io.BytesIO(content))
    except SyntaxError as error:
        raise Refusal(f"damaged: a HEIC file that cannot be read ({' '.join(str(error).split())[:80]})") from error
    limits.check(*image.size)

    def decoded(reduction: int) -> tuple[Image.Image, int]:
        image.load()
        limits.check(*image.size)  # the pictures within may be of another size than the file says
        return image, 1

    exif = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    profile = image.info.get("icc_profile") or b""
    # The decoder has turned the picture already, whatever EXIF says.
    return File("HEIF", *image.size, 1, _kept(exif), _bounded(profile, PROFILE), decoded)


def _raw(content: bytes, limits: Limits) -> File:
    try:
        import rawpy  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise Refusal("camera raw without a decoder: pip install rawpy") from None
    with rawpy.imread(io.BytesIO(content)) as raw:
        sizes = raw.sizes
        width, height = (sizes.iheight, sizes.iwidth) if sizes.flip in (5, 6) else (sizes.iwidth, sizes.iheight)
    limits.check(width, height)

    def decoded(reduction: int) -> tuple[Image.Image, int]:
        half = reduction > 1  # a pixel of every 2 x 2 of the sensor
        with rawpy.imread(io.BytesIO(content)) as raw:
            return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)), 1 + half

    exif = b""
    if content[:2] in (b"II", b"MM"):  # most raw files are TIFF-like, and what EXIF says is where a TIFF has it
        order = "<" if content[:1] == b"I" else ">"
        with suppress(tiff.Damaged):
            exif = tiff.exif_of(tiff.directory(content, struct.unpack_from(order + "I", content, 4)[0], order, False))
    return File("RAW", width, height, 1, exif or None, None, decoded)


# ---- what others need ----


def opaque(image: Image.Image) -> Image.Image:
    """Without a palette and without transparency, which is laid on white."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def pixels(path: str | os.PathLike[str], longest: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a file made by a program (a mask, a plot), as stored; at most `longest` pixels on its longer side.

    Raises Refusal and OSError, each with a reason in one line.
    """
    file = identify(load(Path(path)))
    try:
        largest = max(file.width, file.height)
        image = opaque(file.image(max(1, largest // (2 * longest)) if longest else 1)[0])
        if longest:
            image.thumbnail((longest, longest))
        return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise Refusal(reason(error)) from error
