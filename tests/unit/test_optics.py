"""The physics: every fact the renderers rest on, and every trap around them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from argan.color import light_to_pixels, pixels_to_light
from argan.optics import Aperture, DepthExpansion, gather, gather_cpu, light_field, ray_disparity, refined_rays, render
from argan.optics.layered import blur_layers, composite, slice_layers
from argan.optics.parallel import parallel_for
from benchmarks import reference_optics

APERTURE = Aperture()
RENDERERS = ("gather", "occlusion")


def scene(
    n: int = 2, h: int = 12, w: int = 20, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A random image and a smooth random disparity of a few pixels."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(n, 3, h, w, generator=random, dtype=dtype) * 2 - 1
    coarse = (torch.rand(n, 1, 4, 4, generator=random, dtype=dtype) * 2 - 1) * 0.1
    return image, F.interpolate(coarse, (h, w), mode="bilinear")


def shifted(image: Tensor, dx: int, dy: int) -> Tensor:
    """image(x + d), the border replicated."""
    h, w = image.shape[-2:]
    rows, columns = (torch.arange(h) + dy).clamp(0, h - 1), (torch.arange(w) + dx).clamp(0, w - 1)
    return image[..., rows, :][..., columns]


# The aperture


def test_aperture_is_the_centred_five_by_five_grid_under_a_disc() -> None:
    line = [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert APERTURE.offsets.tolist() == [[x, y] for y in line for x in line]
    assert APERTURE.views == 25
    weights = APERTURE.weights.view(5, 5)
    assert (weights > 0).sum() == 21
    assert weights[0, 0] == weights[0, 4] == weights[4, 0] == weights[4, 4] == 0
    assert weights.unique().tolist() == [0, pytest.approx(1 / 21)]
    assert weights.sum().item() == pytest.approx(1)
    assert (APERTURE.weights @ APERTURE.offsets).abs().max() < 1e-7  # the photo does not move with the aperture
    assert APERTURE.moving.sum() == 20


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_apertures_of_any_odd_size_are_centred(size: int) -> None:
    aperture = Aperture(size)
    assert aperture.weights.sum().item() == pytest.approx(1)
    assert (aperture.weights @ aperture.offsets).abs().max() < 1e-6
    assert aperture.offsets[size**2 // 2].tolist() == [0, 0]
    image, disparity = scene()
    assert render(image, disparity, aperture, torch.ones(2)).shape == image.shape


@pytest.mark.parametrize(("size", "views"), [(3, 5), (5, 21), (7, 37), (9, 61), (17, 221)])
def test_the_views_fill_the_disc(size: int, views: int) -> None:
    """Those within a quarter of a cell of the unit disc, in equal parts: a disc between radius 1 and half a cell more."""
    aperture, cell = Aperture(size), 2 / (size - 1)
    inside = aperture.weights > 0
    assert inside.sum() == views
    assert math.pi * (1 - cell / 4) ** 2 < views * cell**2 < math.pi * (1 + cell / 2) ** 2 * (1.1 if size < 9 else 1)
    assert aperture.weights.sum().item() == pytest.approx(1)
    assert aperture.weights[inside].unique().numel() == 1
    distance = aperture.offsets.norm(dim=1)
    assert distance[inside].max() < distance[~inside].min()
    grid = aperture.weights.view(size, size)
    for same in (grid.flip(0), grid.flip(1), grid.T):
        assert torch.equal(grid, same)


class OddAperture(Aperture):
    """Some views, most of them on the right: turned, mirrored or transposed it is another."""

    VIEWS = ((0.5, -1.0), (-0.5, -0.5), (0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 0.5), (0.0, 1.0))

    @property
    def weights(self) -> Tensor:
        return torch.tensor([tuple(u) in self.VIEWS for u in self.offsets.tolist()]) / len(self.VIEWS)


@pytest.mark.parametrize("disparity", [-0.125, 0.125])
def test_a_point_of_light_is_the_aperture_upright_behind_and_turned_before_the_focal_plane(disparity: float) -> None:
    aperture, (x, y) = OddAperture(), (12, 9)
    image, depth = torch.zeros(1, 3, 24, 32), torch.full((1, 1, 24, 32), disparity)
    image[..., y, x] = 1
    expected = torch.zeros(24, 32)
    for right, down in aperture.VIEWS:  # the photographer's right, and down
        expected[y - round(down * disparity * 32), x - round(right * disparity * 32)] = 1 / 7
    one, views = torch.ones(1), aperture.offsets[aperture.moving]
    stack, levels = slice_layers(image, depth, 5, 0.125)
    photos = {
        "gather": render(image, depth, aperture, one),
        "gather of torch": gather.forward(image, depth, views, one),
        "occlusion": render(image, depth, aperture, one, renderer="occlusion", disparity_max=0.125),
        "occlusion of torch": composite(blur_layers(stack, levels, one, aperture)),
    }
    for renderer in RENDERERS:
        field = light_field(image, depth, aperture, one, renderer=renderer, disparity_max=0.125)
        photos[f"light field, {renderer}"] = torch.einsum("v,nvchw->nchw", aperture.weights, field)
    for name, photo in photos.items():
        torch.testing.assert_close(photo[0, 0], expected, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("size", [0, -1, 4])
def test_apertures_without_a_centre_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        Aperture(size)


# What a constant disparity does


@pytest.mark.parametrize(("h", "w"), [(16, 16), (12, 20), (15, 10), (9, 30)])
def test_constant_disparity_shifts_every_view_by_exactly_that_much(h: int, w: int) -> None:
    image, _ = scene(1, h, w)
    field = light_field(image, torch.full((1, 1, h, w), 4 / w), APERTURE, torch.full((1,), 0.5))  # 2 pixels at the rim
    for view, (ux, uy) in zip(field[0], APERTURE.offsets.tolist(), strict=True):
        expected = shifted(image[0], round(2 * ux), round(2 * uy))
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)


def test_occlusion_shifts_a_flat_scene_the_same_way() -> None:
    image, _ = scene(1, 12, 16)
    disparity = torch.full((1, 1, 12, 16), 4 / 16)
    options = {"renderer": "occlusion", "layers": 3, "disparity_max": 4 / 16}
    field = light_field(image, disparity, APERTURE, torch.full((1,), 0.5), **options)  # type: ignore[arg-type]
    for view, (ux, uy) in zip(field[0], APERTURE.offsets.tolist(), strict=True):
        torch.testing.assert_close(view, shifted(image[0], round(2 * ux), round(2 * uy)), atol=2e-5, rtol=0)


def test_the_renderers_agree_on_a_flat_scene_between_pixels() -> None:
    image, _ = scene(2, 12, 16)
    disparity, scale = torch.full((2, 1, 12, 16), 0.1), torch.tensor([0.37, 1.0])
    layered = render(image, disparity, APERTURE, scale, renderer="occlusion", layers=3, disparity_max=0.1)
    torch.testing.assert_close(layered, render(image, disparity, APERTURE, scale), atol=1e-5, rtol=0)


def test_rays_meet_the_disparity_where_they_pass() -> None:
    """D~(x, u) = D(x + u D(x)): left of a step of 2 pixels, rays to the right look past it and meet the near side."""
    disparity = torch.zeros(1, 1, 8, 16)
    disparity[..., 8:] = 2 / 16
    rays = ray_disparity(disparity, APERTURE)[0].view(5, 5, 8, 16)
    assert rays.shape == (5, 5, 8, 16)
    assert torch.equal(rays[2, 2], disparity[0, 0])
    torch.testing.assert_close(rays[2, 0, 4, 8:11], torch.tensor([0.0, 0.0, 2 / 16]), atol=1e-6, rtol=0)  # u = (-1, 0)
    torch.testing.assert_close(rays[2, 4], disparity[0, 0])  # u = (1, 0): the near side looks away from the step


# The closed aperture


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 13), (1, 5), (33, 31)])
def test_a_closed_aperture_gives_the_image_bit_for_bit(renderer: str, h: int, w: int) -> None:
    image, disparity = scene(3, h, w)
    scale = torch.tensor([0.0, 0.7, 0.0])
    photo = render(image, disparity, APERTURE, scale, renderer=renderer)  # type: ignore[arg-type]
    field = light_field(image, disparity, APERTURE, scale, renderer=renderer)  # type: ignore[arg-type]
    for i in (0, 2):
        assert torch.equal(photo[i], image[i])
        assert torch.equal(field[i], image[i].expand(25, -1, -1, -1))
    if h > 1:
        assert not torch.equal(photo[1], image[1])


def test_all_apertures_closed() -> None:
    image, disparity = (t.requires_grad_() for t in scene())
    photo = render(image, disparity, APERTURE, torch.zeros(2))
    assert torch.equal(photo, image)
    photo.sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))  # type: ignore[arg-type]


# The photo and the light field


def test_the_photo_is_the_weighted_mean_of_the_light_field() -> None:
    image, disparity = scene()
    scale = torch.tensor([0.4, 1.0])
    expansion = DepthExpansion(25, 0.1)
    torch.nn.init.normal_(expansion.body[2].weight, std=0.3)  # type: ignore[arg-type]
    for t in (None, expansion):
        field = light_field(image, disparity, APERTURE, scale, expansion=t)
        expected = torch.einsum("nvchw,v->nchw", field, APERTURE.weights)
        torch.testing.assert_close(render(image, disparity, APERTURE, scale, expansion=t), expected, atol=1e-5, rtol=0)


def test_the_layered_photo_is_the_mean_of_the_layered_views_when_one_layer_is_out_of_focus() -> None:
    image, _ = scene(1, 16, 16)
    disparity = torch.zeros(1, 1, 16, 16)
    disparity[..., 5:11, 5:11] = 0.1
    options = {"renderer": "occlusion", "layers": 3, "disparity_max": 0.1}
    field = light_field(image, disparity, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
    photo = render(image, disparity, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
    inside = (slice(None), slice(None), slice(7, 9), slice(7, 9))  # fully covered in every view
    torch.testing.assert_close(
        torch.einsum("nvchw,v->nchw", field, APERTURE.weights)[inside], photo[inside], atol=1e-5, rtol=0
    )


def test_the_plain_loop_computes_the_same_photo_and_gradients() -> None:
    scale = torch.tensor([0.0, 0.3, 1.0])
    noise = torch.randn(3, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    results = []
    for renderer in (render, reference_optics.render):
        image, disparity = (t.requires_grad_() for t in scene(3))
        photo = renderer(image, disparity, APERTURE, scale)
        results.append((photo, *torch.autograd.grad(photo, (image, disparity), noise)))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=3e-5, rtol=1e-5)  # positions round differently


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_images_are_rendered_as_each_alone(
    layout: torch.memory_format, renderer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    image, disparity = scene(5)
    scale = torch.tensor([0.0, 0.2, 1.0, 0.0, 0.6])
    options = {"renderer": renderer, "disparity_max": 0.1}
    one_by_one = [
        render(image[i : i + 1], disparity[i : i + 1], APERTURE, scale[i : i + 1], **options) for i in range(5)
    ]  # type: ignore[arg-type]
    together = render(image.contiguous(memory_format=layout), disparity, APERTURE, scale, **options)  # type: ignore[arg-type]
    assert torch.equal(torch.cat(one_by_one), together)


@pytest.mark.parametrize("views", [1, 20])
@pytest.mark.parametrize(("h", "w"), [(12, 20), (1, 7), (7, 1), (1, 1)])
def test_the_compiled_gather_is_the_one_of_torch(h: int, w: int, views: int) -> None:
    """A CPU runs the one, a GPU the other."""
    image, disparity = (t.double() for t in scene(3, h, w))
    rays = (disparity * 5).expand(-1, views, -1, -1) * torch.linspace(0.5, 1, views, dtype=torch.float64)[:, None, None]
    scale, grad = torch.tensor([0.3, 1.0, 0.8], dtype=torch.float64), torch.randn(3, 3, h, w, dtype=torch.float64)
    directions = APERTURE.offsets[APERTURE.moving].double()
    photo = gather_cpu.forward(image, rays.contiguous(), directions * w, scale)
    torch.testing.assert_close(photo, gather.forward(image, rays, directions, scale))
    compiled = gather_cpu.backward(grad, image, rays.contiguous(), directions * w, scale)
    for ours, torchs in zip(compiled, gather.backward(grad, image, rays, directions, scale), strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("h", "w"), [(12, 20), (1, 7), (7, 1), (33, 31)])
def test_the_compiled_layers_are_those_of_torch(h: int, w: int, size: int) -> None:
    """A CPU runs the one, a GPU the other."""
    image, disparity = (t.double() for t in scene(4, h, w))
    disparity *= torch.tensor([1.0, 1.0, 0.1, 2.0], dtype=torch.float64)[
        :, None, None, None
    ]  # the last beyond the range
    scale, grad = torch.tensor([0.3, 1.0, 0.8, 0.5], dtype=torch.float64), torch.randn(4, 3, h, w, dtype=torch.float64)
    answers = []
    for compiled in (True, False):
        i, d = image.clone().requires_grad_(), disparity.clone().requires_grad_()
        if compiled:
            photo = render(i, d, Aperture(size), scale, renderer="occlusion", layers=7, disparity_max=0.15)
        else:
            photo = composite(blur_layers(*slice_layers(i, d, 7, 0.15), scale, Aperture(size)))
        answers.append((photo, *torch.autograd.grad(photo, (i, d), grad)))
    for ours, torchs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, torchs)


def test_layers_of_a_disparity_that_is_no_number() -> None:
    image, disparity = (t.requires_grad_() for t in scene(2))
    options = {"renderer": "occlusion", "layers": 5, "disparity_max": 0.15}
    expected = render(image, disparity, APERTURE, torch.ones(2), **options)  # type: ignore[arg-type]
    broken = disparity.detach().clone()
    broken[0, 0, 3, 3] = torch.nan
    photo = render(image, broken.requires_grad_(), APERTURE, torch.ones(2), **options)  # type: ignore[arg-type]
    assert photo[0].isnan().any()
    assert torch.equal(photo[1], expected[1])
    photo.sum().backward()
    assert broken.grad is not None
    assert broken.grad[0].isnan().any()
    assert not broken.grad[1].isnan().any()


def test_a_disparity_that_is_no_number_spoils_its_own_pixels_alone() -> None:
    image, disparity = scene(2)
    expected = render(image, disparity, APERTURE, torch.ones(2))
    disparity[0, 0, 3, 3], disparity[0, 0, 8, 12] = torch.nan, torch.inf
    photo = render(image, disparity, APERTURE, torch.ones(2))
    assert torch.equal(photo[1], expected[1])
    assert (photo[0] - expected[0]).abs().nan_to_num().gt(0).any(0).sum() < 100


def test_disparity_means_the_same_at_every_resolution() -> None:
    image, disparity = scene(1, 8, 8)
    large = [F.interpolate(t, (128, 128), mode="bilinear") for t in (image, disparity)]
    larger = [F.interpolate(t, (256, 256), mode="bilinear") for t in (image, disparity)]
    for renderer in RENDERERS:
        options = {"renderer": renderer, "disparity_max": 0.1}
        small_photo = render(*large, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
        photo = F.avg_pool2d(render(*larger, APERTURE, torch.ones(1), **options), 2)  # type: ignore[arg-type]
        assert (photo - small_photo).abs().max() < 0.05
        assert (small_photo - large[0]).abs().max() > 0.2


# Near and far


def test_the_gather_cannot_tell_near_from_far() -> None:
    image, disparity = scene()
    near, far = (render(image, d, APERTURE, torch.ones(2)) for d in (disparity, -disparity))
    constant = torch.full_like(disparity, 0.1)
    torch.testing.assert_close(
        render(image, constant, APERTURE, torch.ones(2)),
        render(image, -constant, APERTURE, torch.ones(2)),
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)


def bar(disparity: float, background: float) -> tuple[Tensor, Tensor]:
    """A white bar, 8 columns of 32, on black, at one disparity before or behind its background's."""
    image, depth = -torch.ones(1, 3, 16, 32), torch.full((1, 1, 16, 32), background)
    image[..., 12:20], depth[..., 12:20] = 1.0, disparity
    return image, depth


