"""The optics of scenes against exact scenes, and against lenses that are wrong in one respect each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from argan import meadow, networks
from argan.config.schema import training
from argan.evaluation.optics import OpticsScores

BLUR, OPENING, REFOCUS, EPIPOLAR = KEYS = tuple(
    f"optics_{name}" for name in ("blur_disparity", "blur_aperture", "refocus", "epipolar")
)
COUNT, REACH = 24, 0.125  # levels of the nine layers lie a whole pixel apart at 32 px
Pair = tuple[Tensor, Tensor]


class Lens(networks.SceneGenerator):
    """The optics of a generator without the generator."""

    def __init__(self, renderer: str = "occlusion") -> None:
        super().__init__(training("quick", {"renderer": renderer, "disparity_max": REACH}))


def judged(
    lens: networks.SceneGenerator, image: Tensor, disparity: Tensor, batch: int = COUNT
) -> dict[str, float | None]:
    optics = OpticsScores()
    for pair in zip(image.split(batch), disparity.split(batch), strict=True):
        optics.add(lens, *pair)
    metrics = optics.metrics()
    assert tuple(metrics) == KEYS
    assert all(value is None or (type(value) is float and math.isfinite(value)) for value in metrics.values())
    return metrics


def scenes(resolution: int, count: int) -> Pair:
    """Meadow's images in focus (N, 3, R, R) and their exact disparity (N, 1, R, R)."""
    pixels = np.stack([meadow.all_in_focus(i, resolution, 5) for i in range(count)])
    _, exact = meadow.photographs(count, resolution, 5, processes=1)
    assert exact is not None
    image = networks.from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return image.contiguous(), torch.from_numpy(exact)[:, None]


@pytest.fixture(scope="module")
def exact() -> Pair:
    return scenes(32, COUNT)


def textured(count: int) -> Tensor:
    random = np.random.default_rng(0).normal(size=(count, 3, 32, 32))
    return torch.from_numpy(gaussian_filter(random, (0, 0, 1, 1)) * 1.5).float().clamp(-1, 1)


@pytest.mark.parametrize("renderer", ["occlusion", "gather"])
@pytest.mark.parametrize("resolution", [32, 64])
def test_exact_scenes_obey(exact: Pair, renderer: str, resolution: int) -> None:
    metrics = judged(Lens(renderer), *(exact if resolution == 32 else scenes(64, 8)))
    assert metrics[BLUR] > 0.75
    assert metrics[OPENING] == 1
    assert metrics[REFOCUS] == 1
    assert metrics[EPIPOLAR] < 0.42


# -- where there is nothing to say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", ["occlusion", "gather"])
def test_without_disparity_nothing_is_said_however_blurred_the_image(exact: Pair, renderer: str) -> None:
    lens, (image, disparity) = Lens(renderer), exact
    painted = lens.photograph(image, disparity, torch.ones(COUNT)).detach()
    for picture in (image, painted):
        assert set(judged(lens, picture, disparity * 0).values()) == {None}
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 1e-4, disparity.shape)).float()
    assert set(judged(lens, painted, noise).values()) == {None}


def test_without_detail_nothing_is_said(exact: Pair) -> None:
    assert set(judged(Lens(), exact[0] * 0.004, exact[1]).values()) == {None}
    assert set(OpticsScores().metrics().values()) == {None}


def test_a_flat_scene_out_of_focus_is_blurred_but_has_no_near_and_far(exact: Pair) -> None:
    metrics = judged(Lens(), exact[0], torch.full_like(exact[1], 0.0625))
    assert (metrics[BLUR], metrics[REFOCUS]) == (None, None)
    assert metrics[OPENING] == 1
    assert metrics[EPIPOLAR] < 0.01  # two whole pixels: nothing is between pixels, or between layers


def test_scenes_that_say_nothing_do_not_weigh(exact: Pair) -> None:
    image, disparity = exact
    more = torch.cat([image, image, image * 0.004]), torch.cat([disparity, disparity * 0, disparity])
    alone, among = judged(Lens(), image, disparity), judged(Lens(), *more)
    assert among == pytest.approx(alone, rel=1e-3)


# -- scenes of other kinds -------------------------------------------------------------------------------------------


def test_what_a_near_surface_hides_does_not_count() -> None:
    """Two planes, exactly rendered: straight slices, but for what the square in front covers and for its uncertain rim."""
    image, disparity = textured(8), torch.full((8, 1, 32, 32), -0.0625)
    disparity[..., 8:24, 8:24] = 0.0625
    assert judged(Lens(), image, disparity)[EPIPOLAR] < 0.05
    beside = disparity.roll(16, 3)  # the same parallax of a depth that is not there
    lens = Lens()
    lens.views = lambda i, d, s: Lens().views(i, disparity, s)  # type: ignore[method-assign]
    assert judged(lens, image, beside)[EPIPOLAR] > 0.5


