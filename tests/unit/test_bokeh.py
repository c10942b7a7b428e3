"""Depth of field on real photographs: sizes, focus, occlusion, light that is neither made nor lost, and the truth."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from argan.effects import aperture_shape, bokeh, bokeh_kernels
from argan.errors import UserError
from argan.inference.photo import read_photo
from argan.optics import Aperture, render
from benchmarks.bokeh_scenes import traced
from benchmarks.reference_bokeh import encoded, linear, many_planes, scatter

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_in_focus_stays_as_it_is(kind: type) -> None:
    photo = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (80, 300, 3), dtype=kind)
    disparity = np.full((80, 300), 0.05, np.float32)
    assert np.array_equal(bokeh.refocus(photo, disparity, 0.0), photo)
    assert np.array_equal(bokeh.refocus(photo, disparity, 3.0), photo), "in focus everywhere, wherever it is"
    disparity[:, 200:] = 0.0  # blurred, 20 pixels wide
    out = bokeh.refocus(photo, disparity, 0.5, (20, 40))
    assert out.dtype == kind
    assert np.abs(out[:, :150].astype(int) - photo[:, :150]).max() <= (0 if kind == np.uint8 else 2)


@pytest.mark.parametrize("shape", aperture_shape.SHAPES)
def test_no_light_is_made_or_lost(shape: str) -> None:
    grey = np.full((300, 310, 3), 120, np.uint8)
    disparity = np.linspace(-0.1, 0.1, 310, dtype=np.float32)[None].repeat(300, 0)
    out = bokeh.refocus(grey, disparity, 1.0, shape=shape)
    assert np.abs(out.astype(int) - 120).max() <= 1, "neither at the border, nor between tiles, nor between layers"


@pytest.mark.parametrize("radius", [1.0, 3.3, 7.9, 8.1, 20.0, 50.0])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_point_becomes_a_disc_of_the_radius_asked_for(radius: float, side: int) -> None:
    size = 401
    point = np.zeros((size, size, 3), np.uint16)
    point[200, 200] = 65535
    disparity = np.full((size, size), side * radius / size, np.float32)
    disparity[0, 0] = 0
    light = linear(bokeh.refocus(point, disparity, 1.0, (0, 0), highlight=1))[..., 0]
    y, x = np.indices(light.shape) - 200
    assert light.sum() == pytest.approx(1, rel=0.03)
    # of an even disc the mean squared distance is half the squared radius; a pixel and a layer's width add theirs
    assert np.sqrt(2 * (light * (x**2 + y**2)).sum() / light.sum()) == pytest.approx(radius, rel=0.03, abs=0.5)
    assert max(abs((light * x).sum()), abs((light * y).sum())) <= radius / 16 + 0.01, (
        "half a pixel of the layer at most"
    )


def spot(shape: aperture_shape.Shape, side: int, at: tuple[int, int] = (200, 200), radius: float = 24.0) -> np.ndarray:
    """The light (401, 401) that a point at `at` = (x, y) becomes, side 1 before the focal plane, -1 behind it."""
    point = np.zeros((401, 401, 3), np.uint16)
    point[at[1], at[0]] = 65535
    disparity = np.full((401, 401), side * radius / 401, np.float32)
    disparity[0, 0] = 0
    return linear(bokeh.refocus(point, disparity, 1.0, (0, 0), shape, highlight=1))[..., 0].astype(np.float64)


def polygon(corners: np.ndarray, at: tuple[int, int] = (200, 200)) -> np.ndarray:
    """An even spot (401, 401) within corners (n, 2), pixels to the right and down of `at`."""
    fine = 8
    points = np.round(((corners + at + 0.5) * fine - 0.5) * 16).astype(np.int32)
    picture = cv2.fillPoly(np.zeros((401 * fine, 401 * fine), np.uint8), [points], 255, shift=4)
    return cv2.resize(picture, (401, 401), interpolation=cv2.INTER_AREA).astype(np.float64)


def upright(light: np.ndarray, iris: np.ndarray) -> float:
    """Which way up a spot of light is: 1 as the iris, -1 turned by 180 degrees, 0 for one that tells nothing, as a disc."""
    light, iris = light / light.sum(), iris / iris.sum()
    odd = iris - iris[::-1, ::-1]
    return float((light * odd).sum() / (iris * odd).sum())


# As the photographer sees the iris: lying on a side; or of a drop's shape, its tip at the upper right
ANGLES = np.pi * np.arange(64) / 32
TIP = np.exp(-((((ANGLES + np.pi / 4 + np.pi) % (2 * np.pi) - np.pi) / 0.5) ** 2))
OUTLINES: list[tuple[aperture_shape.Shape, np.ndarray, np.ndarray]] = [
    *((f"{n} blades", np.ones(n), np.pi / 2 + 2 * np.pi * (np.arange(n) + 0.5) / n) for n in (5, 7)),
    (tuple((0.6 + 0.4 * TIP).tolist()), 0.6 + 0.4 * TIP, ANGLES),
]


@pytest.mark.parametrize(("shape", "radii", "angles"), OUTLINES, ids=["5 blades", "7 blades", "a drop"])
@pytest.mark.parametrize(("layer", "least"), [(8, 0.8), (14, 0.3)])  # 10 px; 37 px, drawn at a quarter of the size
def test_a_point_of_light_is_the_iris_upright_behind_and_turned_before_the_focal_plane(
    shape: aperture_shape.Shape, radii: np.ndarray, angles: np.ndarray, layer: int, least: float
) -> None:
    radius = bokeh_kernels.radius_of(layer)
    iris = polygon(radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))
    for side in (-1, 1):
        assert -side * upright(spot(shape, side, radius=radius), iris) > least


def test_apertures_have_their_areas() -> None:
    """Over that of the circle around: (n / 2 pi) sin(2 pi / n) for n blades; and a cat's eye loses some of it to the corners."""
    areas = {
        shape: 1 / aperture_shape.kernel(shape, 40.0, field, False)[:, 2].max() / (np.pi * 40**2)
        for shape, field in (
            (shape, (0.7, 0.7) if shape == "cat's eye" else (0.0, 0.0)) for shape in aperture_shape.SHAPES
        )
    }
    for n in range(5, 10):
        assert areas[f"{n} blades"] == pytest.approx(n / (2 * np.pi) * np.sin(2 * np.pi / n), rel=0.01)
    assert areas["disc"] == pytest.approx(1, rel=0.01) and 0.4 < areas["cat's eye"] < 0.8


