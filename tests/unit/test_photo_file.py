"""Hostile and odd picture files: what collections and commands make of them, which is the same."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif  # type: ignore[import-untyped]
import pytest
from PIL import Image, ImageCms

from argan.errors import UserError
from argan.photos import decode, photo_file, photograph
from argan.photos.formats import ifd, tiff
from argan.photos.formats.exif import orientation

CORNERS = (
    (220, 30, 30),
    (30, 200, 30),
    (30, 30, 220),
    (220, 210, 30),
)  # top left, top right, bottom left, bottom right


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    """Grey noise with an own colour in each corner, so that a turn or a mirror shows."""
    pixels = np.random.default_rng(0).integers(60, 190, (height, width, 1)).astype(np.uint8).repeat(3, 2)
    h, w = height // 4, width // 4
    pixels[:h, :w], pixels[:h, -w:], pixels[-h:, :w], pixels[-h:, -w:] = CORNERS
    return pixels


def saved(image: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def heic(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=95, **options)
    return file.getvalue()


def both(folder: Path, content: bytes, name: str = "photo.jpg") -> list[np.ndarray | str]:
    """What a collection and what a command makes of a file: 8-bit pixels, or the reason why not."""
    path = folder / name
    path.write_bytes(content)
    taken = decode.decode(path)
    made: list[np.ndarray | str] = [taken.pixels if isinstance(taken, decode.DecodedPhoto) else taken.reason]
    try:
        made.append(photograph.read(path).in_8_bits)
    except UserError as error:
        made.append(str(error))
    for text in made:
        assert not isinstance(text, str) or ("\n" not in text and len(text) < 300)
    return made


def taken(folder: Path, content: bytes, name: str = "photo.jpg", near: np.ndarray | None = None) -> None:
    wanted = picture() if near is None else near
    for pixels in both(folder, content, name):
        assert isinstance(pixels, np.ndarray), pixels
        assert pixels.shape == wanted.shape and np.abs(pixels.astype(int) - wanted).mean() < 12


def refused(folder: Path, content: bytes, *words: str, name: str = "photo.jpg") -> None:
    reason, line = both(folder, content, name)
    assert isinstance(reason, str) and any(word in reason for word in words), reason
    assert isinstance(line, str) and any(word in line for word in words) and str(folder / name) in line, line


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes, pixels: np.ndarray | None = None) -> bytes:
    """Chunks put behind the header."""
    content = saved(picture() if pixels is None else pixels, "PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def tiff_of(tags: dict[int, tuple[int, int, bytes]], data: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of these tags (type, count, bytes) with `data` from byte 8."""
    at = 8 + len(data) + len(data) % 2
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + data + bytes(len(data) % 2) + ifd.write_directory(tags, at, order, False)


def number(*values: int) -> tuple[int, int, bytes]:
    return 4, len(values), struct.pack(f"<{len(values)}I", *values)


def sixteen(pixels: np.ndarray, **more: Any) -> bytes:
    """An uncompressed TIFF of uint16 (H, W, samples); more: tags in the place of the usual ones, named t<number>."""
    data = pixels.astype("<u2").tobytes()
    height, width, samples = pixels.shape
    tags = {
        256: number(width), 257: number(height), 258: number(*[16] * samples), 259: number(1), 262: number(2 if samples > 1 else 1),
        273: number(8), 277: number(samples), 278: number(height), 279: number(len(data)),
    }  # fmt: skip
    return tiff_of(tags | {int(name[1:]): value for name, value in more.items()}, data)


# ---- formats that are not read ----


def test_postscript_named_jpg_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *args, **options: started.append(args))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) show\nshowpage\n%%EOF\n"
    refused(tmp_path, eps, "not an image", "no photo in a known format")
    assert not started


@pytest.mark.parametrize("kind", ["BMP", "TGA", "DDS", "JPEG2000", "PPM", "ICO", "PCX", "QOI", "PSD"])
def test_what_else_pillow_knows_is_not_read(tmp_path: Path, kind: str) -> None:
    made = {"QOI": b"qoif" + struct.pack(">II", 8, 8) + b"\3\0" + bytes(64), "PSD": b"8BPS\0\1" + bytes(60)}
    refused(tmp_path, made.get(kind) or saved(picture(), kind), "not an image", "no photo in a known format")


# ---- work that is bounded before it begins ----