def test_a_near_object_out_of_focus_spills_over_a_sharp_background() -> None:
    image, depth = bar(0.1, 0.0)
    photo = render(image, depth, APERTURE, torch.ones(1), renderer="occlusion", layers=3, disparity_max=0.1)
    row = photo[0, 0, 8]
    assert row[10] > -0.9  # the bar's light reaches two columns outwards
    assert row[:8].max() < -0.99  # and no further than the aperture's rim


def test_a_far_object_out_of_focus_is_cut_off_by_what_is_before_it() -> None:
    image, depth = bar(-0.1, 0.0)
    photo = render(image, depth, APERTURE, torch.ones(1), renderer="occlusion", layers=3, disparity_max=0.1)
    torch.testing.assert_close(photo[..., :12], image[..., :12])  # the sharp near side is untouched
    torch.testing.assert_close(photo[..., 20:], image[..., 20:])


def test_occlusion_breaks_the_symmetry_of_the_gather() -> None:
    """The only cue there is to the sign of disparity."""
    for renderer, least, most in (("gather", 0.0, 1e-5), ("occlusion", 0.2, 2.0)):
        options = {"renderer": renderer, "layers": 3, "disparity_max": 0.1}
        near, far = (render(*bar(d, 0.0), APERTURE, torch.ones(1), **options) for d in (0.1, -0.1))  # type: ignore[arg-type]
        assert least <= (near - far).abs().max() <= most


