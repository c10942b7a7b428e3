"""Distillation: from generated pairs alone, exactly repeatable, and it learns what the generator knows."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from argan import networks
from argan.config.schema import Training, training
from argan.errors import UserError
from argan.guided_filter import guided_filter
from argan.networks.estimator import estimate, estimate_with_error
from argan.optics import Aperture, render
from argan.training import distill as module
from argan.training.distill import distill, erode_foreground

SMALL = {
    "latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8, "estimator_batch": 16,
    "estimator_outline": 0, "renderer": "gather",
}  # fmt: skip


class TwoPlanes(networks.SceneGenerator):
    """A known scene: a bright, sharp square in focus before a textured wall at -0.08; where it stands is the latent."""

    def __init__(self, config: Training) -> None:
        super().__init__(config)
        self.expansion = None
        self.wall = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.9

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        at = (latents[:, :2].tanh() * 8 + 16).round()
        y, x = torch.arange(32)[None, :, None], torch.arange(32)[None, None, :]
        inside = ((y - at[:, :1, None]).abs() < 6) & ((x - at[:, 1:, None]).abs() < 6)
        image = torch.where(inside[:, None], torch.tensor(0.8), self.wall[None])
        return image, torch.where(inside[:, None], 0.0, -0.08)


def config_of(images: int, **changes: object) -> Training:
    return training("quick", SMALL | {"estimator_images": images} | changes)


def scenes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and disparity of scenes that no estimator was taught with."""
    return TwoPlanes(config_of(16))(torch.randn(count, 8, generator=torch.Generator().manual_seed(5)))


@pytest.fixture(scope="module")
def student() -> networks.Estimator:
    config = config_of(1200)
    return distill(TwoPlanes(config), config)


def test_subjects_are_taught_without_their_rim(student: networks.Estimator) -> None:
    config = config_of(800, estimator_outline=3)
    image, disparity = scenes(32)
    photos = render(image, disparity, Aperture(), torch.full((32,), 0.7))
    eroded = distill(TwoPlanes(config), config)
    with torch.inference_mode():
        near, near_eroded = ((each(photos) > -0.04).float().mean().item() for each in (student, eroded))
    assert near == pytest.approx((disparity > -0.04).float().mean().item(), rel=0.2)
    assert near_eroded < near / 2, "a square of 11 pixels less three all round is a fifth of it"


def test_a_rim_is_taken_off_what_is_near_whatever_lies_behind_and_before() -> None:
    """A subject three pixels too large loses them, and what is no larger is gone; where the frame cuts one off it loses nothing."""
    disparity = torch.full((1, 1, 16, 16), -0.1)
    disparity[..., 2:12, 2:12], disparity[..., 5:9, 14:] = 0.0, 0.05
    smaller = erode_foreground(disparity, 3)
    wanted = torch.full((1, 1, 16, 16), -0.1)
    wanted[..., 5:9, 5:9] = 0.0
    assert torch.equal(smaller, wanted)
    assert torch.equal(erode_foreground(disparity, 0), disparity)
    side = torch.full((1, 1, 8, 8), -0.1)
    side[..., :4] = 0.0  # cut off by the frame: it goes on outside and loses nothing there
    assert torch.equal(erode_foreground(side, 1)[0, 0, 0], torch.tensor([0.0] * 3 + [-0.1] * 5))


def test_it_learns_where_near_and_far_are(student: networks.Estimator) -> None:
    image, disparity = scenes(32)
    prediction = estimate(student, render(image, disparity, Aperture(), torch.full((32,), 0.7)))
    assert torch.corrcoef(torch.stack([prediction.flatten(), disparity.flatten()]))[0, 1] > 0.8
    assert prediction[disparity == 0].mean() > prediction[disparity < 0].mean() + 0.03, (
        "larger = nearer, in the generator's own unit"
    )


def test_it_knows_how_far_off_it_is(student: networks.Estimator) -> None:
    image, disparity = scenes(64)
    opening = torch.linspace(0, 1, 64)  # photographs taken with a small aperture tell less
    prediction, error = estimate_with_error(student, render(image, disparity, Aperture(), opening))
    off = (prediction - disparity).abs()
    assert 0.4 < error.mean() / off.mean() < 2.5
    sure = error < error.median()
    assert off[sure].mean() < off[~sure].mean() / 1.5