def test_a_torn_surface_has_no_straight_slices(exact: Pair) -> None:
    """Disparity that is noise from pixel to pixel. Photos still blur by it: the lens is right, there are no surfaces."""
    noise = torch.from_numpy(np.random.default_rng(2).normal(0, 0.05, exact[1].shape)).float().clamp(-REACH, REACH)
    for renderer, least in (("gather", 1.2), ("occlusion", 0.35)):
        torn, whole = judged(Lens(renderer), exact[0], noise), judged(Lens(renderer), *exact)
        assert torn[EPIPOLAR] > max(least, 1.5 * whole[EPIPOLAR])
        assert torn[BLUR] < whole[BLUR] - 0.2


# -- lenses that are wrong -------------------------------------------------------------------------------------------


class Elsewhere(Lens):
    """Blurs every scene by the depth of another."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        return super().photograph(image, disparity.roll(1, 0), scale, widen)


class Stuck(Lens):
    """An aperture that opens half."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        return super().photograph(image, disparity, scale.clamp(max=0.5), widen)


class Backwards(Lens):
    """Sharper the wider: blurs most with the aperture nearly closed."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        return super().photograph(image, disparity, 1.25 - scale, widen)


class Swapped(Lens):
    """Focuses on the far part when asked for the near one."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        return super().photograph(image, disparity - 2 * disparity.mean((1, 2, 3), keepdim=True), scale, widen)


class Nearsighted(Lens):
    """Blurs all when asked for the far part."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        before = (
            disparity.flatten(1).quantile(0.15, 1)[:, None, None, None] >= 0
        )  # nearly all is before the focal plane
        return super().photograph(image, torch.where(before, REACH, disparity), scale, widen)


class Enhancing(Lens):
    """Adds contrast to what is in focus."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        photo = super().photograph(image, disparity, scale, widen)
        return torch.where(disparity == 0, photo * (1 + scale[:, None, None, None]), photo)


class Pinhole(Lens):
    """Sees the image alone, whatever the aperture, from wherever."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, widen: int = 1) -> Tensor:
        return image

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor) -> Tensor:
        return image[:, None].expand(-1, self.aperture.views, -1, -1, -1)


class Shuffled(Lens):
    """The right views, in the wrong places."""

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor) -> Tensor:
        order = np.random.default_rng(3).permutation(self.aperture.views)
        return super().views(image, disparity, scale)[:, order]


class Mirrored(Lens):
    """Parallax the wrong way round."""

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor) -> Tensor:
        return super().views(image, disparity, scale).flip(1)


@pytest.mark.parametrize("renderer", ["occlusion", "gather"])
def test_wrong_lenses_are_told(exact: Pair, renderer: str) -> None:
    def of(lens: type[Lens]) -> dict[str, float | None]:
        return judged(lens(renderer), *exact)

    elsewhere, pinhole = of(Elsewhere), of(Pinhole)
    assert abs(elsewhere[BLUR]) < 0.45  # not 0: most scenes are in focus in the middle
    assert elsewhere[REFOCUS] < 0.7
    assert of(Stuck)[OPENING] == of(Backwards)[OPENING] == 0
    assert of(Swapped)[REFOCUS] < 0.2
    assert of(Nearsighted)[REFOCUS] < 0.6
    assert (pinhole[BLUR], pinhole[OPENING], pinhole[REFOCUS], pinhole[EPIPOLAR]) == (0, 0, 0, None)
    assert of(Shuffled)[EPIPOLAR] > 0.9
    assert of(Mirrored)[EPIPOLAR] > 1.2


def test_only_what_is_out_of_focus_must_lose_sharpness() -> None:
    disparity = torch.zeros(8, 1, 32, 32)
    disparity[..., 20:] = 0.0625
    assert judged(Enhancing(), textured(8), disparity)[OPENING] == 1


# -- how it counts ---------------------------------------------------------------------------------------------------


def test_the_same_numbers_every_time_in_any_batches(exact: Pair) -> None:
    whole = judged(Lens(), *exact)
    before = torch.get_rng_state()
    assert judged(Lens(), *exact) == whole
    assert torch.equal(torch.get_rng_state(), before)
    assert judged(Lens(), *exact, batch=1) == pytest.approx(whole, rel=1e-5)


def test_gradients_are_not_kept_and_memory_is_numbers(exact: Pair) -> None:
    optics = OpticsScores()
    optics.add(Lens("gather"), exact[0][:2].requires_grad_(), exact[1][:2].requires_grad_())
    numbers = [x for value in vars(optics).values() for x in (value if isinstance(value, list) else [value])]
    assert len(numbers) == 2 * 3 + 3
    assert {type(x) for x in numbers} <= {float, int, bool}
