"""The iris of a collection's lens: found again where it is known, and not found where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from argan.effects import aperture_shape, bokeh, bokeh_kernels, iris
from argan.effects.iris import Iris
from argan.errors import UserError
from argan.photos import lens
from argan.visualization import write_png
from benchmarks.iris_truth import collection, fine, overlap, radii, things
from benchmarks.reference_bokeh import encoded, linear


def measured(photos: list[np.ndarray]) -> Iris:
    return iris.measure_iris([iris.find_highlights(photo) for photo in photos])


@pytest.mark.parametrize(("blades", "curved"), [(5, 0.0), (6, 0.5), (9, 0.0)])
def test_a_known_iris_is_found_again(blades: int, curved: float) -> None:
    truth = radii(blades, 1.0, curved)
    found = measured(collection(truth, 15, lights=4))
    assert found.blades == blades and found.agreement is not None and found.agreement > 0.9
    assert found.highlights >= 15 and found.photos == 10 and found.looked == 15
    assert overlap(fine(found), truth) > 0.98
    assert overlap(fine(found), truth) > overlap(np.ones(720), truth) + 0.01, "nearer to it than a disc is"


def test_a_round_one_is_round() -> None:
    found = measured(collection(radii(0), 15, lights=4))
    assert found.blades is None and found.outline == (1.0,) * iris.RAYS


@pytest.mark.parametrize("kind", ["nothing", "text", "windows", "shaded balls", "glows", "textured balls"])
def test_other_bright_things_are_no_highlights(kind: str) -> None:
    found = measured(things(kind, 10))
    assert found.outline is None and "are needed" in found.reason


@pytest.mark.parametrize(
    ("change", "count"), [("none", 1), ("shaded", 0), ("dim", 0), ("large", 0), ("aside", 0), ("oval", 0)]
)
def test_what_a_highlight_is(change: str, count: int) -> None:
    y, x = np.indices((400, 600), np.float32)
    x, y = x - (560 if change == "aside" else 300), (y - 200) * (1.3 if change == "oval" else 1)
    light = 250 - (x + 20) * 1.5 if change == "shaded" else np.full_like(x, 200 if change == "dim" else 250)
    within = np.hypot(x, y) < (90 if change == "large" else 20)
    photo = np.where(within, light, 20).astype(np.uint8)[..., None].repeat(3, 2)
    assert len(iris.find_highlights(photo)) == count


def test_two_lenses_are_not_averaged() -> None:
    outlines = [iris.find_highlights(photo) for blades in (5, 8) for photo in collection(radii(blades), 15, blades)]
    order = [i // 2 + 15 * (i % 2) for i in range(30)]  # by turns: each half of the photos has one of them
    found = iris.measure_iris([outlines[i] for i in order if len(outlines[i])])
    assert found.outline is None and "different shapes" in found.reason
    found = iris.measure_iris(outlines)  # each half has of both
    assert found.outline is None and "several shapes" in found.reason


def test_one_photo_does_not_decide() -> None:
    one = iris.find_highlights(collection(radii(6), 2, lights=30)[1])
    assert len(one) == iris.MOST
    assert iris.measure_iris([one, one, one]).outline is None
    assert iris.measure_iris([]).outline is None


def test_small_pictures_have_none() -> None:
    y, x = np.indices((32, 32)) - 16
    photo = (20 + 230 * np.clip(9.5 - np.hypot(x, y), 0, 1)).astype(np.uint8)[..., None].repeat(3, 2)
    assert len(iris.find_highlights(photo)) == 0
    assert len(iris.find_highlights(np.pad(photo, ((40, 40), (40, 40), (0, 0)), "edge"))) == 1


def test_it_is_kept_as_it_is_and_damage_is_told(tmp_path: Path) -> None:
    assert Iris.load(tmp_path) is None
    for made in (iris.measure_iris([]), Iris((1.0,) * iris.RAYS, 20, 9, 40, 7, 0.95, "", "mark")):
        made.save(tmp_path)
        assert Iris.load(tmp_path) == made
    for damage in ("", "[]", '{"outline": [1, 2], "highlights": 1, "photos": 1, "looked": 1}'):
        (tmp_path / iris.NAME).write_text(damage)
        with pytest.raises(UserError, match=r"iris\.json is damaged"):
            Iris.load(tmp_path)


def test_it_is_read_from_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for i, photo in enumerate(collection(radii(6), 15, lights=4)):
        write_png(tmp_path / f"{i}.png", photo)
        files[f"{i:02}"] = tmp_path / f"{i}.png"
    files["no photo"] = tmp_path / "gone.png"
    found = lens.measure(files, processes=0)
    assert found.blades == 6
    found.save(tmp_path)
    monkeypatch.setattr(iris, "find_highlights", lambda photo: pytest.fail("looked again"))
    assert lens.measure(files, tmp_path, processes=0) == found
    del files["00"]
    with pytest.raises(pytest.fail.Exception):
        monkeypatch.setattr(lens, "_look", lambda path: iris.find_highlights(path))  # without its net
        lens.measure(files, tmp_path, processes=0)


def test_an_outline_blurs_as_the_blades_it_is_of() -> None:
    """The kernel of a hexagon's outline is that of six blades, for near and far, but for what 64 rays cut from its corners."""
    for blades in (5, 6):
        outline = radii(blades, np.pi / blades + np.pi / 2)
        # On a ray each, where a corner is, so that both fit the same circle
        rays = tuple(float(radius) for radius in outline)
        for flip in (False, True):
            one, other = (aperture_shape.kernel(shape, 30.0, (0.0, 0.0), flip) for shape in (rays, f"{blades} blades"))
            assert (one[:, 1] - one[:, 0]) * one[:, 2] == pytest.approx(
                (other[:, 1] - other[:, 0]) * other[:, 2], abs=1e-4
            )
            assert np.abs(one[2:-2, :2] - other[2:-2, :2]).max() < 0.3
            assert ((one[:, 1] - one[:, 0]) * one[:, 2]).sum() == pytest.approx(1, abs=1e-5)


def test_a_highlight_blurs_again_to_the_same_highlight() -> None:
    """Measured behind the focal plane, an outline makes the light it was measured from there, and turned before it."""
    size, radius = 161, bokeh_kernels.radius_of(10)
    point = np.zeros((size, size, 3), np.uint16)
    point[80, 80] = 65535

    def spot(shape: aperture_shape.Shape, side: int) -> np.ndarray:
        disparity = np.full((size, size), side * radius / size, np.float32)
        disparity[0, 0] = 0
        return linear(bokeh.refocus(point, disparity, 1.0, (0, 0), shape, highlight=1))[..., 0]

    def outline(light: np.ndarray) -> np.ndarray:
        photo = (255 * encoded(light / np.percentile(light[light > 0], 80))).round().astype(np.uint8)
        found = iris.find_highlights(photo[..., None].repeat(3, 2))
        assert len(found) == 1
        return np.asarray(found[0])

    for blades in (5, 7):
        measured = outline(spot(f"{blades} blades", -1))
        corner = np.fft.rfft(measured)[blades] * np.exp(
            -0.5j * np.pi * blades
        )  # a corner lies at the top, where y is -1
        assert corner.real > 0.9 * abs(corner)
        for side in (-1, 1):
            again = np.fft.rfft(outline(spot(tuple(measured.tolist()), side)))[blades] * np.exp(-0.5j * np.pi * blades)
            assert -side * again.real > 0.9 * abs(again)