def scans(times: int, size: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = saved(picture(size, size), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * times + content[-2:]


def test_scans_of_a_jpeg_are_bounded(tmp_path: Path) -> None:
    refused(tmp_path, scans(310), "bomb: a JPEG of 64 x 64 pixels")
    content = bytearray(scans(40))
    at = content.index(b"\xff\xc2")
    content[at + 5 : at + 9] = struct.pack(">HH", 10_000, 10_000)
    refused(tmp_path, bytes(content), "bomb: a JPEG of 10000 x 10000 pixels")
    refused(tmp_path, b"\xff\xd8\xff" + b"\xe2\0\2\xff" * 20_000, "bomb: a JPEG of more than")


def test_compressed_nothing_in_a_png_is_not_unpacked(tmp_path: Path) -> None:
    nothing = zlib.compress(bytes(100 << 20), 9)
    text = chunk(b"zTXt", b"Comment\0\0" + nothing)
    profile = chunk(b"iCCP", b"ICC\0\0" + nothing)
    taken(tmp_path, png_with(text, profile))
    taken(tmp_path, png_with(chunk(b"iTXt", b"XML\0\0\0\0\0" + b"x" * (3 << 20))))
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    refused(tmp_path, png_with()[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", nothing), "40000 x 40000 pixels")
    refused(tmp_path, png_with(chunk(b"teXt", b"") * 200_001), "bomb: a PNG of more than")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({273: (4, 1 << 30, bytes(4))}, "strips or tiles"),
        ({273: number(*[8] * 3000), 279: number(*[18_000] * 3000), 278: number(1), 257: number(3000)}, "share the same"),
        ({322: number(65_536), 323: number(65_536), 324: number(8), 325: number(100)}, "do not fit"),
        ({256: number(2**31), 257: number(2**31)}, "too large"),
        ({258: number(16, 16, 16), 277: number(60_000)}, "60000 samples"),
        ({279: number(2**32 - 1)}, "end outside the file"),
        ({256: (2, 1, b"x\0\0\0")}, "256"),
        ({262: number(1), 277: number(1), 258: number(32)}, "32 bits"),
    ],
)  # fmt: skip
def test_tiffs_that_ask_for_more_than_they_hold(
    tmp_path: Path, tags: dict[int, tuple[int, int, bytes]], reason: str
) -> None:
    content = sixteen(picture().astype(np.uint16) * 257, **{f"t{tag}": value for tag, value in tags.items()})
    refused(tmp_path, content, reason, "bomb", name="photo.tif")


def test_sizes_are_known_before_there_is_room_for_them(tmp_path: Path) -> None:
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_382).to_bytes(3, "little") * 2
    webp = canvas + saved(picture(), "WEBP")[12:]
    refused(tmp_path, b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp, "16383 x 16383 pixels")
    content = heic(picture())
    at = content.index(b"ispe") + 8
    refused(tmp_path, content[:at] + struct.pack(">II", 30_000, 30_000) + content[at + 8 :], "30000 x 30000", "damaged")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    refused(
        tmp_path, saved(frames[0], kind, save_all=True, append_images=frames[1:]), "animated: 2 frames", "animation"
    )


def test_files_cut_off_anywhere_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deep = sixteen(picture().astype(np.uint16) * 257)
    for content in (saved(picture(), "JPEG", progressive=True), saved(picture(), "PNG"), saved(picture(), "WEBP"),
                    saved(picture(), "TIFF"), deep, heic(picture()),
                    photograph.png(picture().astype(np.uint16) * 257)):  # fmt: skip
        for part in (3, 11, 40, len(content) // 2, len(content) - 40):
            refused(tmp_path, content[:part], "truncated", "damaged", "not an image", "no photo in a known format")
    content = photograph.png(picture().astype(np.uint16) * 257)
    for at in (29, 60, len(content) // 2, len(content) - 18):  # OpenCV would write to stderr of these and return a part
        damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        (tmp_path / "deep.png").write_bytes(damaged)
        with pytest.raises(UserError, match="checksum"):
            photograph.read(tmp_path / "deep.png")
    assert capfd.readouterr().err == ""


# ---- what looks odd and is a photograph ----


def test_what_lies_behind_a_jpeg_is_none_of_its_scans(tmp_path: Path) -> None:
    taken(tmp_path, saved(picture(), "JPEG", quality=95) + b"\0\0\0\x14ftypmp42" + b"\xff\xda\0\x08" * 300)


def test_where_the_data_of_a_jpeg_end_decides_not_the_colour(tmp_path: Path) -> None:
    mat = picture(320, 240)
    mat[-60:] = 128
    for options in ({}, {"progressive": True}):
        content = saved(mat, "JPEG", quality=92, **options)
        taken(tmp_path, content, near=mat)
    content = saved(picture(320, 240), "JPEG", quality=92)
    refused(tmp_path, content[: len(content) // 2] + b"\xff\xd9", "truncated")


@pytest.mark.parametrize("turn", range(1, 9))
def test_jpegs_closed_after_a_cut_are_refused_at_every_orientation(tmp_path: Path, turn: int) -> None:
    """What is missing lies at the end of the stored rows: rotated by EXIF, it is at another edge of the photo."""
    content = saved(picture(320, 240), "JPEG", quality=92)
    cut = content[: len(content) // 2] + b"\xff\xd9"
    exif = tiff_of({274: (3, 1, struct.pack("<H", turn))})
    refused(tmp_path, with_exif(cut, exif), "truncated")


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    for content in (heic(picture()), saved(picture(), "PNG"), saved(picture(), "WEBP", quality=95)):
        for name in ("photo.jpg", "photo.nef.jpg", "photo", "photo.heic"):
            taken(tmp_path, content, name)


def raw(orientation: int) -> bytes:
    """A DNG as cameras write it: a small preview first, the sensor's mosaic in a directory below it."""
    mosaic = np.full((240, 320), 20_000, "<u2")
    mosaic[:120, :160] = 50_000
    one = struct.pack("<18i", *[1 if i in (0, 8, 16) else i % 2 for i in range(18)])
    preview = picture(40, 32).tobytes()
    data = preview + mosaic.tobytes()
    sub = {
        254: number(0), 256: number(320), 257: number(240), 258: number(16), 259: number(1), 262: number(32803),
        273: number(8 + len(preview)), 277: number(1), 278: number(240), 279: number(2 * mosaic.size),
        33421: (3, 2, struct.pack("<HH", 2, 2)), 33422: (1, 4, bytes([0, 1, 1, 2])), 50717: number(65535),
    }  # fmt: skip
    below = ifd.write_directory(sub, 8 + len(data), "<", False)
    first = {
        254: number(1), 256: number(40), 257: number(32), 258: number(8, 8, 8), 259: number(1), 262: number(2),
        271: (2, 5, b"Test\0"), 272: (2, 6, b"Raw 1\0"), 273: number(8), 274: (3, 1, struct.pack("<H", orientation)),
        277: number(3), 278: number(32), 279: number(len(preview)), 330: number(8 + len(data)), 50706: (1, 4, bytes([1, 4, 0, 0])),
        50708: (2, 6, b"Raw 1\0"), 50721: (10, 9, one), 50728: (5, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)), 50778: number(21),
    }  # fmt: skip
    return tiff_of(first, data + below)


@pytest.mark.parametrize("name", ["a.dng", "a.tif", "a.jpg", "a.nrw", "a.3fr", "a.rwl", "photo"])
def test_camera_raw_is_never_taken_for_its_preview(tmp_path: Path, name: str) -> None:
    for turn, shape in ((1, (240, 320, 3)), (6, (320, 240, 3))):
        for pixels in both(tmp_path, raw(turn), name):
            assert isinstance(pixels, np.ndarray) and pixels.shape == shape, pixels


def test_tiffs_of_sixteen_bits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    eight = picture()
    deep = eight.astype(np.uint16) * 257
    grey = deep[..., :1]
    infrared = np.dstack([deep, np.full(deep.shape[:2], 9000, np.uint16)])
    h, w, _ = deep.shape
    planes, strip = np.moveaxis(deep, 2, 0).astype("<u2").tobytes(), 2 * w * h
    planar = tiff_of(
        {256: number(w), 257: number(h), 258: number(16, 16, 16), 259: number(1), 262: number(2), 277: number(3), 278: number(h),
         273: number(8, 8 + strip, 8 + 2 * strip), 279: number(strip, strip, strip), 284: number(2)}, planes
    )  # fmt: skip
    turned = sixteen(np.rot90(deep), t274=(3, 1, struct.pack("<H", 6)))
    premultiplied = np.dstack([deep // 2, np.full((h, w), 32768, np.uint16)])
    for content, wanted in (
        (sixteen(deep), deep), (planar, deep), (sixteen(infrared), deep), (sixteen(infrared, t338=number(0)), deep),
        (turned, deep), (sixteen(65535 - grey, t262=number(0)), np.repeat(grey, 3, 2)), (sixteen(grey), np.repeat(grey, 3, 2)),
    ):  # fmt: skip
        taken(tmp_path, content, "photo.tif", (wanted >> 8).astype(np.uint8))
        found = photograph.read(tmp_path / "photo.tif")
        assert found.pixels.dtype == np.uint16 and np.array_equal(found.pixels, wanted)
    (tmp_path / "half.tif").write_bytes(sixteen(premultiplied, t338=number(1)))
    on_white = photograph.read(tmp_path / "half.tif").pixels
    assert np.abs(on_white.astype(int) - (deep // 2 + 32767)).max() <= 2
    assert capfd.readouterr().err == ""


def test_predictors_of_tiffs_are_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (50, 70, 3), np.uint16)
    for band in (1 << 25, 1000):  # in one piece, and strip by strip
        monkeypatch.setattr(tiff, "BAND", band)
        differences = np.diff(deep, axis=1, prepend=np.zeros((50, 1, 3), np.uint16)).astype("<u2")
        strips = [zlib.compress(differences[i : i + 16].tobytes()) for i in range(0, 50, 16)]
        starts = np.cumsum([8, *map(len, strips)])[:-1].tolist()
        content = tiff_of(
            {256: number(70), 257: number(50), 258: number(16, 16, 16), 259: number(8), 262: number(2), 277: number(3),
             278: number(16), 273: number(*starts), 279: number(*map(len, strips)), 317: number(2)}, b"".join(strips)
        )  # fmt: skip
        (tmp_path / "deep.tif").write_bytes(content)
        assert np.array_equal(photograph.read(tmp_path / "deep.tif").pixels, deep)


@pytest.mark.parametrize(("kind", "word"), [(2, "signed"), (3, "floating point")])
def test_numbers_without_a_white_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    grey = picture()[..., :1].astype(np.uint16)
    refused(tmp_path, sixteen(grey, t339=number(kind)), word)


def jpeg_with(exif: bytes, pixels: np.ndarray | None = None) -> bytes:
    return with_exif(saved(picture() if pixels is None else pixels, "JPEG", quality=95), exif)


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:]


def test_broken_exif_is_dropped_and_never_the_photo(tmp_path: Path) -> None:
    turn = (3, 1, struct.pack("<H", 6))
    sideways = np.ascontiguousarray(np.rot90(picture()))
    for entries in (
        {274: turn, 282: (2, 3, b"72\0"), 283: (2, 3, b"72\0")}, {274: turn, 34665: number(999_999)}, {274: turn, 34665: number(8)},
        {274: turn, 34853: (2, 4, b"N/A\0")}, {274: turn, 0x9000: (77, 1, b"abcd")}, {271: (2, 0, b""), 274: turn},
        {274: turn, 34665: number(0)},
    ):  # fmt: skip
        taken(tmp_path, jpeg_with(tiff_of(entries), sideways))
    for exif in (b"", b"garbage, no TIFF header at all", tiff_of({274: turn})[:15]):
        taken(tmp_path, jpeg_with(exif))
        assert photograph.read(tmp_path / "photo.jpg").exif is None


def test_exif_is_kept_byte_for_byte_but_for_the_orientation(tmp_path: Path) -> None:
    words = "Zoë Müller, 写真".encode() + b"\0"
    for order in "<>":
        turn = (3, 1, struct.pack(order + "H", 6))
        exif = tiff_of({270: (2, len(words), words), 274: turn, 37500: (7, 6, b"\xff\0\1\2\3\4")}, order=order)
        (tmp_path / "photo.jpg").write_bytes(jpeg_with(exif))
        found = photograph.read(tmp_path / "photo.jpg")
        assert found.exif is not None and orientation(found.exif) == 1
        assert len(found.exif) == len(exif) and sum(a != b for a, b in zip(found.exif, exif, strict=True)) == 1
        photograph.write_png(tmp_path / "made.png", found.pixels, found.icc, found.exif)
        assert photograph.read(tmp_path / "made.png").exif == found.exif


def test_what_a_tiff_says_of_its_camera_is_kept(tmp_path: Path) -> None:
    words = "Zoë".encode() + b"\0"
    deep = picture().astype("<u2") * 257
    content = sixteen(deep)
    at = len(content)
    tags = {t: (e.kind, e.count, ifd.first(content).data(t)) for t, e in ifd.first(content).entries.items()}
    tags |= {315: (2, len(words), words), 34665: number(at)}
    camera = ifd.write_directory({33437: (5, 1, struct.pack("<II", 28, 10))}, at, "<", False)
    made = content + camera
    made = made[:4] + struct.pack("<I", len(made)) + made[8:] + ifd.write_directory(tags, len(made), "<", False)
    (tmp_path / "photo.tif").write_bytes(made)
    found = photograph.read(tmp_path / "photo.tif").exif
    assert found is not None and ifd.first(found).data(315) == words
    assert ifd.first(found).below(34665).real(33437) == 2.8
    taken_in = decode.decode(tmp_path / "photo.tif")
    assert isinstance(taken_in, decode.DecodedPhoto) and taken_in.exif.aperture == 2.8


def test_inks_and_greys_are_converted_by_their_profile(tmp_path: Path) -> None:
    """Linear grey: a level of 120 of 255 is one of 180 in sRGB."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    red = profile.index(b"rTRC")
    profile[red : red + 4] = b"kTRC"
    at = struct.unpack_from(">I", profile, red + 4)[0]
    profile[at : at + 16] = b"para" + bytes(8) + struct.pack(">i", 1 << 16)  # a power of 1
    linear = bytes(profile).replace("sRGB".encode("utf-16-be"), "line".encode("utf-16-be"))
    grey = np.full((32, 32), 120, np.uint8)
    grey[:4] = 60
    for content in (saved(grey, "PNG", icc_profile=linear), saved(grey, "TIFF", icc_profile=linear),
                    saved(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF", icc_profile=linear)):  # fmt: skip
        for pixels in both(tmp_path, content):
            assert isinstance(pixels, np.ndarray) and 178 <= pixels[16:].mean() <= 183


def test_how_a_png_codes_its_colours_is_kept(tmp_path: Path) -> None:
    """gAMA becomes a profile: linear, 120 of 255 is 180 in sRGB. cICP is copied."""
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    for pixels in (np.full((32, 32, 3), 120, np.uint8), np.full((32, 32), 120, np.uint8)):
        pixels[:4] = 60
        (tmp_path / "a.png").write_bytes(png_with(linear, pixels=pixels))
        taken_in = decode.decode(tmp_path / "a.png")
        assert isinstance(taken_in, decode.DecodedPhoto) and 178 <= taken_in.pixels[16:].mean() <= 183
        found = photograph.read(tmp_path / "a.png")
        photograph.write_png(tmp_path / "b.png", found.pixels, found.icc, found.exif, found.cicp)
        again = decode.decode(tmp_path / "b.png")
        assert isinstance(again, decode.DecodedPhoto) and np.array_equal(again.pixels, taken_in.pixels)
    for chunks in (
        (chunk(b"gAMA", struct.pack(">I", 45_455)),),
        (chunk(b"sRGB", b"\0"), linear),
        (linear, chunk(b"sRGB", b"\0")),
    ):
        (tmp_path / "a.png").write_bytes(png_with(*chunks))
        assert photograph.read(tmp_path / "a.png").icc is None
    (tmp_path / "a.png").write_bytes(png_with(chunk(b"cICP", bytes([12, 13, 0, 1])), linear))
    found = photograph.read(tmp_path / "a.png")
    photograph.write_png(tmp_path / "b.png", found.pixels, found.icc, found.exif, found.cicp)
    assert photograph.read(tmp_path / "b.png").cicp == bytes([12, 13, 0, 1]) and found.icc is None


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """Latin-1 in the name of a TIFF, which decoders that open files themselves do not bear."""
    folder = str(tmp_path).encode()
    path = Path((folder + b"/caf\xe9.tif").decode("utf-8", "surrogateescape"))
    path.write_bytes(sixteen(picture().astype(np.uint16) * 257))
    assert photograph.read(path).pixels.shape == (64, 96, 3)


def test_pictures_that_programs_made(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert np.array_equal(photo_file.pixels(tmp_path / "a.png"), picture())
    assert photo_file.pixels(tmp_path / "a.png", 24).shape == (16, 24, 3)
    for name in ("missing.png", "."):
        with pytest.raises((photo_file.PhotoError, OSError)):
            photo_file.pixels(tmp_path / name)