def test_near_and_far_differ_around_occlusion_edges_and_nowhere_else() -> None:
    """A surface alone is blurred alike on either side of the focal plane; only where it meets another is one before the other."""
    image, radius = scene(1, 24, 36)[0], 4  # a rim at 0.1 of 36 pixels: 3.6, and bilinear
    depth = torch.zeros(1, 1, 24, 36)
    depth[..., 12:24] = 0.1  # out of focus between two surfaces in the focal plane
    options = {"renderer": "occlusion", "layers": 3, "disparity_max": 0.1}
    for scale, differs in ((1.0, True), (0.5, True), (0.0, False)):
        near, far = (render(image, d, APERTURE, torch.full((1,), scale), **options) for d in (depth, -depth))  # type: ignore[arg-type]
        change = (near - far).abs().amax((0, 1, 2))  # of every column
        at_edges = torch.tensor([min(abs(x + 0.5 - edge) for edge in (12, 24)) < radius for x in range(36)])
        assert (change[at_edges].max() > 0.05) == differs
        assert change[~at_edges].max() < 1e-5
    flat = torch.full_like(depth, 0.1)
    near, far = (render(image, d, APERTURE, torch.ones(1), **options) for d in (flat, -flat))  # type: ignore[arg-type]
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)


def test_the_focal_plane_stays_sharp() -> None:
    image, _ = scene()
    for renderer in RENDERERS:
        photo = render(image, torch.zeros(2, 1, 12, 20), APERTURE, torch.ones(2), renderer=renderer, disparity_max=0.1)  # type: ignore[arg-type]
        torch.testing.assert_close(photo, image, atol=1e-5, rtol=0)


