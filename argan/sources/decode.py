"""One photo file -> upright sRGB pixels and what its EXIF tells, or a short reason why not.

JPEG, PNG, WebP, TIFF; HEIC with the package pillow-heif, camera raw with rawpy. What a file is, its content says, not its
name. Limits hold before a pixel is decoded. Whoever needs a small picture gets one decoded small: JPEG by its DCT, others by a
box filter, both free of aliases and never below twice the wanted size, so that the one downscale to come is what shapes it.

Decisions, where files leave room:
- a damaged ICC profile is passed over, the pixels taken for sRGB: it says nothing about them, nearly all cameras write sRGB,
  and colour does not carry the defocus;
- transparency is laid on white where it is a rounded corner; a photo that is cut out is refused: the background whose
  blur is the signal is gone;
- an animation is refused: no photograph, and its frames are copies of each other. Of many TIFF pages and of JPEGs that hold
  several pictures (gain maps, stereo), the first is the photograph;
- 16 bits become 8 by their upper byte; floating point has no known white and is refused.
"""

from __future__ import annotations

import io
import math
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

Pixels = NDArray[np.uint8]
Wanted = Callable[[int, int], float]  # (width, height) of the upright photo -> the scale at which it is wanted, above 0

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # a JPEG of several pictures opens as JPEG and calls itself MPO
RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
    *(".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", *RAW)

MARGIN = 2  # a photo is never decoded below this many times the wanted size
SCANS = 100  # of a progressive JPEG; cameras and editors write about ten, every one costs a pass over all pixels
# Names under which cameras and programs write the very sRGB. "Linear sRGB" and the like are not it: any other is converted.
SRGB = ("sRGB", "sRGB IEC61966-2.1", "sRGB IEC61966-2-1", "sRGB IEC61966-2-1 black scaled", "sRGB built-in", "sRGB2014")
CUT_OUT = 0.02  # share of transparent pixels above which a photo is a cut-out

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """What is refused before it is decoded."""

    file_bytes: int = 256 << 20
    pixels: int = 120_000_000  # the largest sensors; 30,000 x 30,000 would be 2.7 GB
    shorter: int = 1  # pixels of the shorter side at least: nothing is upscaled


@dataclass(frozen=True)
class Exif:
    """What the camera says, each None where it is missing or makes no sense."""

    aperture: float | None = None  # f-number
    focal_length: float | None = None  # millimetres, the lens's own
    taken: str | None = None  # ISO 8601, seconds, in the camera's local time
    camera: str | None = None


@dataclass(frozen=True)
class Photo:
    """A decoded photo. pixels (h, w, 3) uint8 sRGB, upright; one of them is 1 / reduction of the photo's own across."""

    pixels: Pixels
    width: int  # of the photo itself, upright
    height: int
    reduction: int
    format: str
    icc: str  # none, srgb, converted, damaged
    exif: Exif


@dataclass(frozen=True)
class Refused:
    """Why there is no photo: what kind of fault, a colon, details."""

    reason: str


class _Refusal(Exception):
    pass


def decode(
    photo: Path | bytes, wanted: Wanted | None = None, limits: Limits = Limits(), *, name: str = ""
) -> Photo | Refused:
    """Decode a file, or its content with `name` to tell raw formats by. Nothing is raised, whatever the file holds.

    wanted: asked with the upright (width, height) once they are known; the photo is then decoded at MARGIN times the scale it
    returns or above. None: at full size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused or passed over here
            content = read(photo, limits) if isinstance(photo, Path) else photo
            return _decoded(content, (name or str(photo if isinstance(photo, Path) else "")).lower(), wanted, limits)
    except _Refusal as refusal:
        return Refused(str(refusal))
    except Exception as error:  # decoders meet broken files with anything
        return Refused(_reason(error))


def read(path: Path, limits: Limits = Limits()) -> bytes:
    """A regular file's content. Raises OSError, or what `decode` turns into a reason (see `attempt`)."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise _Refusal("no regular file")  # to open a pipe would wait for ever
    if facts.st_size > limits.file_bytes:
        raise _Refusal(f"file too large: {facts.st_size >> 20} MiB, more than {limits.file_bytes >> 20}")
    with path.open("rb") as file:
        return file.read(limits.file_bytes + 1)


