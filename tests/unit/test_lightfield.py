"""Light fields: where things go, what hides what, and the files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from argan.effects.animation import write_animation
from argan.effects.layered_depth_image import layered_depth_image, limit_size
from argan.effects.lightfield import LightField, aperture_grid, circle, quilt, quilt_name, scale_parallax, sweep
from argan.errors import UserError
from argan.optics import Aperture


def texture(h: int, w: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (h // 4, w // 4, 3), np.uint8)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


def two_planes(h: int = 96, w: int = 128, near: float = 8, far: float = -4) -> tuple[np.ndarray, np.ndarray]:
    """A red square before a wall of greens and blues; disparity in pixels."""
    photo, disparity = texture(h, w), np.full((h, w), far / w, np.float32)
    photo[..., 0] = 0
    photo[30:66, 40:88], disparity[30:66, 40:88] = (250, 0, 0), near / w
    return photo, disparity


def red(view: np.ndarray) -> np.ndarray:
    return (view[..., 0] > 200) & (view[..., 1:].max(-1) < 50)


@pytest.mark.parametrize("pixels", [4, -6, 2.5])
@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (-1, -1), (0.5, -0.5)])
def test_constant_disparity_shifts_by_exactly_that(pixels: float, x: float, y: float) -> None:
    photo = texture(64, 80)
    view = LightField(photo, np.full((64, 80), pixels / 80, np.float32)).view(x, y)
    matrix = np.array(
        [[1, 0, -x * pixels], [0, 1, -y * pixels]], np.float64
    )  # near things go left when the camera goes right
    moved = cv2.warpAffine(photo.astype(np.float32), matrix, (80, 64), flags=cv2.INTER_LINEAR)
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(view[inner].astype(float) - moved[inner]).max() < (1 if pixels != 2.5 and abs(x) != 0.5 else 8)


def test_no_disparity_gives_the_photo_in_every_view() -> None:
    photo = texture(40, 56)
    assert (LightField(photo, np.zeros((40, 56), np.float32)).views(aperture_grid()) == photo).all()


def test_the_central_view_is_the_photo_exactly() -> None:
    photo, disparity = two_planes()
    assert np.array_equal(LightField(photo, disparity).views(aperture_grid())[12], photo)
    assert np.allclose(aperture_grid(), Aperture().offsets.numpy())


@pytest.mark.parametrize(("x", "y"), [(1, 0), (-1, 0), (0, 1), (-1, 1), (0.5, 0.5)])
def test_near_hides_far_in_every_view_and_nothing_smears(x: float, y: float) -> None:
    photo, disparity = two_planes()
    view = LightField(photo, disparity).view(x, y)
    expected = np.roll(red(photo), (round(-8 * y), round(-8 * x)), (0, 1))
    # All of the square is there, where it should be, and its fringe of FRINGE pixels apart there is no red elsewhere
    assert red(view)[expected].mean() > 0.97
    around = cv2.dilate(expected.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert not (view[..., 0] > 60)[~around].any(), "what was hidden is filled from the wall, not from the square"


def test_a_far_object_in_a_window_is_hidden_by_its_frame() -> None:
    photo, disparity = two_planes(near=-8, far=4)  # now the red square is behind
    view = LightField(photo, disparity).view(1, 0)
    assert not red(view)[:, :36].any() and not red(view)[:, 88:].any()
    assert red(view)[32:64, 44:80].any()


def test_no_hole_even_at_a_wild_disparity() -> None:
    photo = np.full((48, 64, 3), 255, np.uint8)
    disparity = np.random.default_rng(0).uniform(-0.3, 0.3, (48, 64)).astype(np.float32)
    assert (LightField(photo, disparity).views(circle(8)) == 255).all()


def test_the_background_is_continued_only_behind_what_hides_it() -> None:
    photo, disparity = two_planes()
    seen = layered_depth_image(photo, disparity)
    assert seen.hidden[34:36, 50:80].all() and not seen.hidden[:24].any()
    assert np.allclose(seen.background_disparity[seen.hidden], -4, atol=0.01)
    assert not red(seen.background)[seen.hidden].any()


def test_texture_that_an_estimate_copied_does_not_tear_a_surface() -> None:
    photo, disparity = two_planes(384, 512, near=20, far=-20)
    fur = cv2.blur(np.random.default_rng(0).normal(0, 1, (384, 512)).astype(np.float32), (5, 5))
    rough = disparity + fur / fur.std() * 4 / 512  # a tenth of the range, up and down
    assert not layered_depth_image(photo, np.full_like(disparity, 0.01) + (rough - disparity) / 8).hidden.any()
    seen = layered_depth_image(photo, rough)
    outline = cv2.morphologyEx(red(photo).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    steps = cv2.dilate(seen.disparity, np.ones((3, 3), np.uint8)) - seen.disparity > 2
    assert steps.any() and not (steps & ~outline).any(), "steps are at the square's outline and nowhere else"


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (16, 200)])
def test_any_size(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    disparity = np.random.default_rng(1).uniform(-0.1, 0.1, shape).astype(np.float32)
    assert LightField(photo, disparity).view(0.7, -1).shape == photo.shape


def test_what_does_not_go_together_is_refused() -> None:
    photo, disparity = two_planes()
    for bad in (disparity[:-1], np.where(disparity > 0, np.nan, disparity)):
        with pytest.raises(UserError, match="disparity"):
            LightField(photo, bad)
    with pytest.raises(UserError, match="within the aperture"):
        LightField(photo, disparity).view(1.5, 0)
    with pytest.raises(UserError, match="parallax"):
        scale_parallax(disparity, 0.5)


def test_settled_is_centred_and_bounded() -> None:
    _, disparity = two_planes()
    moved = scale_parallax(disparity, 0.02)
    assert moved.max() == pytest.approx(0.02) and moved.min() == pytest.approx(-0.02)
    assert (scale_parallax(np.full((4, 4), 0.1, np.float32)) == 0).all()
    small, d = limit_size(*two_planes(), 64)
    assert small.shape == (48, 64, 3) and d.shape == (48, 64)


def test_a_quilt_begins_at_the_bottom_left() -> None:
    views = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros((6, 4, 5, 3), np.uint8)
    sheet = quilt(views, 3, 2)
    assert sheet.shape == (8, 15, 3)
    assert sheet[[7, 7, 7, 0, 0, 0], [0, 5, 10, 0, 5, 10], 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert quilt_name("a", 8, 6, 4 / 3) == "a_qs8x6a1.333.png"
    assert [x for x, _ in sweep(3)] == [-1, 0, 1], "the leftmost camera first"
    with pytest.raises(UserError, match="6 views"):
        quilt(views[:5], 3, 2)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_animations_open_again(tmp_path: Path, suffix: str) -> None:
    photo, disparity = two_planes(97, 127)
    frames = LightField(photo, disparity).views(circle(6))
    path = tmp_path / f"a{suffix}"
    write_animation(frames, path)
    if suffix == ".mp4":
        video = cv2.VideoCapture(str(path))
        count, frame = 0, None
        while (read := video.read())[0]:
            count, frame = count + 1, read[1][:97, :127, ::-1]
    else:
        image = Image.open(path)
        count = image.n_frames  # type: ignore[attr-defined]
        image.seek(5)
        frame = np.asarray(image.convert("RGB"))
    assert count == 6 and frame is not None
    assert np.abs(frame.astype(int) - frames[5]).mean() < 12


def test_another_suffix_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.gif, \.webp or \.mp4"):
        write_animation(np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frames", [4, 24])
def test_a_circle_closes_without_repeating_a_frame(frames: int) -> None:
    at = np.array(circle(frames)) @ [1, 1j]
    assert np.allclose(np.abs(at), 1)
    turns = np.roll(at, -1) / at  # from each frame to the next, and from the last to the first
    assert np.allclose(turns, np.exp(2j * np.pi / frames)), "equal steps all around, the last one too"
