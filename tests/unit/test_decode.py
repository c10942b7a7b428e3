"""What a file holds decides: photos come out upright in sRGB, everything else with a short reason, nothing with an exception."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from argan.photos import decode
from argan.photos.decode import DecodedPhoto, DecodeFailure, Exif
from argan.photos.photo_file import PhotoLimits


def picture(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth colours, red in the upper left corner."""
    random = np.random.default_rng(seed)
    small = random.integers(40, 216, (6, 9, 3)).astype(np.uint8)
    out = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)).copy()
    out[: height // 4, : width // 4] = (220, 20, 20)
    return out


def saved(image: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def good(content: bytes, **options: Any) -> DecodedPhoto:
    result = decode.decode(content, **options)
    assert isinstance(result, DecodedPhoto), result
    assert result.pixels.dtype == np.uint8 and result.pixels.ndim == 3 and result.pixels.shape[2] == 3
    return result


def reason(content: bytes | Path, **options: Any) -> str:
    result = decode.decode(content, **options)
    assert isinstance(result, DecodeFailure), result
    assert "\n" not in result.reason and "Traceback" not in result.reason and len(result.reason) < 160
    return result.reason


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_formats(kind: str, options: dict[str, Any]) -> None:
    photo = good(saved(picture(), kind, **options))
    assert (photo.width, photo.height, photo.reduction, photo.format) == (96, 64, 1, kind)
    assert np.abs(photo.pixels.astype(int) - picture()).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](picture())
    exif = Image.Exif()
    exif[274] = orientation
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        photo = good(saved(np.ascontiguousarray(turned), kind, exif=exif))
        assert photo.pixels.shape == (64, 96, 3) and (photo.width, photo.height) == (96, 64)
        assert np.abs(photo.pixels.astype(int) - picture()).mean() < 8


def test_camera_facts() -> None:
    exif = Image.Exif()
    exif[272] = "  Camera\n7 \0"
    exif.get_ifd(0x8769).update({33437: IFDRational(28, 10), 37386: IFDRational(50), 36867: "2021:05:04 03:02:01"})
    assert good(saved(picture(), "JPEG", exif=exif)).exif == Exif(2.8, 50.0, "2021-05-04T03:02:01", "Camera 7")


def test_camera_facts_that_make_no_sense_are_none() -> None:
    exif = Image.Exif()
    exif[274] = 77
    exif.get_ifd(0x8769).update({33437: IFDRational(28, 0), 37386: IFDRational(0), 36867: "0000:00:00 00:00:00"})
    photo = good(saved(picture(), "JPEG", exif=exif))
    assert photo.exif == Exif() and photo.pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("noise", range(8))
def test_damaged_exif_is_no_reason_to_refuse(noise: int) -> None:
    random = np.random.default_rng(noise)
    exif = Image.Exif()
    exif[274] = 1
    exif.get_ifd(0x8769).update({33437: IFDRational(28, 10), 36867: "2021:05:04 03:02:01"})
    content = bytearray(exif.tobytes())
    for at in random.integers(6, len(content), 6):
        content[at] = random.integers(256)
    assert good(saved(picture(), "JPEG", exif=bytes(content))).format == "JPEG"
    assert good(saved(picture(), "JPEG", exif=b"Exif\0\0" + random.bytes(60))).exif == Exif()


def test_colours_go_to_srgb_by_the_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    wide = _profile_with_swapped_red_and_green()
    photo = good(saved(picture(), "PNG", icc_profile=wide))
    assert photo.icc == "converted"
    corner = photo.pixels[4, 4].astype(int)
    assert corner[1] > corner[0] + 50  # what the file calls red is the profile's green
    assert good(saved(picture(), "PNG", icc_profile=profile.tobytes())).icc == "damaged"  # not of RGB


def _profile_with_swapped_red_and_green() -> bytes:
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = content.index(b"rXYZ"), content.index(b"gXYZ")
    content[red : red + 4], content[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(content).replace("sRGB".encode("utf-16-be"), "oRGB".encode("utf-16-be"))


@pytest.mark.parametrize("profile", [b"\0" * 40, b"nonsense" * 50, _profile_with_swapped_red_and_green()[:300]])
def test_a_damaged_profile_counts_as_srgb(profile: bytes) -> None:
    for kind in ("JPEG", "PNG"):
        photo = good(saved(picture(), kind, icc_profile=profile))
        assert photo.icc == "damaged"
        assert np.abs(photo.pixels.astype(int) - picture()).mean() < 8


def test_srgb_profiles_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = good(saved(picture(), "PNG", icc_profile=srgb))
    assert photo.icc == "srgb" and np.array_equal(photo.pixels, picture())


def test_modes_that_photographs_come_in() -> None:
    rgb = Image.fromarray(picture())
    grey = np.asarray(rgb.convert("L"))
    assert np.array_equal(good(saved(grey, "PNG")).pixels, np.stack([grey] * 3, -1))
    assert good(saved(grey, "JPEG")).pixels.shape == (64, 96, 3)
    deep = grey.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(good(saved(Image.fromarray(deep), kind)).pixels[..., 0], grey)
    for kind in ("JPEG", "TIFF"):
        assert np.abs(good(saved(rgb.convert("CMYK"), kind)).pixels.astype(int) - picture()).mean() < 8
    assert good(saved(rgb.quantize(64), "PNG")).pixels.shape == (64, 96, 3)


def test_sixteen_bits_a_colour() -> None:
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in picture())
    header = struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(good(content).pixels, picture())


def test_transparency() -> None:
    alpha = np.full((64, 96), 255, np.uint8)
    assert np.array_equal(good(saved(np.dstack([picture(), alpha]), "PNG")).pixels, picture())
    alpha[-3:, -3:] = 0
    rounded = good(saved(np.dstack([picture(), alpha]), "PNG")).pixels
    assert np.all(rounded[-3:, -3:] == 255) and np.array_equal(rounded[:-3], picture()[:-3])
    palette = Image.fromarray(picture()).quantize(16)
    assert reason(saved(palette, "PNG", transparency=int(palette.getpixel((50, 50))))).startswith("cut out: ")  # type: ignore[arg-type]
    alpha[:, 50:] = 0
    for kind in ("PNG", "WEBP"):
        assert reason(saved(np.dstack([picture(), alpha]), kind)).startswith("cut out: ")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.fromarray(picture(seed=i)) for i in range(3)]
    assert (
        reason(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        == "animated: 3 frames, not a photograph"
    )


def test_of_several_pages_the_first_is_the_photograph() -> None:
    pages = [Image.fromarray(picture(seed=i)) for i in range(2)]
    for kind in ("TIFF", "MPO"):
        photo = good(saved(pages[0], kind, save_all=True, append_images=pages[1:]))
        assert np.abs(photo.pixels.astype(int) - picture()).mean() < 8


@pytest.mark.parametrize(
    ("content", "output"),
    [
        (b"", "empty: 0 bytes"),
        (b"just some text, saved as photo.jpg\n", "not an image: "),
        (b"\xff\xd8\xff", "truncated: "),
        (b"GIF89a" + b"\0" * 50, "not an image: "),
        (b"<svg/>", "not an image: "),
        (png_header(30_000, 30_000), "bomb: "),
        (png_header(100_000, 2_000), "bomb: "),
        (png_header(2**31 - 1, 2**31 - 1), "bomb: "),
        (saved(Image.new("1", (64, 64)), "PNG"), "no photograph: 1 bit"),
        (saved(Image.new("F", (64, 64)), "TIFF"), "no photograph: floating point"),
        (b"II*\0" + b"\xff" * 60, ""),
        (b"II*\0\x08\0\0\0", ""),
        (b"FUJIFILMCCD-RAW " + b"\0" * 60, ""),
        (b"\0\0\0\x18ftypheic" + b"\0" * 60, ""),
    ],
)
def test_what_is_no_photograph_is_refused(content: bytes, output: str) -> None:
    assert reason(content).startswith(output)


def test_limits_hold_before_a_pixel_is_decoded(tmp_path: Path) -> None:
    jpeg = bytearray(saved(picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 30_000, 30_000)
    assert reason(bytes(jpeg)).startswith("bomb: ")
    assert reason(saved(np.zeros((1, 1, 3), np.uint8), "PNG"), limits=PhotoLimits(shorter=32)) == (
        "too small: 1 x 1 pixels, the shorter side must have 32"
    )
    assert reason(saved(picture(), "PNG"), limits=PhotoLimits(shorter=65)).startswith("too small: 96 x 64")
    assert reason(saved(picture(), "PNG"), limits=PhotoLimits(pixels=6_000)).startswith("bomb: 96 x 64 pixels")
    large = tmp_path / "large.jpg"
    large.write_bytes(b"0" * (2 << 20))
    assert reason(large, limits=PhotoLimits(file_bytes=1 << 20)) == "file too large: 2 MiB, more than 1"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated_anywhere(kind: str) -> None:
    content = saved(picture(), kind)
    for part in np.linspace(1, len(content) - 24, 24).astype(int):
        result = decode.decode(content[:part])
        assert isinstance(result, DecodeFailure), part
    assert reason(content[: len(content) * 3 // 4]).split(":")[0] in ("truncated", "damaged", "not an image")


def test_a_jpeg_cut_off_and_closed_again() -> None:
    content = saved(picture(960, 640), "JPEG", quality=90)
    assert reason(content[: len(content) // 2] + b"\xff\xd9").startswith("truncated: ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_flipped_bytes_never_raise(kind: str) -> None:
    content = saved(picture(), kind)
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for at in random.integers(0, len(content), 5):
            damaged[at] = random.integers(256)
        assert isinstance(decode.decode(bytes(damaged)), DecodedPhoto | DecodeFailure)


def test_paths(tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / "pipe.jpg", tmp_path / "link.jpg", tmp_path / "folder.jpg"
    os.mkfifo(pipe)
    link.symlink_to("nowhere")
    folder.mkdir()
    assert reason(pipe) == reason(folder) == "no regular file"
    assert reason(link) == reason(tmp_path / "missing") == "not there"
    assert isinstance(decode.load(pipe), DecodeFailure) and isinstance(decode.load(link), DecodeFailure)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("size", [(1600, 1200), (1601, 1203)])
def test_decoded_small_is_the_same_picture(kind: str, size: tuple[int, int]) -> None:
    """Down to 64 px from a small decode and from a full one: the same, also where detail is finer than what is kept."""
    y, x = np.mgrid[: size[1], : size[0]]
    rings = 127 + 80 * np.cos(
        (x**2 + y**2) * np.pi / (2 * 1700)
    )  # up to half a cycle a pixel and beyond: aliases show at once
    image = np.clip(np.stack([rings, rings * 0.8, 255 - rings], -1), 0, 255).astype(np.uint8)
    content = saved(
        image, kind, **({"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {})
    )
    full = good(content)
    small = good(content, target_scale=lambda w, h: 64 / h)
    assert full.reduction == 1 and small.reduction == (8 if kind == "JPEG" else 9)
    assert (small.width, small.height) == size
    assert min(small.pixels.shape[:2]) >= decode.MARGIN * 64
    a, b = (cv2.resize(p.pixels, (85, 64), interpolation=cv2.INTER_AREA).astype(float) for p in (full, small))
    assert np.abs(a - b).mean() < 1.5
    assert all(p[32:, 32:].std((0, 1)).max() < 6 for p in (a, b))  # what is too fine to keep is gone, no false rings


def test_never_decoded_below_twice_the_wanted_size() -> None:
    content = saved(picture(800, 600), "JPEG")
    for wanted in (10, 37, 38, 75, 76, 149, 150, 151, 299, 600):
        photo = good(content, target_scale=lambda w, h, wanted=wanted: wanted / h)
        assert min(photo.pixels.shape[:2]) >= min(600, 2 * wanted)
        assert photo.reduction in (1, 2, 4, 8) or wanted == 10


def test_missing_decoders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    assert reason(b"\0\0\0\x18ftypheic" + b"\0" * 60) == "HEIC without a decoder: pip install pillow-heif"
    assert reason(b"II*\0" + b"\0" * 60, name="a.NEF") == "camera raw without a decoder: pip install rawpy"


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({33437: IFDRational(18, 10)})
    content = saved(picture(), "HEIF", quality=95, exif=exif)
    photo = good(content)
    assert photo.format == "HEIF" and photo.exif.aperture == 1.8
    assert np.abs(photo.pixels.astype(int) - picture()).mean() < 8
    assert good(saved(picture(640, 480), "HEIF"), target_scale=lambda w, h: 60 / h).pixels.shape == (120, 160, 3)
    assert reason(content[: len(content) // 2]).split(":")[0] in ("truncated", "damaged")


def dng(mosaic: np.ndarray) -> bytes:
    """The least a raw converter takes: an uncompressed Bayer mosaic (H, W) uint16 with white at 65535."""
    h, w = mosaic.shape
    short, long, byte, rational, text = 3, 4, 1, 10, 2
    one = struct.pack("<9i", 1, 0, 0, 0, 1, 0, 0, 0, 1)
    matrix = b"".join(one[i : i + 4] + struct.pack("<i", 1) for i in range(0, 36, 4))
    tags: list[tuple[int, int, int, bytes]] = [
        (254, long, 1, struct.pack("<I", 0)),
        (256, long, 1, struct.pack("<I", w)),
        (257, long, 1, struct.pack("<I", h)),
        (258, short, 1, struct.pack("<H", 16)),
        (259, short, 1, struct.pack("<H", 1)),
        (262, short, 1, struct.pack("<H", 32803)),
        (271, text, 5, b"Test\0"),
        (272, text, 6, b"Raw 1\0"),
        (273, long, 1, b"????"),
        (274, short, 1, struct.pack("<H", 6)),
        (277, short, 1, struct.pack("<H", 1)),
        (278, long, 1, struct.pack("<I", h)),
        (279, long, 1, struct.pack("<I", 2 * w * h)),
        (33421, short, 2, struct.pack("<HH", 2, 2)),
        (33422, byte, 4, bytes([0, 1, 1, 2])),
        (50706, byte, 4, bytes([1, 4, 0, 0])),
        (50708, text, 6, b"Raw 1\0"),
        (50717, long, 1, struct.pack("<I", 65535)),
        (50721, rational, 9, matrix),
        (50728, 5, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
        (50778, short, 1, struct.pack("<H", 21)),
    ]
    at = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", b""
    data = at + sum(len(v) + len(v) % 2 for *_, v in tags if len(v) > 4)
    for tag, kind, count, value in tags:
        if tag == 273:
            value = struct.pack("<I", data)
        if len(value) > 4:
            entries += struct.pack("<HHII", tag, kind, count, at + len(extra))
            extra += value + b"\0" * (len(value) % 2)
        else:
            entries += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(tags))
        + entries
        + struct.pack("<I", 0)
        + extra
        + mosaic.astype("<u2").tobytes()
    )


def test_camera_raw() -> None:
    pytest.importorskip("rawpy")
    mosaic = np.full((240, 320), 20_000, np.uint16)
    mosaic[:120, :160] = 50_000
    content = dng(mosaic)
    for wanted, reduction, shape in ((None, 1, (320, 240, 3)), (lambda w, h: 40 / 240, 2, (160, 120, 3))):
        photo = good(content, target_scale=wanted)
        assert (photo.width, photo.height, photo.reduction, photo.format) == (240, 320, reduction, "RAW")
        assert photo.pixels.shape == shape and photo.exif.camera == "Raw 1"
        h, w, _ = shape
        assert photo.pixels[: h // 3, -w // 3 :].mean() > photo.pixels[-h // 3 :].mean() + 30  # turned by its EXIF
    assert reason(content[:-50_000]).split(":")[0] in ("truncated", "damaged")
    assert reason(content, limits=PhotoLimits(pixels=10_000)).startswith("bomb: ")
