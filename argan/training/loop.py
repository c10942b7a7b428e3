"""The training loop, and nothing else.

Images seen is the only clock. Random state and data order are functions of (seed, images seen), so that resuming needs no
more than the tensors: N + M steps equal N, a kill, a resume and M, bit for bit on CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Generator, Tensor, nn

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.interrupt import deferred_signals
from argan.networks.mixture import aperture_noise
from argan.optics import ray_disparity
from argan.training import checkpoint, health
from argan.training import losses as objective
from argan.training import memory as cost
from argan.training.augment import augment, draw_numbers
from argan.training.distributed import Processes
from argan.training.health import FiniteCheck

Watch = Callable[[int, dict[str, float]], None]  # (images seen, a row of numbers)
Remember = Callable[[list[dict[str, float]]], None]  # the rows before, where training resumes
Show = Callable[[int, networks.SceneGenerator], None]  # (images seen, the EMA generator)


def step_random(seed: int, images: int, salt: int = 0) -> Generator:
    """The random state of the step that starts at `images` seen."""
    mixed = np.random.SeedSequence([seed, images, salt]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed >> np.uint64(1)))


class PhotoOrder:
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


# The networks of `State` and the prefixes of their tensors in a checkpoint
NETWORKS = {"generator": "generator", "discriminator": "discriminator", "ema": "average"}


@dataclass
class State:
    """Everything that changes in training."""

    generator: networks.SceneGenerator
    discriminator: nn.Module
    ema: networks.SceneGenerator
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, Tensor]] = field(default_factory=list)  # steps since the last row of the history

    @classmethod
    def fresh(cls, config: Training, device: torch.device) -> State:
        torch.manual_seed(config.seed)
        generator = networks.channels_last(networks.build_generator(config), device)
        discriminator = networks.channels_last(networks.build_discriminator(config), device)
        average = networks.channels_last(networks.build_generator(config), device).requires_grad_(False)
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
        found: dict[str, Tensor] = {}
        for name, prefix in NETWORKS.items():
            found |= {f"{prefix}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for name in ("optimizer_g", "optimizer_d"):
            found |= {f"{name}.{k}": v for k, v in optimizer_tensors(getattr(self, name)).items()}
        return found | {f"pending.{i}.{k}": v for i, row in enumerate(self.pending) for k, v in row.items()}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        for name, prefix in NETWORKS.items():
            getattr(self, name).load_state_dict(strip_prefix(tensors, prefix))
        for name in ("optimizer_g", "optimizer_d"):
            restore_optimizer(getattr(self, name), strip_prefix(tensors, name))
        self.pending, device = [], next(self.generator.parameters()).device
        for key, value in tensors.items():
            if key.startswith("pending."):
                _, i, quantity = key.split(".")
                self.pending += [{} for _ in range(int(i) + 1 - len(self.pending))]
                self.pending[int(i)][quantity] = value.to(device)
        self.images, self.seconds, self.history = meta["images"], meta["seconds"], meta["history"]


def strip_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with `prefix` and a dot, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as `<number of the parameter>.<slot>`."""
    return {f"{i}.{slot}": v for i, slots in optimizer.state_dict()["state"].items() for slot, v in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    parameters = list(optimizer.param_groups[0]["params"])
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, slot = key.split(".")
        if slot != "step":  # in its parameter's memory layout: the fused optimiser walks both as plain memory
            value = torch.empty_like(parameters[int(i)]).copy_(value)
        slots.setdefault(int(i), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it has to do before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def set_up(config: Training, device: torch.device) -> str:
    """Make `device` this process's own, and choose how it computes. Returns that in words; "" for a CPU.

    To be called by the process that trains, once, before it joins others: the first to create a CUDA context. Convolutions take
    bfloat16 (`train.precision`), or TF32 where that is not the wish for float32; matrix products outside autocast, those of the
    renderer and of the guided filter, stay float32, since TF32 has 10 bits for a position. Shapes are the same in every step, so
    cuDNN may try its algorithms once and keep the fastest. Raises UserError for a GPU that cannot be used.
    """
    if device.type != "cuda":
        return ""
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{device} cannot be used ({reason}); free it, or set train.device to cpu") from error
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = config.precision != "float32"
    torch.backends.cudnn.benchmark = True
    kind = (
        "bfloat16"
        if networks.uses_bfloat16(config, device)
        else "TF32"
        if torch.backends.cudnn.allow_tf32
        else "float32"
    )
    return f"convolutions in {kind}, the renderer in float32 without TF32, cudnn.benchmark on"


class Loader:
    """Photos as (B, 3, H, W) uint8 on the device, by their numbers.

    They stay on the device, a CPU's being the memory, where they take no more than `share` of what training leaves free there; else
    each batch is read from `photos`, a memory map, whose pages the system keeps as long as it can.
    """

    def __init__(
        self, photos: np.ndarray, rows: np.ndarray, device: torch.device, share: float = 0.5, needed: int = 0
    ) -> None:
        self.photos, self.rows, self.device = photos, rows, device
        self.held: Tensor | None = None
        if len(rows) * photos[:1].nbytes <= share * (cost.free_bytes(device) - needed):
            held = torch.empty(len(rows), *photos.shape[1:], dtype=torch.uint8, device=device)
            for some in torch.arange(len(rows)).split(4096):  # a few at a time: no second copy in memory
                held[some[0] : some[-1] + 1] = torch.from_numpy(photos[rows[some.numpy()]])
            self.held = held.permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, numbers: np.ndarray) -> Tensor:
        if self.held is not None:
            return self.held[to_device(torch.from_numpy(numbers), self.device)]
        return to_device(torch.from_numpy(self.photos[self.rows[numbers]]), self.device).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class StepNoise:
    """The random numbers of one step, a row per image of the whole batch: whoever takes a part of it takes its rows of them."""

    latents: Tensor
    chance: Tensor  # what the mixture makes an aperture of
    real: Tensor  # augmentation of photographs, ...
    fake: Tensor  # ... of renderings in the discriminator's turn, ...
    again: Tensor  # ... and in the generator's

    @classmethod
    def of(cls, config: Training, random: Generator) -> StepNoise:
        latents = torch.randn(config.batch, config.latent, generator=random)
        chance = aperture_noise(config.batch, random)
        real, fake, again = (draw_numbers(config.batch, config, random) for _ in range(3))
        return cls(latents, chance, real, fake, again)

    def rows(self, part: slice, device: torch.device) -> StepNoise:
        return StepNoise(*(to_device(getattr(self, f.name)[part], device) for f in fields(self)))


class RenderedBatch(NamedTuple):
    """Scenes and the photos taken of them, (N, 3 or 1, R, R)."""

    image: Tensor
    disparity: Tensor
    photos: Tensor


class Trainer:
    """One training step of AR-GAN: sample scenes, photograph them, train both players.

    Raises UserError for fewer photos than a batch has, and for a batch that its processes cannot share.
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
        self.mixed = networks.autocast(config, device)
        self.processes = processes or Processes()
        self.parts = self.processes.slices(config.batch, config.accumulate)
        self.state = State.fresh(config, device)
        self.alarm = FiniteCheck(deferred=device.type != "cpu")
        self.load = Loader(photos, rows, device, needed=cost.bytes_needed(config, device, self.processes.count))
        self.order = PhotoOrder(len(rows), config.seed)
        self.prior = objective.prior(config).to(device)

    def reals(self, part: slice = slice(None)) -> Tensor:
        return networks.from_uint8(self.load(self.order(self.state.images, self.config.batch)[part]))

    def photograph(self, draw: StepNoise) -> RenderedBatch:
        """New scenes, every one photographed with an aperture of its own (DoF mixture)."""
        generator = self.state.generator
        with self.mixed():
            image, disparity = generator(draw.latents)
        return RenderedBatch(image, disparity, generator.photograph(image, disparity, generator.mixture(draw.chance)))

    def step(self) -> dict[str, Tensor]:
        """Both players, once. Returns detached scalars; nothing here waits for the device, but for the gather renderer's offsets.

        A batch in parts is the same step in less memory: scenes are made anew for the generator's turn, where one part keeps them.
        """
        c, s = self.config, self.state
        lazy = (s.images // c.batch) % c.penalty_every == 0
        whole = StepNoise.of(c, step_random(c.seed, s.images))
        share, means = 1 / len(self.parts), MetricAccumulator()
        kept: list[tuple[StepNoise, Tensor, RenderedBatch | None]] = []

        s.optimizer_d.zero_grad(set_to_none=True)
        for i, part in enumerate(self.parts):
            s.discriminator.train(i == 0)  # a spectral norm moves on once a turn, whatever the parts
            draw = whole.rows(part, self.device)
            with torch.set_grad_enabled(share == 1):
                shot = self.photograph(draw)
            loss, real = self.discriminator_loss(draw, self.reals(part), shot.photos.detach(), lazy, means)
            (loss * share).backward()
            kept.append((draw, real, shot if share == 1 else None))
        self.update("discriminator", means)

        s.discriminator.requires_grad_(False)
        s.optimizer_g.zero_grad(set_to_none=True)
        for i, (draw, real, shot_before) in enumerate(kept):
            s.discriminator.train(i == 0)
            loss = self.generator_loss(draw, real, shot_before or self.photograph(draw), lazy, means)
            (loss * share).backward()
        s.discriminator.requires_grad_(True)
        self.update("generator", means)

        s.images += c.batch
        decay = 0.5 ** (c.batch / min(c.ema_images, max(s.images / 4, 1)))  # a short memory at first
        with torch.no_grad():
            torch._foreach_lerp_(list(s.ema.parameters()), list(s.generator.parameters()), 1 - decay)
        return self.numbers(means)

    def discriminator_loss(
        self, draw: StepNoise, reals: Tensor, fakes: Tensor, lazy: bool, means: MetricAccumulator
    ) -> tuple[Tensor, Tensor]:
        """The loss: relativistic or non-saturating, R1 (and R2) every few steps. And how real photographs are found (n,)."""
        c, s = self.config, self.state
        both = torch.cat([augment(reals, c, draw.real), augment(fakes, c, draw.fake)])
        both = both.contiguous(memory_format=torch.channels_last).requires_grad_(lazy)
        with self.mixed():
            realness = s.discriminator(both)
        real, fake = realness.chunk(2)
        loss = objective.discriminator_loss(real, fake, c.recipe)
        means.add(loss_d=loss, accuracy=(real > fake).to(loss))
        if lazy:
            seen = realness if c.recipe == "modern" else real  # R1 + R2, or R1 alone
            penalty = objective.gradient_penalty(both, seen) * 2  # the mean was over both halves
            loss = loss + c.penalty * c.penalty_every * penalty
            means.add(penalty=penalty)
        return loss, real.detach()

    def generator_loss(
        self, draw: StepNoise, real: Tensor, shot: RenderedBatch, lazy: bool, means: MetricAccumulator
    ) -> Tensor:
        """The generator's loss: fool the discriminator, under the depth priors."""
        c, s = self.config, self.state
        image, disparity, photos = shot
        again = augment(photos, c, draw.again).contiguous(memory_format=torch.channels_last)
        with self.mixed():
            fake = s.discriminator(again)
        cost = objective.generator_loss(real, fake, c.recipe)
        loss_g = cost.mean()
        prior = objective.prior_loss(disparity, self.prior, c.disparity_max)
        smooth = objective.smoothness(disparity, image, c.disparity_max)
        total = loss_g + objective.prior_weight(s.images, c) * prior + c.smoothness * smooth
        if c.prior_sign:  # without it the prior may be flat
            total = total + c.prior_sign * objective.sign_loss(disparity, self.prior)
        total = total + objective.focus_weight(s.images, c) * objective.focus_loss(disparity, c.disparity_max)
        if s.generator.expansion is not None and c.expansion_tie:
            rays = ray_disparity(disparity, s.generator.aperture)
            total = total + c.expansion_tie * objective.expansion_tie(
                s.generator.expansion(rays), rays, c.disparity_max
            )
        if c.apertures == "learned":
            total = total + s.generator.mixture.choice_loss(draw.chance, cost)
        spread = (disparity.detach() / c.disparity_max).std((1, 2, 3))
        means.add(loss_g=loss_g, prior=prior, smoothness=smooth, disparity_std=spread, **moments(image))
        if lazy:  # looked at as rarely as the penalty
            means.add(**health.depth_statistics(image, disparity))
        return total

    def update(self, player: str, means: MetricAccumulator) -> None:
        """Average losses and gradients over the processes, and take the step unless one of them is not finite."""
        network: nn.Module = getattr(self.state, player)
        optimizer = self.state.optimizer_d if player == "discriminator" else self.state.optimizer_g
        gradients = health.gradients(network, player)
        fresh = means.take()
        self.processes.mean_([*fresh.values(), *gradients.values()])
        optimizer.found_inf = self.alarm(fresh | gradients, self.state.images)  # type: ignore[attr-defined]
        optimizer.step()

    def numbers(self, means: MetricAccumulator) -> dict[str, Tensor]:
        """A row of the log, of the whole batch: scalars; what was not looked at in this step is not a number."""
        c, told = self.config, means.told
        row = {name: torch.full_like(told["loss_d"], math.nan) for name in RARE} | told
        row["image_std"] = std(row.pop("moment_1"), row.pop("moment_2"), c.batch).mean()
        if "depth_map" in row:
            row["depth_alike"] = health.depth_similarity(row.pop("depth_map"), c.batch)
        return row


RARE = ("penalty", "luminance_correlation", "depth_alike")  # known of the steps with a penalty


class MetricAccumulator:
    """Means over a batch, gathered from its parts, which are equal in size."""

    def __init__(self) -> None:
        self.told: dict[str, Tensor] = {}
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, **values: Tensor) -> None:
        """Of one part: scalars, maps, or (n,) values of its images, whose mean counts."""
        for name, value in values.items():
            self._parts.setdefault(name, []).append((value.mean() if value.ndim == 1 else value).detach())

    def take(self) -> dict[str, Tensor]:
        """What came in since the last time; it stays in `told`."""
        fresh = {name: torch.stack(parts).mean(0) for name, parts in self._parts.items()}
        self._parts.clear()
        self.told |= fresh
        return fresh


