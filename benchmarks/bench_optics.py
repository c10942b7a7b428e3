"""The aperture renderer against a plain loop over its views."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import interpolate

import argan.optics
from argan.config import schema
from argan.networks.mixture import ApertureMixture
from benchmarks import reference_optics
from benchmarks.timing import Numbers, Work, interleaved, peak_bytes

# resolution -> batch, rounds. As many images as a step takes, and few enough that the plain loop fits a small machine.
OPTICS = {64: (16, 9), 128: (16, 5), 256: (4, 5)}


def optics() -> Numbers:
    """`render` with its gradients against the plain loop over 25 views, on smooth scenes with disparities up to +-0.1.

    Every aperture is open. `mixture` is the same with apertures as training draws them, where a closed one costs nothing.
    """
    aperture = argan.optics.Aperture()

    def both_ways(renderer: Callable[..., torch.Tensor], inputs: list[torch.Tensor], weight: torch.Tensor) -> Work:
        def work() -> Any:
            image, disparity, scale = inputs
            photo = renderer(image, disparity, aperture, scale)
            return photo.detach(), *torch.autograd.grad(photo, (image, disparity), weight)

        return work

    numbers: Numbers = {}
    for resolution, (batch, rounds) in OPTICS.items():
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(batch, 4, 8, 8, generator=random) * 2 - 1
        maps = interpolate(coarse, (resolution, resolution), mode="bicubic")
        image, disparity = maps[:, :3].clone().requires_grad_(), (maps[:, 3:] * 0.1).requires_grad_()
        weight = torch.randn(batch, 3, resolution, resolution, generator=random)
        open_ = 0.1 + 0.9 * torch.rand(batch, generator=random)
        mixture = ApertureMixture(schema.training("quick")).draw(batch, random)
        for name, scale in (("", open_), ("mixture_", mixture)):
            inputs = [image, disparity, scale]
            ours, plain = (both_ways(r, inputs, weight) for r in (argan.optics.render, reference_optics.render))
            # A ratio between two different things means nothing. Gradients are compared as wholes: a position that rounds
            # to the other side of a pixel's centre has another slope there, and as right a one.
            (photo, *gradients), (expected, *expected_gradients) = ours(), plain()
            torch.testing.assert_close(photo, expected, atol=1e-5, rtol=0)
            for a, b in zip(gradients, expected_gradients, strict=True):
                assert (a - b).norm() < 1e-3 * b.norm()
            times = interleaved(rounds, ours, plain)
            key = f"optics_{resolution}_{name}"
            numbers[f"{key}speedup"] = statistics.median(b / a for a, b in times)
            numbers[f"{key}ms"] = statistics.median(a for a, _ in times) * 1e3
            numbers[f"{key}memory_ratio"] = peak_bytes(plain) / peak_bytes(ours)
    return numbers