def attempt(path: Path, limits: Limits = Limits()) -> bytes | Refused:
    """`read`, with a reason in the place of an exception."""
    try:
        return read(path, limits)
    except _Refusal as refusal:
        return Refused(str(refusal))
    except OSError as error:
        return Refused(_reason(error))


def _decoded(content: bytes, name: str, wanted: Wanted | None, limits: Limits) -> Photo:
    if not content:
        raise _Refusal("empty: 0 bytes")
    image: Image.Image
    if content[4:12] in (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftyphevc", b"ftypmsf1"):
        register_heif()
        try:
            image = Image.open(io.BytesIO(content), formats=("HEIF",))
        except UnidentifiedImageError:
            raise _Refusal("damaged: a HEIC file that cannot be read") from None
    elif _is_raw(content, name):
        return _raw(content, wanted, limits)
    else:
        if content[:2] == b"\xff\xd8" and (scans := content.count(b"\xff\xda")) > SCANS:
            raise _Refusal(f"bomb: a JPEG of {scans} scans")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    kind = str(image.format).replace("MPO", "JPEG")
    orientation, exif = facts(image)
    _check(*image.size, limits)
    if kind in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise _Refusal(f"animated: {getattr(image, 'n_frames', 'several')} frames, not a photograph")
    if image.mode in ("1", "F"):
        raise _Refusal("no photograph: " + ("1 bit a pixel" if image.mode == "1" else "floating point without a white"))
    profile = image.info.get("icc_profile")
    width, height = image.size
    done = 1
    if kind == "JPEG":
        power = next(k for k in (8, 4, 2, 1) if k <= _reduction(wanted, width, height))  # what DCT scaling can do
        image.draft(None, (max(1, width // power), max(1, height // power)))  # type: ignore[attr-defined]
        done = next(k for k in (1, 2, 4, 8) if image.size[0] * k >= width)
    image.load()
    if kind == "TIFF":
        orientation, _ = facts(image)  # some versions of Pillow turn a TIFF as they load it
        width, height = image.size
    elif kind == "HEIF":
        orientation = 1  # its decoder has turned it
    if orientation >= 5:
        width, height = height, width
    reduction = _reduction(wanted, width, height)
    image = _opaque(_eight_bits(image))
    if reduction // done > 1:
        image = image.reduce(reduction // done)
        done *= reduction // done
    image, icc = _srgb(image, profile)
    if orientation in _TURN:
        image = image.transpose(_TURN[orientation])
    pixels = np.asarray(image)
    if kind == "JPEG":
        _check_end(pixels, orientation)
    return Photo(pixels, width, height, done, kind, icc, exif)


def _check(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise _Refusal(f"bomb: {width} x {height} pixels, more than {limits.pixels / 1e6:g} million")
    if min(width, height) < limits.shorter:
        raise _Refusal(f"too small: {width} x {height} pixels, the shorter side must have {limits.shorter}")


def _reduction(wanted: Wanted | None, width: int, height: int) -> int:
    """The whole number by which the photo may be made smaller at once."""
    if wanted is None:
        return 1
    scale = wanted(width, height)
    return max(1, int(1 / (MARGIN * scale) + 1e-9)) if scale > 0 else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise _Refusal("no photograph: 32 bits a pixel")
        if getattr(image, "tag_v2", {}).get(262) == 0:  # TIFF's WhiteIsZero, which Pillow heeds at 8 bits only
            samples = 65535 - samples
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """Without transparency: laid on white; cut-outs refused."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    counts = alpha.histogram()
    clear = sum(counts[:250]) / (image.width * image.height)
    if clear > CUT_OUT:
        raise _Refusal(f"cut out: {clear:.0%} of it transparent, no background left")
    if not sum(counts[:255]):
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """To RGB in sRGB, and what became of the profile."""
    found = "none"
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if ImageCms.getProfileDescription(source).strip() in SRGB:
                found = "srgb"
            else:
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted, "converted"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
            found = "damaged"
    return image.convert("RGB"), found


def _check_end(pixels: Pixels, orientation: int) -> None:
    """A JPEG that was cut off and closed again decodes without an error: what is missing is an even grey."""
    stored_last = {1: (-1, 0), 2: (-1, 0), 3: (0, 0), 4: (0, 0), 5: (-1, 1), 6: (0, 1), 7: (0, 1), 8: (-1, 1)}
    at, axis = stored_last.get(orientation, (-1, 0))
    n = max(1, pixels.shape[axis] // 50)
    last = np.take(pixels, range(-n, 0) if at == -1 else range(n), axis)
    if last.min() == last.max() == 128:
        raise _Refusal("truncated: the lower part is an even grey")


def facts(image: Image.Image) -> tuple[int, Exif]:
    """EXIF orientation (1 to 8) and facts. Damaged EXIF counts as none, field by field."""
    try:
        top = image.getexif()
        return _exif(top, lambda: top.get_ifd(0x8769))
    except Exception:  # parsers of damaged EXIF fail in many ways
        return 1, Exif()


def _exif(top: Any, camera: Callable[[], Any]) -> tuple[int, Exif]:
    orientation = top.get(274)
    orientation = orientation if isinstance(orientation, int) and orientation in _TURN else 1
    try:
        shot = camera()
    except Exception:
        shot = {}
    text = " ".join(str(top.get(272) or "").replace("\0", " ").split())
    text = "".join(c for c in text if c.isprintable())[:64]
    exif = Exif(
        _number(shot.get(33437), 0.3, 200), _number(shot.get(37386), 0.5, 10_000), _date(shot.get(36867)), text or None
    )
    return orientation, exif


def _number(value: Any, low: float, high: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return round(number, 3) if math.isfinite(number) and low <= number <= high else None


def _date(value: Any) -> str | None:
    try:
        date = datetime.strptime(str(value).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return date.isoformat() if 1826 <= date.year <= 2200 else None  # no photograph is older


def register_heif() -> None:
    try:
        import pillow_heif  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise _Refusal("HEIC without a decoder: pip install pillow-heif") from None
    pillow_heif.register_heif_opener(thumbnails=False)


def _is_raw(content: bytes, name: str) -> bool:
    """By content; TIFF-like raw, whose first picture is a mere preview, by its tags or its name."""
    if content[:15] == b"FUJIFILMCCD-RAW" or content[:4] in (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"):
        return True
    if content[4:12] == b"ftypcrx " or (content[8:10] == b"CR" and content[:2] == b"II"):
        return True
    if content[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if name.endswith(RAW):
        return True
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)  # Pillow knows the tags of TIFFs whose pictures it does not
    return 50706 in tags or tags.get(262) == 32803 or tags.get(259) in (34713, 32767)  # DNG, CFA, NEF, ARW


def _raw(content: bytes, wanted: Wanted | None, limits: Limits) -> Photo:
    try:
        import rawpy  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise _Refusal("camera raw without a decoder: pip install rawpy") from None
    exif = Exif()
    if content[:2] in (b"II", b"MM"):  # most raw files are TIFF-like, and the camera's facts are where TIFF has them
        found = Image.Exif()
        with suppress(Exception):
            found.load(content)
            _, exif = _exif(found, lambda: found.get_ifd(0x8769))
    with rawpy.imread(io.BytesIO(content)) as raw:
        sizes = raw.sizes
        turned = sizes.flip in (5, 6)
        width, height = (sizes.iheight, sizes.iwidth) if turned else (sizes.iwidth, sizes.iheight)
        _check(width, height, limits)
        reduction = _reduction(wanted, width, height)
        half = reduction > 1  # one pixel of every 2 x 2 of the sensor
        pixels = raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)
    photo = Photo(pixels, width, height, 2 if half else 1, "RAW", "converted", exif)
    if half and (more := reduction // 2) > 1:
        photo = replace(photo, pixels=np.asarray(Image.fromarray(pixels).reduce(more)), reduction=2 * more)
    return photo


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    low = text.lower()
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", text)
        return f"bomb: {int(found[0]) / 1e6:.0f} million pixels" if found else "bomb: too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not an image: no JPEG, PNG, WebP, TIFF, HEIC or camera raw"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "not there"
    if isinstance(error, PermissionError):
        return "not readable: permission denied"
    if isinstance(error, MemoryError):
        return "too large: not enough memory"
    if isinstance(error, EOFError) or any(
        word in low for word in ("truncated", "end of file", "premature", "unexpected end")
    ):
        return f"truncated: {text[:100]}" if text else "truncated"
    return f"damaged: {(text or type(error).__name__)[:100]}"