def moments(image: Tensor) -> dict[str, Tensor]:
    """Of every pixel over the batch, for `std`."""
    image = image.detach()
    return {"moment_1": image.mean(0), "moment_2": image.square().mean(0)}


def std(first: Tensor, second: Tensor, count: int) -> Tensor:
    """The standard deviation over `count` images from their moments."""
    return ((second - first.square()).clamp(min=0) * (count / (count - 1))).sqrt()


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves: the averaged generator, the curves, what it took, and what was wrong at its end (`health`)."""

    generator: networks.SceneGenerator
    history: list[dict[str, float]]
    seconds: float
    images: int
    health: list[str]


def train(
    config: Training,
    photos: np.ndarray,
    folder: Path,
    *,
    data: str,
    rows: np.ndarray | None = None,
    until: int | None = None,
    watch: Watch = lambda images, row: None,
    remember: Remember = lambda history: None,
    show: Show = lambda images, generator: None,
    say: Callable[[str], None] = print,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> TrainingResult:
    """Train on `photos` (N, R, R, 3) uint8, resuming from `folder`'s newest checkpoint that fits; `data` is their hash.

    Only on those of `rows`, where given: `photos` may be a memory map that holds others too. Only as far as `until` images, where
    given; the same call without it goes on from there.

    `watch` gets a row of numbers every `log_every` images, `show` the averaged generator every `samples_every`; on resuming,
    `remember` gets the rows before: a kill may have come between a row that was saved and `watch`. SIGINT and SIGTERM end the
    step, save a checkpoint and raise KeyboardInterrupt. Raises UserError for a number that is not finite, naming step and tensor,
    and for a training that `stop_when_hopeless` ends; the last good checkpoint stays. Of several `processes` the first alone reads
    and writes `folder`, watches, shows and says.
    """
    processes = processes or Processes()
    device = device or torch.device("cpu")
    cost.check_fits(config, device, processes.count)
    trainer, last = Trainer(config, photos, device, rows, processes), min(until or config.images, config.images)
    state, first = trainer.state, processes.rank == 0
    tell = say if first else lambda line: None
    mark = checkpoint.fingerprint(config.generator_params, data)
    processes.require_equal("params, code or photos", mark)
    if found := processes.broadcast(checkpoint.newest(folder, mark, say) if first else None):
        state.restore(*found)
        tell(f"resuming at {state.images} of {last} images")
        if first:
            remember(state.history)
    spread, saved, warned = photo_spread(photos, rows), state.images, set[str]()

    def keep() -> None:
        nonlocal saved
        trainer.alarm.check()
        meta = {"fingerprint": mark, "images": state.images, "seconds": state.seconds, "history": state.history}
        if first:
            checkpoint.save(folder, state.images, state.tensors(), meta, config.checkpoints_kept)
        saved = state.images

    def late() -> None:
        tell(
            f"interrupted in the middle of something long, a step or a talk with MLflow; saved at {saved} images; {AGAIN}"
        )

    def leave() -> NoReturn:
        tell(f"interrupted, saved at {state.images} images; {AGAIN}")
        raise KeyboardInterrupt(heard[0] if heard else "SIGTERM")

    began, base = time.perf_counter(), state.seconds
    with deferred_signals(late) as heard:
        while state.images < last:
            state.pending.append(trainer.step())
            state.seconds = base + time.perf_counter() - began
            row = None
            if crossed_interval(state.images, config.log_every, config.batch):
                trainer.alarm.check()
                steps, state.pending = state.pending, []
                row = {name: torch.stack([step[name] for step in steps]).nanmean().item() for name in steps[0]}
                state.history.append({"images": state.images, **row})
                standing = health.warnings(state.history, config, spread)
                for name in standing:
                    if name not in warned:
                        tell(f"warning: {name} at {state.images} images: {health.MEANING[name]}")
                warned, row = set(standing), row | {f"warning_{name}": 1.0 for name in standing}
            interrupted = processes.any(bool(heard))  # all of them leave after the same step
            if interrupted:  # before anything that may take long
                keep()
            if first and row:
                watch(state.images, row)
            if first and crossed_interval(state.images, config.samples_every, config.batch):
                show(state.images, state.ema)
            if not interrupted and (
                state.images >= last or crossed_interval(state.images, config.checkpoint_every, config.batch)
            ):
                keep()
            if interrupted:
                leave()
            if config.stop_when_hopeless and (why := health.stalled(state.history, config, spread)):
                raise UserError(
                    f"training is hopeless at {state.images} images: {why} for {health.GIVE_UP:.0%} of its length; "
                    f"{health.MEANING[why]}; to go on all the same: train.stop_when_hopeless: false"
                )
        if processes.any(bool(heard)):  # while the last row, sheet or checkpoint was made
            leave()
    return TrainingResult(
        state.ema, state.history, state.seconds, state.images, health.warnings(state.history, config, spread)
    )


AGAIN = "run the same command again to resume"


def photo_spread(photos: np.ndarray, rows: np.ndarray | None = None, most: int = 512) -> float:
    """How much photographs differ: the standard deviation of a pixel over them, in the generator's units, as `image_std`."""
    rows = np.arange(len(photos)) if rows is None else rows
    some = photos[rows[:: max(1, len(rows) // most)]].astype(np.float32)
    return float(some.std(0, ddof=1).mean() / 127.5)


def crossed_interval(images: int, every: int, batch: int) -> bool:
    """Whether the step that ended at `images` crossed a multiple of `every`."""
    return images // every != (images - batch) // every
