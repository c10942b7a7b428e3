"""One training step written the plain way: what `argan.training.step.Trainer.step` is measured against.

The same networks, losses, random numbers and photographs, so the same weights, to the rounding of sums. But: 25 look-ups a photo
in a loop, every view kept; tensors in planes; Adam as torch has it with neither fusing nor grouping; the average in a loop over
parameters; scenes anew for each player; R1 and R2 in every step; nothing switched off where no gradient is wanted. Each of these
can be taken back by its name in CHOICES, so that what each is worth can be measured.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from argan import networks
from argan.color import light_to_pixels, pixels_to_light
from argan.config.schema import Training
from argan.optics import Aperture, ray_disparity
from argan.training import losses
from argan.training.augment import augment
from argan.training.loader import PhotoOrder
from argan.training.noise import StepNoise, step_random
from argan.training.state import State
from benchmarks.reference_optics import look_up

CHOICES = {
    "lazy": "R1 and R2 every `penalty_every` steps, scaled to match",
    "scenes": "the discriminator's renderings serve the generator too",
    "frozen": "no gradient of what is not trained: photographs without a penalty, the discriminator in the generator's turn",
    "layout": "channels last",
    "optics": "blur and look-up compiled; neither views nor layers are stored",
    "fused": "fused Adam, the average by foreach",
    "rounded": "convolutions in bfloat16, where the processor has units for it",
}


class Trainer:
    """The interface of `argan.training.step.Trainer`, as far as a step needs it. `choices`: names in CHOICES."""

    def __init__(self, config: Training, photos: np.ndarray, choices: Iterable[str] = ()) -> None:
        self.config, self.photos, self.choices, self.images = config, photos, frozenset(choices), 0
        fresh = State.fresh(config, torch.device("cpu"))
        layout = torch.channels_last if "layout" in self.choices else torch.contiguous_format
        self.generator, self.discriminator = fresh.generator, fresh.discriminator
        for network in (self.generator, self.discriminator):
            network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs do not know it
        self.ema = copy.deepcopy(self.generator)
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(
                network.parameters(),
                lr=config.learning_rate,
                betas=(0.0, 0.99),
                foreach=False,
                fused="fused" in self.choices,
            )
            for network in (self.generator, self.discriminator)
        )
        self.autocast = networks.autocast(config, torch.device("cpu")) if "rounded" in self.choices else nullcontext
        self.order = PhotoOrder(len(photos), config.seed)
        self.prior = losses.prior(config)

    def photograph(self, noise: StepNoise) -> tuple[Tensor, Tensor, Tensor]:
        with self.autocast():
            image, disparity = self.generator(noise.latents)
        scale = self.generator.mixture(noise.aperture)
        if "optics" in self.choices:
            return image, disparity, self.generator.photograph(image, disparity, scale)
        if self.generator.light == "display":
            return image, disparity, render(image, disparity, scale, self.generator)
        photo = light_to_pixels(render(pixels_to_light(image), disparity, scale, self.generator))
        return image, disparity, torch.where(scale[:, None, None, None] == 0, image, photo)

    def laid_out(self, photos: Tensor) -> Tensor:
        return photos.contiguous(memory_format=torch.channels_last) if "layout" in self.choices else photos

    def step(self) -> None:
        c, frozen = self.config, "frozen" in self.choices
        every = c.penalty_every if "lazy" in self.choices else 1
        penalised = (self.images // c.batch) % every == 0
        noise = StepNoise.sample(c, step_random(c.seed, self.images))
        photos = torch.from_numpy(self.photos[self.order(self.images, c.batch)]).permute(0, 3, 1, 2)
        reals = augment(networks.from_uint8(photos), c, noise.real)

        # Discriminator
        first = self.photograph(noise)
        fakes = augment(first[2].detach(), c, noise.fake)
        shot = first if "scenes" in self.choices else None
        del first  # what is made anew need not be kept
        if penalised or not frozen:
            reals, fakes = reals.requires_grad_(), fakes.requires_grad_()
        with self.autocast():
            real, fake = self.discriminator(self.laid_out(torch.cat([reals, fakes]))).chunk(2)
        loss = losses.discriminator_loss(real, fake, c.recipe)
        if penalised:
            loss = loss + c.penalty * every * losses.gradient_penalty(reals, real)
            if c.recipe == "modern":
                loss = loss + c.penalty * every * losses.gradient_penalty(fakes, fake)
        self.optimizer_d.zero_grad()
        loss.backward()
        self.optimizer_d.step()

        # Generator
        image, disparity, fakes = shot or self.photograph(noise)
        self.discriminator.requires_grad_(not frozen)
        with self.autocast():
            fake = self.discriminator(self.laid_out(augment(fakes, c, noise.generator)))
        self.discriminator.requires_grad_(True)
        cost = losses.generator_loss(real.detach(), fake, c.recipe)
        loss = cost.mean()
        if c.apertures == "learned":
            loss = loss + self.generator.mixture.choice_loss(noise.aperture, cost)
        loss = loss + losses.prior_weight(self.images, c) * losses.prior_loss(disparity, self.prior, c.disparity_max)
        if c.prior_sign:
            loss = loss + c.prior_sign * losses.sign_loss(disparity, self.prior)
        loss = loss + losses.focus_weight(self.images, c) * losses.focus_loss(disparity, c.disparity_max)
        loss = loss + c.smoothness * losses.smoothness(disparity, image, c.disparity_max)
        if self.generator.expansion is not None and c.expansion_tie:
            rays = ray_disparity(disparity, self.generator.aperture)
            loss = loss + c.expansion_tie * losses.expansion_tie(self.generator.expansion(rays), rays, c.disparity_max)
        self.optimizer_g.zero_grad()
        loss.backward()
        self.optimizer_g.step()

        self.images += c.batch
        decay = 0.5 ** (c.batch / min(c.ema_images, max(self.images / 4, 1)))
        mine: list[Tensor] = list(self.ema.parameters())
        theirs: list[Tensor] = list(self.generator.parameters())
        with torch.no_grad():
            if "fused" in self.choices:
                torch._foreach_lerp_(mine, theirs, 1 - decay)
                return
            for a, b in zip(mine, theirs, strict=True):
                a.copy_(decay * a + (1 - decay) * b)


def render(image: Tensor, disparity: Tensor, scale: Tensor, scene: networks.SceneGenerator) -> Tensor:
    """The photo as `argan.optics.render` defines it, by 25 look-ups, whose views are all kept until they are averaged."""
    aperture: Aperture = scene.aperture
    if scene.renderer == "gather":
        rays = ray_disparity(disparity, aperture)
        rays = rays if scene.expansion is None else scene.expansion(rays)
        shifts = (scale[:, None, None, None] * rays).unbind(1)
        seen = [look_up(image, shift, u) for shift, u in zip(shifts, aperture.offsets, strict=True)]
        return torch.einsum("v,vnchw->nchw", aperture.weights.to(image), torch.stack(seen))
    n, _, h, w = image.shape
    levels = torch.linspace(-1, 1, scene.layers) * scene.disparity_max
    coverage = 1 - (disparity - levels[:, None, None]).abs() / (levels[1] - levels[0])
    coverage = coverage.clamp(min=0)[:, :, None]
    stack = torch.cat([image[:, None] * coverage, coverage], 2).flatten(0, 1)  # N K, 4, H, W: far to near
    shift = (scale[:, None] * levels).flatten()[:, None, None].expand(-1, h, w)
    views = torch.stack([look_up(stack, shift, u) for u in aperture.offsets])
    blurred = torch.einsum("v,vnchw->nchw", aperture.weights.to(image), views).view(n, scene.layers, 4, h, w)
    photo = torch.zeros_like(blurred[:, 0])
    for layer in blurred.unbind(1):
        photo = layer + photo * (1 - layer[:, -1:])
    photo = photo[:, :-1] / photo[:, -1:].clamp(min=1e-6)
    return torch.where(scale[:, None, None, None] == 0, image, photo)
