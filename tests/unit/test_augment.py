"""Augmentation must be blind to blur: what it does to a sharp and to a blurred photo is the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from argan.config.schema import training
from argan.training import augment


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(k: int, count: int) -> torch.Tensor:
    return torch.rand(k, count, generator=random())


def sharpness(photos: torch.Tensor) -> torch.Tensor:
    """Gradient energy over variance of the part that was photo, blind to exposure and contrast."""
    inner = photos[..., 8:-8, 8:-8]
    energy = inner.diff(dim=-1).square().mean((1, 2, 3)) + inner.diff(dim=-2).square().mean((1, 2, 3))
    return energy / inner.var((1, 2, 3))


def test_half_of_the_photos_are_flipped_left_to_right_and_none_upside_down() -> None:
    photos = torch.rand(256, 3, 8, 12, generator=random())
    flipped = augment.flip(photos, *numbers(1, 256))
    mirrored = (flipped == photos.flip(3)).all(3).all(2).all(1)
    unchanged = (flipped == photos).all(3).all(2).all(1)
    assert (mirrored | unchanged).all() and not (mirrored & unchanged).any()
    assert 0.4 < mirrored.float().mean() < 0.6


@pytest.mark.parametrize("kind", ["color", "translate"])
def test_the_defocus_cue_survives(kind: str) -> None:
    photos = torch.randn(64, 3, 48, 48, generator=random(1)) * 0.4
    blurred = F.avg_pool2d(F.pad(photos, [2] * 4, mode="replicate"), 5, 1)
    draws = {
        "color": lambda x: augment.color(x, 0.5, *numbers(3, len(x))),
        "translate": lambda x: augment.translate(x, 0.125, *numbers(2, len(x))),
    }
    before = sharpness(photos) / sharpness(blurred)
    after = sharpness(draws[kind](photos)) / sharpness(draws[kind](blurred))
    assert torch.allclose(after.mean(), before.mean(), rtol=0.1)
    assert torch.allclose(sharpness(draws[kind](photos)).mean(), sharpness(photos).mean(), rtol=0.1)


def test_translation_is_by_whole_pixels_within_reach() -> None:
    photos = torch.zeros(256, 3, 16, 16)
    photos[:, :, 8, 8] = 1
    moved = augment.translate(photos, 0.125, *numbers(2, 256))
    assert set(moved.unique().tolist()) == {0.0, 1.0}, "no interpolation"
    y, x = moved[:, 0].flatten(1).argmax(1) // 16, moved[:, 0].flatten(1).argmax(1) % 16
    assert set((y - 8).tolist()) == set((x - 8).tolist()) == {-2, -1, 0, 1, 2}


def test_cutout_zeroes_at_most_its_square() -> None:
    holes = (augment.cutout(torch.ones(256, 3, 16, 16), 0.5, *numbers(2, 256)) == 0).float().mean((1, 2, 3))
    assert holes.max() <= 0.25 and holes.mean() > 0.1


def test_every_image_draws_its_own_and_the_seed_decides() -> None:
    config = training("quick", {"augment_color": 0.5, "augment_translate": 0.125, "augment_cutout": 0.3})
    photos = torch.rand(1, 3, 32, 32, generator=random(2)).expand(32, -1, -1, -1)
    first, again = (augment.augment(photos, config, augment.draw_numbers(32, config, random())) for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(p.flatten().tolist()) for p in first}) > 30
    last = augment.augment(photos[20:], config, augment.draw_numbers(32, config, random())[20:])
    torch.testing.assert_close(last, first[20:])  # a part of a batch is treated as it would be in the whole


def test_gradients_pass_through() -> None:
    config = training("quick", {"augment_color": 0.5, "augment_translate": 0.125, "augment_cutout": 0.3})
    photos = torch.rand(4, 3, 32, 32, requires_grad=True)
    augment.augment(photos, config, augment.draw_numbers(4, config, random())).square().sum().backward()
    assert photos.grad is not None and (photos.grad != 0).float().mean() > 0.3
