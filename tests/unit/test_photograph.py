"""Photographs in and out: upright, their values, bits, profile and EXIF kept; what is none is refused in one line."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from argan.errors import UserError
from argan.photos import photograph

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x010F] = orientation, "A Camera"
    return made


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_come_and_go(tmp_path: Path, deep: np.ndarray, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"deep.{suffix}"), deep[..., ::-1])
    found = photograph.read(tmp_path / f"deep.{suffix}")
    assert found.pixels.dtype == np.uint16 and np.array_equal(found.pixels, deep)
    assert np.array_equal(found.in_8_bits, deep >> 8)
    photograph.write_png(tmp_path / "again.png", found.pixels)
    assert np.array_equal(photograph.read(tmp_path / "again.png").pixels, deep)


def test_profile_and_exif_are_kept_and_the_photo_is_upright(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=PROFILE, exif=exif(6))
    found = photograph.read(tmp_path / "a.png")
    assert np.array_equal(found.pixels, np.rot90(pixels, -1)) and found.icc == PROFILE
    photograph.write_png(tmp_path / "b.png", found.pixels, found.icc, found.exif)
    with Image.open(tmp_path / "b.png") as written:
        assert written.info["icc_profile"] == PROFILE
        assert written.getexif()[0x010F] == "A Camera" and written.getexif()[0x0112] == 1, "not turned a second time"
        assert np.array_equal(np.asarray(written), found.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bits_are_turned_as_eight_are(tmp_path: Path, orientation: int) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    Image.fromarray(pixels).save(tmp_path / "eight.png", exif=exif(orientation))
    raw = exif(orientation).tobytes()
    photograph.write_png(tmp_path / "deep.png", pixels.astype(np.uint16) * 257, exif=raw)
    eight, deep = (photograph.read(tmp_path / f"{name}.png").pixels for name in ("eight", "deep"))
    assert deep.dtype == np.uint16 and np.array_equal(deep, eight.astype(np.uint16) * 257)


def test_a_cmyk_photo_loses_the_profile_that_no_longer_fits(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 100, 100, 0)).save(tmp_path / "c.jpg", icc_profile=PROFILE)
    found = photograph.read(tmp_path / "c.jpg")
    assert found.icc is None and found.pixels.shape == (8, 8, 3)


def test_what_is_no_photo_is_named_and_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "words.jpg").write_text("words")
    content = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(content, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content.getvalue()[:600])
    for name, reason in (
        ("moving.webp", "animation"), ("words.jpg", "no photo"), ("cut.jpg", "cut off"), ("lost.jpg", "not there"),
        ("lost.dng", "not there"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason) as refused:
            photograph.read(tmp_path / name)
        assert name in str(refused.value)
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    with pytest.raises(photograph.TooManyPixels, match=r"40 x 40 pixels, more than 0\.001 million"):
        photograph.read(tmp_path / "large.png", pixels=1000)
    assert photograph.read(tmp_path / "large.png", pixels=1600).pixels.shape == (40, 40, 3)