# Gradients


def gradients_right(function: Callable[[Tensor, Tensor], Tensor], image: Tensor, disparity: Tensor) -> bool:
    """Against finite differences, in double precision, along a random direction, the step too small to cross a pixel's centre."""
    return torch.autograd.gradcheck(function, (image, disparity), eps=1e-7, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_loss_on_the_photo_reaches_the_disparity(renderer: str) -> None:
    """A nearest-pixel look-up would give exactly zero here, and depth would never be learned."""
    image, disparity = scene()
    disparity.requires_grad_()
    photo = render(image, disparity, APERTURE, torch.tensor([0.5, 1.0]), renderer=renderer)  # type: ignore[arg-type]
    photo.square().sum().backward()
    assert disparity.grad is not None
    assert (disparity.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("with_expansion", [False, True])
def test_gradients_of_the_gather(with_expansion: bool) -> None:
    image, disparity = (t.requires_grad_() for t in scene(2, 3, 4, torch.float64))
    expansion = None
    if with_expansion:
        expansion = DepthExpansion(25, 0.1, channels=2).double()
        torch.nn.init.normal_(expansion.body[2].weight, std=0.1)  # type: ignore[arg-type]
    scale = torch.tensor([0.6, 1.0], dtype=torch.float64)
    assert gradients_right(lambda i, d: render(i, d, APERTURE, scale, expansion=expansion), image, disparity)


def test_gradients_of_the_layers() -> None:
    image, disparity = (t.requires_grad_() for t in scene(2, 3, 4, torch.float64))
    scale = torch.tensor([0.6, 1.0], dtype=torch.float64)
    options = {"renderer": "occlusion", "layers": 5, "disparity_max": 0.15}
    assert gradients_right(lambda i, d: render(i, d, APERTURE, scale, **options), image, disparity)  # type: ignore[arg-type]


def test_gradients_of_the_light_field() -> None:
    image, disparity = (t.requires_grad_() for t in scene(1, 4, 5, torch.float64))
    scale = torch.tensor([0.8], dtype=torch.float64)
    assert gradients_right(lambda i, d: light_field(i, d, Aperture(3), scale), image, disparity)


# The depth expansion network


def test_the_expansion_starts_as_the_identity_and_learns() -> None:
    image, disparity = scene()
    expansion = DepthExpansion(25, 0.1)
    rays = ray_disparity(disparity, APERTURE)
    assert torch.equal(expansion(rays), rays)
    photo = render(image, disparity, APERTURE, torch.ones(2), expansion=expansion)
    torch.testing.assert_close(photo, render(image, disparity, APERTURE, torch.ones(2)), atol=1e-5, rtol=0)
    photo.square().sum().backward()
    last = expansion.body[2]
    assert last.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


# Precision and errors


@pytest.mark.parametrize("renderer", RENDERERS)
def test_positions_stay_exact_under_mixed_precision(renderer: str) -> None:
    image, disparity = scene(1, 8, 256)
    disparity = disparity.requires_grad_()
    options = {"renderer": renderer, "disparity_max": 0.1}
    plain = render(image, disparity, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
    (expected,) = torch.autograd.grad(plain.square().sum(), disparity)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        photo = render(image, disparity, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(photo.square().sum(), disparity)
    assert photo.dtype == torch.float32
    assert torch.equal(photo, plain)
    torch.testing.assert_close(gradient, expected)
    half = render(image.bfloat16(), disparity, APERTURE, torch.ones(1), **options)  # type: ignore[arg-type]
    assert half.dtype == torch.float32


def test_wrong_shapes_are_named() -> None:
    image, disparity = scene()
    with pytest.raises(ValueError, match=r"disparity must be \(2, 1, 12, 20\).*got \(2, 12, 20\)"):
        render(image, disparity[:, 0], APERTURE, torch.ones(2))
    with pytest.raises(ValueError, match=r"scale must be \(2,\)"):
        render(image, disparity, APERTURE, torch.ones(1))
    with pytest.raises(ValueError, match="floating point"):
        light_field((image * 127).byte(), disparity, APERTURE, torch.ones(2))
    with pytest.raises(ValueError, match="disparity must be"):
        ray_disparity(disparity.expand(-1, 3, -1, -1), APERTURE)
    with pytest.raises(ValueError, match="layers must be odd"):
        render(image, disparity, APERTURE, torch.ones(2), renderer="occlusion", layers=4)


@pytest.mark.parametrize("renderer", ["gather", "occlusion"])
def test_a_finer_aperture_is_the_same_lens(renderer: str) -> None:
    """More views than were trained with: a constant disparity blurs by the same radius, and T's refinement carries over."""
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 16] = 1.0
    disparity = torch.full((1, 1, 33, 33), -0.15)
    expansion = DepthExpansion(25, 0.15) if renderer == "gather" else None
    if expansion is not None:  # M = D~ + a constant: exact at any number of views
        torch.nn.init.constant_(expansion.body[2].bias, -0.2)  # type: ignore[arg-type]
    coarse, fine = (
        render(image, disparity, Aperture(size), torch.ones(1), expansion=expansion, renderer=renderer, layers=9,
               disparity_max=0.3)
        for size in (5, 17)
    )  # fmt: skip
    assert coarse.sum().item() == pytest.approx(fine.sum().item(), rel=0.02)
    far = (torch.arange(33) - 16).abs().float()
    reach = [photo[0, 0, 16].gt(1e-4).mul(far).max().item() for photo in (coarse, fine)]
    assert reach[0] == reach[1] >= 5
    within = (far[:, None] ** 2 + far[None] ** 2).sqrt() <= reach[0] - 1.5
    assert (coarse[0, 0][within] == 0).any(), "a few sharp copies ..."
    assert (fine[0, 0][within] > 0).all(), "... become a disc"
    for size in (5, 7):
        assert refined_rays(disparity, Aperture(size), expansion).shape[1] == size**2
    if expansion is not None:
        expected = expansion(torch.full((1, 25, 1, 1), -0.15)).mean()
        assert torch.allclose(
            refined_rays(disparity, Aperture(9), expansion), expected.expand(1, 81, 33, 33), atol=1e-6
        )


def test_light_is_read_by_srgbs_curve_and_written_back() -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.double)
    light = pixels_to_light(values)
    torch.testing.assert_close(light_to_pixels(light), values)
    assert light[0] == 0 and light[-1] == 1
    torch.testing.assert_close(light[128], torch.tensor(0.2158605, dtype=torch.double), atol=1e-6, rtol=0)
    inside = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.double).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: light_to_pixels(0.5 * pixels_to_light(v) + 0.1), inside)
    dark = torch.zeros(3, requires_grad=True)
    light_to_pixels(dark).sum().backward()
    assert dark.grad is not None and torch.isfinite(dark.grad).all(), "black has a gradient too"


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_view_has_no_holes(renderer: str) -> None:
    """What is nearer moves away from what is behind it; one colour all over stays that colour."""
    image = torch.full((1, 3, 32, 32), 0.5)
    disparity = torch.full((1, 1, 32, 32), -0.1)
    disparity[..., 8:24, 8:24] = 0.1
    field = light_field(image, disparity, APERTURE, torch.ones(1), renderer=renderer, layers=9, disparity_max=0.15)  # type: ignore[arg-type]
    torch.testing.assert_close(field, image[:, None].expand_as(field), atol=1e-5, rtol=0)


