"""One training step of AR-GAN: sample scenes, photograph them, train both players."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.optics import ray_disparity
from argan.training import health, losses, memory
from argan.training.augment import augment
from argan.training.distributed import Processes
from argan.training.loader import Loader, PhotoOrder
from argan.training.noise import StepNoise, step_random
from argan.training.state import State
from argan.training.statistics import MetricAccumulator, moments, std_from_moments

RARE = ("penalty", "luminance_correlation", "depth_alike")  # metrics of the steps with a gradient penalty only


class RenderedBatch(NamedTuple):
    """Scenes and the photos taken of them, (N, 3 or 1, R, R)."""

    image: Tensor
    disparity: Tensor
    photos: Tensor


class Trainer:
    """The state of a training and the step that changes it.

    Raises UserError for fewer photos than a batch has, and for a batch that its processes cannot share evenly.
    """

    def __init__(
        self,
        config: Training,
        photos: np.ndarray,
        device: torch.device,
        rows: np.ndarray | None = None,
        processes: Processes | None = None,
    ) -> None:
        rows = np.arange(len(photos)) if rows is None else rows
        if len(rows) < config.batch:
            raise UserError(
                f"{len(rows)} training photos are fewer than one batch of {config.batch}; add photos or lower train.batch"
            )
        self.config, self.device = config, device
        self.autocast = networks.autocast(config, device)
        self.processes = processes or Processes()
        self.parts = self.processes.slices(config.batch, config.accumulate)
        self.state = State.fresh(config, device)
        self.finite_check = health.FiniteCheck(deferred=device.type != "cpu")
        self.load = Loader(photos, rows, device, needed=memory.bytes_needed(config, device, self.processes.count))
        self.order = PhotoOrder(len(rows), config.seed)
        self.prior = losses.prior(config).to(device)

    def real_photos(self, part: slice = slice(None)) -> Tensor:
        """The photographs of this step, (n, 3, R, R) in [-1, 1]."""
        return networks.from_uint8(self.load(self.order(self.state.images, self.config.batch)[part]))

    def render(self, noise: StepNoise) -> RenderedBatch:
        """New scenes, every one photographed with an aperture of its own (DoF mixture)."""
        generator = self.state.generator
        with self.autocast():
            image, disparity = generator(noise.latents)
        scale = generator.mixture(noise.aperture)
        return RenderedBatch(image, disparity, generator.photograph(image, disparity, scale))

    def step(self) -> dict[str, Tensor]:
        """Both players, once. Returns detached scalars; nothing here waits for the device, but for the gather renderer's offsets.

        A batch in parts is the same step in less memory: scenes are rendered again for the generator's turn, where a single part
        keeps them.
        """
        c, s = self.config, self.state
        with_penalty = (s.images // c.batch) % c.penalty_every == 0
        full_batch = StepNoise.sample(c, step_random(c.seed, s.images))
        share, metrics = 1 / len(self.parts), MetricAccumulator()
        parts: list[tuple[StepNoise, Tensor, RenderedBatch | None]] = []

        s.optimizer_d.zero_grad(set_to_none=True)
        for i, part in enumerate(self.parts):
            s.discriminator.train(i == 0)  # a spectral norm moves on once a turn, however many parts there are
            noise = full_batch.rows(part, self.device)
            with torch.set_grad_enabled(share == 1):
                rendered = self.render(noise)
            real_photos, fake_photos = self.real_photos(part), rendered.photos.detach()
            loss, real = self.discriminator_loss(noise, real_photos, fake_photos, with_penalty, metrics)
            (loss * share).backward()
            parts.append((noise, real, rendered if share == 1 else None))
        self.update("discriminator", metrics)

        s.discriminator.requires_grad_(False)
        s.optimizer_g.zero_grad(set_to_none=True)
        for i, (noise, real, earlier) in enumerate(parts):
            s.discriminator.train(i == 0)
            loss = self.generator_loss(noise, real, earlier or self.render(noise), with_penalty, metrics)
            (loss * share).backward()
        s.discriminator.requires_grad_(True)
        self.update("generator", metrics)

        s.images += c.batch
        decay = 0.5 ** (c.batch / min(c.ema_images, max(s.images / 4, 1)))  # a short memory at first
        with torch.no_grad():
            torch._foreach_lerp_(list(s.ema.parameters()), list(s.generator.parameters()), 1 - decay)
        return self.row(metrics)

    def discriminator_loss(
        self, noise: StepNoise, reals: Tensor, fakes: Tensor, with_penalty: bool, metrics: MetricAccumulator
    ) -> tuple[Tensor, Tensor]:
        """The loss: relativistic or non-saturating, R1 (and R2) every few steps. And the realness of the photographs (n,)."""
        c, s = self.config, self.state
        both = torch.cat([augment(reals, c, noise.real), augment(fakes, c, noise.fake)])
        both = both.contiguous(memory_format=torch.channels_last).requires_grad_(with_penalty)
        with self.autocast():
            realness = s.discriminator(both)
        real, fake = realness.chunk(2)
        loss = losses.discriminator_loss(real, fake, c.recipe)
        metrics.add(loss_d=loss, accuracy=(real > fake).to(loss))
        if with_penalty:
            penalised = realness if c.recipe == "modern" else real  # R1 + R2, or R1 alone
            penalty = losses.gradient_penalty(both, penalised) * 2  # the mean was over both halves
            loss = loss + c.penalty * c.penalty_every * penalty
            metrics.add(penalty=penalty)
        return loss, real.detach()

    def generator_loss(
        self, noise: StepNoise, real: Tensor, rendered: RenderedBatch, with_penalty: bool, metrics: MetricAccumulator
    ) -> Tensor:
        """The generator's loss: fool the discriminator, under the depth priors. real (n,): realness of the photographs."""
        c, s = self.config, self.state
        image, disparity, photos = rendered
        augmented = augment(photos, c, noise.generator).contiguous(memory_format=torch.channels_last)
        with self.autocast():
            fake = s.discriminator(augmented)
        cost = losses.generator_loss(real, fake, c.recipe)
        loss_g = cost.mean()
        prior = losses.prior_loss(disparity, self.prior, c.disparity_max)
        smooth = losses.smoothness(disparity, image, c.disparity_max)
        total = loss_g + losses.prior_weight(s.images, c) * prior + c.smoothness * smooth
        if c.prior_sign:  # without it the prior may be flat
            total = total + c.prior_sign * losses.sign_loss(disparity, self.prior)
        total = total + losses.focus_weight(s.images, c) * losses.focus_loss(disparity, c.disparity_max)
        if s.generator.expansion is not None and c.expansion_tie:
            rays = ray_disparity(disparity, s.generator.aperture)
            tie = losses.expansion_tie(s.generator.expansion(rays), rays, c.disparity_max)
            total = total + c.expansion_tie * tie
        if c.apertures == "learned":
            total = total + s.generator.mixture.choice_loss(noise.aperture, cost)
        spread = (disparity.detach() / c.disparity_max).std((1, 2, 3))
        metrics.add(loss_g=loss_g, prior=prior, smoothness=smooth, disparity_std=spread, **moments(image))
        if with_penalty:  # as rarely as the penalty
            metrics.add(**health.depth_statistics(image, disparity))
        return total

    def update(self, player: str, metrics: MetricAccumulator) -> None:
        """Average losses and gradients over the processes, and take the step unless one of them is not finite."""
        network: nn.Module = getattr(self.state, player)
        optimizer = self.state.optimizer_d if player == "discriminator" else self.state.optimizer_g
        gradients = health.gradients(network, player)
        fresh = metrics.take()
        self.processes.mean_([*fresh.values(), *gradients.values()])
        optimizer.found_inf = self.finite_check(fresh | gradients, self.state.images)  # type: ignore[attr-defined]
        optimizer.step()

    def row(self, metrics: MetricAccumulator) -> dict[str, Tensor]:
        """The metrics of the full batch as scalars; NaN for those of RARE that this step did not compute."""
        means = metrics.means
        row = {name: torch.full_like(means["loss_d"], math.nan) for name in RARE} | means
        row["image_std"] = std_from_moments(row.pop("moment_1"), row.pop("moment_2"), self.config.batch).mean()
        if "depth_map" in row:
            row["depth_alike"] = health.depth_similarity(row.pop("depth_map"), self.config.batch)
        return row
