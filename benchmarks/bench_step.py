"""The training step against a plain one, and what each of its choices is worth."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from argan.config import schema
from argan.training.noise import StepNoise, step_random
from argan.training.step import Trainer
from benchmarks import reference_step
from benchmarks.timing import Numbers, Work, interleaved, peak_bytes

# preset -> images at a time, rounds. The plain way's memory must fit a small machine, and its patience a person.
STEP = {"quick": (8, 9), "64": (8, 5)}
CHOICES = (8, 9)  # images at a time, rounds


def step() -> Numbers:
    """The full training step against the plain one of `benchmarks/reference_step.py`, at the presets' networks; the share of it
    that optics takes, and how much faster than the step photos come out of the loader.

    `speedup`: images a second, the plain way taking R1 and R2 in every step. `speedup_lazy`: the plain way taking them as rarely as
    ours. `memory_ratio`: peaks of a step with them. Both take the same first step, and their answers are compared after it.
    """
    numbers: Numbers = {}
    for preset, (batch, rounds) in STEP.items():
        config = schema.training(preset, {"batch": batch})
        exact = config.model_copy(update={"precision": "float32"})
        photos = np.random.default_rng(0).integers(0, 256, (256, config.resolution, config.resolution, 3), np.uint8)
        ours, plain = Trainer(exact, photos, torch.device("cpu")), reference_step.Trainer(config, photos, ["lazy"])
        ours.step()
        plain.step()
        latents = torch.randn(8, config.latent, generator=step_random(0, 0))
        with torch.no_grad():
            for a, b in zip(ours.state.generator(latents), plain.generator(latents), strict=True):
                assert (a - b).norm() < 1e-3 * b.norm()  # a ratio between two different things means nothing
        ours = Trainer(config, photos, torch.device("cpu"))

        def at(trainer: Any, images: int) -> Work:
            def work() -> None:
                clock = getattr(trainer, "state", trainer)
                clock.images = images  # 0: a step with the penalty
                trainer.step()

            return work

        noise = StepNoise.sample(config, step_random(0, 0)).rows(slice(None), ours.device)
        image, disparity, _ = (t.detach().requires_grad_() for t in ours.render(noise))
        scale = ours.state.generator.mixture(noise.aperture)

        def optics_alone() -> None:
            ours.state.generator.photograph(image, disparity, scale).sum().backward()  # noqa: B023

        works = (at(ours, 0), at(ours, batch), at(plain, 0), at(plain, batch), optics_alone, ours.real_photos)
        rare, key = 1 / config.penalty_every, f"step_{preset}"
        means = []  # of a round: our step, the plain one, the plain one with rare penalties, our optics, our loader
        for a, b, c, d, optics_, loader in interleaved(rounds, *works):
            means.append((rare * a + (1 - rare) * b, c, rare * c + (1 - rare) * d, optics_, loader))
        mean = statistics.median(ours for ours, *_ in means)
        numbers[f"{key}_speedup"] = statistics.median(plain / ours for ours, plain, *_ in means)
        numbers[f"{key}_speedup_lazy"] = statistics.median(lazy / ours for ours, _, lazy, *_ in means)
        numbers[f"{key}_memory_ratio"] = peak_bytes(works[2]) / peak_bytes(works[0])
        numbers[f"{key}_images_per_second"] = batch / mean
        numbers[f"{key}_optics_share"] = statistics.median(m[3] / m[0] for m in means)
        if preset == "quick":
            numbers["loader_ratio"] = statistics.median(m[0] / m[4] for m in means)
    return numbers


def choices() -> Numbers:
    """What each choice of the step is worth at the preset `quick`: the plain step of `benchmarks/reference_step.py`, which takes up
    one after the other. `gain`: in time, over the one before; `memory_ratio`: in peak memory; `all`: ours over the plain one."""
    batch, rounds = CHOICES
    config = schema.training("quick", {"batch": batch})
    photos = np.random.default_rng(0).integers(0, 256, (256, config.resolution, config.resolution, 3), np.uint8)
    names = list(reference_step.CHOICES)
    trainers = [reference_step.Trainer(config, photos, names[:n]) for n in range(len(names) + 1)]
    rare = 1 / config.penalty_every

    def at(trainer: reference_step.Trainer, images: int) -> Work:
        def work() -> None:
            trainer.images = images  # 0: a step with the penalty
            trainer.step()

        return work

    works = [at(trainer, images) for trainer in trainers for images in (0, batch)]
    for work in works:
        work()
    means = [
        [rare * times[i] + (1 - rare) * times[i + 1] for i in range(0, len(times), 2)]
        for times in interleaved(rounds, *works)
    ]
    peaks = [peak_bytes(works[i]) for i in range(0, len(works), 2)]
    numbers: Numbers = {}
    for i, name in enumerate(names, 1):
        numbers[f"choice_{name}_gain"] = statistics.median(mean[i - 1] / mean[i] for mean in means)
        numbers[f"choice_{name}_memory_ratio"] = peaks[i - 1] / peaks[i]
    numbers["choice_all_gain"] = statistics.median(mean[0] / mean[-1] for mean in means)
    numbers["choice_all_memory_ratio"] = peaks[0] / peaks[-1]
    return numbers