def test_a_straight_side_is_straight() -> None:
    """The lowest row of five blades that lie on a side: an even line, whatever part of a pixel it covers."""
    for radius in (9.6, 9.77, 10.0):
        kernel = aperture_shape.kernel("5 blades", radius, (0.0, 0.0), False)
        last = kernel[kernel[:, 2] > 0][-1]
        assert last[1] - last[0] == pytest.approx(2 * np.sin(np.pi / 5) * radius, abs=0.8)


@pytest.fixture(scope="module")
def cats_eyes() -> dict[int, np.ndarray]:
    """Four points of light halfway to the corners of a frame (1024, 1024), behind (-1) and before (1) the focal plane."""
    point = np.zeros((1024, 1024, 3), np.uint16)
    point[255:768:512, 255:768:512] = 65535  # at the corners of tiles, where the kernel is of one place
    found = {}
    for side in (-1, 1):
        disparity = np.zeros((1024, 1024), np.float32)
        for y, x in itertools.product((255, 767), repeat=2):
            disparity[y - 64 : y + 64, x - 64 : x + 64] = side * bokeh_kernels.radius_of(12) / 1024
        found[side] = linear(bokeh.refocus(point, disparity, 1.0, (0, 0), "cat's eye", highlight=1))[..., 0]
    return found


@pytest.mark.parametrize("corner", [(-1, -1), (1, -1), (-1, 1), (1, 1)])
def test_a_cats_eye_is_pointed_across_and_cut_outside_behind_and_inside_before_the_focal_plane(
    cats_eyes: dict[int, np.ndarray], corner: tuple[int, int]
) -> None:
    left, top = (512 if side > 0 else 0 for side in corner)
    y, x = np.indices((512, 512)) - 255
    outwards, across = (x * corner[0] + y * corner[1]) / np.sqrt(2), (x * corner[1] - y * corner[0]) / np.sqrt(2)
    radius = bokeh_kernels.radius_of(12)
    for side, light in cats_eyes.items():
        seen = light[top : top + 512, left : left + 512].astype(np.float64)
        seen /= seen.sum()
        # Two circles, 0.35 radii apart: their intersection's centre lies halfway
        assert side * (seen * outwards).sum() == pytest.approx(0.175 * radius, rel=0.25)
        assert abs((seen * across).sum()) < 0.05 * radius
        assert (seen * across**2).sum() > 1.3 * (seen * (outwards - (seen * outwards).sum()) ** 2).sum()


