"""Colours to sRGB by the profile of a file, where what is written or compared has to be in sRGB."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Names under which cameras and programs write the very sRGB. "Linear sRGB" and the like are not it: any other is converted.
SRGB = ("sRGB", "sRGB IEC61966-2.1", "sRGB IEC61966-2-1", "sRGB IEC61966-2-1 black scaled", "sRGB built-in", "sRGB2014")


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """To RGB in sRGB, and what became of the profile: none, srgb, converted, damaged (passed over, as if there were none)."""
    found = "none"
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")
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


def of_gamma(exponent: float) -> bytes:
    """The profile of colours with sRGB's primaries that are the light to the power of 1 / exponent, as PNG's gAMA says it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    curve = struct.pack(
        ">4s4xHxxi", b"para", 0, round(exponent * 65536)
    )  # ICC.1:2022, 10.18: function type 0 is a power
    for tag in (b"rTRC", b"gTRC", b"bTRC"):
        (at,) = struct.unpack_from(">I", profile, profile.index(tag) + 4)
        profile[at : at + len(curve)] = curve
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "gAMA".encode("utf-16-be"))


def grey_to_srgb(samples: NDArray[np.uint16], profile: bytes | None) -> NDArray[np.uint16]:
    """Grey of 16 bits, which the profile's library converts at 8 only: between its 256 levels it is interpolated."""
    if not profile:
        return samples
    ramp, found = to_srgb(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), profile)
    if found != "converted":
        return samples
    levels = np.asarray(ramp)[0, :, 1].astype(np.float64) * 257
    table = np.interp(np.arange(65536), np.arange(256) * 257, levels).round().astype(np.uint16)
    return table[samples]