def test_disparity_and_error_are_the_mean_over_a_flip_flipped_back() -> None:
    class Ramp(networks.Estimator):
        """Disparity 0, and an error that rises from left to right, whatever the photo."""

        def with_error(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            error = torch.linspace(0.01, 0.03, photos.shape[3]).expand(len(photos), 1, *photos.shape[2:])
            return torch.zeros_like(error), error

    photos = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    disparity, error = estimate_with_error(Ramp(8, 0.1), photos)
    assert torch.allclose(disparity, torch.zeros(1), atol=1e-6)
    assert torch.allclose(error, torch.full((1,), 0.02), atol=1e-6), "a ramp and its mirror image have a constant mean"


def test_the_second_head_does_not_shape_the_first() -> None:
    student = networks.Estimator(8, 0.1)
    _, error = student.with_error(torch.randn(1, 3, 16, 16))
    error.sum().backward()
    touched = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert touched == {"doubt.weight", "doubt.bias"}


def test_the_same_seed_gives_the_same_weights() -> None:
    config = training("quick", {**SMALL, "estimator_images": 64})
    torch.manual_seed(1)
    generator = networks.build_generator(config).eval()
    first, again = (distill(generator, config).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_what_is_no_number_ends_it_by_name_and_is_not_saved(tmp_path: Path) -> None:
    """Too large a rate, as far as params go: what is kept is finite, if anything is."""
    config = training(
        "quick", {**SMALL, "estimator_images": 3200, "checkpoint_every": 16, "estimator_learning_rate": 0.1}
    )
    generator = TwoPlanes(config)
    generator.register_forward_hook(
        lambda module, given, made: (made[0], made[1] * (float("nan") if len(list(tmp_path.iterdir())) else 1.0))
    )
    with pytest.raises(UserError, match=r"the estimator's .* is not finite .*lower train\.estimator_learning_rate"):
        distill(generator, config, folder=tmp_path, fingerprint="m")
    (kept,) = tmp_path.iterdir()
    assert kept.stem == f"{16:012d}" and all(t.isfinite().all() for t in load_file(kept).values())


def test_interrupted_and_resumed_it_learns_the_same_bit_for_bit(tmp_path: Path) -> None:
    config = training("quick", {**SMALL, "estimator_images": 160, "checkpoint_every": 32})
    generator = TwoPlanes(config)
    uninterrupted = distill(generator, config).state_dict()

    def interrupt(images: int, loss: float) -> None:
        if images == 0 and not list(tmp_path.iterdir()):
            signal.raise_signal(signal.SIGTERM)

    def run(fingerprint: str = "m") -> networks.Estimator:
        return distill(
            generator, config, folder=tmp_path, fingerprint=fingerprint, on_loss=interrupt, say=messages.append
        )

    messages: list[str] = []
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        run()
    resumed = run().state_dict()
    assert messages[0].startswith("interrupted, the estimator saved at 16 images")
    assert messages[1] == "resuming the estimator at 16 of 160 images"
    assert all(torch.equal(uninterrupted[k], resumed[k]) for k in uninterrupted)
    run("other")
    assert "starting fresh" in messages[-1], "what another generator taught is not gone on with"


def test_estimates_do_not_depend_on_the_side_a_photo_is_seen_from() -> None:
    student = networks.Estimator(8, 0.1).eval()
    photos = torch.randn(2, 3, 32, 48)
    assert torch.allclose(estimate(student, photos.flip(3)), estimate(student, photos).flip(3), atol=1e-6)


def test_refinement_smooths_surfaces_and_keeps_their_edges() -> None:
    """Two surfaces told apart by colour, their disparity noisy: the noise goes, the step stays where the colour changes."""
    photos = torch.full((1, 3, 32, 32), -0.5)
    photos[..., 13:] = 0.5
    truth = torch.where(photos[:, :1] > 0, 0.0, -0.08)
    noisy = truth + 0.03 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    refined = guided_filter(noisy, photos)
    assert (refined - truth).abs().mean() < (noisy - truth).abs().mean() / 4
    assert (refined[..., 13] - refined[..., 12]).mean() > 0.06
    level = torch.full_like(truth, 0.03)
    assert torch.allclose(guided_filter(level, torch.rand_like(photos)), level, atol=1e-5)


def test_distillation_draws_apertures_from_the_training_mixture() -> None:
    drawn: list[torch.Tensor] = []
    config = training("quick", {**SMALL, "estimator_images": 320, "aperture_zero": 0.5})
    scenes = TwoPlanes(config)
    scenes.mixture.register_forward_hook(lambda module, given, scale: drawn.append(scale))
    distill(scenes, config)
    scales = torch.cat(drawn)
    assert 0.3 < (scales == 0).float().mean() < 0.7 and scales.max() > 0.8


def test_what_is_drawn_for_a_step_goes_to_the_device_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    config = training("quick", {**SMALL, "estimator_images": 32})
    gone: list[tuple[int, ...]] = []

    def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        gone.append(tuple(tensor.shape))
        return tensor.to(device)

    monkeypatch.setattr(module, "to_device", to_device)
    distill(TwoPlanes(config), config)
    assert gone == [(16, 8), (16, 2), (3, 16)] * 2, "latents, apertures, colours"
