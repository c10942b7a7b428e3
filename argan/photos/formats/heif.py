"""HEIC, with the optional package pillow-heif."""

from __future__ import annotations

import io

from PIL import Image

from argan.photos.formats import exif as exif_format
from argan.photos.formats.picture import PhotoError, PhotoLimits, PictureFile, bounded_profile

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read(content: bytes, limits: PhotoLimits) -> PictureFile:
    """Raises PhotoError."""
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found,import-untyped]
    except ImportError:
        raise PhotoError("HEIC without a decoder: pip install pillow-heif") from None
    try:
        image = HeifImageFile(io.BytesIO(content))
    except SyntaxError as error:
        raise PhotoError(f"damaged: a HEIC file that cannot be read ({' '.join(str(error).split())[:80]})") from error
    limits.check(*image.size)

    def decode(reduction: int) -> tuple[Image.Image, int]:
        image.load()
        limits.check(*image.size)  # the pictures within may be of another size than the file says
        return image, 1

    exif = exif_format.readable((image.info.get("exif") or b"").removeprefix(b"Exif\0\0"))
    profile = bounded_profile(image.info.get("icc_profile") or b"")
    # Orientation 1 whatever EXIF says: the decoder has rotated the picture already
    return PictureFile("HEIF", *image.size, 1, exif, profile, decode)
