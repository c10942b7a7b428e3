"""The training loop, and nothing else.

Images seen is the only clock. Random state and data order are functions of (seed, images seen), so that resuming needs no
more than the tensors: N + M steps equal N, a kill, a resume and M, bit for bit on CPU.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Generator, Tensor, nn

from argan import checkpoint, networks, objective
from argan.augment import augment
from argan.errors import UserError
from argan.optics import ray_disparity
from argan.params import Training

Watch = Callable[[int, dict[str, float]], None]  # (images seen, a row of numbers)
Show = Callable[[int, networks.Scene], None]  # (images seen, the EMA generator)


def step_random(seed: int, images: int, salt: int = 0) -> Generator:
    """The random state of the step that starts at `images` seen."""
    mixed = np.random.SeedSequence([seed, images, salt]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed >> np.uint64(1)))


class Order:
    """Which photos a step sees: a fresh permutation every epoch, as a function of (seed, images seen)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, images: int, batch: int) -> np.ndarray:
        rows = np.empty(batch, np.int64)
        for i in range(batch):
            epoch, position = divmod(images + i, self.count)
            if epoch != self._epoch:
                self._epoch = epoch
                self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            rows[i] = self._permutation[position]
        return rows


@dataclass
class State:
    """Everything that changes in training."""

    generator: networks.Scene
    discriminator: nn.Module
    average: networks.Scene
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, Tensor]] = field(default_factory=list)  # steps since the last row of the history

    @classmethod
    def fresh(cls, config: Training, device: torch.device) -> State:
        torch.manual_seed(config.seed)
        generator = networks.placed(networks.generator(config), device)
        discriminator = networks.placed(networks.discriminator(config), device)
        average = networks.placed(networks.generator(config), device).requires_grad_(False)
        average.load_state_dict(generator.state_dict())
        adam: dict[str, Any] = {"lr": config.learning_rate, "betas": (0.0, 0.99), "fused": True}
        return cls(
            generator,
            discriminator,
            average.eval(),
            torch.optim.Adam(generator.parameters(), **adam),
            torch.optim.Adam(discriminator.parameters(), **adam),
        )

    def tensors(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for name in ("generator", "discriminator", "average"):
            named |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for name in ("optimizer_g", "optimizer_d"):
            for i, slots in getattr(self, name).state_dict()["state"].items():
                named |= {f"{name}.{i}.{slot}": value for slot, value in slots.items()}
        return named | {f"pending.{i}.{k}": v for i, row in enumerate(self.pending) for k, v in row.items()}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        for name in ("generator", "discriminator", "average"):
            module: nn.Module = getattr(self, name)
            module.load_state_dict(
                {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            )
        for name in ("optimizer_g", "optimizer_d"):
            optimizer: torch.optim.Adam = getattr(self, name)
            parameters = list(optimizer.param_groups[0]["params"])
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{name}."):
                    _, i, slot = key.split(".")
                    if (
                        slot != "step"
                    ):  # in its parameter's memory layout: the fused optimiser walks both as plain memory
                        value = torch.empty_like(parameters[int(i)]).copy_(value)
                    slots.setdefault(int(i), {})[slot] = value
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        self.pending = []
        for key, value in tensors.items():
            if key.startswith("pending."):
                _, i, quantity = key.split(".")
                self.pending += [{} for _ in range(int(i) + 1 - len(self.pending))]
                self.pending[int(i)][quantity] = value
        self.images, self.seconds, self.history = meta["images"], meta["seconds"], meta["history"]


class Loader:
    """Photos as (B, 3, H, W) uint8 on the device, by their numbers.

    They stay on the device, a CPU's being the memory, where they take no more than `share` of what is free there; else each
    batch is read from `photos`, a memory map, whose pages the system keeps as long as it can.
    """

    def __init__(self, photos: np.ndarray, rows: np.ndarray, device: torch.device, share: float = 0.5) -> None:
        self.photos, self.rows, self.device = photos, rows, device
        cuda = device.type == "cuda"
        free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
        self.held: Tensor | None = None
        if len(rows) * photos[:1].nbytes <= share * free:
            self.held = torch.from_numpy(photos[rows]).to(device).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, numbers: np.ndarray) -> Tensor:
        if self.held is not None:
            return self.held[torch.from_numpy(numbers).to(self.device)]
        return torch.from_numpy(self.photos[self.rows[numbers]]).to(self.device).permute(0, 3, 1, 2)


class Trainer:
    """One training step of AR-GAN: sample scenes, photograph them, train both players."""

    def __init__(
        self, config: Training, photos: np.ndarray, device: torch.device, rows: np.ndarray | None = None
    ) -> None:
        rows = np.arange(len(photos)) if rows is None else rows
        if len(rows) < config.batch:
            raise UserError(
                f"{len(rows)} training photos are fewer than one batch of {config.batch}; add photos or lower train.batch"
            )
        self.config, self.device = config, device
        self.state = State.fresh(config, device)
        self.load = Loader(photos, rows, device)
        self.order = Order(len(rows), config.seed)
        self.prior = objective.center_focus_prior(config.resolution, config.prior_radius, config.prior_slope).to(device)

    def reals(self) -> Tensor:
        return networks.from_uint8(self.load(self.order(self.state.images, self.config.batch)))

    def photograph(self, image: Tensor, disparity: Tensor, random: Generator) -> Tensor:
        """Render every scene with an aperture of its own (DoF mixture)."""
        scale = objective.aperture_scales(len(image), self.config, random).to(self.device)
        return self.state.generator.photograph(image, disparity, scale)

    def step(self) -> dict[str, Tensor]:
        """Both players, once. Returns detached scalars; nothing here waits for the device."""
        c, s = self.config, self.state
        random = step_random(c.seed, s.images)
        lazy = (s.images // c.batch) % c.penalty_every == 0

        latents = torch.randn(c.batch, c.latent, generator=random).to(self.device)
        image, disparity = s.generator(latents)
        fakes = self.photograph(image, disparity, random)

        # Discriminator: relativistic or non-saturating, with R1 (and R2) every few steps
        both = torch.cat([augment(self.reals(), c, random), augment(fakes.detach(), c, random)])
        both = both.contiguous(memory_format=torch.channels_last).requires_grad_(lazy)
        realness = s.discriminator(both)
        real, fake = realness.chunk(2)
        loss_d = objective.discriminator_loss(real, fake, c.recipe)
        penalty = loss_d.new_zeros(())
        if lazy:
            seen = realness if c.recipe == "modern" else real  # R1 + R2, or R1 alone
            penalty = objective.gradient_penalty(both, seen) * 2  # the mean was over both halves
        s.optimizer_d.zero_grad(set_to_none=True)
        (loss_d + c.penalty * c.penalty_every * penalty).backward()
        s.optimizer_d.step()

        # Generator: fool it, under the depth priors
        s.discriminator.requires_grad_(False)
        fake_again = s.discriminator(augment(fakes, c, random).contiguous(memory_format=torch.channels_last))
        s.discriminator.requires_grad_(True)
        loss_g = objective.generator_loss(real.detach(), fake_again, c.recipe)
        prior = objective.prior_loss(disparity, self.prior, c.disparity_max)
        smooth = objective.smoothness(disparity, image, c.disparity_max)
        total = loss_g + objective.prior_weight(s.images, c) * prior + c.smoothness * smooth
        if s.generator.expansion is not None and c.expansion_tie:
            rays = ray_disparity(disparity, s.generator.aperture)
            total = total + c.expansion_tie * objective.expansion_tie(
                s.generator.expansion(rays), rays, c.disparity_max
            )
        s.optimizer_g.zero_grad(set_to_none=True)
        total.backward()
        s.optimizer_g.step()

        s.images += c.batch
        with torch.no_grad():
            decay = 0.5 ** (c.batch / min(c.ema_images, max(s.images / 4, 1)))  # a short memory at first
            torch._foreach_lerp_(list(s.average.parameters()), list(s.generator.parameters()), 1 - decay)
            return {
                "loss_d": loss_d.detach(),
                "loss_g": loss_g.detach(),
                "penalty": penalty.detach() if lazy else torch.full_like(loss_d, float("nan")),
                "prior": prior.detach(),
                "smoothness": smooth.detach(),
                "disparity_std": (disparity.detach() / c.disparity_max).std((1, 2, 3)).mean(),
                "image_std": image.detach().std(0).mean(),
            }


@dataclass(frozen=True)
class Trained:
    """What training leaves: the averaged generator, the curves, and what it took."""

    generator: networks.Scene
    history: list[dict[str, float]]
    seconds: float
    images: int


def train(
    config: Training,
    photos: np.ndarray,
    folder: Path,
    *,
    data: str,
    rows: np.ndarray | None = None,
    watch: Watch = lambda images, row: None,
    show: Show = lambda images, generator: None,
    say: Callable[[str], None] = print,
    device: torch.device | None = None,
) -> Trained:
    """Train on `photos` (N, R, R, 3) uint8, resuming from `folder`'s newest checkpoint that fits; `data` is their hash.

    Only on those of `rows`, where given: `photos` may be a memory map that holds others too.

    `watch` gets a row of numbers every `log_every` images, `show` the averaged generator every `samples_every`. SIGINT and
    SIGTERM end the step, save a checkpoint and raise KeyboardInterrupt. Raises UserError when a loss is no longer finite,
    naming the interval; the last good checkpoint stays.
    """
    trainer = Trainer(config, photos, device or torch.device("cpu"), rows)
    state = trainer.state
    mark = checkpoint.fingerprint(config.model_dump(), data)
    if found := checkpoint.newest(folder, mark, say):
        state.restore(*found)
        say(f"resuming at {state.images} of {config.images} images")

    def keep() -> None:
        meta = {"fingerprint": mark, "images": state.images, "seconds": state.seconds, "history": state.history}
        checkpoint.save(folder, state.images, state.tensors(), meta, config.checkpoints_kept)

    began, base = time.perf_counter(), state.seconds
    with signals() as heard:
        while state.images < config.images:
            state.pending.append(trainer.step())
            state.seconds = base + time.perf_counter() - began
            if _due(state.images, config.log_every, config.batch):
                steps, state.pending = state.pending, []
                row = {name: torch.stack([step[name] for step in steps]).nanmean().item() for name in steps[0]}
                if broken := [name for name, value in row.items() if not np.isfinite(value) and name != "penalty"]:
                    raise UserError(
                        f"training diverged: {', '.join(broken)} not finite between "
                        f"{state.images - config.log_every} and {state.images} images; "
                        f"lower train.learning_rate or raise train.penalty"
                    )
                state.history.append({"images": state.images, **row})
                watch(state.images, row)
            if _due(state.images, config.samples_every, config.batch):
                show(state.images, state.average)
            if _due(state.images, config.checkpoint_every, config.batch) or state.images >= config.images or heard:
                keep()
            if heard and state.images < config.images:
                say(f"interrupted, saved at {state.images} images; run the same command again to resume")
                raise KeyboardInterrupt(*heard)
    return Trained(state.average, state.history, state.seconds, state.images)


@contextmanager
def signals() -> Iterator[list[str]]:
    """While it holds, SIGINT and SIGTERM only put their names into the list: a step is never left half done.

    Handlers belong to the main thread; in any other the list stays empty.
    """
    heard: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: heard.append(signal.Signals(n).name)) for number in numbers]
    try:
        yield heard
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _due(images: int, every: int, batch: int) -> bool:
    """Whether the step that ended at `images` crossed a multiple of `every`."""
    return images // every != (images - batch) // every
