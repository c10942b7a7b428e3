"""Generators and discriminators: shapes, ranges, and that blur can be seen and depth learned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from argan import networks
from argan.color import pixels_to_light
from argan.config.schema import Training, training
from argan.networks.blocks import upsample
from argan.networks.generator import _InstanceNorm


@pytest.fixture(params=["modern", "paper"])
def config(request: pytest.FixtureRequest) -> Training:
    return training("quick", {"recipe": request.param})


@pytest.mark.parametrize("resolution", [32, 64])
def test_a_scene_has_the_documented_shapes_and_ranges(config: Training, resolution: int) -> None:
    config = config.model_copy(update={"resolution": resolution})
    image, disparity = networks.build_generator(config)(torch.randn(3, config.latent) * 5)
    assert image.shape == (3, 3, resolution, resolution) and disparity.shape == (3, 1, resolution, resolution)
    assert image.abs().max() <= 1 and disparity.abs().max() <= config.disparity_max
    assert networks.build_discriminator(config)(image).shape == (3,)


def test_different_latents_make_different_scenes(config: Training) -> None:
    torch.manual_seed(0)
    image, _ = networks.build_generator(config)(torch.randn(2, config.latent))
    assert (image[0] - image[1]).abs().mean() > 0.01


def test_every_parameter_of_the_generator_learns(config: Training) -> None:
    torch.manual_seed(0)
    generator = networks.build_generator(config)
    for _ in range(2):  # layers that start at zero let gradients through from the second step on
        image, disparity = generator(torch.randn(4, config.latent))
        (image.square().mean() + (disparity / config.disparity_max - 0.3).square().mean()).backward()
        with torch.no_grad():
            for p in generator.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
    still = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still, still


def test_the_first_layers_of_the_discriminator_distinguish_blur(config: Training) -> None:
    """Its first layers lose nothing: a photo and its blurred copy differ as much as before in what it is shown."""
    torch.manual_seed(0)
    critic = networks.build_discriminator(config)
    photos = torch.randn(8, 3, 32, 32)
    blurred = F.avg_pool2d(F.pad(photos, [1] * 4, mode="replicate"), 3, 1)
    assert (critic(photos) - critic(blurred)).abs().mean() > 1e-3


def test_expansion_belongs_to_the_generator_of_the_gather_renderer() -> None:
    assert networks.build_generator(training("quick", {"renderer": "occlusion"})).expansion is None
    generator = networks.build_generator(training("quick", {"renderer": "gather"}))
    assert any(name.startswith("expansion.") for name, _ in generator.named_parameters())


@pytest.mark.parametrize("size", [(32, 32), (48, 72)])
def test_the_estimator_keeps_the_photo_size(size: tuple[int, int]) -> None:
    estimator = networks.Estimator(8, 0.1)
    out = estimator(torch.randn(2, 3, *size))
    assert out.shape == (2, 1, *size) and out.abs().max() <= 0.1


def test_defocus_averages_linear_light_and_not_pixel_values() -> None:
    """Black beside white, wide out of focus: in between half of the light, which is 188 of 255 and no middle grey."""
    image = torch.ones(2, 3, 32, 32)
    image[..., :16] = -1
    disparity, scale = torch.full((2, 1, 32, 32), -0.15), torch.tensor([0.0, 1.0])
    for renderer in ("occlusion", "gather"):
        config = training("quick", {"renderer": renderer, "expansion": False})
        lens = networks.build_generator(config)
        photo = lens.photograph(image, disparity, scale)
        assert torch.equal(photo[0], image[0]), "a closed aperture gives the image exactly"
        middle = (photo[1, :, 16, 15:17].mean() + 1) / 2 * 255
        assert abs(middle - 188) < 4
        light = pixels_to_light(lens.views(image, disparity, scale)[1])
        added = torch.einsum("v,vchw->chw", lens.aperture.weights, light)
        torch.testing.assert_close(added, pixels_to_light(photo[1]), atol=1e-5, rtol=0)
        on_screen = networks.build_generator(config.model_copy(update={"light": "display"})).photograph(
            image, disparity, scale
        )
        assert abs((on_screen[1, :, 16, 15:17].mean() + 1) / 2 * 255 - 127.5) < 4


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_tile": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_tile": False}, False),  # 1.4 times as slow there
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_tile": False}, True),
        ({"cpu_name": "AMD EPYC"}, False),
        ({"architecture": "arm64"}, False),
    ],
    ids=str,
)
def test_bfloat16_is_used_where_it_is_faster(
    processor: dict[str, str | bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert networks.uses_bfloat16(training("quick"), torch.device("cpu")) is expected
    assert networks.uses_bfloat16(training("quick", {"precision": "bfloat16"}), torch.device("cpu")) is True


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_instance_normalisation_keeps_bfloat16_and_computes_statistics_in_float32(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both kinds of devices, whose autocasts have different lists. The tensors are torch's fakes: no GPU is needed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # else autocast switches itself off
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    saved: list[torch.Tensor] = []

    class Context:
        def save_for_backward(self, *tensors: torch.Tensor) -> None:
            saved.extend(tensors)

        @property
        def saved_tensors(self) -> tuple[torch.Tensor, ...]:
            return tuple(saved)

    fake = FakeTensorMode()
    with fake, torch.no_grad(), torch.autocast(device, torch.bfloat16):
        x = torch.empty(2, 8, 4, 4, dtype=torch.bfloat16, device=device)
        if device == "cuda":
            assert x.float().rsqrt().dtype == x.rsqrt().dtype == torch.float32, "autocast is at work"
        y = _InstanceNorm.forward(Context(), x)
        assert y.dtype == upsample(x).dtype == torch.bfloat16
        assert [(t.dtype, t.numel()) for t in saved] == [(torch.bfloat16, y.numel()), (torch.float32, 2 * 8)]
    with fake, torch.no_grad():
        assert _InstanceNorm.backward(Context(), torch.empty_like(y)).dtype == torch.bfloat16


def test_a_generator_in_bfloat16_saves_little_in_float32(config: Training) -> None:
    sizes = dict.fromkeys((torch.bfloat16, torch.float32), 0)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim in (3, 4) and len(tensor) == 4:  # of the batch: neither weights nor styles
            sizes[tensor.dtype] += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        networks.build_generator(config)(torch.randn(4, config.latent))
    assert sizes[torch.float32] < 0.1 * sizes[torch.bfloat16]


def test_instance_normalisation_is_exact_up_to_rounding_its_result() -> None:
    torch.manual_seed(0)
    x = (20 + torch.randn(2, 3, 16, 16)).bfloat16().requires_grad_()  # a mean that bfloat16 rounds by a sixteenth
    grad_y = torch.randn(2, 3, 16, 16).bfloat16()
    exact = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = _InstanceNorm.apply(x)
    true = F.instance_norm(exact)
    torch.testing.assert_close(y.double(), true, rtol=2**-8, atol=1e-5)
    (gradient,) = torch.autograd.grad(y, x, grad_y)
    (truth,) = torch.autograd.grad(true, exact, grad_y.double())
    torch.testing.assert_close(gradient.double(), truth, rtol=2**-7, atol=2e-2)