@pytest.mark.parametrize("side", [-1, 1])
def test_a_cats_eye_is_round_in_the_middle_of_a_small_frame(side: int) -> None:
    """A frame of less than two tiles: what is blurred takes its shape from nearby, not from the corners of its tile."""
    light, disc = (spot(shape, side, (200, 200), bokeh_kernels.radius_of(12)) for shape in ("cat's eye", "disc"))
    assert np.minimum(light / light.sum(), disc / disc.sum()).sum() > 0.9


def test_spots_of_light_are_those_of_a_ray_tracer() -> None:
    """Mitsuba's thin lens, its right half covered, and in a barrel: what is left of the spot lies where ours does."""
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    T = mi.ScalarTransform4f
    size, half, lens, at = 48, np.tan(np.radians(20)), 0.5, 4.0  # half: of the view's width at distance 1
    black = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0}}
    # On the photographer's right: the camera looks along -z, +x is to the right in its picture
    screen = {"type": "rectangle", "to_world": T().translate([1, 0, -0.05]).scale([1, 3, 1]), "bsdf": black}
    barrel = {"type": "cylinder", "p0": [0, 0, -0.02], "p1": [0, 0, -1.3], "radius": lens, "bsdf": black}
    left_half = tuple(np.where(np.cos(ANGLES) <= 1e-9, 1.0, 1e-3 / np.maximum(np.cos(ANGLES), 1e-3)).tolist())
    y, x = np.indices((size, size)) + 0.5 - size / 2
    for side, z in ((-1, 10.0), (1, 2.6)):
        for cover, place in ((screen, (0.0, 0.0)), (barrel, (0.5, 0.5))):  # right and up of the middle
            lamp = {
                "type": "sphere", "center": [place[0] * half * z, place[1] * half * z, -z], "radius": 0.02 * z,
                "light": {"type": "area", "radiance": {"type": "rgb", "value": 1}},
            }  # fmt: skip
            film = {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
            camera = {
                "type": "thinlens", "aperture_radius": lens, "focus_distance": at, "fov": 40.0, "film": film,
                "sampler": {"type": "multijitter", "sample_count": 100},
                "to_world": T().look_at(origin=[0, 0, 0], target=[0, 0, -1], up=[0, 1, 0]),
            }  # fmt: skip
            scene = {"type": "scene", "integrator": {"type": "path", "max_depth": 1}, "sensor": camera}
            traced = np.array(mi.render(mi.load_dict({**scene, "lamp": lamp, "cover": cover})))[..., 0]
            shape, (x0, y0) = (left_half, (200, 200)) if cover is screen else ("cat's eye", (300, 100))
            ours = spot(shape, side, (x0, y0))
            rows, columns = np.indices(ours.shape)
            true = np.array([(traced * (x - place[0] * size / 2)).sum(), (traced * (y + place[1] * size / 2)).sum()])
            mine = np.array([(ours * (columns - x0)).sum(), (ours * (rows - y0)).sum()])
            assert true @ mine > 0.9 * np.linalg.norm(true) * np.linalg.norm(mine) > 0, (side, shape, true, mine)


def scene(near_on_the_right: float) -> tuple[np.ndarray, np.ndarray]:
    photo = np.full((64, 128, 3), 60, np.uint8)
    photo[:, 64:] = 220
    disparity = np.zeros((64, 128), np.float32)
    disparity[:, 64:] = near_on_the_right
    return photo, disparity


def test_near_blur_spills_over_and_far_blur_is_cut_off() -> None:
    photo, disparity = scene(0.1)
    near = bokeh.refocus(photo, disparity, 1.0, (10, 32))[32, :, 0]
    assert near[58] > 75, "a bright thing out of focus in front spills over what is in focus behind it"
    photo, disparity = scene(-0.1)
    far = bokeh.refocus(photo, disparity, 1.0, (10, 32))[32, :, 0]
    assert np.abs(far.astype(int) - photo[32, :, 0]).max() <= 1, (
        "behind, neither spills over nor is spilled upon: no halo"
    )


def test_focus_chooses_what_is_sharp(photo: np.ndarray) -> None:
    disparity = np.zeros((80, 120), np.float32)
    disparity[:, 60:] = 0.08
    for place, sharp, soft in (((20, 40), slice(0, 45), slice(75, 120)), ((100, 40), slice(75, 120), slice(0, 45))):
        out = bokeh.refocus(photo, disparity, 1.0, place).astype(float)
        assert out[:, sharp].std() > 60 > 25 > out[:, soft].std()


def test_it_changes_evenly_with_the_aperture(photo: np.ndarray) -> None:
    disparity = np.linspace(-0.05, 0.1, 120, dtype=np.float32)[None].repeat(80, 0)
    steps = [bokeh.refocus(photo, disparity, a).astype(float) for a in np.arange(0.5, 2.5, 0.02)]
    changes = [np.abs(b - a).mean() for a, b in itertools.pairwise(steps)]
    assert all(b < 1.6 * a for a, b in itertools.pairwise(changes)), "no jump where a layer is drawn at another size"


def test_white_blooms_where_it_is_blurred_and_only_there() -> None:
    photo = np.full((100, 200, 3), 20, np.uint8)
    photo[45:55, 45:55] = photo[45:55, 145:155] = 255
    disparity = np.zeros((100, 200), np.float32)
    disparity[:, 100:] = -0.05
    plain, bright = (bokeh.refocus(photo, disparity, 1.0, (50, 50), highlight=h) for h in (1, 4))
    assert np.array_equal(plain[:, :90], bright[:, :90])
    gain = (linear(bright).astype(float) - linear(photo[:1, :1])).sum() / (
        linear(plain).astype(float) - linear(photo[:1, :1])
    ).sum()
    assert gain > 1.5
    assert np.array_equal(*(bokeh.refocus(photo // 2, disparity, 1.0, (50, 50), highlight=h) for h in (1, 4)))


def test_it_is_far_nearer_to_the_truth_than_the_twenty_five_views() -> None:
    """Against a thousand views of planes whose hidden parts are known: near the edges, where halos would be, too."""
    height, width = 120, 180
    y, x = np.indices((height, width))
    back, front = (
        cv2.resize(read_photo(DATA / f"{name}.webp"), (width, height), interpolation=cv2.INTER_AREA)
        for name in ("owl", "cat")
    )
    inside = np.hypot(y - 60, x - 90) < 35
    photo = np.where(inside[..., None], front, back)
    for behind, before in ((-7.0, 0.0), (0.0, 7.0)):
        radius = np.where(inside, before, behind).astype(np.float32)
        full = np.ones((height, width), np.float32)
        truth = encoded(many_planes([(linear(back), full, behind), (linear(front), inside.astype(np.float32), before)]))
        at = (90, 60) if before == 0 else (5, 5)
        ours = bokeh.refocus(photo, radius / width, 1.0, at, highlight=1) / 255
        image = torch.from_numpy(linear(photo)).permute(2, 0, 1)[None]
        views = render(image, torch.from_numpy(radius / width)[None, None], Aperture(), torch.ones(1))
        gathered = encoded(views[0].permute(1, 2, 0).numpy())
        edge = np.abs(np.hypot(y - 60, x - 90) - 35) < 9
        for where, decibels in ((np.ones_like(edge), 3), (edge, 1)):  # what is hidden behind an edge nobody knows
            error, theirs = (((picture - truth)[where] ** 2).mean() for picture in (ours, gathered))
            assert 10 * np.log10(theirs / error) > decibels


def test_no_halo_at_an_edge() -> None:
    """A red disc before blue: how much red is seen at each distance from its edge is as a thousand views say, to a twentieth."""
    height, width = 120, 180
    y, x = np.indices((height, width))
    out = np.hypot(y - 60, x - 90) - 35
    red, blue, full = (np.broadcast_to(np.float32(c), (height, width, 3)) for c in ((1, 0, 0), (0, 0, 1), (1, 1, 1)))
    inside = (out < 0).astype(np.float32)
    photo = (255 * np.where(inside[..., None] > 0, red, blue)).astype(np.uint8)
    for behind, before, at in ((-9.0, 0.0, (90, 60)), (0.0, 9.0, (5, 5))):
        radius = np.where(inside > 0, before, behind).astype(np.float32)
        truth = many_planes([(blue, full[..., 0], behind), (red, inside, before)])
        ours = linear(bokeh.refocus(photo, radius / width, 1.0, at, highlight=1))
        for ring in range(-14, 14, 2):
            here = (out >= ring) & (out < ring + 2)
            assert abs(ours[here, 0].mean() - truth[here, 0].mean()) < 0.05
        assert np.abs(ours[..., [0, 2]].sum(2) - 1).max() < 0.01


def test_a_leaning_surface_stays_closed() -> None:
    """A red board that leans through all layers before blue: nothing of the blue is seen through it."""
    height, width = 96, 144
    y, x = np.indices((height, width))
    board = (abs(x - 72) < 40) & (abs(y - 48) < 30)
    photo = np.where(board[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    leaning = np.where(board, (x - 72) / 10, -14)  # from 4 px behind the focal plane to 4 before it
    stepped = np.where(board, -1 - 1.5 * (x > 72), -14)  # two petals, one a little behind the other
    within = (abs(x - 72) < 34) & (abs(y - 48) < 24)
    for radius in (leaning, stepped, np.where(board, -2.5, -14)):
        radius[0, 0] = 0
        seen = bokeh.refocus(photo, radius.astype(np.float32) / width, 1.0, (0, 0), highlight=1)
        assert linear(seen)[within, 2].max() < 0.02


def test_it_agrees_with_a_ray_tracer() -> None:
    """Balls and boards through mitsuba's thin lens: sign, size and focus of the blur are those of a lens."""
    photo, radius, truth = traced(120, 64)
    y, x = np.unravel_index(np.abs(radius).argmin(), radius.shape)
    ours, wrong = (bokeh.refocus(photo, r / 120, 1.0, (int(x), int(y)), highlight=1) / 255 for r in (radius, -radius))
    error, inverted, sharp = (np.square(picture - truth).mean() for picture in (ours, wrong, photo / 255))
    assert 10 * np.log10(sharp / error) > 10
    assert 10 * np.log10(inverted / error) > 2


def test_the_plain_way_says_the_same_of_a_smooth_scene() -> None:
    photo = cv2.resize(read_photo(DATA / "owl.webp"), (90, 60), interpolation=cv2.INTER_AREA)
    radius = np.full((60, 90), -4.0, np.float32)
    radius[0, 0] = 0
    plain = encoded(scatter(linear(photo), radius))
    ours = bokeh.refocus(photo, radius / 90, 1.0, (0, 0), highlight=1) / 255
    assert np.abs(plain - ours)[8:-8, 8:-8].mean() < 0.005


def test_focus_is_a_pixel_or_fractions() -> None:
    assert bokeh.focus_pixel(None, 100, 50) == (50, 25)
    assert bokeh.focus_pixel((0.5, 1.0), 100, 50) == (50, 49)
    assert bokeh.focus_pixel((30, 20), 100, 50) == (30, 20)
    for outside in ((100, 20), (-1, 20), (30, 50), (float("nan"), 0)):
        with pytest.raises(UserError, match="100 x 50"):
            bokeh.focus_pixel(outside, 100, 50)


@pytest.mark.parametrize("aperture", [-0.1, float("nan"), float("inf")])
def test_an_impossible_aperture_is_refused(photo: np.ndarray, aperture: float) -> None:
    with pytest.raises(UserError, match="aperture"):
        bokeh.refocus(photo, np.zeros((80, 120), np.float32), aperture)


def test_an_unknown_shape_is_refused_by_name(photo: np.ndarray) -> None:
    with pytest.raises(UserError, match="there is: disc, cat's eye, 5 blades"):
        bokeh.refocus(photo, np.zeros((80, 120), np.float32), 1.0, shape="star")


def test_photos_of_any_size_are_rendered() -> None:
    for size in ((1, 1), (1, 40), (40, 1), (7, 5), (257, 3), (300, 515)):
        photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        disparity = np.random.default_rng(1).uniform(-0.1, 0.1, size).astype(np.float32)
        assert bokeh.refocus(photo, disparity, 1.0).shape == photo.shape


@pytest.mark.parametrize("aperture", [1000.0, 1e308])
def test_the_widest_blur_is_a_fraction_of_the_frame(photo: np.ndarray, aperture: float) -> None:
    disparity = np.linspace(-0.1, 0.1, 120, dtype=np.float32)[None].repeat(80, 0)
    with pytest.raises(UserError, match="diagonal") as refused:
        bokeh.refocus(photo, disparity, aperture)
    widest = float(str(refused.value).rsplit(" ", 1)[1])  # what the message offers is taken
    assert bokeh.refocus(photo, disparity, widest).shape == photo.shape
    radius = widest * 120 * float(np.abs(disparity - disparity[40, 60]).max())
    assert 0.98 < radius / (bokeh.WIDEST * np.hypot(80, 120)) <= 1
    assert np.array_equal(bokeh.refocus(photo, np.full_like(disparity, 0.1), aperture), photo)  # all of it in focus


def test_disparity_that_is_not_finite_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(UserError, match="finite"):
        bokeh.refocus(photo, np.full((80, 120), np.nan, np.float32), 1.0)