def test_the_refinement_of_a_finer_aperture_lies_where_its_views_do() -> None:
    """T(D~) linear in u is interpolated exactly: each finer view gets the refinement of its own place on the lens."""
    expansion = DepthExpansion(25, 0.1)

    def slope(aperture: Aperture) -> Tensor:
        return aperture.offsets @ torch.tensor([0.2, -0.1])

    last = expansion.body[2]
    last.bias.data = torch.atanh(slope(APERTURE))  # type: ignore[union-attr]
    disparity = torch.full((1, 1, 6, 6), 0.05)
    for size in (3, 7, 9, 17):
        aperture = Aperture(size)
        refinement = refined_rays(disparity, aperture, expansion) - ray_disparity(disparity, aperture)
        expected = 0.1 * slope(aperture)[None, :, None, None].expand_as(refinement)
        torch.testing.assert_close(refinement, expected, atol=1e-6, rtol=0)


def test_an_error_in_any_worker_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    caller, both_started = threading.get_ident(), threading.Barrier(2, timeout=10)

    def work(i: int, scale: float) -> None:
        both_started.wait()  # so that each thread has one image
        if threading.get_ident() != caller:
            raise ArithmeticError("a worker failed")

    with pytest.raises(ArithmeticError, match="a worker failed"):
        parallel_for(torch.ones(2), work)
